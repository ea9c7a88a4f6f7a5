//! `recover`: the record is lost, or old, or the token is another; and keys
//! are revoked in each of these states.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::backup::{fails, is_out, key_log, lose_store, store_files};
use super::bad_days::{active, damage, refused, shown, signs};
use super::kills::revoke;
use super::lab::{CALM, Daemon, Lab, PIN, QUICK, wait_until};

/// An agent that signs, with a standby that was seen.
pub(super) async fn at_work(schedule: &str) -> (Lab, Daemon, Vec<String>) {
    let lab = Lab::new(schedule, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    wait_until(async || key_log(&lab).contains("observed-everywhere")).await;
    let shown = shown(daemon.jwks().await);
    (lab, daemon, shown)
}

pub(super) fn recover(lab: &Lab, more: &[&str]) -> Value {
    let args = [&["recover", "--json"], more].concat();
    serde_json::from_str(&lab.ok(&args)).expect("JSON")
}

/// What follows for a key: its phase.
pub(super) fn follows(told: &Value, kid: &str) -> String {
    let keys = told["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["kid"] == kid);
    let phase = key.and_then(|key| key["phase"].as_str());
    phase
        .unwrap_or_else(|| panic!("{kid} is not in {told:#}"))
        .to_owned()
}

/// Every key of before is still there for those who verify.
pub(super) async fn still_shows(daemon: &Daemon, before: &[String]) {
    let now = shown(daemon.jwks().await);
    assert!(before.iter().all(|kid| now.contains(kid)), "{now:?}");
}

fn token_files(lab: &Lab) -> BTreeSet<PathBuf> {
    let mut folders = vec![lab.path("tokens")];
    let mut files = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => drop(files.insert(path)),
            }
        }
    }
    files
}

/// Another token under the same label, with nothing on it; the first is kept.
pub(super) fn swap_token(lab: &Lab) {
    fs::rename(lab.path("tokens"), lab.path("away")).expect("the token goes");
    fs::create_dir(lab.path("tokens")).expect("a folder");
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "lab"])
        .args(["--so-pin", "5678", "--pin", PIN])
        .env("SOFTHSM2_CONF", lab.path("softhsm2.conf"))
        .output()
        .expect("softhsm2-util");
    assert!(made.status.success(), "{made:?}");
}

pub(super) fn swap_back(lab: &Lab) {
    fs::remove_dir_all(lab.path("tokens")).expect("the other token goes");
    fs::rename(lab.path("away"), lab.path("tokens")).expect("the token is back");
}

fn copy_store(lab: &Lab) -> Vec<Vec<u8>> {
    let files = store_files(lab);
    let read = |path: &PathBuf| fs::read(path).unwrap_or_default();
    files.iter().map(read).collect()
}

fn put_store(lab: &Lab, copy: &[Vec<u8>]) {
    lose_store(lab);
    for (path, bytes) in store_files(lab).iter().zip(copy) {
        if !bytes.is_empty() {
            fs::write(path, bytes).expect("the old copy");
        }
    }
}

#[tokio::test]
async fn a_deleted_database_is_made_again_and_nothing_else_changes() {
    let (lab, mut daemon, before) = at_work(CALM).await;
    let signing = active(&lab);
    let in_use = fails(&lab.run(&["recover"]));
    assert!(in_use.contains("an agent is running"), "{in_use}");
    daemon.kill();
    let good = fails(&lab.run(&["recover"]));
    assert!(good.contains("there is nothing to recover"), "{good}");
    lose_store(&lab);
    let (objects, log) = (token_files(&lab), key_log(&lab));

    let told = recover(&lab, &[]);
    assert_eq!(follows(&told, &signing), "active");
    assert_eq!(told["written"], false);
    assert_eq!(key_log(&lab), log, "a dry run changes nothing");
    let people = lab.ok(&["recover"]);
    assert!(people.contains(&format!("{signing} signs on")), "{people}");
    assert!(people.contains("nothing was changed"), "{people}");

    let told = recover(&lab, &["--write", "--note", "an exercise"]);
    assert_eq!(told["written"], true);
    assert_eq!(token_files(&lab), objects, "no key was made or destroyed");
    let log = key_log(&lab);
    for word in [r#""recovered""#, "an exercise", r#""alone":true"#] {
        assert!(log.contains(word), "{log}");
    }
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert_eq!(active(&lab), signing);
    assert_eq!(shown(daemon.jwks().await), before);
    assert_eq!(lab.objects_in_token().len(), 2, "no key more");
    daemon.kill();
    // Lost once more: the log has what was recovered too.
    damage(&lab);
    let told = recover(&lab, &["--write"]);
    assert!(told["put_aside"].is_string(), "{told:#}");
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert_eq!(shown(daemon.jwks().await), before);
    assert_eq!(active(&lab), signing);
}

