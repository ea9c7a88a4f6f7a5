//! A key that signs before every verifier can hold it, because somebody says
//! so: told beforehand, on record, and one can go back.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::bad_days::{active, signs};
use super::lab::{Lab, kids, wait_until};

/// Rule 1 takes 14 seconds, and a switch a second.
const SCHEDULE: &str = r#"
rotate_every = "1d"
verifier_cache = "12s"
propagation = "1500ms"
skew = "200ms"
max_token_lifetime = "1m"
default_lifetime = "1m"
rollback_window = "1h"
adoption = "500ms"
signing_deadline = "1s"
max_age = "1s"
"#;

fn standby(lab: &Lab) -> Option<String> {
    let keys = lab.keys().into_iter();
    let mut keys = keys.filter(|key| key["phase"] == "published");
    Some(keys.next()?["kid"].as_str()?.to_owned())
}

fn key_events(lab: &Lab) -> Vec<Value> {
    let log = std::fs::read_to_string(lab.path("state/audit/keys.log")).expect("the log");
    let lines = log.lines().filter_map(|line| {
        let at = line.find('{')?;
        serde_json::from_str(&line[at..]).ok()
    });
    lines.collect()
}

#[tokio::test]
async fn the_next_key_is_forced_on_record_and_the_former_one_comes_back() {
    let lab = Lab::new(SCHEDULE, &["ES256"]);
    lab.init();
    let early = lab.path("early.json");
    let mut daemon = lab.serve().await;
    // A key that every verifier holds, so that one can go back to it.
    let genesis = active(&lab);
    lab.ok(&["keys", "rotate"]);
    wait_until(async || active(&lab) != genesis).await;
    let old = active(&lab);
    wait_until(async || standby(&lab).is_some()).await;
    let next = standby(&lab).expect("a standby");
    // What a verifier holds that fetched before the standby was there.
    let set = daemon.jwks().await.expect("a set");
    let mut stale: Value = serde_json::from_slice(&set).expect("JSON");
    let keys = stale["keys"].as_array_mut().expect("keys");
    keys.retain(|key| key["kid"] != *next);
    std::fs::write(&early, stale.to_string()).expect("a file");

    let asked = lab.ok(&["keys", "rotate", "--dry-run", "--json"]);
    let asked: Value = serde_json::from_str(&asked).expect("JSON");
    assert_eq!(asked["signs"], *old, "{asked}");
    assert_eq!(asked["next"], *next, "{asked}");
    let (safe, until) = (&asked["safe_at"], &asked["forced"]["refused_until"]);
    assert!(until.is_string() && safe.is_string(), "{asked}");
    // It is told what it breaks; nobody is at a terminal to say yes.
    let told = lab.ok(&["keys", "rotate", "--force", "--dry-run"]);
    for part in [
        "dry run: nothing was changed",
        "breaks:  until",
        &format!("`sealkeeper keys rollback {old}`"),
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let refused = lab.run(&["keys", "rotate", "--force"]);
    assert_eq!(refused.status.code(), Some(2));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("--yes"), "{why}");
    assert_eq!(active(&lab), old);

    let done = lab.ok(&["keys", "rotate", "--force", "--yes", "--note", "ticket 7"]);
    assert!(done.contains("before every verifier can hold it"), "{done}");
    assert!(done.contains("(rule 1)"), "{done}");
    assert!(done.contains("alone:"), "{done}");
    wait_until(async || active(&lab) == next).await;
    let token = signs(&mut daemon).await;
    assert!(lab.ok(&["verify", &token]).contains("good"));
    // Who holds an older set refuses it: what was told.
    let early = early.display().to_string();
    let refused = lab.run(&["verify", &token, "--jwks", &early]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let events = key_events(&lab);
    let forced = events.iter().find(|it| it["event"] == "activation-forced");
    let forced = forced.expect("it is in the log of key events");
    assert_eq!(forced["kid"], *next);
    assert_eq!(forced["remark"], "ticket 7");

    // Whoever looks afterwards is told as well.
    let shown = lab.ok(&["keys", "show", &next]);
    assert!(shown.contains("refused by some"), "{shown}");
    let doctor = lab.run(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let told = format!("the key {next} was forced to sign before its time");
    assert!(said.contains(&told), "{said}");
    // Both are in the set, and the former one signs again.
    assert!(kids(&daemon.jwks().await.expect("a set")).contains(&old));
    lab.ok(&["keys", "rollback", &old]);
    wait_until(async || active(&lab) == old).await;
    signs(&mut daemon).await;
}

/// At a terminal it says what it breaks and asks, and only a yes is one.
#[tokio::test]
async fn whoever_sits_at_a_terminal_is_asked() {
    let lab = Lab::new(SCHEDULE, &["ES256"]);
    lab.init();
    let _daemon = lab.serve().await;
    wait_until(async || standby(&lab).is_some()).await;
    let (before, next) = (active(&lab), standby(&lab).expect("a standby"));
    // Gives it a terminal (Debian: bsdutils).
    let asked = |answer: &str| {
        let program = lab.command(&[]).get_program().to_owned();
        let order = format!("{} keys rotate --force", program.display());
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &order, "/dev/null"]);
        terminal.env("SEALKEEPER_CONFIG", lab.path("sealkeeper.toml"));
        let terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = terminal.spawn().expect("script");
        let mut input = child.stdin.take().expect("a pipe");
        writeln!(input, "{answer}").expect("its input");
        let output = child.wait_with_output().expect("it ends");
        drop(input);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said)
    };
    let (done, said) = asked("n");
    assert!(!done && said.contains("nothing was changed"), "{said}");
    let question = format!("Have {next} sign before its time? [y/N]");
    for part in ["breaks:", "back:", &question] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!key_log_has(&lab, "activation-forced"));
    assert_eq!(active(&lab), before);
    let (done, said) = asked("y");
    assert!(done && said.contains("done:"), "{said}");
    wait_until(async || active(&lab) == next).await;
    // With the token gone it would help nobody.
    wait_until(async || standby(&lab).is_some()).await;
    std::fs::rename(lab.path("tokens"), lab.path("away")).expect("the token");
    let dry = || lab.ok(&["keys", "rotate", "--dry-run"]);
    wait_until(async || dry().contains("the device softhsm does not answer")).await;
}

fn key_log_has(lab: &Lab, event: &str) -> bool {
    key_events(lab).iter().any(|it| it["event"] == event)
}
