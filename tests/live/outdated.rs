//! A state folder that is put back as a whole: record, log, tombstones and the
//! last set are of one age, and only the token and the origins know more.

use std::fs;
use std::process::Command;

use super::backup::{fails, key_log};
use super::bad_days::{active, refused, shown, signs};
use super::kills::revoke;
use super::lab::{CALM, Daemon, Lab, QUICK, fetch, sign, wait_until};
use super::observed::{self, Cdn, Mode};
use super::recover::{at_work, delete_private, follows, recover, still_shows};

/// Verifiers wait for seconds, and nothing rotates by itself.
fn unhurried() -> String {
    QUICK.replace(r#"rotate_every = "4s""#, r#"rotate_every = "1h""#)
}

fn copy(lab: &Lab, from: &str, to: &str) {
    let mut cp = Command::new("cp");
    let done = cp.arg("-a").args([lab.path(from), lab.path(to)]).status();
    assert!(done.expect("cp").success());
}

/// As a file backup, or a snapshot of the machine, does it.
fn put_back(lab: &Lab) {
    fs::remove_dir_all(lab.path("state")).expect("the folder goes");
    copy(lab, "old", "state");
}

/// The id under which the token holds a key.
fn id_of(lab: &Lab, kid: &str) -> String {
    let keys = lab.keys();
    let key = keys.iter().find(|key| key["kid"] == kid);
    let id = key.expect("it is listed")["placements"][0]["handle_id"].clone();
    id.as_str().expect("an id").to_owned()
}

fn doctor(lab: &Lab) -> String {
    let output = lab.run(&["doctor"]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Signs nothing, says why wherever an operator looks, serves the set that it
/// has, and neither makes nor destroys a key.
async fn is_refused(lab: &Lab, daemon: &mut Daemon) -> String {
    let before = lab.objects_in_token();
    let said = refused(daemon, &["RECORD_OUTDATED"]).await;
    assert!(said.contains("sealkeeper recover"), "{said}");
    assert!(!shown(daemon.jwks().await).is_empty(), "a set is served");
    let told = doctor(lab);
    assert!(told.contains("is older than what others know"), "{told}");
    let listed = lab.ok(&["keys", "list"]);
    assert!(listed.contains("nothing is signed: the record"), "{listed}");
    assert!(lab.log().contains("RECORD_OUTDATED"), "{}", lab.log());
    let ready = fetch(&daemon.origin(), "/readyz/signing").await;
    assert_eq!(ready.expect("an answer").0, 503);
    let rotate = fails(&lab.run(&["keys", "rotate"]));
    assert!(rotate.contains("older than what others know"), "{rotate}");
    assert_eq!(lab.objects_in_token(), before);
    said
}

// The origin answers while commands run.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_folder_brings_no_revoked_key_back() {
    let cdn = Cdn::start().await;
    let lab = observed::lab(&unhurried(), &[&cdn]);
    let mut daemon = lab.serve().await;
    cdn.follows(&daemon);
    signs(&mut daemon).await;
    wait_until(async || key_log(&lab).contains("observed-everywhere")).await;
    let bad = active(&lab);
    let id = id_of(&lab, &bad);
    daemon.kill();
    copy(&lab, "state", "old");

    let mut daemon = lab.serve().await;
    cdn.follows(&daemon);
    revoke(&mut daemon, &bad).await;
    wait_until(async || {
        let objects = lab.objects_in_token();
        !objects.contains_key(&id) && objects.len() == 2
    })
    .await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let last = daemon.jwks().await.expect("a set");
    let newest = shown(Some(last.clone()));
    assert!(!newest.contains(&bad), "{newest:?}");
    cdn.is(Mode::Shows(last));
    daemon.kill();
    put_back(&lab);

    let mut daemon = lab.serve().await;
    is_refused(&lab, &mut daemon).await;
    daemon.kill();
    let told = doctor(&lab);
    assert!(told.contains("fail  store main: its record is"), "{told}");
    let told = recover(&lab, &["--write", "--note", "INC-9"]);
    assert!(told["outdated"].is_string(), "{told:#}");
    assert_eq!(follows(&told, &bad), "retired");
    let keys = told["keys"].as_array().expect("keys");
    let gone = keys.iter().find(|key| key["kid"] == bad.as_str());
    assert_eq!(gone.expect("it is told of")["gone"], true);
    for kid in &newest {
        assert_eq!(follows(&told, kid), "published");
    }
    let again = fails(&lab.run(&["recover"]));
    assert!(again.contains("there is nothing to recover"), "{again}");

    let mut daemon = lab.serve().await;
    cdn.follows(&daemon);
    still_shows(&daemon, &newest).await;
    assert!(!shown(daemon.jwks().await).contains(&bad));
    signs(&mut daemon).await;
    wait_until(async || lab.keys().iter().any(|key| key["phase"] == "active")).await;
    assert!(newest.contains(&active(&lab)), "one of those it had");
    assert!(!shown(daemon.jwks().await).contains(&bad));
}

/// No origin is configured: the token alone tells.
#[tokio::test]
async fn an_old_folder_from_before_a_rotation_is_recognised_by_the_token() {
    let (lab, mut daemon, _) = at_work(QUICK).await;
    daemon.kill();
    copy(&lab, "state", "old");
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    let first = active(&lab);
    let id = id_of(&lab, &first);
    wait_until(async || !lab.objects_in_token().contains_key(&id)).await;
    daemon.kill();
    put_back(&lab);

    let mut daemon = lab.serve().await;
    let said = is_refused(&lab, &mut daemon).await;
    assert!(said.contains("--record-is-right"), "{said}");
    daemon.kill();
    let said = lab.ok(&["recover"]);
    assert!(said.contains("the whole state folder looks old"), "{said}");
    assert!(said.contains("is gone from the token"), "{said}");
    recover(&lab, &["--write"]);
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || lab.keys().iter().any(|key| key["phase"] == "active")).await;
    assert_ne!(active(&lab), first);
}

/// The key that signed is still in the token: what the origin shows proves it.
// The origin answers while commands run.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_folder_is_recognised_by_a_key_that_an_origin_shows() {
    let cdn = Cdn::start().await;
    let slow = unhurried().replace(r#"rollback_window = "1s""#, r#"rollback_window = "1h""#);
    let lab = observed::lab(&slow, &[&cdn]);
    let mut daemon = lab.serve().await;
    cdn.follows(&daemon);
    signs(&mut daemon).await;
    wait_until(async || key_log(&lab).contains("observed-everywhere")).await;
    let first = active(&lab);
    daemon.kill();
    copy(&lab, "state", "old");
    let mut daemon = lab.serve().await;
    cdn.follows(&daemon);
    lab.ok(&["keys", "rotate"]);
    wait_until(async || shown(daemon.jwks().await).len() == 3).await;
    let last = daemon.jwks().await.expect("a set");
    daemon.kill();
    put_back(&lab);

    // Nobody answers: the record may be right, and the token holds its keys.
    cdn.is(Mode::Dead);
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    cdn.is(Mode::Shows(last.clone()));
    let said = is_refused(&lab, &mut daemon).await;
    assert!(!said.contains("--record-is-right"), "{said}");
    daemon.kill();
    let said = fails(&lab.run(&["recover", "--record-is-right", "--write"]));
    assert!(said.contains("is not right"), "{said}");
    let told = recover(&lab, &["--write"]);
    assert_eq!(follows(&told, &first), "active");
    let mut daemon = lab.serve().await;
    still_shows(&daemon, &super::lab::kids(&last)).await;
    signs(&mut daemon).await;
}

/// Another store shares the token. Its keys hinder nobody; but where a key is
/// lost as well, somebody has to say that the record is right.
#[tokio::test]
async fn a_lost_key_on_a_shared_token_takes_an_operators_word() {
    let (lab, mut daemon, before) = at_work(&unhurried()).await;
    let lost = active(&lab);
    let id = id_of(&lab, &lost);
    daemon.kill();
    let other = Lab::new(CALM, &["ES256"]);
    let conf = |lab: &Lab| lab.path("softhsm2.conf").display().to_string();
    other.amend(&conf(&other), &conf(&lab));
    other.init();

    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    daemon.kill();
    let told = doctor(&lab);
    assert!(
        told.contains("warn  token softhsm: 1 private key"),
        "{told}"
    );
    assert!(!told.contains("fail  store"), "{told}");
    let good = fails(&lab.run(&["recover"]));
    assert!(good.contains("there is nothing to recover"), "{good}");

    delete_private(&lab, &id);
    let mut daemon = lab.serve().await;
    let said = is_refused(&lab, &mut daemon).await;
    assert!(said.contains("--record-is-right"), "{said}");
    daemon.kill();
    let log = key_log(&lab);
    let said = lab.ok(&["recover", "--record-is-right"]);
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(key_log(&lab), log);
    let word = ["--record-is-right", "--write", "--note", "INC-3"];
    let told = recover(&lab, &word);
    assert_eq!(told["not_ours"].as_array().map(Vec::len), Some(1));
    let log = key_log(&lab);
    for word in [r#""record-vouched""#, "INC-3", r#""alone":true"#] {
        assert!(log.contains(word), "{log}");
    }
    let mut daemon = lab.serve().await;
    // The standby takes over, as it does for any key that is lost.
    signs(&mut daemon).await;
    wait_until(async || lab.keys().iter().any(|key| key["phase"] == "active")).await;
    assert!(before.contains(&active(&lab)) && active(&lab) != lost);
    still_shows(&daemon, &before).await;
}

/// The key of another track is where it should be, and could sign at once: not
/// one signature leaves before the token was asked.
#[tokio::test]
async fn on_an_old_folder_no_signature_leaves_before_the_token_was_asked() {
    let lab = Lab::new(&unhurried(), &["ES256", "ES384"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 4).await;
    let bad = active(&lab);
    let id = id_of(&lab, &bad);
    daemon.kill();
    copy(&lab, "state", "old");
    let mut daemon = lab.serve().await;
    revoke(&mut daemon, &bad).await;
    wait_until(async || {
        let objects = lab.objects_in_token();
        !objects.contains_key(&id) && objects.len() == 4
    })
    .await;
    daemon.kill();
    put_back(&lab);

    let mut daemon = lab.spawn(&[]);
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    wait_until(async || match sign(&mut signer, "ES384", "{}").await {
        Ok(_) => panic!("it signs from an old record"),
        Err(status) => status.message().contains("older than what others know"),
    })
    .await;
}
