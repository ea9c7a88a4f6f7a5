//! `keys adopt`: a key that another tool made in the token signs on, with its
//! `kid`.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

use sealkeeper::jose::base64url;
use serde_json::Value;

use super::backup::{fails, key_log};
use super::bad_days::{active, shown, signs};
use super::lab::{CALM, Lab, PIN, QUICK, softhsm_module, wait_until};

/// As [`QUICK`], rotated when somebody asks.
fn schedule() -> String {
    QUICK.replace("rotate_every = \"4s\"", "rotate_every = \"10m\"")
}

/// The other tool. Not while an agent, or anything else, uses the token.
fn other_tool(lab: &Lab, args: &[&str]) {
    let done = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(softhsm_module())
        .args(["--token-label", "lab", "--login", "--pin", PIN])
        .args(args)
        .env("SOFTHSM2_CONF", lab.path("softhsm2.conf"))
        .output()
        .expect("pkcs11-tool");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{args:?}: {said}");
}

pub(super) fn makes(lab: &Lab, label: &str, id: &str, more: &[&str]) {
    let args = ["--keypairgen", "--key-type", "EC:prime256v1"];
    let named = ["--label", label, "--id", id, "--usage-sign"];
    other_tool(lab, &[&args[..], &named, more].concat());
}

/// What the old system serves: the key with this id, by this `kid`.
fn old_set(lab: &Lab, id: &str, kid: &str) -> String {
    let file = lab.path("pub.der").display().to_string();
    let args = ["--read-object", "--type", "pubkey", "--id", id];
    other_tool(lab, &[&args[..], &["--output-file", &file]].concat());
    let der = fs::read(file).expect("the public key");
    // SubjectPublicKeyInfo ends with the point: 04, x, y.
    let (x, y) = der[der.len() - 64..].split_at(32);
    let (x, y) = (base64url::encode(x), base64url::encode(y));
    let set = serde_json::json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": x, "y": y },
    ]});
    let path = lab.path("old.json");
    fs::write(&path, set.to_string()).expect("the old set");
    path.display().to_string()
}

fn adopt(lab: &Lab, which: &[&str], kid: &str, alg: &str) -> Command {
    let mut command = lab.command(&["keys", "adopt", "--device", "softhsm"]);
    command.args(which).args(["--kid", kid, "--alg", alg]);
    command.args(["--note", "moved in"]);
    command
}

fn adopts(lab: &Lab, which: &[&str], kid: &str, alg: &str) -> Output {
    adopt(lab, which, kid, alg)
        .output()
        .expect("the program under test")
}

fn key(lab: &Lab, kid: &str) -> Value {
    let keys = lab.keys();
    let found = keys.iter().find(|key| key["kid"] == kid);
    found.cloned().unwrap_or_default()
}

/// Objects by id, but those that were there before.
fn more(lab: &Lab, before: &BTreeMap<String, usize>) -> Vec<String> {
    let ids = lab.objects_in_token().into_keys();
    ids.filter(|id| !before.contains_key(id)).collect()
}

