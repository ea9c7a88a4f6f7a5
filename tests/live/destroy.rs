//! `keys destroy`, on a real token.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::lab::{Lab, PIN, QUICK, folder_holds, wait_until};

/// As [`QUICK`], rotated when somebody asks, and with time to go back.
fn schedule() -> String {
    let quick = QUICK.replace("rotate_every = \"4s\"", "rotate_every = \"10m\"");
    let quick = quick.replace("_lifetime = \"3s\"", "_lifetime = \"1m\"");
    quick.replace("rollback_window = \"1s\"", "rollback_window = \"10m\"")
}

fn key(lab: &Lab, wanted: &str, phase: &str) -> Option<String> {
    let found = lab.keys().into_iter().find(|key| {
        key["phase"] == phase && (wanted.is_empty() || key["kid"].as_str() == Some(wanted))
    });
    found.and_then(|key| key["kid"].as_str().map(str::to_owned))
}

/// Runs a command that must fail so, and returns what it says.
fn fails(lab: &Lab, args: &[&str], code: i32) -> String {
    let output = lab.run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    said
}

#[tokio::test]
async fn a_retiring_keys_private_half_goes_before_its_time_and_its_tokens_stay_good() {
    let lab = Lab::new(&schedule(), &["ES256"]);
    lab.init();
    let _daemon = lab.serve().await;
    let old = key(&lab, "", "active").expect("an active key");
    let token = lab.ok(&["sign", r#"{"sub":"a"}"#]);
    let said = fails(&lab, &["keys", "destroy", &old, "--yes"], 1);
    assert!(
        said.contains("is active") && said.contains("revoke it"),
        "{said}"
    );
    lab.ok(&["keys", "rotate"]);
    wait_until(async || key(&lab, &old, "retiring").is_some()).await;

    // Nobody is asked where nobody sits.
    let said = fails(&lab, &["keys", "destroy", &old, "--end-rollback"], 2);
    assert!(said.contains("--yes says that it is meant"), "{said}");
    // The handover first; then, within the window, only by name.
    let mut said = String::new();
    wait_until(async || {
        said = fails(&lab, &["keys", "destroy", &old, "--yes"], 1);
        !said.contains("still being handed over")
    })
    .await;
    assert!(said.contains("one can still go back"), "{said}");
    assert!(
        said.contains("--end-rollback") && said.contains("ENDS_ROLLBACK"),
        "{said}"
    );
    let before = lab.objects_in_token().len();
    let args = [
        "keys",
        "destroy",
        &old,
        "--end-rollback",
        "--yes",
        "--note",
        "sold",
        "--json",
    ];
    let told: serde_json::Value = serde_json::from_str(&lab.ok(&args)).expect("JSON");
    let me = told["acted_alone"].as_str().expect("who acted alone");
    assert!(me.starts_with("unix:"), "{told}");
    let done = told["done"][0].as_str().expect("what was done");
    assert!(done.contains("is being destroyed on softhsm"), "{told}");
    wait_until(async || {
        let keys = lab.keys();
        let key = keys.iter().find(|key| key["kid"] == old.as_str());
        key.is_some_and(|key| key["private_half"] == "destroyed")
    })
    .await;
    assert_eq!(lab.objects_in_token().len(), before - 1);

    // It is in the set, and what it signed verifies.
    assert!(lab.ok(&["jwks"]).contains(&old));
    assert!(lab.ok(&["verify", token.trim()]).contains("good"));
    let said = fails(&lab, &["keys", "rollback", &old], 1);
    assert!(said.contains("DESTRUCTION_BEGUN"), "{said}");
    let again = lab.ok(&["keys", "destroy", &old, "--yes"]);
    assert!(again.contains("gone already"), "{again}");

    let recorded = folder_holds(&lab.path("state/audit"), r#""remark":"sold","alone":true"#);
    assert!(!recorded.is_empty(), "the log says who acted alone");
    let log = lab.logged("one person did alone").await;
    assert!(!log.contains(PIN), "{log}");
}

/// Runs a command at a terminal of its own (script(1)), and types `answer`
/// when it asks; nothing at all ends the input. Returns the exit code and what
/// stood on the terminal.
fn at_a_terminal(lab: &Lab, args: &[&str], answer: &str) -> (Option<i32>, String) {
    let command = lab.command(args);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| format!("'{}'", word.to_str().expect("text")));
    let line = words.collect::<Vec<_>>().join(" ");
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script(1)");
    let mut screen = terminal.stdout.take().expect("a pipe");
    let mut seen = Vec::new();
    while !seen.ends_with(b"[y/N] ") {
        let mut byte = [0];
        match screen.read(&mut byte).expect("the terminal") {
            0 => break,
            _ => seen.push(byte[0]),
        }
    }
    let mut keys = terminal.stdin.take().expect("a pipe");
    keys.write_all(answer.as_bytes()).expect("an answer");
    drop(keys);
    screen.read_to_end(&mut seen).expect("the terminal");
    let ended = terminal.wait().expect("the command");
    (ended.code(), String::from_utf8_lossy(&seen).into_owned())
}

#[tokio::test]
async fn at_a_terminal_a_private_half_goes_after_a_yes_alone() {
    let lab = Lab::new(&schedule(), &["ES256"]);
    lab.init();
    let _daemon = lab.serve().await;
    let old = key(&lab, "", "active").expect("an active key");
    lab.ok(&["keys", "rotate"]);
    // Past the handover nothing but the answer stands in the way.
    wait_until(async || {
        key(&lab, &old, "retiring").is_some()
            && fails(&lab, &["keys", "destroy", &old, "--yes"], 1).contains("ENDS_ROLLBACK")
    })
    .await;
    let half = || {
        let keys = lab.keys();
        let key = keys.into_iter().find(|key| key["kid"] == old.as_str());
        key.expect("it is listed")["private_half"].clone()
    };
    let before = lab.objects_in_token();
    let order = ["keys", "destroy", &old, "--end-rollback"];
    let question = format!("Destroy the private half of {old} for ever? [y/N] ");
    for no in ["n\n", "N\n", "\n", "", "nay\n", "yn\n"] {
        let (code, screen) = at_a_terminal(&lab, &order, no);
        assert!(screen.contains(&question), "{no:?}: {screen}");
        assert!(screen.contains("nothing was changed"), "{no:?}: {screen}");
        assert_eq!(code, Some(1), "{no:?}: {screen}");
        assert_eq!(half(), "present", "{no:?}: {screen}");
    }
    assert_eq!(lab.objects_in_token(), before);
    let (code, screen) = at_a_terminal(&lab, &order, "y\n");
    assert!(screen.contains(&question), "{screen}");
    assert!(screen.contains("is being destroyed on softhsm"), "{screen}");
    assert_eq!(code, Some(0), "{screen}");
    wait_until(async || half() == "destroyed").await;
    assert_eq!(lab.objects_in_token().len(), before.len() - 1);
}