#[tokio::test]
async fn an_old_database_is_joined_with_what_the_log_knows() {
    let lab = Lab::new(QUICK, &["ES256"]);
    lab.init();
    let copy = copy_store(&lab);
    let mut daemon = lab.serve().await;
    let first = shown(daemon.jwks().await);
    wait_until(async || shown(daemon.jwks().await).len() > first.len()).await;
    wait_until(async || active(&lab) != first[0]).await;
    signs(&mut daemon).await;
    daemon.kill();
    let last = fs::read(lab.path("state/jwks/main.jwks.json")).expect("the last set");
    let last = super::lab::kids(&last);
    put_store(&lab, &copy);
    let mut daemon = lab.serve().await;
    refused(&mut daemon, &["RECORD_UNUSABLE"]).await;
    daemon.kill();

    let told = recover(&lab, &["--write"]);
    assert_eq!(follows(&told, &first[0]), "retiring");
    let mut daemon = lab.serve().await;
    // No token of theirs can be dead yet: it is given L once more.
    still_shows(&daemon, &last).await;
    signs(&mut daemon).await;
}

#[tokio::test]
async fn a_revocation_outlives_each_way_to_lose_the_record() {
    let (lab, mut daemon, before) = at_work(CALM).await;
    let copy = copy_store(&lab);
    let kid = active(&lab);
    revoke(&mut daemon, &kid).await;
    daemon.kill();
    // Lost; and an old copy from before it.
    for old in [false, true] {
        lose_store(&lab);
        if old {
            put_store(&lab, &copy);
        }
        let told = recover(&lab, &["--write"]);
        assert_eq!(follows(&told, &kid), "revoked");
        let daemon = lab.serve().await;
        is_out(&daemon, &kid).await;
        let other = before.iter().find(|other| **other != kid).expect("two");
        still_shows(&daemon, std::slice::from_ref(other)).await;
    }
}

#[tokio::test]
async fn a_key_that_is_revoked_without_a_record_stays_revoked() {
    for old in [false, true] {
        let lab = Lab::new(QUICK, &["ES256"]);
        lab.init();
        let copy = copy_store(&lab);
        let mut daemon = lab.serve().await;
        wait_until(async || shown(daemon.jwks().await).len() >= 2).await;
        daemon.kill();
        lose_store(&lab);
        if old {
            put_store(&lab, &copy);
        }
        let mut daemon = lab.serve().await;
        refused(&mut daemon, &["RECORD_LOST", "RECORD_UNUSABLE"]).await;
        let kid = shown(daemon.jwks().await).remove(0);
        // Only the tombstone knows of it.
        revoke(&mut daemon, &kid).await;
        is_out(&daemon, &kid).await;
        daemon.kill();
        let told = recover(&lab, &["--write"]);
        assert_eq!(follows(&told, &kid), "revoked");
        let mut daemon = lab.serve().await;
        is_out(&daemon, &kid).await;
        // A key that was made later takes over, when verifiers hold it.
        signs(&mut daemon).await;
        is_out(&daemon, &kid).await;
        assert_ne!(active(&lab), kid);
    }
}

