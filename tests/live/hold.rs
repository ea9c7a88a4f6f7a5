//! `keys hold`, and a destruction that has begun.

use std::fs;

use serde_json::Value;

use super::bad_days::{active, shown, signs};
use super::lab::{Lab, QUICK, wait_until};

fn key(lab: &Lab, kid: &str) -> Value {
    let keys = lab.keys().into_iter();
    let mut found = keys.filter(|key| key["kid"] == kid);
    found.next().expect("it is listed")
}

fn half(lab: &Lab, kid: &str) -> String {
    let state = &key(lab, kid)["placements"][0]["state"];
    state.as_str().expect("a state").to_owned()
}

/// Found by review: a destruction that waited for its device was carried out
/// under a hold.
#[tokio::test]
async fn a_hold_stops_what_a_device_that_is_away_was_to_destroy() {
    let schedule = QUICK.replace("rotate_every = \"4s\"", "rotate_every = \"10m\"");
    let lab = Lab::new(&schedule, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    let old = active(&lab);
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    lab.ok(&["keys", "rotate"]);
    wait_until(async || key(&lab, &old)["phase"] == "retiring").await;
    wait_until(async || {
        let keys = lab.keys();
        keys.iter().any(|key| key["phase"] == "published")
    })
    .await;
    let keys = lab.keys();
    let standby = keys.iter().find(|key| key["phase"] == "published");
    let standby = standby.and_then(|key| key["kid"].as_str()).expect("a kid");
    // Not before it: what is destroyed already cannot be held.
    fs::rename(lab.path("tokens"), lab.path("away")).expect("the token goes");
    lab.ok(&["keys", "revoke", standby, "--reason", "compromised"]);
    for kid in [&old, standby] {
        wait_until(async || half(&lab, kid) == "destroying").await;
        let args = ["keys", "hold", kid, "--note", "forensics", "--json"];
        let told: Value = serde_json::from_str(&lab.ok(&args)).expect("JSON");
        let pending = told["pending"].to_string();
        assert!(pending.contains("had begun"), "{told}");
    }
    let list = lab.ok(&["keys", "list"]);
    assert!(list.contains("still holds the private half"), "{list}");

    fs::rename(lab.path("away"), lab.path("tokens")).expect("the token is back");
    for kid in [&old, standby] {
        wait_until(async || half(&lab, kid) == "present").await;
    }
    signs(&mut daemon).await;
    let in_token = |kid: &str| {
        let id = key(&lab, kid)["placements"][0]["handle_id"].clone();
        let id = id.as_str().expect("an id");
        lab.objects_in_token().contains_key(id)
    };
    assert!(in_token(&old) && in_token(standby));
    // Whoever starts next keeps them as well.
    daemon.kill();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    for kid in [&old, standby] {
        assert_eq!(half(&lab, kid), "present");
    }
    lab.ok(&["keys", "release", &old]);
    wait_until(async || half(&lab, &old) == "destroyed").await;
    assert_eq!(half(&lab, standby), "present");
    assert!(!in_token(&old) && in_token(standby));
}