#[tokio::test]
async fn it_signs_with_its_kid_and_goes_when_its_time_is_over() {
    let lab = Lab::new(&schedule(), &["ES256"]);
    lab.init();
    makes(&lab, "legacy", "01", &["--sensitive"]);
    // Of the same label; not ours to touch.
    makes(&lab, "legacy", "02", &["--sensitive"]);
    let old = old_set(&lab, "01", "legacy-1");
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let first = active(&lab);
    let in_use = fails(&adopts(&lab, &["--id", "01"], "legacy-1", "ES256"));
    assert!(in_use.contains("an agent is running"), "{in_use}");
    daemon.ask_to_stop();
    daemon.end().await;

    let before = lab.objects_in_token();
    let two = fails(&adopts(&lab, &["--label", "legacy"], "legacy-1", "ES256"));
    assert!(
        two.contains(r#"one private key with label "legacy", got 2"#),
        "{two}"
    );
    let which = ["--label", "legacy", "--id", "01", "--json"];
    let told = adopts(&lab, &which, "legacy-1", "ES256");
    assert!(told.status.success(), "{told:?}");
    let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(told["former_id"], "01");
    let id = told["id"].as_str().expect("its id").to_owned();
    assert_eq!(more(&lab, &before), std::slice::from_ref(&id));
    let log = key_log(&lab);
    assert!(
        log.contains(r#""adopted""#) && log.contains("moved in"),
        "{log}"
    );

    // Published, and not active before it was seen everywhere.
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert!(shown(daemon.jwks().await).contains(&"legacy-1".to_owned()));
    assert_eq!(active(&lab), first);
    lab.ok(&["keys", "rotate"]);
    wait_until(async || key(&lab, "legacy-1")["phase"] == "active").await;
    let token = lab.ok(&["sign", r#"{"sub":"a"}"#]);
    assert!(
        lab.ok(&["verify", "--jwks", &old, token.trim()])
            .contains("good, by")
    );

    // And away again.
    lab.ok(&["keys", "rotate"]);
    wait_until(async || key(&lab, "legacy-1")["private_half"] == "destroyed").await;
    let left = lab.objects_in_token();
    assert!(
        !left.contains_key(&id) && left.contains_key("02"),
        "{left:?}"
    );
    assert_ne!(active(&lab), "legacy-1");
    let next = active(&lab);
    lab.ok(&["keys", "revoke", "legacy-1", "--reason", "superseded"]);
    daemon.ask_to_stop();
    daemon.end().await;
    let back = fails(&adopts(&lab, &["--id", "02"], "legacy-1", "ES256"));
    assert!(back.contains("does not come back"), "{back}");
    let taken = fails(&adopts(&lab, &["--id", "02"], &next, "ES256"));
    assert!(taken.contains("already, which is active"), "{taken}");
}

#[test]
fn what_must_not_be_published_is_refused_and_left_as_it_was() {
    let lab = Lab::new(CALM, &["ES256", "RS256"]);
    lab.init();
    makes(&lab, "open", "0a", &["--extractable"]);
    makes(&lab, "fine", "0b", &["--sensitive"]);
    let before = lab.objects_in_token();
    let open = fails(&adopts(&lab, &["--label", "open"], "open", "ES256"));
    assert!(open.contains("can leave"), "{open}");
    let wrong = fails(&adopts(&lab, &["--label", "fine"], "fine", "RS256"));
    assert!(
        wrong.contains("expected a key for RS256, got P-256"),
        "{wrong}"
    );
    let track = fails(&adopts(&lab, &["--label", "fine"], "fine", "EdDSA"));
    assert!(track.contains("expected a key for EdDSA"), "{track}");
    let none = fails(&adopts(&lab, &["--label", "fin"], "fine", "ES256"));
    assert!(none.contains("got 0"), "{none}");
    assert!(!key_log(&lab).contains("adopt"));
    assert_eq!(lab.objects_in_token(), before);
    let usage = adopts(&lab, &["--id", "xyz"], "fine", "ES256");
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
}

/// Whatever stands in the record is done when the agent starts.
#[tokio::test]
async fn a_crash_leaves_it_to_the_agent() {
    for point in [
        "after:store-record:1",
        "before:generate:1",
        "after:generate:1",
        "before:store-record:2",
    ] {
        let lab = Lab::new(CALM, &["ES256"]);
        lab.init();
        makes(&lab, "legacy", "01", &["--sensitive"]);
        let mut dies = adopt(&lab, &["--label", "legacy"], "legacy-1", "ES256");
        let died = dies.env("SEALKEEPER_FAILPOINT", point).output();
        assert_eq!(died.expect("the program").status.code(), None, "{point}");
        let mut daemon = lab.serve().await;
        signs(&mut daemon).await;
        wait_until(async || shown(daemon.jwks().await).contains(&"legacy-1".to_owned())).await;
        daemon.ask_to_stop();
        daemon.end().await;
        let left = lab.objects_in_token();
        assert!(!left.contains_key("01"), "{point}: {left:?}");
    }
}