#[tokio::test]
async fn an_empty_token_empties_no_set() {
    let (lab, mut daemon, before) = at_work(CALM).await;
    daemon.kill();
    swap_token(&lab);
    // With the record.
    let mut daemon = lab.serve().await;
    refused(&mut daemon, &["OTHER_TOKEN"]).await;
    still_shows(&daemon, &before).await;
    daemon.kill();
    // Without it: the wrong token is no reason to give its keys up.
    lose_store(&lab);
    let said = fails(&lab.run(&["recover", "--write"]));
    assert!(said.contains("holds none of the private keys"), "{said}");
    assert!(said.contains("--keys-are-lost"), "{said}");
    swap_back(&lab);
    recover(&lab, &["--write"]);
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert_eq!(shown(daemon.jwks().await), before);
}

/// Found by use: what was on a device that the configuration no longer names
/// was said to sign on.
#[tokio::test]
async fn a_key_on_a_device_that_left_the_configuration_is_named() {
    let (lab, mut daemon, before) = at_work(CALM).await;
    let signing = active(&lab);
    let copy = copy_store(&lab);
    lab.ok(&["keys", "hold", &before[0]]);
    daemon.kill();
    lab.amend("[device.softhsm]", "[device.other]");
    lab.amend("device = \"softhsm\"", "device = \"other\"");
    let good = lab.run(&["recover", "--keys-are-lost"]);
    let good = fails(&good);
    assert!(good.contains("is on the device \"softhsm\""), "{good}");
    assert!(good.contains("put [device.NAME] back"), "{good}");

    put_store(&lab, &copy);
    let told = recover(&lab, &[]);
    let not_asked = told["not_asked"].as_array().expect("keys");
    for kid in &before {
        let key = not_asked.iter().find(|key| key["kid"] == kid.as_str());
        assert_eq!(key.expect("it is named")["device"], "softhsm");
    }
    let said = lab.ok(&["recover"]);
    let named = format!("not asked: the private half of {signing} is on the device softhsm");
    assert!(said.contains(&named), "{said}");
    assert!(!said.contains("signs on"), "{said}");
    assert!(said.contains("ES256: nothing signs"), "{said}");

    lab.amend("[device.other]", "[device.softhsm]");
    lab.amend("device = \"other\"", "device = \"softhsm\"");
    let told = recover(&lab, &[]);
    assert_eq!(told["not_asked"], serde_json::json!([]));
    assert!(lab.ok(&["recover"]).contains("signs on"));
}

#[tokio::test]
async fn lost_keys_stay_until_their_tokens_are_dead_and_a_new_one_waits() {
    let (lab, mut daemon, before) = at_work(QUICK).await;
    let last = active(&lab);
    daemon.kill();
    swap_token(&lab);
    lose_store(&lab);
    let told = recover(&lab, &["--write", "--keys-are-lost"]);
    for kid in &before {
        assert_ne!(follows(&told, kid), "active");
    }
    assert_eq!(follows(&told, &last), "retiring");
    let mut daemon = lab.serve().await;
    still_shows(&daemon, std::slice::from_ref(&last)).await;
    refused(&mut daemon, &["NO_ACTIVE_KEY"]).await;
    // The new one was seen, and waited for, before it signed.
    signs(&mut daemon).await;
    // Readers switch by themselves, and the record follows.
    wait_until(async || lab.keys().iter().any(|key| key["phase"] == "active")).await;
    let now = active(&lab);
    assert!(!before.contains(&now), "{now} was lost");
    let seen = lab
        .keys()
        .into_iter()
        .find(|key| key["kid"] == now.as_str());
    let seen = seen.expect("it is listed");
    assert!(
        seen["observed"].is_string() && seen["forced"] != true,
        "{seen}"
    );
}

