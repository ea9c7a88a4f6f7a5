//! The floors, as the documentation of `src/lib.rs` draws them, and who may
//! import whom.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};

use super::paths::{self, Mention, Target};
use super::tree::{File, Tree};

/// Edges: modules of `serve` that never call one another.
const EDGES: [&str; 2] = ["grpc", "http"];

/// What floor 0 does not touch outside its tests. Each is a path and all that
/// lies below it.
const IMPURE: [&str; 14] = [
    "std::time::SystemTime",
    "std::time::Instant",
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "rand",
    "aws_lc_rs::rand",
    "rustix",
    "tokio",
    "tracing",
    "log",
];

/// Top-level modules, lowest first: a module's number is its place in the
/// table, so that a floor's own order counts too.
pub(super) struct House {
    place: BTreeMap<String, usize>,
    floor: BTreeMap<String, u8>,
}

impl House {
    /// Reads the rows `//! | 0 | [`time`], ... | what holds there |`.
    pub(super) fn from_table(root: &File) -> Self {
        let mut house = Self {
            place: BTreeMap::new(),
            floor: BTreeMap::new(),
        };
        for line in root.text.lines() {
            let mut cells = line.split('|').map(str::trim);
            let (Some("//!"), Some(floor), Some(modules)) =
                (cells.next(), cells.next(), cells.next())
            else {
                continue;
            };
            let Ok(floor) = floor.parse() else { continue };
            for module in modules.split(',') {
                let name = module.trim().trim_matches(['[', ']', '`']).to_owned();
                house.place.insert(name.clone(), house.place.len());
                house.floor.insert(name, floor);
            }
        }
        assert!(
            house.place.len() > 1,
            "found no table of floors in {}",
            root.path
        );
        house
    }

    fn is_pure(&self, module: &str) -> bool {
        self.floor.get(module) == Some(&0)
    }
}

/// Every breach of the floors in the library.
pub(super) fn breaches(tree: &Tree) -> Vec<String> {
    let root = tree.file("src/lib.rs").expect("the crate's root");
    let house = House::from_table(root);
    let mut breaches = root_breaches(root, &house);
    let library = Library::read(tree);
    for (file, module, ast) in &library.files {
        let Some(own) = module.first() else { continue };
        let mut report = |what: String| breaches.push(format!("{}: {what}", file.path));
        if !house.place.contains_key(own) {
            report(format!("{own} is not in the table of src/lib.rs"));
            continue;
        }
        let in_tests = library.is_test_module(module);
        for mention in paths::mentions(ast, module, in_tests) {
            if let Err(why) = check_import(&house, &library, own, &mention) {
                report(format!("`{}`: {why}", mention.written));
            }
            if house.is_pure(own)
                && !mention.in_tests
                && let Some(what) = impure(own, &mention)
            {
                report(format!(
                    "`{}`: floor 0 does not touch {what}",
                    mention.written
                ));
            }
        }
        if house.is_pure(own) && !in_tests {
            let mut asks = Asks::default();
            asks.visit_file(ast);
            for what in asks.found {
                report(format!(
                    "{what}: floor 0 asks nothing and waits for nothing"
                ));
            }
        }
    }
    breaches
}

/// The root holds the table and the modules in it, and nothing else that a
/// path could reach past the floors.
fn root_breaches(root: &File, house: &House) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut declared = Vec::new();
    for item in root.parse().items {
        match item {
            syn::Item::Mod(item) if item.content.is_none() => declared.push(item.ident.to_string()),
            _ => breaches.push(format!("{}: holds more than modules", root.path)),
        }
    }
    for module in &declared {
        if !house.place.contains_key(module) {
            breaches.push(format!("{}: {module} is not in the table", root.path));
        }
    }
    for module in house.place.keys().filter(|m| !declared.contains(m)) {
        breaches.push(format!("{}: the table names {module}", root.path));
    }
    breaches
}

/// The library's files, and what must be known of all of them first.
struct Library<'a> {
    files: Vec<(&'a File, Vec<String>, syn::File)>,
    /// Modules in files of their own that are built only for tests.
    test_modules: Vec<Vec<String>>,
    /// `#[macro_export]` puts a macro at the root: the module that it stands in.
    macros: BTreeMap<String, String>,
}

