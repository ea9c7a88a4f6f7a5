//! What every command has in common: help, exit codes, JSON, man pages,
//! completions.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::live::lab::{CALM, Lab, wait_for};

fn sealkeeper(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sealkeeper"))
        .args(args)
        .output()
        .expect("the program under test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn exit_codes_tell_kinds_of_failure_apart() {
    let lab = Lab::new(CALM, &["ES256"]);
    let code = |args: &[&str]| lab.run(args).status.code();
    assert_eq!(code(&["config", "check"]), Some(0));
    assert_eq!(code(&["keys", "list"]), Some(3), "no agent");
    assert_eq!(code(&["sign", "{}"]), Some(3), "no agent");
    assert_eq!(code(&["nosuch"]), Some(2));
    assert_eq!(code(&["keys", "revoke"]), Some(2), "without a key");
    assert_eq!(code(&["sign", "--key-set", "other", "{}"]), Some(2));
    assert_eq!(code(&["policy", "test", "[]"]), Some(1), "refused");
    assert_eq!(code(&["doctor"]), Some(1));
    assert_eq!(sealkeeper(&["--help"]).status.code(), Some(0));
    let help = text(&sealkeeper(&["--help"]).stdout);
    for line in ["Exit codes:", "  2  the command line", "  3  not now"] {
        assert!(help.contains(line), "{help}");
    }
    // Nobody reads that any more: no reason to fail, nor to panic.
    let piped = Command::new("bash")
        .args([
            "-c",
            "\"$0\" --help | head -n 1",
            env!("CARGO_BIN_EXE_sealkeeper"),
        ])
        .output()
        .unwrap();
    assert!(piped.status.success() && piped.stderr.is_empty());
    // Found by review: this one panicked.
    let (unread, pipe) = std::io::pipe().unwrap();
    drop(unread);
    let piped = Command::new(env!("CARGO_BIN_EXE_sealkeeper"))
        .args(["completions", "bash"])
        .stdout(pipe)
        .output()
        .unwrap();
    assert!(piped.status.success(), "{piped:?}");
    assert!(piped.stderr.is_empty(), "{piped:?}");
}

/// Found by review: `error: error: ...`, and the hint in the middle of "error".
#[test]
fn a_bad_configuration_is_one_error_with_its_hint() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.amend("state_dir =", "stat_dir =");
    let json = |lab: &Lab| -> Value {
        let output = lab.run(&["keys", "list", "--json"]);
        assert_eq!(output.status.code(), Some(2));
        serde_json::from_slice(&output.stderr).expect("JSON")
    };
    let said = text(&lab.run(&["keys", "list"]).stderr);
    assert!(said.starts_with("error: "), "{said}");
    assert!(!said.contains("error: error:"), "{said}");
    assert_eq!(said.matches("hint: ").count(), 1, "{said}");
    let told = json(&lab);
    assert!(
        told["error"].as_str().unwrap().contains("stat_dir"),
        "{told}"
    );
    assert!(!told["error"].as_str().unwrap().contains("hint"), "{told}");
    assert!(!told["hint"].as_str().unwrap().is_empty(), "{told}");

    fs::remove_file(lab.path("sealkeeper.toml")).unwrap();
    let said = text(&lab.run(&["config", "check"]).stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("error: cannot read the configuration"));
    assert_eq!(lines[1], "hint: --config FILE names another");
    assert_eq!(json(&lab)["hint"], "--config FILE names another");
}