/// One command, though the record is good: what was signed verifies on, and a
/// new key is made in the new token, which no verifier is surprised by.
#[tokio::test]
async fn a_lost_token_is_given_up_with_a_good_record() {
    let (lab, mut daemon, before) = at_work(QUICK).await;
    daemon.kill();
    // Nothing is lost yet, whatever the operator says.
    let said = fails(&lab.run(&["recover", "--write", "--keys-are-lost"]));
    assert!(said.contains("is not lost"), "{said}");
    swap_token(&lab);
    let last = shown_on_disk(&lab);
    let said = fails(&lab.run(&["recover", "--write"]));
    assert!(said.contains("--keys-are-lost"), "{said}");
    let (copy, log) = (copy_store(&lab), key_log(&lab));
    let told = recover(&lab, &["--keys-are-lost"]);
    assert_eq!(told["written"], false);
    assert_eq!((copy_store(&lab), key_log(&lab)), (copy, log));
    let told = recover(&lab, &["--write", "--keys-are-lost", "--note", "INC-7"]);
    for kid in &last {
        assert_eq!(follows(&told, kid), "retiring");
    }
    assert!(key_log(&lab).contains("INC-7"));
    let again = fails(&lab.run(&["recover", "--write", "--keys-are-lost"]));
    assert!(again.contains("there is nothing to recover"), "{again}");

    let mut daemon = lab.serve().await;
    still_shows(&daemon, &last).await;
    refused(&mut daemon, &["NO_ACTIVE_KEY"]).await;
    // Nobody saw the halves go, and the day on which they were given up is known.
    for kid in &last {
        let shown = lab.ok(&["keys", "show", kid, "--json"]);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(shown["private_half"], "given-up", "{shown}");
        assert_eq!(shown["placements"][0]["state"], "given-up", "{shown}");
        assert!(shown["private_given_up"].is_string(), "{shown}");
        assert!(shown["private_destroyed"].is_null(), "{shown}");
        let shown = lab.ok(&["keys", "show", kid]);
        assert!(shown.contains("private half given up  20"), "{shown}");
    }
    let listed = lab.ok(&["keys", "list"]);
    assert!(listed.contains("private half given up 20"), "{listed}");
    signs(&mut daemon).await;
    let now = active(&lab);
    assert!(!before.contains(&now) && !last.contains(&now), "{now}");
    let keys = lab.keys();
    let key = keys.iter().find(|key| key["kid"] == now.as_str());
    let key = key.expect("it is listed");
    assert!(
        key["observed"].is_string() && key["forced"] != true,
        "{key}"
    );
    assert!(!lab.objects_in_token().is_empty(), "in the new token");
}

/// Where the standby is there it takes over by itself, and sooner.
#[tokio::test]
async fn a_good_record_is_not_made_again_while_one_key_is_there() {
    // Verifiers may wait for a day; replicas hear of a switch at once.
    let soon = "skew = \"200ms\"\nadoption = \"200ms\"\nsigning_deadline = \"1s\"\n";
    let (lab, mut daemon, before) = at_work(&format!("{CALM}{soon}")).await;
    let lost = active(&lab);
    let key = lab
        .keys()
        .into_iter()
        .find(|key| key["kid"] == lost.as_str());
    let id = key.expect("it is listed")["placements"][0]["handle_id"].clone();
    daemon.kill();
    delete_private(&lab, id.as_str().expect("an id"));
    let said = fails(&lab.run(&["recover", "--write", "--keys-are-lost"]));
    assert!(said.contains("is not lost"), "{said}");
    assert!(!said.contains(&lost), "{said}");

    // Then the whole token goes; and somebody pays for not waiting.
    swap_token(&lab);
    let early = ["--write", "--keys-are-lost", "--then", "activate"];
    let told = recover(&lab, &early);
    let price = told["signers"].to_string();
    assert!(price.contains("verifiers that do not hold it"), "{told:#}");
    assert!(key_log(&lab).contains("successor-forced"));
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    still_shows(&daemon, &before).await;
}

