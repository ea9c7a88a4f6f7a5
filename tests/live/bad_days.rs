//! What goes wrong in a cellar: damaged databases, wrong PINs, tokens that are
//! gone, old backups, senseless requests. Each gets a reason and a hint, and
//! loses nothing.

use std::collections::BTreeMap;
use std::fs;

use sealkeeper::api::v1::SignJwtRequest;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::kills::{revoke, stays_revoked};
use super::lab::{CALM, Daemon, Lab, PATIENCE, PIN, QUICK, folder_holds, kids, sign, wait_until};

/// The reason and the hint of a refusal.
fn reason(status: &Status) -> (String, String) {
    let info = status
        .get_error_details()
        .error_info()
        .cloned()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    let hint = info.metadata.get("hint").cloned().unwrap_or_default();
    (info.reason, hint)
}

/// Tries to sign until it is refused for one of these reasons, and returns
/// what a caller reads: message and hint.
pub(super) async fn refused(daemon: &mut Daemon, reasons: &[&str]) -> String {
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    let mut said = String::new();
    wait_until(async || match sign(&mut signer, "ES256", "{}").await {
        Ok(_) => false,
        // Our own patience with this one call.
        Err(status) if status.get_error_details().error_info().is_none() => false,
        Err(status) => {
            let (reason, hint) = reason(&status);
            assert!(!hint.is_empty(), "{reason} without a hint");
            said = format!("{} {hint}", status.message());
            reasons.contains(&reason.as_str())
        }
    })
    .await;
    said
}

/// Waits until it signs.
pub(crate) async fn signs(daemon: &mut Daemon) -> String {
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    let mut token = None;
    wait_until(async || {
        token = sign(&mut signer, "ES256", "{}").await.ok();
        token.is_some()
    })
    .await;
    token.expect("it signs").token
}

/// An agent that signs, and the set that it shows: with the standby, so that
/// on a calm schedule nothing is added to it.
pub(super) async fn at_work() -> (Lab, Daemon, Vec<String>) {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let shown = shown(daemon.jwks().await);
    (lab, daemon, shown)
}

/// The key that signs.
pub(super) fn active(lab: &Lab) -> String {
    let keys = lab.keys();
    let active = keys.iter().find(|key| key["phase"] == "active");
    let kid = active.and_then(|key| key["kid"].as_str());
    kid.unwrap_or_else(|| panic!("no active key: {keys:#?}"))
        .to_owned()
}

pub(crate) fn shown(jwks: Option<Vec<u8>>) -> Vec<String> {
    kids(&jwks.expect("a set"))
}

#[tokio::test]
async fn a_damaged_database_stops_signing_and_not_the_set() {
    let (lab, mut daemon, before) = at_work().await;
    daemon.kill();
    damage(&lab);

    let mut daemon = lab.serve().await;
    refused(&mut daemon, &["STORE_UNUSABLE", "RECORD_UNUSABLE"]).await;
    assert_eq!(shown(daemon.jwks().await), before);
    let again = lab.run(&["init"]);
    assert!(!again.status.success(), "init over a damaged database");
}

/// Makes nonsense of the database.
pub(crate) fn damage(lab: &Lab) {
    for tail in ["-wal", "-shm"] {
        let _ = fs::remove_file(lab.path(&format!("state/keys.sqlite{tail}")));
    }
    let path = lab.path("state/keys.sqlite");
    let mut bytes = fs::read(&path).expect("the database");
    bytes.fill(0x5a);
    fs::write(&path, bytes).expect("the damage");
}

/// Found by review: with every key revoked and no record, no set was served,
/// and caches went on trusting the keys.
#[tokio::test]
async fn over_a_damaged_database_all_revoked_keys_leave_the_set() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    daemon.kill();
    damage(&lab);
    let mut daemon = lab.serve().await;
    let all = shown(daemon.jwks().await);
    for kid in &all {
        revoke(&mut daemon, kid).await;
    }
    for _ in 0..2 {
        let placeholder = shown(daemon.jwks().await);
        assert_eq!(placeholder.len(), 1);
        assert!(!all.contains(&placeholder[0]), "{placeholder:?}");
        daemon.kill();
        daemon = lab.serve().await;
    }
}

#[tokio::test]
async fn without_a_record_nothing_is_generated() {
    let lab = Lab::new(CALM, &["ES256"]);
    let mut daemon = lab.serve().await;
    let said = refused(&mut daemon, &["NOT_INITIALIZED"]).await;
    assert!(said.contains("init"), "{said}");
    assert_eq!(daemon.jwks().await, None);
    assert_eq!(lab.objects_in_token(), BTreeMap::new());
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let before = shown(daemon.jwks().await);
    daemon.kill();
    fs::write(lab.path("pin"), "11112222").expect("a wrong PIN");
    let marker = lab.path("state/softhsm.pin-tried");
    let mut tried = None;
    for _ in 0..2 {
        let mut daemon = lab.serve().await;
        let said = refused(&mut daemon, &["PIN_BLOCKED"]).await;
        assert!(said.contains("device unlock"), "{said}");
        assert_eq!(shown(daemon.jwks().await), before);
        let at = fs::metadata(&marker).and_then(|m| m.modified());
        let at = at.expect("the marker stands");
        // A second try would have written it anew.
        assert_eq!(*tried.get_or_insert(at), at);
        daemon.kill();
    }
    fs::write(lab.path("pin"), PIN).expect("the right PIN");
    lab.ok(&["device", "unlock", "softhsm"]);
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert!(!marker.exists(), "the marker stands after a good login");
}

