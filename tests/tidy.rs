//! Rules that no compiler checks: who may import whom, how long a file may
//! be, and that nothing is left unfinished, unexplained or bound to one
//! machine.
//!
//! Each rule reads a [`tree::Tree`] and returns what breaks it, so that each
//! is also shown a tree that does.

mod disguises;
mod house;
mod paths;
mod reached;
mod text;
mod tree;

use tree::Tree;

#[track_caller]
fn expect_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Breaches must be found, and each name what it is about.
#[track_caller]
fn expect(found: &[String], about: &[&str]) {
    let all = found.join("\n");
    assert_eq!(found.len(), about.len(), "expected {about:?}, got:\n{all}");
    for about in about {
        assert!(all.contains(about), "expected {about:?}, got:\n{all}");
    }
}

const ROOT: &str = "\
//! | floor | modules | what holds there |
//! |---|---|---|
//! | 0 | [`time`], [`jose`], [`keyring`] | pure |
//! | 1 | [`clock`], [`hsm`], [`api`] | ports |
//! | 2 | [`agent`] | one writer |
//! | 3 | [`serve`] | edges |
//! | 4 | [`config`], [`cli`] | composition |
pub mod agent;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod hsm;
pub mod jose;
pub mod keyring;
pub mod serve;
pub mod time;
";

/// What the floors say about one file that is otherwise alone.
fn breaches_in(path: &str, source: &str) -> Vec<String> {
    house::breaches(&Tree::of(&[("src/lib.rs", ROOT), (path, source)]))
}

#[test]
fn imports_run_downward_only() {
    expect_none(&house::breaches(&Tree::of_this_repository()));
}

#[test]
fn an_upward_import_is_caught_in_every_form() {
    let forms = [
        "use crate::agent::X;",
        "use crate::{agent::X};",
        "use crate::{jose, agent::{self as a}};",
        "use crate::{time::Span, agent::{X}};",
        "use super::super::agent;",
        "use crate::agent::*;",
        "use crate::agent as time;",
        "fn f() { crate::agent::f() }",
        "fn f(x: &dyn crate::agent::X) {}",
        "fn f() -> Vec<crate::agent::X> { Vec::new() }",
        "impl crate::agent::X for Y {}",
        "mod inner { fn f() { super::super::super::agent::f() } }",
        "use crate as root; fn f() { root::agent::f() }",
        "use super::super::{self as up}; fn f() { up::agent::f() }",
        "use crate as a; use a as b; use b::agent::f;",
        "fn f() { format!(\"{}\", crate::agent::X) }",
        "fn f() { vec![(1, { super::super::agent::f() })] }",
        "macro_rules! m { () => { $crate::agent::f() } }",
        "macro_rules! m { () => { use crate::{jose::A, agent::B as C}; } }",
        "#[serde(with = \"crate::agent::hex\")] struct S;",
        "struct S { #[serde(default = \"crate::agent::f\")] x: u8 }",
        "#[derive(crate::agent::Derive)] struct S;",
        "pub(in crate::agent) fn f() {}",
        "#[cfg(test)] mod tests { use crate::agent::X; }",
    ];
    for form in forms {
        let found = breaches_in("src/keyring/rules.rs", form);
        expect(&found, &["keyring stands below agent"]);
    }
    let all_of_it = breaches_in("src/keyring/rules.rs", "use crate::*;");
    expect(&all_of_it, &["takes in every floor"]);
    let nowhere = breaches_in("src/keyring/rules.rs", "use crate::elsewhere::X;");
    expect(&nowhere, &["elsewhere is not in the table"]);
}

#[test]
fn no_import_is_in_disguise() {
    expect_none(&disguises::found(&Tree::of_this_repository()));
}

