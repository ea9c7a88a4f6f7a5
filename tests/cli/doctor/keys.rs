//! A token without the keys that should be in it.

use std::process::Command;

use super::{Said, begun, doctor, refused};
use crate::live::lab::{Lab, PIN, wait_for};

/// Takes an object out of the token.
fn delete(lab: &Lab, kind: &str, id: &str) {
    let deleted = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(crate::live::lab::softhsm_module())
        .args(["--token-label", "lab", "--login", "--pin", PIN])
        .args(["--delete-object", "--type", kind, "--id", id])
        .env("SOFTHSM2_CONF", lab.path("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{}", Said::of(&deleted).text);
}

/// Found by an operator: with the agent running, all was well.
#[tokio::test]
async fn breakage_3_a_key_that_a_running_agent_misses() {
    let lab = begun();
    for id in lab.objects_in_token().keys() {
        delete(&lab, "privkey", id);
    }
    let _daemon = lab.serve().await;
    wait_for(|| lab.run(&["keys", "list"]).status.success()).await;
    // The next one, which is named in the hint, is made meanwhile.
    wait_for(|| lab.keys().iter().any(|key| key["phase"] == "published")).await;
    let (kid, id) = active(&lab);
    refused(&lab, "the token holds no key")
        .await
        .for_good()
        .says(&[
            "hint: trying again does not mend it",
            "`sealkeeper doctor`",
            &format!("holds no key {id}; its kid is {kid} (KEY_MISSING)"),
        ]);
    doctor(&lab).failed().says(&[
        &format!("fail  key set main: does not sign: the token did not have the key {kid} (object id {id})"),
        "KEY_MISSING",
        "hint: is this the right token: \"lab\", serial ",
        "restore the token's backup",
        &format!("`sealkeeper keys revoke {kid}` ends it for ever"),
        "revoke asks for --then: `wait`",
        "(so says the record: while the agent has the token, nobody else looks into it",
    ]);
}

/// The kid of the active key, and its object id.
fn active(lab: &Lab) -> (String, String) {
    let listed = lab.ok(&["keys", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let keys = listed["key_sets"][0]["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["phase"] == "active").unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    (text(&key["kid"]), text(&key["placements"][0]["handle_id"]))
}

/// The token is there, and what was in it is not.
#[test]
fn breakage_3_a_token_that_lost_its_keys() {
    let lab = begun();
    let delete = |kind: &str, id: &str| delete(&lab, kind, id);
    let ids = lab.objects_in_token();
    for id in ids.keys() {
        delete("privkey", id);
    }
    doctor(&lab).failed().says(&[
        "fail  keys main: the active key",
        "does not hold its private half",
        "restore the token's backup",
    ]);
    for id in ids.keys() {
        delete("pubkey", id);
    }
    doctor(&lab).failed().says(&[
        "ok    device softhsm: opens",
        "fail  keys main: the active key",
        "the token does not hold its private half",
        "(object id ",
        "hint: is this the right token: \"lab\", serial ",
        "`sealkeeper recover --keys-are-lost`",
    ]);
}
