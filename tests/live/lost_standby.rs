//! Somebody deletes the key that is to sign next from the token.

use serde_json::Value;

use super::bad_days::{active, signs};
use super::figures::{figure, scrape};
use super::lab::{CALM, Lab, QUICK, wait_until};
use super::recover::delete_private;

fn published(lab: &Lab) -> Option<Value> {
    let mut keys = lab.keys().into_iter();
    keys.find(|key| key["phase"] == "published")
}

fn kid(key: &Value) -> String {
    key["kid"].as_str().expect("a kid").to_owned()
}

fn half(lab: &Lab, wanted: &str) -> String {
    let keys = lab.keys();
    let key = keys.iter().find(|key| key["kid"] == wanted);
    let half = key.expect("it is listed")["private_half"].as_str();
    half.expect("a word").to_owned()
}

/// Found by review: it was activated, and nothing said so before signatures
/// failed.
#[tokio::test]
async fn a_standby_that_the_token_lacks_is_told_of_and_never_signs() {
    let quick = QUICK.replace("rotate_every = \"4s\"", "rotate_every = \"10m\"");
    let quick = quick.replace("adoption = \"200ms\"", "adoption = \"2s\"");
    let quick = quick.replace("propagation = \"1500ms\"", "propagation = \"3s\"");
    let quick = quick.replace("_lifetime = \"3s\"", "_lifetime = \"1m\"");
    let lab = Lab::new(&quick, &["ES256"]);
    lab.amend("[serve]", "[serve]\nmetrics_listen = \"127.0.0.1:0\"");
    lab.init();
    let mut daemon = lab.serve().await;
    let before = signs(&mut daemon).await;
    let old = active(&lab);
    wait_until(async || published(&lab).is_some()).await;
    let lost = published(&lab).expect("a standby");
    let id = lost["placements"][0]["handle_id"].as_str();
    delete_private(&lab, id.expect("an id"));
    let lost = kid(&lost);

    lab.ok(&["keys", "rotate"]);
    wait_until(async || half(&lab, &lost) == "missing").await;
    assert_eq!(active(&lab), old, "the old one signs on");
    let counted = r#"lost_standbys{key_set="main"}"#;
    wait_until(async || figure(&scrape(&daemon).await, counted) >= 1.0).await;
    let log = lab.logged("has lost the key that was to sign next").await;
    assert!(log.contains(&lost), "{log}");
    let doctor = lab.run(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("the key {lost} (object id")),
        "{said}"
    );

    // The rotation goes to the one that is made in its place.
    wait_until(async || active(&lab) != old).await;
    assert_ne!(active(&lab), lost);
    let after = signs(&mut daemon).await;
    for token in [&before, &after] {
        assert!(lab.ok(&["verify", token]).contains("good"));
    }
    let events = std::fs::read_to_string(lab.path("state/audit/keys.log")).expect("the log");
    let of_it = events.lines().filter(|line| line.contains(&lost));
    let of_it: Vec<&str> = of_it.collect();
    assert!(
        of_it.iter().any(|line| line.contains("\"lost\"")),
        "{of_it:?}"
    );
    assert!(
        !of_it.iter().any(|line| line.contains("\"activated\"")),
        "{of_it:?}"
    );

    lab.ok(&["keys", "destroy", &lost, "--yes"]);
    wait_until(async || half(&lab, &lost) == "destroyed").await;
    let doctor = lab.run(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(!said.contains(&lost), "{said}");
}

/// Where nothing signs, the token is known by another key that it holds.
#[tokio::test]
async fn a_standby_is_missed_while_no_key_signs() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || published(&lab).is_some()).await;
    let (old, lost) = (active(&lab), published(&lab).expect("a standby"));
    let revoke = [
        "keys",
        "revoke",
        &old,
        "--reason",
        "superseded",
        "--then",
        "wait",
    ];
    lab.ok(&revoke);
    // The key that is owed stands beside it.
    wait_until(async || {
        let keys = lab.keys();
        keys.iter()
            .filter(|key| key["phase"] == "published")
            .count()
            == 2
    })
    .await;
    daemon.kill();
    let id = lost["placements"][0]["handle_id"].as_str();
    delete_private(&lab, id.expect("an id"));
    let _daemon = lab.serve().await;
    let lost = kid(&lost);
    wait_until(async || half(&lab, &lost) == "missing").await;
}
