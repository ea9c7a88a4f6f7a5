//! Rules about files as text, and the map from the rules of rotation to their
//! tests.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};

use super::paths;
use super::tree::{File, Tree};

const MAX_LINES: usize = 500;

/// A file that stays under a size that one can hold in one's head, or says
/// why not.
pub(super) fn too_long(tree: &Tree) -> Vec<String> {
    let code = |file: &&File| {
        let suffix = file.path.rsplit('.').next();
        file.path.starts_with("scripts/")
            || matches!(suffix, Some("rs" | "proto" | "py" | "toml" | "sh"))
    };
    let excused = |file: &File| {
        file.text.lines().any(|line| {
            let reason = line
                .strip_prefix("//! Long because: ")
                .or_else(|| line.strip_prefix("# Long because: "));
            reason.is_some_and(|reason| reason.trim().len() >= 10)
        })
    };
    tree.files()
        .filter(code)
        .filter(|file| file.text.lines().count() > MAX_LINES && !excused(file))
        .map(|file| {
            let lines = file.text.lines().count();
            format!(
                "{}: expected at most {MAX_LINES} lines or a line `//! Long because: ...`, got {lines}",
                file.path
            )
        })
        .collect()
}

/// Each dependency says why it is here, on its own line.
pub(super) fn unexplained_dependencies(tree: &Tree) -> Vec<String> {
    let manifest = tree.file("Cargo.toml").expect("the manifest");
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
            if name.contains("dependencies.") {
                found.push(format!(
                    "Cargo.toml: [{name}] is not one line with its reason"
                ));
            }
        } else if section.ends_with("dependencies") && !line.is_empty() && !line.starts_with('#') {
            let reason = comment(line).map(str::trim);
            if reason.is_none_or(|reason| reason.len() < 4) {
                found.push(format!("Cargo.toml: no reason after `{line}`"));
            }
        }
    }
    found
}

/// What stands after the first `#` outside a string.
fn comment(line: &str) -> Option<&str> {
    let mut in_string = false;
    let (at, _) = line.char_indices().find(|(_, c)| {
        in_string ^= *c == '"';
        *c == '#' && !in_string
    })?;
    Some(&line[at + 1..])
}

/// The bench is a program of its own, and measures in the tests' laboratory.
const SHARES_A_MODULE: &str = "tests/bench/main.rs";

/// Words that say that something is unfinished, switched off or hushed.
pub(super) fn unfinished(tree: &Tree) -> Vec<String> {
    // Taken apart, or this file would report itself.
    let words = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("#[ig", "nore"),
        concat!("#[al", "low("),
        concat!("#![al", "low("),
        concat!("#[pa", "th"),
    ];
    let mut found = Vec::new();
    for file in tree.rust() {
        for (line, text) in file.text.lines().enumerate() {
            let code = text.split("//").next().unwrap_or_default();
            let shared = |word: &str| word.ends_with("path") && file.path == SHARES_A_MODULE;
            for word in words
                .iter()
                .filter(|word| code.contains(*word) && !shared(word))
            {
                found.push(format!("{}:{}: {word}", file.path, line + 1));
            }
        }
    }
    found
}

/// Paths that exist on one machine only.
pub(super) fn machine_paths(tree: &Tree) -> Vec<String> {
    let roots = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
    ];
    let mut found = Vec::new();
    for file in tree.files() {
        for (line, text) in file.text.lines().enumerate() {
            for root in roots {
                let absolute = text.match_indices(root).any(|(at, _)| {
                    let before = text[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && !"._-~})/".contains(c))
                });
                if absolute {
                    found.push(format!(
                        "{}:{}: names a path in {root}",
                        file.path,
                        line + 1
                    ));
                }
            }
        }
    }
    found
}

/// A test waits for a condition with a deadline: it may pause between two
/// looks, in a `while` or a `loop`. Any other sleep is a guess.
pub(super) fn sleeping_tests(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let mut sleeps = Sleeps {
            in_tests: file.path.starts_with("tests/") || file.path.ends_with("/tests.rs"),
            looking: false,
            count: 0,
        };
        sleeps.visit_file(&file.parse());
        if sleeps.count > 0 {
            found.push(format!(
                "{}: {} calls of sleep, none of them between two looks at a condition",
                file.path, sleeps.count
            ));
        }
    }
    found
}

struct Sleeps {
    in_tests: bool,
    looking: bool,
    count: usize,
}

impl Sleeps {
    fn with(&mut self, in_tests: bool, looking: bool, read: impl FnOnce(&mut Self)) {
        let before = (self.in_tests, self.looking);
        (self.in_tests, self.looking) = (in_tests, looking);
        read(self);
        (self.in_tests, self.looking) = before;
    }
}

