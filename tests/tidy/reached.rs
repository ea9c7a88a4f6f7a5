//! A file that no `mod` names is not built: a test in it cannot fail.

use std::collections::BTreeSet;

use syn::Item;

use super::tree::{File, Tree};

/// The rust files that belong to no build.
pub(super) fn unreached(tree: &Tree) -> Vec<String> {
    let mut named: BTreeSet<String> = tree.rust().flat_map(names).collect();
    named.extend(tree.file("Cargo.toml").into_iter().flat_map(examples));
    tree.rust()
        .map(|file| file.path.as_str())
        .filter(|path| !is_root(path) && !named.contains(*path))
        .map(|path| format!("{path}: no `mod` names it, so it is not built"))
        .collect()
}

/// Where a build begins: of the library, of a program, of a test, of a
/// build script, and of a package of its own.
fn is_root(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(name, "lib.rs" | "main.rs" | "build.rs")
}

/// The examples that a manifest says where they are.
fn examples(manifest: &File) -> Vec<String> {
    let manifest: toml::Table = manifest.text.parse().expect("the manifest is TOML");
    let examples = manifest.get("example").and_then(toml::Value::as_array);
    let path = |example: &toml::Value| Some(example.get("path")?.as_str()?.to_owned());
    examples.into_iter().flatten().filter_map(path).collect()
}

/// The files that a file's `mod` lines may mean.
fn names(file: &File) -> Vec<String> {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let stem = name.trim_end_matches(".rs");
    let below = match stem {
        "mod" | "lib" | "main" => folder.to_owned(),
        _ => format!("{folder}/{stem}"),
    };
    let modules = file
        .parse()
        .items
        .into_iter()
        .filter_map(|item| match item {
            Item::Mod(item) if item.content.is_none() => Some(item.ident.to_string()),
            _ => None,
        });
    modules
        .flat_map(|module| {
            [
                format!("{below}/{module}.rs"),
                format!("{below}/{module}/mod.rs"),
            ]
        })
        .collect()
}