#[tokio::test]
async fn a_token_that_is_gone_comes_back() {
    let (lab, mut daemon, before) = at_work().await;
    fs::rename(lab.path("tokens"), lab.path("away")).expect("the token goes");
    refused(&mut daemon, &["DEVICE_UNAVAILABLE", "KEY_MISSING"]).await;
    let during = shown(daemon.jwks().await);
    assert!(before.iter().all(|kid| during.contains(kid)), "{during:?}");
    fs::rename(lab.path("away"), lab.path("tokens")).expect("the token is back");
    signs(&mut daemon).await;
    let after = shown(daemon.jwks().await);
    assert!(before.iter().all(|kid| after.contains(kid)), "{after:?}");
}

#[tokio::test]
async fn a_revocation_outlives_a_kill() {
    let lab = Lab::new(QUICK, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    // Each in turn: the set must not be empty when all of them are gone.
    let all = shown(daemon.jwks().await);
    for kid in &all {
        revoke(&mut daemon, kid).await;
        let shown = shown(daemon.jwks().await);
        assert!(!shown.is_empty() && !shown.contains(kid), "{shown:?}");
    }
    daemon.kill();
    for _ in 0..2 {
        let mut daemon = lab.serve().await;
        for kid in &all {
            stays_revoked(&lab, &mut daemon, kid).await;
        }
        daemon.kill();
    }
}

#[tokio::test]
async fn an_old_copy_of_the_database_is_refused() {
    let lab = Lab::new(QUICK, &["ES256"]);
    lab.init();
    let copy: BTreeMap<String, Vec<u8>> = fs::read_dir(lab.path("state"))
        .expect("the state directory")
        .map(|entry| entry.expect("an entry"))
        .filter_map(|entry| {
            let name = entry.file_name().into_string().expect("a name");
            let bytes = fs::read(entry.path()).ok();
            name.starts_with("keys.sqlite").then_some(name).zip(bytes)
        })
        .collect();
    let mut daemon = lab.serve().await;
    let first = shown(daemon.jwks().await);
    wait_until(async || shown(daemon.jwks().await) != first).await;
    daemon.kill();
    for tail in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(lab.path(&format!("state/keys.sqlite{tail}")));
    }
    for (name, bytes) in copy {
        fs::write(lab.path("state").join(name), bytes).expect("the old copy");
    }
    let objects = lab.objects_in_token();
    let mut daemon = lab.serve().await;
    let said = refused(&mut daemon, &["RECORD_UNUSABLE"]).await;
    assert!(said.contains("old copy"), "{said}");
    assert!(said.contains("`sealkeeper restore --from FILE`"), "{said}");
    assert!(said.contains("`sealkeeper recover`"), "{said}");
    assert!(!shown(daemon.jwks().await).is_empty());
    assert_eq!(lab.objects_in_token(), objects, "keys moved by an old copy");
}

/// Found by review: it said "run `sealkeeper init`", which says "put the store
/// back".
#[tokio::test]
async fn a_store_that_is_gone_is_not_one_that_never_was() {
    let (lab, mut daemon, before) = at_work().await;
    daemon.kill();
    for tail in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(lab.path(&format!("state/keys.sqlite{tail}")));
    }
    let what_to_do = |said: &str| {
        assert!(said.contains("sealkeeper restore --from FILE"), "{said}");
        assert!(said.contains("sealkeeper recover`"), "{said}");
        assert!(!said.contains("run `sealkeeper init`"), "{said}");
    };
    let doctor = || String::from_utf8(lab.run(&["doctor"]).stdout).expect("text");
    // Gone; then, once the agent has started, empty.
    what_to_do(&doctor());
    let mut daemon = lab.serve().await;
    what_to_do(&refused(&mut daemon, &["RECORD_LOST"]).await);
    assert_eq!(shown(daemon.jwks().await), before);
    what_to_do(&doctor());
    daemon.kill();
    let init = lab.run(&["init"]);
    assert!(!init.status.success());
    what_to_do(&String::from_utf8_lossy(&init.stderr));
    assert_eq!(lab.objects_in_token().len(), 2, "nothing was generated");
}

