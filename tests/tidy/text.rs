//! Rules about files as text, and the map from the rules of rotation to their
//! tests.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};

use super::paths::{self, Target};
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
            for word in words.iter().filter(|word| code.contains(*word)) {
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

/// A test waits for a condition with a deadline; a sleep is a guess.
pub(super) fn sleeping_tests(tree: &Tree) -> Vec<String> {
    const SLEEPS: [&str; 2] = ["std::thread::sleep", "tokio::time::sleep"];
    let mut found = Vec::new();
    for file in tree.rust() {
        let integration = file.path.starts_with("tests/");
        let module = file.module().unwrap_or_default();
        let test_file = integration || file.path.ends_with("/tests.rs");
        for mention in paths::mentions(&file.parse(), &module, test_file) {
            if let Target::Extern(path) = &mention.target
                && mention.in_tests
                && SLEEPS
                    .iter()
                    .any(|sleep| path.join("::").starts_with(sleep))
            {
                found.push(format!("{}: `{}`", file.path, mention.written));
            }
        }
    }
    found
}

const RULES: &str = "src/keyring/rules.rs";

/// The named exceptions of rotation, each a function with a test of its name.
const EXCEPTIONS: [&str; 8] = [
    "exception_genesis",
    "exception_restrictions_first",
    "exception_never_empty",
    "exception_second_person",
    "exception_revoked_for_ever",
    "exception_clock",
    "exception_overdue",
    "exception_observers",
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
    for (number, count) in numbers {
        if count != 1 || !(1..=7).contains(&number) {
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