/// Found by review: each of these compiles, and the floors saw none.
#[test]
fn an_import_in_disguise_is_caught() {
    let root = "names the crate's root";
    let apart = "takes `crate` apart";
    let variable = "makes a path of a variable";
    let forms: &[(&str, &[&str])] = &[
        (
            "extern crate self as sk; fn f() { sk::clock::f() }",
            &["extern crate self"],
        ),
        (
            "mod a { pub(super) use crate as root; } fn f() { a::root::clock::f() }",
            &[root],
        ),
        (
            "mod a { use super::super::super as up; mod b { fn f() { super::up::agent::f() } } }",
            &[root],
        ),
        ("use super::super::{self as up};", &[root]),
        ("use crate as a; pub use a as b;", &[root, root]),
        (
            "use super::{self as mine};",
            &["names keyring, which it stands in"],
        ),
        (
            "macro_rules! p { ($m:ident) => { crate::$m::f() } }",
            &[apart, variable, variable],
        ),
        (
            "macro_rules! p { ($m:ident) => { $crate::$m } }",
            &[apart, variable],
        ),
        (
            "macro_rules! p { ($($m:ident),*) => { use crate::{$($m::f),*}; } }",
            &[variable, variable],
        ),
        (
            "macro_rules! p { ($c:ident) => { $c::agent::f() } }",
            &[variable],
        ),
        (
            "macro_rules! p { ($($t:tt)*) => { crate $($t)* } }",
            &[apart],
        ),
        ("fn f() { p!(crate agent) }", &[apart]),
        (
            "fn f() { p!(super super agent) }",
            &["`super` apart", "`super` apart"],
        ),
        ("p! { extern crate self as sk; }", &[apart]),
        ("include!(\"../agent/x.rs\");", &["include!"]),
        ("mod y { std::include!(\"../agent/x.rs\"); }", &["include!"]),
        (
            "use std::include as i; i!(\"../agent/x.rs\");",
            &["include!"],
        ),
        ("fn f() { p! { include!(\"x.rs\") } }", &["include!"]),
        (
            concat!("#[pa", "th = \"../agent/x.rs\"] mod y;"),
            &["attribute `path`"],
        ),
        (
            "#[cfg_attr(all(), path = \"../agent/x.rs\")] mod y;",
            &["attribute `path`"],
        ),
        ("#[macro_use] mod y;", &["#[macro_use]"]),
    ];
    for (form, about) in forms {
        let files = [("src/lib.rs", ROOT), ("src/keyring/rules.rs", form)];
        expect(&disguises::found(&Tree::of(&files)), about);
    }
}

