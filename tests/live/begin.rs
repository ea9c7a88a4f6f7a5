//! `init` that was cut short, and goes on under another configuration.

use std::collections::BTreeSet;

use super::lab::{CALM, Lab, sign};

/// Makes the first key, and dies before it is on record as made.
fn cut_short(lab: &Lab) {
    let died = lab
        .command(&["init"])
        .env("SEALKEEPER_FAILPOINT", "after:generate:1")
        .output()
        .expect("the program under test");
    assert!(!died.status.success());
    assert_eq!(lab.objects_in_token().len(), 1);
}

/// The ids of the private keys that the record counts on.
fn on_record(lab: &Lab) -> BTreeSet<String> {
    let halves = lab.keys().into_iter().flat_map(|key| {
        let halves = key["placements"].as_array().expect("a list").clone();
        halves.into_iter().filter(|half| half["state"] == "present")
    });
    halves
        .map(|half| half["handle_id"].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn it_begins_with_the_tracks_of_now() {
    let lab = Lab::new(CALM, &["ES256"]);
    cut_short(&lab);
    lab.amend("alg = \"ES256\"", "alg = \"ES384\"");
    assert!(lab.ok(&["init"]).contains("has begun with 1 key\n"));
    let mut daemon = lab.serve().await;
    let (mut signer, _admin) = daemon.clients().await.expect("a daemon that serves");
    sign(&mut signer, "ES384", "{}").await.expect("it signs");
    // What was begun before is not left in the token.
    super::lab::wait_for(|| {
        let there: BTreeSet<String> = lab.objects_in_token().into_keys().collect();
        let wanted = on_record(&lab);
        there == wanted && wanted.len() == 2
    })
    .await;
}

#[tokio::test]
async fn it_begins_on_the_device_of_now() {
    let lab = Lab::new(CALM, &["ES256"]);
    cut_short(&lab);
    lab.amend("[device.softhsm]", "[device.renamed]");
    lab.amend("device = \"softhsm\"", "device = \"renamed\"");
    let begun = lab.run(&["init", "--json"]);
    assert!(begun.status.success(), "{begun:?}");
    let mut daemon = lab.serve().await;
    let (mut signer, _admin) = daemon.clients().await.expect("a daemon that serves");
    sign(&mut signer, "ES256", "{}").await.expect("it signs");
}