impl<'a> Library<'a> {
    fn read(tree: &'a Tree) -> Self {
        let mut library = Self {
            files: Vec::new(),
            test_modules: Vec::new(),
            macros: BTreeMap::new(),
        };
        for file in tree.rust() {
            let Some(module) = file.module() else {
                continue;
            };
            let ast = file.parse();
            for item in &ast.items {
                match item {
                    syn::Item::Mod(item) if paths::only_for_tests(&item.attrs) => {
                        let mut module = module.clone();
                        module.push(item.ident.to_string());
                        library.test_modules.push(module);
                    }
                    syn::Item::Macro(item) => {
                        let exported = item.attrs.iter().any(|a| a.path().is_ident("macro_export"));
                        if let (true, Some(name), Some(own)) =
                            (exported, &item.ident, module.first())
                        {
                            library.macros.insert(name.to_string(), own.clone());
                        }
                    }
                    _ => {}
                }
            }
            library.files.push((file, module, ast));
        }
        library
    }

    fn is_test_module(&self, module: &[String]) -> bool {
        self.test_modules
            .iter()
            .any(|test| module.starts_with(test))
    }
}

fn check_import(
    house: &House,
    library: &Library<'_>,
    own: &str,
    mention: &Mention,
) -> Result<(), String> {
    let Target::Local(path) = &mention.target else {
        return Ok(());
    };
    let Some(first) = path.first() else {
        // `crate` alone names nothing, but all of it reaches every floor.
        return if mention.glob {
            Err("takes in every floor".to_owned())
        } else {
            Ok(())
        };
    };
    let first = library.macros.get(first).unwrap_or(first);
    let Some(theirs) = house.place.get(first) else {
        return Err(format!("{first} is not in the table of src/lib.rs"));
    };
    if *theirs > house.place[own] {
        return Err(format!("{own} stands below {first}"));
    }
    if first == "api" && own != "api" && house.floor[own] < 3 {
        return Err("only edges and what composes them use api".to_owned());
    }
    if first == own && own == "serve" {
        let edge = |path: &[String]| {
            let name = path.get(1)?;
            EDGES.contains(&name.as_str()).then(|| name.clone())
        };
        if let (Some(from), Some(to)) = (edge(&mention.module), edge(path))
            && from != to
        {
            return Err(format!("the edge {from} calls the edge {to}"));
        }
    }
    Ok(())
}

fn impure(own: &str, mention: &Mention) -> Option<String> {
    let Target::Extern(path) = &mention.target else {
        return None;
    };
    let path = path.join("::").replacen("core::", "std::", 1) + "::";
    if own == "keyring" && (path.contains("::HashMap::") || path.contains("::HashSet::")) {
        // Its order differs from run to run: the simulation would not replay.
        return Some("a map without an order".to_owned());
    }
    let touches = |banned: &&&str| {
        let banned = format!("{banned}::");
        path.starts_with(&banned) || mention.glob && banned.starts_with(&path)
    };
    IMPURE
        .iter()
        .find(touches)
        .map(|banned| (*banned).to_owned())
}

/// What no path shows: waiting, printing, and asking a clock through a value.
#[derive(Default)]
struct Asks {
    found: Vec<String>,
}

impl Visit<'_> for Asks {
    fn visit_item(&mut self, item: &syn::Item) {
        let attrs = match item {
            syn::Item::Fn(item) => &*item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            _ => &[],
        };
        if !paths::only_for_tests(attrs) {
            visit::visit_item(self, item);
        }
    }

    fn visit_signature(&mut self, signature: &syn::Signature) {
        if signature.asyncness.is_some() {
            self.found.push(format!("async fn {}", signature.ident));
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, _: &syn::ExprAsync) {
        self.found.push("async block".to_owned());
    }

    fn visit_expr_method_call(&mut self, call: &syn::ExprMethodCall) {
        if call.method == "elapsed" {
            self.found.push(".elapsed()".to_owned());
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        let name = call.path.segments.last().map(|s| s.ident.to_string());
        if let Some("print" | "println" | "eprint" | "eprintln") = name.as_deref() {
            self.found.push("printing".to_owned());
        }
    }
}