impl Visit<'_> for Sleeps {
    fn visit_item_mod(&mut self, item: &syn::ItemMod) {
        let in_tests = self.in_tests || paths::only_for_tests(&item.attrs);
        self.with(in_tests, false, |sleeps| {
            visit::visit_item_mod(sleeps, item)
        });
    }

    fn visit_item_fn(&mut self, item: &syn::ItemFn) {
        let in_tests = self.in_tests || paths::only_for_tests(&item.attrs);
        self.with(in_tests, false, |sleeps| visit::visit_item_fn(sleeps, item));
    }

    fn visit_expr_while(&mut self, looks: &syn::ExprWhile) {
        self.with(self.in_tests, true, |sleeps| {
            visit::visit_expr_while(sleeps, looks)
        });
    }

    fn visit_expr_loop(&mut self, looks: &syn::ExprLoop) {
        self.with(self.in_tests, true, |sleeps| {
            visit::visit_expr_loop(sleeps, looks)
        });
    }

    fn visit_expr_for_loop(&mut self, repeats: &syn::ExprForLoop) {
        // So many times is no condition.
        self.with(self.in_tests, false, |sleeps| {
            visit::visit_expr_for_loop(sleeps, repeats)
        });
    }

    fn visit_expr_call(&mut self, call: &syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func
            && path
                .path
                .segments
                .last()
                .is_some_and(|s| is_sleep(&s.ident.to_string()))
            && self.in_tests
            && !self.looking
        {
            self.count += 1;
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        // Not parsed: whether it stands in a loop in there is not known.
        let text = call.tokens.to_string().replace(" (", "(");
        if self.in_tests && !self.looking {
            let calls = SLEEPS
                .iter()
                .map(|name| text.matches(&format!("{name}(")).count());
            self.count += calls.sum::<usize>();
        }
    }
}

const SLEEPS: [&str; 3] = ["sleep", "sleep_ms", "sleep_until"];

fn is_sleep(name: &str) -> bool {
    SLEEPS.contains(&name)
}

const RULES: &str = "src/keyring/rules.rs";

/// The named exceptions of rotation, each a function with a test of its name.
const EXCEPTIONS: [&str; 10] = [
    "exception_genesis",
    "exception_restrictions_first",
    "exception_never_empty",
    "exception_second_person",
    "exception_revoked_for_ever",
    "exception_clock",
    "exception_overdue",
    "exception_observers",
    "exception_window",
    "exception_waiver",
];

/// Each rule and exception of rotation is one public function with one test
/// of the same name, and none is missing.
pub(super) fn unmapped_rules(tree: &Tree) -> Vec<String> {
    let Some(rules) = tree.file(RULES) else {
        return vec![format!(
            "{RULES}: expected the rules of rotation, got no file"
        )];
    };
    let mut tests = TestNames::default();
    for file in tree.rust() {
        tests.visit_file(&file.parse());
    }
    let mut found = Vec::new();
    let mut numbers: BTreeMap<u32, usize> = (1..=7).map(|n| (n, 0)).collect();
    let mut exceptions: BTreeMap<String, usize> = EXCEPTIONS
        .iter()
        .map(|name| ((*name).to_owned(), 0))
        .collect();
    for item in rules.parse().items {
        let syn::Item::Fn(function) = item else {
            continue;
        };
        let name = function.sig.ident.to_string();
        if !matches!(function.vis, syn::Visibility::Public(_)) {
            continue;
        }
        if name.starts_with("exception_") {
            *exceptions.entry(name.clone()).or_default() += 1;
        } else if let Some(rest) = name.strip_prefix("rule_") {
            let number = rest.split('_').next().and_then(|n| n.parse().ok());
            match number {
                Some(number) => *numbers.entry(number).or_default() += 1,
                None => found.push(format!("{RULES}: {name} has no number")),
            }
        } else {
            continue;
        }
        let count = tests.count.get(&name).copied().unwrap_or_default();
        if count != 1 {
            found.push(format!(
                "{RULES}: expected one test named {name}, got {count}"
            ));
        }
    }
    // A rule with two sides has two functions.
    for (number, count) in numbers {
        if count == 0 || !(1..=7).contains(&number) {
            found.push(format!("{RULES}: rule {number} has {count} functions"));
        }
    }
    for (name, count) in exceptions {
        if count != 1 || !EXCEPTIONS.contains(&&*name) {
            found.push(format!("{RULES}: {name} has {count} functions"));
        }
    }
    found
}

#[derive(Default)]
struct TestNames {
    count: BTreeMap<String, usize>,
}

impl Visit<'_> for TestNames {
    fn visit_item_fn(&mut self, function: &syn::ItemFn) {
        if function.attrs.iter().any(paths::is_test) {
            let name = function.sig.ident.to_string();
            *self.count.entry(name).or_default() += 1;
        }
        visit::visit_item_fn(self, function);
    }
}

/// Entries of `tests/mutations/table` whose text does not stand exactly once in
/// their file.
pub(super) fn stale_weakenings(table: &str, tree: &Tree) -> Vec<String> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<&str> = lines.collect();
    let entries = lines.split(|line| line.is_empty());
    let stale = entries.flat_map(|entry| {
        let name = entry.first().copied().unwrap_or_default();
        let file = entry.iter().find_map(|line| line.strip_prefix("in "));
        let file = file.unwrap_or("src/keyring/rules.rs");
        let texts = entry.iter().filter_map(|line| line.strip_prefix("- "));
        texts.filter_map(move |text| {
            let source = tree.file(file).map_or("", |file| &file.text);
            let n = source.matches(text).count();
            (n != 1).then(|| format!("{name}: expected once in {file}, got {n} times: {text}"))
        })
    });
    stale.collect()
}