/// Names that programs rely on.
#[tokio::test]
async fn every_json_parses_and_has_its_names() {
    let lab = Lab::new(CALM, &["ES256"]);
    let json = |args: &[&str]| -> Value {
        let output = lab.run(&[args, &["--json"]].concat());
        let told = [output.stdout, output.stderr].concat();
        serde_json::from_slice(&told).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", text(&told)))
    };
    let has = |value: &Value, names: &[&str]| {
        for name in names {
            assert!(value.get(name).is_some(), "{name} is not in {value}");
        }
    };
    has(&json(&["config", "check"]), &["ok", "key_sets"]);
    has(&json(&["keys", "list"]), &["error", "hint"]);
    has(&json(&["init"]), &["key_set", "kids"]);
    let _daemon = lab.serve().await;
    wait_for(|| lab.run(&["sign", "{}"]).status.success()).await;
    let signed = json(&["sign", "{}"]);
    has(&signed, &["token", "kid", "alg", "expires"]);
    let kid = signed["kid"].as_str().unwrap();
    let keys = &json(&["keys", "list"])["key_sets"][0];
    has(
        keys,
        &[
            "name",
            "issuer",
            "version",
            "clock_in_doubt",
            "keys",
            "next",
        ],
    );
    let shown = json(&["keys", "show", kid]);
    has(
        &shown,
        &[
            "kid",
            "alg",
            "phase",
            "private_half",
            "published",
            "observed",
            "activates",
        ],
    );
    has(
        &shown,
        &[
            "active_since",
            "retiring_since",
            "removed",
            "exp_ceiling",
            "created",
            "activated",
            "age_seconds",
            "seconds_since_active",
            "placements",
            "key_set",
            "next",
        ],
    );
    assert_eq!(shown["phase"], "active");
    has(&json(&["keys", "show", "nosuch"]), &["error", "hint"]);
    has(&json(&["jwks"]), &["keys"]);
    has(
        &json(&["verify", signed["token"].as_str().unwrap()]),
        &[
            "good",
            "kid",
            "alg",
            "typ",
            "iss",
            "issued",
            "not_before",
            "expires",
            "findings",
            "jwks",
        ],
    );
    has(
        &json(&["policy", "test", "{}"]),
        &[
            "allowed",
            "key_set",
            "caller",
            "rule",
            "refusal",
            "rules",
            "would_sign",
        ],
    );
    let checks = json(&["doctor"]);
    has(
        &checks["checks"][0],
        &["level", "check", "of", "found", "hint"],
    );
    let change = json(&["keys", "hold", kid]);
    has(
        &change,
        &["done", "pending", "trusted_until", "durable", "key_set"],
    );
    has(
        &json(&["device", "unlock", "softhsm"]),
        &["device", "was_locked"],
    );

    // For people: the whole id, dates with their distance, what it waits for.
    let shown = lab.ok(&["keys", "show", &kid[..6]]);
    assert!(shown.contains(kid), "{shown}");
    assert!(shown.contains("ago"), "{shown}");
    assert!(shown.contains("in 89days 23h"), "{shown}");
    assert!(
        shown.contains(&format!("`sealkeeper keys release {kid}`")),
        "{shown}"
    );
}