#[test]
fn a_path_that_stands_there_is_no_disguise() {
    let fine = "
        use super::{rules, set::KeySet}; use crate::time::Span;
        pub(crate) fn f() { vec![crate::time::f(), super::g()]; format!(\"{}\", include_str!(\"x\")) }
        macro_rules! p { ($m:ident, $t:ty) => { pub(crate) fn $m() -> $t { $crate::time::f::<$t>() } } }
        #[cfg_attr(test, derive(Debug))] struct Path { path: u8 }
    ";
    let files = [("src/keyring/view.rs", fine)];
    expect_none(&disguises::found(&Tree::of(&files)));
}

#[test]
fn an_import_from_a_floors_later_module_is_caught() {
    let found = breaches_in("src/jose/mod.rs", "use crate::keyring::View;");
    expect(&found, &["jose stands below keyring"]);
    let found = breaches_in("src/clock.rs", "use crate::hsm::Port;");
    expect(&found, &["clock stands below hsm"]);
    let found = breaches_in("src/config/mod.rs", "use crate::cli::Options;");
    expect(&found, &["config stands below cli"]);
    let found = breaches_in("src/agent/mod.rs", "use crate::api::v1;");
    expect(&found, &["only edges"]);
    expect_none(&breaches_in(
        "src/api/mod.rs",
        "pub mod v1; pub use self::v1::X;",
    ));
}

#[test]
fn a_downward_import_is_not_a_breach() {
    let fine = "
        use crate::{jose::{Algorithm, key}, time::Span as Length};
        use super::{Phase, rules};
        use std::time::Duration;
        mod inner { use super::*; fn f() { super::super::timing::f() } }
        fn f(&self) { self.agent(); key::f(); format!(\"crate::agent::X {}\", self.agent) }
        /// See [`crate::agent::X`].
        struct S { agent: crate::jose::Key }
        #[cfg(test)] mod tests { use std::fs; fn now() { std::time::SystemTime::now() } }
    ";
    expect_none(&breaches_in("src/keyring/view.rs", fine));
    expect_none(&breaches_in(
        "src/serve/grpc/mod.rs",
        "use crate::serve::tls;",
    ));
    expect_none(&breaches_in(
        "src/main.rs",
        "fn main() { sealkeeper::cli::run() }",
    ));
}

#[test]
fn an_edge_that_calls_an_edge_is_caught() {
    let found = breaches_in("src/serve/http/jwks.rs", "use super::super::grpc::X;");
    expect(&found, &["the edge http calls the edge grpc"]);
}

#[test]
fn an_impure_floor_0_is_caught() {
    let forms = [
        ("use std::time::{Duration, Instant};", "std::time::Instant"),
        (
            "use std::time; fn f() { time::SystemTime::now(); }",
            "std::time::SystemTime",
        ),
        ("use std::time::*;", "std::time"),
        ("fn f() { std::fs::read(\"x\"); }", "std::fs"),
        ("use std as s; fn f() { s::env::var(\"x\"); }", "std::env"),
        ("use std::net::IpAddr;", "std::net"),
        ("use tokio::sync::Mutex;", "tokio"),
        ("fn f() { tracing::info!(\"x\"); }", "tracing"),
        ("fn f() { vec![rand::random()] }", "rand"),
        ("use std::collections::HashMap;", "a map without an order"),
        ("async fn f() {}", "async fn f"),
        ("fn f() { let x = async { 1 }; }", "async block"),
        ("fn f(t: T) { t.elapsed(); }", ".elapsed()"),
        ("fn f() { println!(\"x\"); }", "printing"),
    ];
    for (form, about) in forms {
        expect(&breaches_in("src/keyring/mod.rs", form), &[about]);
    }
    expect_none(&breaches_in(
        "src/clock.rs",
        "use std::time::Instant; async fn f() {}",
    ));
}

#[test]
fn a_root_that_holds_more_than_the_table_is_caught() {
    let root = format!("{ROOT}pub use agent::Agent; pub mod attic;");
    let found = house::breaches(&Tree::of(&[("src/lib.rs", &root)]));
    expect(&found, &["more than modules", "attic is not in the table"]);
    let root = ROOT.replace("pub mod hsm;", "");
    let found = house::breaches(&Tree::of(&[("src/lib.rs", &root)]));
    expect(&found, &["the table names hsm"]);
}

#[test]
fn files_are_short_or_say_why() {
    expect_none(&text::too_long(&Tree::of_this_repository()));
    let long = "//\n".repeat(501);
    let why = format!("//! Long because: one table of vectors.\n{long}");
    let files = [
        ("src/a.rs", &*long),
        ("scripts/x", &*long),
        ("src/b.rs", &*why),
    ];
    expect(
        &text::too_long(&Tree::of(&files)),
        &["src/a.rs", "scripts/x"],
    );
}

#[test]
fn every_file_is_built() {
    expect_none(&reached::unreached(&Tree::of_this_repository()));
    let seeded = Tree::of(&[
        ("src/lib.rs", "mod a; mod inline { }"),
        ("src/a/mod.rs", "mod b;"),
        ("src/a/b.rs", "#[cfg(test)] mod tests;"),
        ("src/a/b/tests.rs", ""),
        ("src/a/lost.rs", ""),
        ("tests/main.rs", "mod live;"),
        ("tests/live/mod.rs", "mod one;"),
        ("tests/live/one.rs", ""),
        ("tests/live/two.rs", ""),
        ("Cargo.toml", "[[example]]\npath = \"clients/sign.rs\""),
        ("clients/sign.rs", "fn main() {}"),
        ("clients/other.rs", "fn main() {}"),
    ]);
    let found = reached::unreached(&seeded);
    expect(
        &found,
        &["src/a/lost.rs", "tests/live/two.rs", "clients/other.rs"],
    );
}

#[test]
fn each_dependency_says_why() {
    expect_none(&text::unexplained_dependencies(&Tree::of_this_repository()));
    let manifest = "
        [package] # no dependency
        name = \"x\"
        [dependencies]
        # -- a heading
        a = \"1\"
        b = { version = \"1\", features = [\"x#y\"] }
        c = \"1\" # it parses what we are given
        [dev-dependencies.d]
        version = \"1\" # a reason that belongs to no line
    ";
    let found = text::unexplained_dependencies(&Tree::of(&[("Cargo.toml", manifest)]));
    expect(&found, &["`a = ", "`b = ", "dev-dependencies.d"]);
}

#[test]
fn nothing_is_unfinished_or_hushed() {
    expect_none(&text::unfinished(&Tree::of_this_repository()));
    let source = [
        concat!("fn f() { to", "do!() }"),
        concat!("fn f() { unimpl", "emented!(\"x\") }"),
        concat!("#[ig", "nore = \"slow\"]"),
        concat!("#[al", "low(dead_code)]"),
        concat!("// to", "do!() in a comment is only a word"),
    ];
    let found = text::unfinished(&Tree::of(&[("src/a.rs", &source.join("\n"))]));
    expect(&found, &["a.rs:1", "a.rs:2", "a.rs:3", "a.rs:4"]);
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    expect_none(&text::machine_paths(&Tree::of_this_repository()));
    let named = concat!("cd /wo", "rk/x\nsee `/ro", "ot/.cargo`\n/ho", "me/me/x");
    let fine = concat!("a/wo", "rk/x ~/wo", "rk/y $HOME/wo", "rk/z");
    let files = [("README.md", named), ("CONTRIBUTING.md", fine)];
    let found = text::machine_paths(&Tree::of(&files));
    expect(&found, &["README.md:1", "README.md:2", "README.md:3"]);
}

#[test]
fn tests_wait_for_conditions() {
    expect_none(&text::sleeping_tests(&Tree::of_this_repository()));
    let guesses = "fn f() { std::thread::sleep(x); assert!(done()) }";
    let in_unit_tests = format!("#[cfg(test)] mod tests {{ {guesses} }}");
    let files = [
        ("tests/guess.rs", guesses),
        (
            "tests/async.rs",
            "async fn f() { tokio::time::sleep(x).await }",
        ),
        ("tests/repeat.rs", "fn f() { for _ in 0..3 { sleep(x) } }"),
        (
            "tests/macro.rs",
            "fn f() { tokio::select! { _ = sleep(x) => {} } }",
        ),
        ("tests/inner.rs", "fn f() { loop { fn g() { sleep(x) } } }"),
        ("src/unit.rs", &*in_unit_tests),
        ("src/product.rs", guesses),
        ("tests/look.rs", "fn f() { while !done() { sleep(x) } }"),
        (
            "tests/again.rs",
            "fn f() { loop { if done() { break } sleep(x) } }",
        ),
    ];
    let found = text::sleeping_tests(&Tree::of(&files));
    let guesses = [
        "tests/guess.rs",
        "tests/async.rs",
        "tests/repeat.rs",
        "tests/macro.rs",
        "tests/inner.rs",
        "src/unit.rs",
    ];
    expect(&found, &guesses);
}

#[test]
fn each_rule_of_rotation_has_its_test() {
    expect_none(&text::unmapped_rules(&Tree::of_this_repository()));
}

#[test]
fn a_rule_without_its_test_is_caught() {
    let names: Vec<_> = (1..=7)
        .map(|n| format!("rule_{n}_something"))
        .chain(
            "genesis restrictions_first never_empty second_person revoked_for_ever clock overdue observers window waiver"
                .split(' ')
                .map(|name| format!("exception_{name}")),
        )
        .collect();
    let functions: String = names
        .iter()
        .map(|n| format!("pub fn {n}() {{}}\n"))
        .collect();
    let tests: String = names
        .iter()
        .map(|n| format!("#[test] fn {n}() {{}}\n"))
        .collect();
    let mapped = |functions: &str, tests: &str| {
        let source = format!("{functions} #[cfg(test)] mod tests {{ {tests} }}");
        text::unmapped_rules(&Tree::of(&[("src/keyring/rules.rs", &source)]))
    };
    expect_none(&mapped(&functions, &tests));
    let untested = tests.replace("fn rule_3_something", "fn rule_3_otherwise");
    expect(
        &mapped(&functions, &untested),
        &["one test named rule_3_something, got 0"],
    );
    let twice = format!("{tests} mod again {{ #[test] fn exception_clock() {{}} }}");
    expect(&mapped(&functions, &twice), &["exception_clock, got 2"]);
    let missing = functions.replace("exception_overdue", "overdue");
    expect(&mapped(&missing, &tests), &["exception_overdue has 0"]);
    let two_sides = format!("{functions} pub fn rule_4_other_side() {{}}");
    expect(
        &mapped(&two_sides, &tests),
        &["named rule_4_other_side, got 0"],
    );
    let eight = functions.replace("rule_7_", "rule_8_");
    let found = mapped(&eight, &tests.replace("rule_7_", "rule_8_"));
    expect(&found, &["rule 7 has 0", "rule 8 has 1"]);
    expect(&text::unmapped_rules(&Tree::of(&[])), &["got no file"]);
}

/// `scripts/mutate` runs for long and seldom: what it is to weaken must not be
/// gone by then.
#[test]
fn each_weakening_still_fits() {
    let table = include_str!("mutations/table");
    expect_none(&text::stale_weakenings(table, &Tree::of_this_repository()));
}

#[test]
fn a_weakening_that_fits_no_more_is_caught() {
    let source = "pub fn f(a: u8) -> u8 {\n    a + 1\n}\n";
    let tree = Tree::of(&[("src/keyring/rules.rs", source), ("src/x.rs", "a; a;")]);
    let table = |from: &str| format!("# a comment\n\nfits: it does\n- a + 1\n+ a\n\n{from}\n");
    expect_none(&text::stale_weakenings(&table(""), &tree));
    let found = |from: &str| text::stale_weakenings(&table(from), &tree);
    expect(&found("gone: x\n- a + 2\n+ a"), &["gone: x"]);
    expect(&found("twice: x\nin src/x.rs\n- a;\n+ b;"), &["twice: x"]);
    expect(&found("no file: x\nin src/y.rs\n- a\n+ b"), &["no file: x"]);
}
