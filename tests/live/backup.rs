//! `backup` and `restore`: what is put aside in time is put back, and what is
//! too old is not.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use super::bad_days::{active, damage, refused, shown, signs};
use super::kills::revoke;
use super::lab::{CALM, Daemon, Lab, PIN, wait_until};

/// An agent that signs with a standby, and a backup that was made meanwhile.
async fn backed_up() -> (Lab, Daemon, String) {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    // The last of what a start brings about: the standby was seen.
    wait_until(async || key_log(&lab).contains("observed-everywhere")).await;
    let file = lab.path("backup").display().to_string();
    let told = lab.ok(&["backup", "--to", &file]);
    assert!(told.contains("key set main after "), "{told}");
    (lab, daemon, file)
}

pub(super) fn key_log(lab: &Lab) -> String {
    fs::read_to_string(lab.path("state/audit/keys.log")).unwrap_or_default()
}

pub(super) fn store_files(lab: &Lab) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| lab.path(&format!("state/keys.sqlite{end}")))
}

pub(super) fn lose_store(lab: &Lab) {
    for file in store_files(lab) {
        let _ = fs::remove_file(file);
    }
}

/// A revoked key is not shown, and the set is not empty.
pub(super) async fn is_out(daemon: &Daemon, kid: &String) {
    let shown = shown(daemon.jwks().await);
    assert!(!shown.is_empty() && !shown.contains(kid), "{shown:?}");
}

/// What a command that must fail says.
pub(super) fn fails(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[tokio::test]
async fn a_backup_of_a_running_agent_replaces_a_lost_store() {
    let (lab, mut daemon, file) = backed_up().await;
    let (before, signing) = (shown(daemon.jwks().await), active(&lab));
    assert!(super::lab::folder_holds(&lab.path("state"), PIN).is_empty());
    let bytes = fs::read(&file).expect("the backup");
    assert!(!bytes.windows(PIN.len()).any(|w| w == PIN.as_bytes()));
    let again = fails(&lab.run(&["backup", "--to", &file]));
    assert!(again.contains("File exists"), "{again}");
    assert_eq!(fs::read(&file).expect("the backup"), bytes);

    let in_use = fails(&lab.run(&["restore", "--from", &file]));
    assert!(in_use.contains("there is nothing to restore"), "{in_use}");
    daemon.kill();
    lose_store(&lab);
    let checked = lab.ok(&["restore", "--from", &file, "--check"]);
    assert!(checked.contains("is put back"), "{checked}");
    assert!(!store_files(&lab)[0].exists(), "--check changes nothing");
    // The agent keeps everybody else out.
    let idle = lab.serve().await;
    let in_use = fails(&lab.run(&["restore", "--from", &file]));
    assert!(in_use.contains("an agent is running"), "{in_use}");
    drop(idle);

    let told = lab.ok(&["restore", "--from", &file, "--json"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["fates"]["main"], "put-back", "{told}");
    let checked = &told["checked"][0];
    assert_eq!(checked["key_set"], "main", "{told}");
    assert_eq!(checked["configured"], true, "{told}");
    assert!(checked["says"].to_string().contains("put back"), "{told}");
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert_eq!(shown(daemon.jwks().await), before);
    assert_eq!(active(&lab), signing);
}

#[tokio::test]
async fn a_damaged_store_is_put_aside_and_replaced() {
    let (lab, mut daemon, file) = backed_up().await;
    let before = shown(daemon.jwks().await);
    daemon.kill();
    damage(&lab);
    let told = lab.ok(&["restore", "--from", &file]);
    assert!(told.contains("keys.sqlite.before-"), "{told}");
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert_eq!(shown(daemon.jwks().await), before);
}

#[tokio::test]
async fn a_backup_from_before_a_revocation_is_refused() {
    let (lab, mut daemon, file) = backed_up().await;
    let kid = active(&lab);
    revoke(&mut daemon, &kid).await;
    is_out(&daemon, &kid).await;
    daemon.kill();
    lose_store(&lab);
    let output = lab.run(&["restore", "--from", &file]);
    let said = fails(&output);
    assert!(said.contains("too old"), "{said}");
    assert!(said.contains("`sealkeeper recover`"), "{said}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains(&format!("revoked {kid}")), "{told}");
    assert!(!store_files(&lab)[0].exists(), "nothing was put back");
}

/// The worst case: the folder is gone, and only the backup is left.
#[tokio::test]
async fn without_the_log_somebody_has_to_vouch_for_the_backup() {
    let (lab, mut daemon, file) = backed_up().await;
    let (before, name) = (shown(daemon.jwks().await), lab.path("state/agent-id"));
    let agent = fs::read(&name).expect("its name");
    daemon.kill();
    fs::remove_dir_all(lab.path("state")).expect("the folder goes");
    let said = fails(&lab.run(&["restore", "--from", &file]));
    assert!(said.contains("--without-log"), "{said}");
    assert!(!lab.path("state").exists(), "nothing was made");
    lab.ok(&["restore", "--from", &file, "--without-log"]);
    assert_eq!(fs::read(&name).expect("its name"), agent);
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert_eq!(shown(daemon.jwks().await), before);
}

#[tokio::test]
async fn a_backup_brings_its_revocations_back() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let kid = active(&lab);
    revoke(&mut daemon, &kid).await;
    // Whatever follows a revocation has followed.
    wait_until(async || {
        let halves = lab.objects_in_token();
        shown(daemon.jwks().await).len() == 2 && halves.len() == 2
    })
    .await;
    let file = lab.path("backup").display().to_string();
    lab.ok(&["backup", "--to", &file]);
    daemon.kill();
    fs::remove_dir_all(lab.path("state")).expect("the folder goes");
    lab.ok(&["restore", "--from", &file, "--without-log"]);
    let stones = fs::read_dir(lab.path("state/tombstones")).expect("a folder");
    assert_eq!(stones.count(), 1);
    let mut daemon = lab.serve().await;
    is_out(&daemon, &kid).await;
    refused(&mut daemon, &["NO_ACTIVE_KEY"]).await;
}

#[test]
fn what_is_no_backup_is_refused() {
    let lab = Lab::new(CALM, &["ES256"]);
    let file = lab.path("other");
    fs::write(&file, "a letter to somebody else").expect("a file");
    let file = file.display().to_string();
    let said = fails(&lab.run(&["restore", "--from", &file]));
    assert!(said.contains("this is no backup"), "{said}");
    let none = fails(&lab.run(&["backup", "--to", &lab.path("new").display().to_string()]));
    assert!(none.contains("there is no store"), "{none}");
    assert!(!lab.path("new").exists());
}
