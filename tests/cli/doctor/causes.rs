//! What follows from a fault is no fault of its own, and what is said last is
//! what comes after the repair.

use std::fs;

use super::{Said, begun, doctor, edit, refused, sign};
use crate::live::lab::{CALM, Lab, PIN, wait_for};

/// Found by an operator: a folder that is not there had three failures.
#[test]
fn nothing_else_fails_where_there_is_no_state_folder() {
    let lab = Lab::new(CALM, &["ES256"]);
    let found = doctor(&lab);
    found.failed().says(&[
        "fail  state folder",
        " 1 failed, ",
        "`sealkeeper init` makes it",
        "Then start the agent",
    ]);
    for check in ["signing socket", "admin socket", "device"] {
        let skipped = |line: &str| {
            line.starts_with(&format!("skip  {check} "))
                && line.contains(": not looked at: first mend state folder /")
        };
        assert!(found.text.lines().any(skipped), "{check}: {}", found.text);
    }
}

/// What is skipped is still told to programs, with its cause.
#[tokio::test]
async fn a_program_is_told_what_was_skipped_and_why() {
    let lab = begun();
    fs::write(lab.path("pin"), "00000000").unwrap();
    let _daemon = lab.serve().await;
    refused(&lab, "PIN_BLOCKED").await.for_good();
    let json = lab.run(&["doctor", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let checks = json["checks"].as_array().unwrap();
    let of = |check: &str| checks.iter().find(|it| it["check"] == check).unwrap();
    for check in ["device", "key_set"] {
        assert_eq!(of(check)["level"], "skip");
        assert_eq!(of(check)["waits_for"], "pin marker softhsm");
        assert_eq!(of(check)["hint"], "mend first: pin marker softhsm");
        let found = of(check)["found"].as_str().unwrap();
        assert!(found.contains("CKR_PIN_INCORRECT"), "{found}");
    }
    assert_eq!(of("pin_marker")["level"], "fail");
    assert!(of("pin_marker")["waits_for"].is_null());
}

/// As the hints say: no restart.
#[tokio::test]
async fn an_agent_whose_pin_is_unlocked_goes_on_by_itself() {
    let lab = begun();
    fs::write(lab.path("pin"), "00000000").unwrap();
    let _daemon = lab.serve().await;
    refused(&lab, "PIN_BLOCKED").await;
    let pin = lab.path("pin").display().to_string();
    doctor(&lab).says(&[
        &format!(
            "make sure that the PIN is right in {pin}, then run: sealkeeper device unlock softhsm"
        ),
        "the agent then goes on by itself, without a restart",
    ]);
    fs::write(lab.path("pin"), PIN).unwrap();
    lab.ok(&["device", "unlock", "softhsm"]);
    wait_for(|| sign(&lab).code == Some(0)).await;
    let found = doctor(&lab);
    assert_eq!(found.code, Some(0), "{}", found.text);
}

/// Found by an operator: all was well, and nobody could be signed for.
#[tokio::test]
async fn rules_that_nobody_can_match_are_a_failure() {
    let lab = begun();
    let _daemon = lab.serve().await;
    wait_for(|| sign(&lab).code == Some(0)).await;
    let us = rustix::process::getuid().as_raw();
    let ours = format!("uid = [{us}]");
    edit(&lab, &ours, "uid = [4000000000]");
    let nobody = "fail  rules main: nothing is signed for anybody";
    // One cause is one finding.
    doctor(&lab).failed().says(&[
        nobody,
        &format!("(no user has the uid 4000000000), and so not you, unix:{us}"),
        " 1 failed, 0 warnings",
        "then run `sealkeeper config reload`; `sealkeeper policy test CLAIMS` says",
    ]);
    // The cure, as the hint has it: without a restart.
    lab.ok(&["config", "reload"]);
    assert_eq!(sign(&lab).code, Some(1), "the rule is in force");
    edit(&lab, "uid = [4000000000]", &ours);
    lab.ok(&["config", "reload"]);
    assert_eq!(sign(&lab).code, Some(0), "the next one too");
    edit(&lab, &ours, "uid = [4000000000]");
    edit(&lab, "uid = [4000000000]", "dns = [\"a.example\"]");
    doctor(&lab).failed().says(&[nobody]);
    edit(&lab, "dns = [\"a.example\"]", "gid = [4000000000]");
    doctor(&lab).failed().says(&[nobody]);
    if us == 0 {
        edit(&lab, "gid = [4000000000]", "gid = [65534]");
        doctor(&lab).says(&[
            "ok    rules main: 1 rule, and none is about you, unix:0: the rule \"me\" expected gid 65534, got 0",
        ]);
        edit(&lab, "gid = [65534]", "gid = [4000000000]");
    }
    // One who is there is enough.
    edit(
        &lab,
        "gid = [4000000000]",
        &format!("uid = [{us}, 4000000000]"),
    );
    let found = doctor(&lab);
    assert_eq!(found.code, Some(0), "{}", found.text);
    found.says(&[
        "warn  rules main.me",
        " 0 failed, 1 warning",
        "ok    rules main: 1 rule\n",
    ]);
}

/// Found by an operator: SQLite's list of pages, in the middle of the table.
#[tokio::test]
async fn each_finding_is_one_line_and_its_hint_another() {
    let lab = begun();
    let database = lab.path("state/keys.sqlite");
    let mut bytes = fs::read(&database).unwrap();
    bytes.iter_mut().skip(4096).for_each(|byte| *byte ^= 0x5a);
    fs::write(&database, bytes).unwrap();
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(lab.path(&format!("state/keys.sqlite{beside}")));
    }
    let _daemon = lab.serve().await;
    refused(&lab, "STORE_UNUSABLE").await;
    let Said { text, .. } = doctor(&lab);
    let known = ["ok    ", "warn  ", "fail  ", "skip  ", "      hint: "];
    let (findings, summary) = text.split_once("\n\n").expect("findings, and their number");
    for line in findings.lines() {
        assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
    }
    assert_eq!(summary.trim_end().lines().count(), 1, "{text}");
}

#[test]
fn breakage_10_a_state_folder_that_cannot_be_made() {
    let lab = Lab::new(CALM, &["ES256"]);
    let state = format!("state_dir = \"{}\"", lab.path("state").display());
    fs::write(lab.path("file"), "").unwrap();
    let below = lab.path("file").join("state");
    edit(
        &lab,
        &state,
        &format!("state_dir = \"{}\"", below.display()),
    );
    for args in [&["init"][..], &["serve"][..]] {
        Said::of(&lab.run(args)).failed().says(&[
            "Not a directory",
            "hint: state_dir must be a folder that the agent may write to",
        ]);
    }
    doctor(&lab).failed().says(&[
        "fail  state folder",
        "Not a directory",
        "install -d -m 0700",
    ]);
}

#[test]
fn a_configuration_that_does_not_load_is_the_first_finding() {
    let lab = Lab::new(CALM, &["ES256"]);
    edit(&lab, "issuer =", "isuer =");
    let found = doctor(&lab);
    found.failed().says(&[
        "fail  configuration",
        "unknown field",
        "^^^^^",
        "config check",
    ]);
}

/// Found by an operator: it said "cannot connect", with the path twice, and
/// not where the log is, nor how to start the agent.
#[tokio::test]
async fn an_agent_that_was_killed_is_not_running() {
    let lab = begun();
    let mut daemon = lab.serve().await;
    daemon.kill();
    let start = "start it: `sealkeeper serve`, or `systemctl start sealkeeper`";
    let why = "`journalctl -u sealkeeper` under systemd, else wherever its standard error went";
    sign(&lab).failed().says(&[
        "hint: the agent is not running, and has ended: ",
        start,
        why,
    ]);
    let found = doctor(&lab);
    found.failed().says(&[
        "sign.sock: the agent is not running: it has ended, and left this (Connection refused",
        start,
        why,
        " 1 failed",
    ]);
    assert!(!found.text.contains("cannot connect to"), "{}", found.text);
}

/// Found by an operator: the failure stood in the middle of 17 lines.
#[tokio::test]
async fn what_to_mend_is_read_last() {
    let lab = begun();
    fs::write(lab.path("pin"), "00000000").unwrap();
    let _daemon = lab.serve().await;
    refused(&lab, "PIN_BLOCKED").await;
    let text = doctor(&lab).text;
    let last: Vec<&str> = text.lines().rev().take(4).collect();
    assert!(last[2].starts_with("      hint: "), "{text}");
    assert!(last[3].starts_with("fail  pin marker softhsm"), "{text}");
    // And what the words mean stands in the help.
    let help = Said::of(&lab.run(&["doctor", "--help"]));
    help.says(&[
        "`skip` was not looked at",
        "Exit code 0 where nothing failed",
    ]);
}
