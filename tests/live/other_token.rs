//! Another token of the same label stands in the slot: it lacks every key, and
//! that proves nothing of the one that holds them.

use super::bad_days::{refused, shown};
use super::kills::revoke;
use super::lab::{CALM, Lab, wait_until};
use super::recover::{at_work, still_shows, swap_back, swap_token};

/// The id of a key in devices, the state of its private half there, and the
/// serial of the token that holds it.
fn placement(lab: &Lab, kid: &str) -> [String; 3] {
    let keys = lab.keys();
    let key = keys.iter().find(|key| key["kid"] == kid);
    let place = &key.expect("a key of that kid")["placements"][0];
    ["handle_id", "state", "token_serial"].map(|of| {
        let said = place[of].as_str();
        said.unwrap_or_else(|| panic!("no {of} in {place}"))
            .to_owned()
    })
}

/// What `keys list --json` says of a key.
fn fact(lab: &Lab, kid: &str, of: &str) -> serde_json::Value {
    let keys = lab.keys();
    let key = keys.iter().find(|key| key["kid"] == kid);
    key.expect("a key of that kid")[of].clone()
}

#[tokio::test]
async fn what_another_token_lacks_is_neither_destroyed_nor_lost_and_it_gets_no_key() {
    let (lab, mut daemon, before) = at_work(CALM).await;
    let kid = super::bad_days::active(&lab);
    let [id, state, serial] = placement(&lab, &kid);
    assert_eq!(state, "present");
    daemon.kill();
    swap_token(&lab);

    let mut daemon = lab.serve().await;
    let said = refused(&mut daemon, &["OTHER_TOKEN"]).await;
    assert!(said.contains(&serial), "{said}");
    still_shows(&daemon, &before).await;
    assert_eq!(fact(&lab, &kid, "private_half"), "missing");
    assert!(fact(&lab, &kid, "private_destroyed").is_null());
    revoke(&mut daemon, &kid).await;
    wait_until(async || !shown(daemon.jwks().await).contains(&kid)).await;
    // Both are tried: the end of this key, and the making of the next.
    let refusal = "what was asked is for the one with serial";
    wait_until(async || lab.log().matches(refusal).count() > 4).await;
    assert_eq!(placement(&lab, &kid)[1], "destroying");
    assert_eq!(lab.objects_in_token().len(), 0, "keys in the other token");
    let output = lab.run(&["doctor"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("fail  token softhsm: the token with serial"),
        "{said}"
    );
    assert!(said.contains(&serial), "{said}");
    daemon.kill();
    let output = lab.run(&["doctor"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("are in the one with serial"), "{said}");

    swap_back(&lab);
    assert!(lab.objects_in_token().contains_key(&id), "it is back");
    let _daemon = lab.serve().await;
    wait_until(async || placement(&lab, &kid)[1] == "destroyed").await;
    assert_eq!(fact(&lab, &kid, "private_half"), "destroyed");
    wait_until(async || fact(&lab, &kid, "private_destroyed").is_string()).await;
    for when in ["active_since", "removed"] {
        assert!(fact(&lab, &kid, when).is_string(), "{when}");
    }
    assert!(!lab.objects_in_token().contains_key(&id), "it is gone");
    let made = async || {
        let kids = lab.keys().into_iter();
        let mut kids = kids.filter_map(|key| key["kid"].as_str().map(str::to_owned));
        kids.find(|it| !it.is_empty() && !before.contains(it))
    };
    wait_until(async || made().await.is_some()).await;
    let made = made().await.expect("a key was made");
    assert_eq!(placement(&lab, &made)[2], serial);
}