#[tokio::test]
async fn senseless_requests_get_a_reason() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    let large = format!(r#"{{"sub":"{}"}}"#, "a".repeat(64 * 1024));
    let table: [(&str, &str, &str, &str); 8] = [
        ("main", "ES256", r#"{"sub":"#, "MALFORMED_CLAIMS"),
        ("main", "ES256", r#"{"a":1,"a":2}"#, "DUPLICATE_MEMBER"),
        (
            "main",
            "ES256",
            r#"{"a":{"b":1,"b":2}}"#,
            "DUPLICATE_MEMBER",
        ),
        ("main", "ES256", r#"["a"]"#, "MALFORMED_CLAIMS"),
        ("main", "ES256", &large, "TOO_LARGE"),
        ("other", "ES256", "{}", "UNKNOWN_KEY_SET"),
        ("main", "RS256", "{}", "UNKNOWN_ALGORITHM"),
        ("main", "ES256", r#"{"exp":99999999999}"#, "EXP_TOO_FAR"),
    ];
    for (key_set, alg, claims, expected) in table {
        let request = SignJwtRequest {
            key_set: key_set.to_owned(),
            claims: claims.as_bytes().to_vec(),
            alg: Some(alg.to_owned()),
            typ: None,
        };
        let status = signer.sign_jwt(request).await.unwrap_err();
        let (reason, hint) = reason(&status);
        assert_eq!(reason, expected, "{status:?}");
        assert!(!hint.is_empty(), "{reason} without a hint");
        let retried = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
        assert!(!retried, "{reason} is tried again for ever");
        if reason == "UNKNOWN_ALGORITHM" {
            assert!(hint.contains("has ES256"), "{hint}");
        }
        sign(&mut signer, "ES256", "{}").await.expect("it signs on");
    }
}

#[tokio::test]
async fn secrets_are_nowhere_on_disk() {
    const NEEDLE: &str = "needle-7c1e5a";
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    let mut needles = vec![PIN.to_owned(), NEEDLE.to_owned()];
    for claims in [
        format!(r#"{{"sub":"{NEEDLE}"}}"#),
        format!(r#"{{"sub":"{NEEDLE}""#),
        format!(r#"{{"{NEEDLE}":1,"{NEEDLE}":2}}"#),
        format!(r#"{{"exp":"{NEEDLE}"}}"#),
        format!(r#"{{"iss":"{NEEDLE}"}}"#),
    ] {
        if let Ok(signed) = sign(&mut signer, "ES256", &claims).await {
            needles.extend(signed.token.split('.').skip(1).map(str::to_owned));
        }
    }
    assert_eq!(needles.len(), 4, "one token was signed");
    daemon.kill();
    for needle in needles {
        let found = folder_holds(&lab.path("state"), &needle);
        assert!(found.is_empty(), "{needle} is in {found:?}");
        assert!(!lab.log().contains(&needle), "{needle} is in the log");
    }
    // The search finds what is there.
    assert!(!folder_holds(&lab.path("."), PIN).is_empty());
}

/// Found by review: a writer that had lost its record refused the order, and
/// the key signed on.
#[tokio::test]
async fn a_key_is_revoked_though_the_store_fails() {
    let (lab, mut daemon, _) = at_work().await;
    let kid = &active(&lab);
    let database = rusqlite::Connection::open(lab.path("state/keys.sqlite")).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    database
        .execute("ALTER TABLE record RENAME TO gone", [])
        .unwrap();
    // The writer learns of it, and then cannot read either.
    assert!(!lab.run(&["keys", "rotate"]).status.success());
    assert!(!lab.run(&["keys", "rotate"]).status.success());

    let told = lab.ok(&[
        "keys",
        "revoke",
        kid,
        "--reason",
        "compromised",
        "--then",
        "wait",
    ]);
    assert!(told.contains("not in the store"), "{told}");
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    assert!(sign(&mut signer, "ES256", "{}").await.is_err());
    assert!(!shown(daemon.jwks().await).contains(kid));

    database
        .execute("ALTER TABLE gone RENAME TO record", [])
        .unwrap();
    // One look at a time: between two of them the writer loads again.
    wait_until(async || {
        let listed = lab.run(&["keys", "list", "--json"]);
        let listing = serde_json::from_slice(&listed.stdout);
        let listing: serde_json::Value = listing.unwrap_or_default();
        let keys = listing["key_sets"][0]["keys"].as_array();
        keys.is_some_and(|keys| {
            let revoked =
                |key: &serde_json::Value| key["kid"] == kid.as_str() && key["phase"] == "revoked";
            keys.iter().any(revoked)
        })
    })
    .await;
}

/// Found by review: one stray file in their folder voided every tombstone.
#[tokio::test]
async fn an_unreadable_tombstone_stops_signing() {
    let (lab, mut daemon, before) = at_work().await;
    daemon.kill();
    fs::write(lab.path("state/tombstones").join("stray"), "").unwrap();
    let mut daemon = lab.serve().await;
    refused(&mut daemon, &["TOMBSTONE_UNREADABLE"]).await;
    assert_eq!(shown(daemon.jwks().await), before);
}