/// Found by users: what was wrong with the command line itself was text, with
/// the hint in a form of its own.
#[test]
fn a_wrong_command_line_is_told_in_json_where_that_is_asked_for() {
    let fails = |line: &str, error: &str, hint: &str| {
        let output = sealkeeper(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(output.stdout.is_empty(), "{line}");
        let said = text(&output.stderr);
        assert!(
            !said.contains('\u{1b}') && !said.contains("\\u001b"),
            "{said}"
        );
        let told: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(told["error"], error, "{line}");
        assert_eq!(told["hint"], hint, "{line}");
    };
    fails(
        "keys list --nosuch --json",
        "unexpected argument '--nosuch' found",
        "Usage: sealkeeper keys list [OPTIONS]; For more information, try '--help'",
    );
    fails(
        "--json kesy list",
        "unrecognized subcommand 'kesy'",
        "tip: a similar subcommand exists: 'keys'; Usage: sealkeeper [OPTIONS] <COMMAND>; For more information, try '--help'",
    );
    fails(
        "keys --json revoke",
        "the following required arguments were not provided: <KID>",
        "Usage: sealkeeper keys revoke <KID>; For more information, try '--help'",
    );
    fails(
        "completions foo --json",
        "invalid value 'foo' for '<SHELL>' [possible values: bash, elvish, fish, powershell, zsh]",
        "For more information, try '--help'",
    );
    fails(
        "keys --json",
        "'sealkeeper keys' requires a subcommand but one was not provided [subcommands: list, history, show, import, adopt, rotate, revoke, rollback, destroy, hold, release, help]",
        "Usage: sealkeeper keys [OPTIONS] <COMMAND>; For more information, try '--help'",
    );
    fails(
        "origins waive https://a.example/jwks.json --json",
        "the following required arguments were not provided: --note <TEXT>",
        "--note 'WHY' says why, to those who read the record and the log later; Usage: sealkeeper origins waive --note <TEXT> --json <URL>; For more information, try '--help'",
    );
    // For people too, in the last line.
    let waive = ["origins", "waive", "https://a.example/jwks.json"];
    let ends_with = |more: &[&str], hint: &str| {
        let output = sealkeeper(&[&waive, more].concat());
        let said = text(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("hint: ") && last.contains(hint), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
    };
    ends_with(&[], "--note 'WHY'");
    ends_with(&["--note", "gone", "--for", "x"], "such as 30m, 36h, or 7d");
    // It is a value here.
    let output = sealkeeper(&["sign", "--nosuch", "--", "--json"]);
    assert!(text(&output.stderr).starts_with("error: unexpected argument"));
}

/// Found by users: `--json` was not understood by every command.
#[test]
fn what_is_not_of_the_agent_is_told_in_json_too() {
    let dir = tempfile::tempdir().unwrap();
    let json = |args: &[&str]| -> Value {
        let output = sealkeeper(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
    };
    let told = json(&["completions", "bash", "--json"]);
    assert_eq!(told["shell"], "bash");
    let plain = text(&sealkeeper(&["completions", "bash"]).stdout);
    assert_eq!(
        told["script"].as_str().unwrap().trim_end(),
        plain.trim_end()
    );
    let folder = dir.path().join("man1");
    let told = json(&["man", folder.to_str().unwrap(), "--json"]);
    assert_eq!(told["folder"], folder.to_str().unwrap());
    assert!(folder.join("sealkeeper.1").exists());
    assert_eq!(
        json(&["--json", "--version"])["version"],
        env!("CARGO_PKG_VERSION")
    );
    let help = json(&["keys", "--help", "--json"]);
    assert!(
        help["help"]
            .as_str()
            .unwrap()
            .contains("Usage: sealkeeper keys")
    );
}

/// Found by operators: each hint named a command without the configuration
/// with which they had run theirs, and so one that failed.
#[test]
fn commands_in_hints_name_the_configuration_that_was_given() {
    let lab = Lab::new(CALM, &["ES256"]);
    let path = lab.path("sealkeeper.toml");
    let given = path.to_str().unwrap();
    let by_option = |args: &[&str]| {
        let output = sealkeeper(&[args, &["--config", given]].concat());
        text(&[output.stdout, output.stderr].concat())
    };
    let full = format!("`sealkeeper --config {given} serve`");
    for args in [&["keys", "list"][..], &["keys", "list", "--json"]] {
        let said = by_option(args);
        assert!(said.contains(&full), "{said}");
    }
    let init = format!("`sealkeeper --config {given} init` makes it");
    for args in [&["doctor"][..], &["doctor", "--json"]] {
        let said = by_option(args);
        assert!(said.contains(&init), "{said}");
        assert!(
            said.contains("`systemctl start sealkeeper`") || said.contains("skip"),
            "{said}"
        );
    }
    // As it stands where every command reads it anyway.
    let said = text(&lab.run(&["keys", "list"]).stderr);
    assert!(said.contains("`sealkeeper serve`"), "{said}");
}

#[test]
fn each_command_has_a_man_page() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    let made = sealkeeper(&["man", folder.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let page = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let top = page("sealkeeper.1");
    assert!(
        top.starts_with(".ie") || top.contains(".TH sealkeeper 1"),
        "{top}"
    );
    assert!(top.contains("Exit codes"), "{top}");
    for name in [
        "verify",
        "doctor",
        "policy-test",
        "keys-revoke",
        "keys-show",
        "config-check",
    ] {
        assert!(
            page(&format!("sealkeeper-{name}.1")).contains(".SH"),
            "{name}"
        );
    }
    let hidden = fs::read_dir(&folder).unwrap().any(|file| {
        let name = file.unwrap().file_name();
        name.to_string_lossy().contains("device-child")
    });
    assert!(!hidden, "the child is no command for people");
}

/// A completion script in a file of its own.
fn script(dir: &Path, shell: &str) -> String {
    let output = sealkeeper(&["completions", shell]);
    assert!(output.status.success());
    let path = dir.join(format!("completion.{shell}"));
    fs::write(&path, output.stdout).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs what a shell that scripts/test installs says.
fn shell(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}, which scripts/test installs: {e}"));
    assert!(
        output.status.success(),
        "{program}: {}",
        text(&output.stderr)
    );
    assert!(
        output.stderr.is_empty(),
        "{program}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[test]
fn shells_complete_commands() {
    let dir = tempfile::tempdir().unwrap();
    let [bash, zsh, fish] = ["bash", "zsh", "fish"].map(|shell| script(dir.path(), shell));
    shell("bash", &["-n", &bash]);
    shell("zsh", &["-n", &zsh]);
    shell("fish", &["-n", &fish]);

    let ask = format!(
        "source {bash}; COMP_WORDS=(sealkeeper keys re); COMP_CWORD=2; \
         _sealkeeper sealkeeper re keys; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut found: Vec<String> = shell("bash", &["--norc", "-c", &ask])
        .lines()
        .map(str::to_owned)
        .collect();
    found.sort();
    assert_eq!(found, ["release", "revoke"]);

    let ask = format!("source {fish}; complete -C 'sealkeeper keys re'");
    let found = shell("fish", &["--no-config", "-c", &ask]);
    assert!(found.contains("revoke\tEnd a key for ever"), "{found}");
    assert!(found.contains("release"), "{found}");
}