/// Nothing is called durable that would be lost with the process.
#[tokio::test]
async fn a_store_that_is_removed_under_the_agent_takes_no_order() {
    let (lab, daemon, before) = at_work(CALM).await;
    let kid = active(&lab);
    let (store, away) = (lab.path("state/keys.sqlite"), lab.path("away.sqlite"));
    fs::rename(&store, &away).expect("the store goes");
    let refused = lab.run(&["keys", "hold", &kid]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{refused:?}");
    assert!(said.contains("was removed while the agent"), "{said}");
    // Without an order too, somebody is told.
    lab.logged("was removed while the agent").await;
    still_shows(&daemon, &before).await;
    fs::rename(&away, &store).expect("it is back");
    wait_until(async || lab.run(&["keys", "hold", &kid]).status.success()).await;
}

fn shown_on_disk(lab: &Lab) -> Vec<String> {
    let last = fs::read(lab.path("state/jwks/main.jwks.json")).expect("the last set");
    super::lab::kids(&last)
}

pub(super) fn delete_private(lab: &Lab, id: &str) {
    let gone = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(super::lab::softhsm_module())
        .args(["--token-label", "lab", "--login", "--pin", PIN])
        .args(["--delete-object", "--type", "privkey", "--id", id])
        .env("SOFTHSM2_CONF", lab.path("softhsm2.conf"))
        .output()
        .expect("pkcs11-tool");
    assert!(gone.status.success(), "{gone:?}");
}

#[tokio::test]
async fn a_key_is_revoked_with_the_wrong_token_in_place() {
    let (lab, mut daemon, before) = at_work(CALM).await;
    let kid = active(&lab);
    daemon.kill();
    swap_token(&lab);
    let mut daemon = lab.serve().await;
    refused(&mut daemon, &["OTHER_TOKEN"]).await;
    revoke(&mut daemon, &kid).await;
    is_out(&daemon, &kid).await;
    let other = before.iter().find(|other| **other != kid).expect("two");
    still_shows(&daemon, std::slice::from_ref(other)).await;
    daemon.kill();
    swap_back(&lab);
    lose_store(&lab);
    let told = recover(&lab, &["--write"]);
    assert_eq!(follows(&told, &kid), "revoked");
    let daemon = lab.serve().await;
    is_out(&daemon, &kid).await;
}

/// Without the log nobody can tell who signed: what verifiers hold stays, and
/// who signs next waits its time.
#[tokio::test]
async fn without_the_log_the_last_set_and_the_token_suffice() {
    let (lab, mut daemon, before) = at_work(QUICK).await;
    daemon.kill();
    lose_store(&lab);
    fs::remove_dir_all(lab.path("state/audit")).expect("the log goes");
    let told = recover(&lab, &["--write"]);
    for kid in &before {
        assert_eq!(follows(&told, kid), "published");
    }
    let mut daemon = lab.serve().await;
    still_shows(&daemon, &before).await;
    signs(&mut daemon).await;
}

/// The set keeps it, somebody is told, and the standby takes over.
#[tokio::test]
async fn a_key_that_the_device_lost_gives_way_to_the_standby() {
    let calm = QUICK.replace(r#"rotate_every = "4s""#, r#"rotate_every = "1h""#);
    let (lab, mut daemon, before) = at_work(&calm).await;
    let lost = active(&lab);
    let key = lab
        .keys()
        .into_iter()
        .find(|key| key["kid"] == lost.as_str());
    let id = key.expect("it is listed")["placements"][0]["handle_id"].clone();
    daemon.kill();
    delete_private(&lab, id.as_str().expect("an id"));
    let mut daemon = lab.serve().await;
    refused(&mut daemon, &["KEY_MISSING", "KEY_UNUSABLE"]).await;
    still_shows(&daemon, &before).await;
    lab.logged("has lost the key that signs").await;
    signs(&mut daemon).await;
    assert!(before.contains(&active(&lab)), "the standby of before");
    assert_ne!(active(&lab), lost);
    still_shows(&daemon, &before).await;
}
