//! Revoking the last key: verifiers get a fresh one in the same change, and
//! the placeholder only where the device cannot make one. And what is on
//! record of it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use sealkeeper::agent::failpoint::Effect;
use sealkeeper::api::v1::key_admin_client::KeyAdminClient;
use sealkeeper::api::v1::{
    AfterRevocation, ChangeResponse, Key, ListKeysRequest, Order, Phase, RevokeKeyRequest,
};
use serde_json::Value;
use tonic::transport::Channel;

use super::kills::healthy;
use super::lab::{CALM, Daemon, Lab, PATIENCE, kids, wait_until};

/// The order of the tests here, and its answer if the daemon lives to give it.
async fn order(
    admin: &mut KeyAdminClient<Channel>,
    kid: &str,
    then: AfterRevocation,
) -> Result<ChangeResponse, tonic::Status> {
    let mut request = RevokeKeyRequest {
        order: Some(Order {
            request_id: format!("revoke {kid}"),
            key_set: "main".to_owned(),
            expected_version: String::new(),
        }),
        kid: kid.to_owned(),
        note: "an exercise".to_owned(),
        ..Default::default()
    };
    request.set_then(then);
    Ok(admin.revoke_key(request).await?.into_inner())
}

async fn revoke(admin: &mut KeyAdminClient<Channel>, kid: &str) -> ChangeResponse {
    let answer = order(admin, kid, AfterRevocation::Wait).await;
    answer.expect("it is revoked")
}

async fn shown(daemon: &Daemon) -> Vec<String> {
    kids(&daemon.jwks().await.expect("a set"))
}

/// Two keys are published: who signs, and the standby.
async fn two(daemon: &Daemon) -> Vec<String> {
    let mut found = Vec::new();
    wait_until(async || {
        found = shown(daemon).await;
        found.len() == 2
    })
    .await;
    found
}

/// The key events on disk.
fn key_log(lab: &Lab) -> Vec<Value> {
    let text = fs::read_to_string(lab.path("state/audit/keys.log")).expect("the log");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Whether the revocation came with a fresh key.
fn with_a_fresh_key(answer: &ChangeResponse) -> bool {
    answer
        .done
        .iter()
        .any(|done| done.contains("is in the set"))
}

#[tokio::test]
async fn verifiers_get_a_fresh_key_as_the_last_one_leaves() {
    // RSA, because a key of another kind is there before one can ask twice.
    let lab = Lab::new(CALM, &["RS256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let placeholder = placeholder(&lab);
    let (_, admin) = daemon.clients().await.expect("a daemon that serves");
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "it was never the last key");
        let both = two(&daemon).await;
        let orders = async {
            let (mut one, mut other) = (admin.clone(), admin.clone());
            tokio::join!(revoke(&mut one, &both[0]), revoke(&mut other, &both[1]))
        };
        let (answers, sets) = watched(&daemon, orders).await;
        assert!(answers.0.durable && answers.1.durable);
        for set in &sets {
            assert!(!set.contains(&placeholder), "the placeholder in {sets:?}");
        }
        let after = shown(&daemon).await;
        assert!(!after.is_empty() && both.iter().all(|kid| !after.contains(kid)));
        // The device may have been faster than the second order.
        if with_a_fresh_key(&answers.0) || with_a_fresh_key(&answers.1) {
            return;
        }
    }
}

/// Every set that is served, without a pause, until the work is done and once
/// more after it.
async fn watched<T>(daemon: &Daemon, work: impl Future<Output = T>) -> (T, Vec<Vec<String>>) {
    let mut sets = vec![shown(daemon).await];
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                sets.push(shown(daemon).await);
                return (done, sets);
            }
            set = shown(daemon) => if sets.last() != Some(&set) {
                sets.push(set);
            }
        }
    }
}

fn placeholder(lab: &Lab) -> String {
    let events = key_log(lab);
    let made = events
        .iter()
        .find(|event| event["event"] == "placeholder-made");
    let kid = made.expect("init made it")["kid"].as_str();
    kid.expect("a kid").to_owned()
}

#[tokio::test]
async fn without_the_token_verifiers_get_the_placeholder_soon() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let placeholder = placeholder(&lab);
    let (_, mut admin) = daemon.clients().await.expect("a daemon that serves");
    let both = two(&daemon).await;
    fs::rename(lab.path("tokens"), lab.path("away")).expect("the token goes");
    revoke(&mut admin, &both[0]).await;
    assert_eq!(shown(&daemon).await, both[1..]);
    let began = Instant::now();
    let answer = revoke(&mut admin, &both[1]).await;
    let took = began.elapsed();
    assert_eq!(shown(&daemon).await, std::slice::from_ref(&placeholder));
    assert!(answer.durable && !with_a_fresh_key(&answer), "{answer:?}");
    // Five seconds for the device, and as much for two crowded processors.
    assert!(took < Duration::from_secs(10), "after {took:?}");

    fs::rename(lab.path("away"), lab.path("tokens")).expect("the token is back");
    wait_until(async || {
        let set = shown(&daemon).await;
        assert!(!set.is_empty() && both.iter().all(|kid| !set.contains(kid)));
        !set.contains(&placeholder)
    })
    .await;
}

/// Until now a note was accepted, checked and dropped.
#[tokio::test]
async fn who_gave_an_order_is_on_record() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let daemon = lab.serve().await;
    let kid = two(&daemon).await.remove(1);
    lab.ok(&["keys", "hold", &kid, "--note", "kept for the court"]);
    let told = lab.ok(&["keys", "list"]);
    assert!(told.contains(": kept for the court"), "{told}");
    lab.ok(&["keys", "release", &kid]);
    lab.ok(&["keys", "revoke", &kid, "--note", "an exercise"]);
    let keys = lab.keys();
    let key = keys.iter().find(|key| key["kid"] == *kid).expect("the key");
    let by = key["revocation"]["by"].as_str().expect("who");
    assert!(by.starts_with("unix:"), "{by}");
    assert_eq!(key["revocation"]["note"], "an exercise");
    assert_eq!(key["hold"], Value::Null);
    let events = key_log(&lab);
    for (name, remark) in [
        ("held", "kept for the court".into()),
        ("released", Value::Null),
        ("revoked", "an exercise".into()),
    ] {
        let mut found = events.iter().filter(|event| event["event"] == name);
        let event = found.next().expect("it is in the log");
        assert_eq!((&event["by"], &event["remark"]), (&by.into(), &remark));
        assert!(found.next().is_none(), "{name} is in the log twice");
    }
}

/// Two orders revoke all that is there, and the daemon dies at an effect of
/// it: in each run at the next time that it comes by the place. What got no
/// answer is ordered again. No revoked key comes back, no set is empty, something
/// signs, and the token holds what the record says.
async fn dies(effect: Effect) {
    let long = std::env::var_os("SEALKEEPER_LONG").is_some();
    for side in ["before", "after"] {
        for nth in 1.. {
            if nth > 1 && !long {
                break;
            }
            let place = format!("{side}:{}:{nth}", effect.name());
            if !dies_at(&place).await {
                assert!(nth > 1, "{place} was not reached");
                break;
            }
        }
    }
}

/// Calm, but what an operator orders happens soon.
const PROMPT: &str = r#"
rotate_every = "90d"
adoption = "1s"
"#;

/// Whether the daemon came by the place and died.
async fn dies_at(place: &str) -> bool {
    let lab = Lab::new(PROMPT, &["RS256"]);
    lab.init();
    let armed = lab.path("armed");
    let from = armed.to_str().expect("a plain name");
    let mut daemon = lab.spawn(&[
        ("SEALKEEPER_FAILPOINT", place),
        ("SEALKEEPER_FAILPOINT_FROM", from),
    ]);
    let (_, admin) = daemon.clients().await.expect("a daemon that serves");
    let both = two(&daemon).await;
    fs::write(&armed, "").expect("armed");
    let (mut one, mut other) = (admin.clone(), admin.clone());
    let then = AfterRevocation::Activate;
    let answers = tokio::join!(
        order(&mut one, &both[0], then),
        order(&mut other, &both[1], then)
    );
    let mut admin = admin;
    wait_until(async || daemon.has_ended() || is_whole(&mut admin).await).await;
    let died = daemon.has_ended();
    if died {
        assert_eq!(daemon.end().await.signal(), Some(9), "{}", lab.log());
        daemon = lab.serve().await;
    }
    let (_, mut admin) = daemon.clients().await.expect("a daemon that serves");
    for (kid, answer) in both.iter().zip([answers.0, answers.1]) {
        let answer = match answer {
            // As whoever got no answer would.
            Err(_) if died => order(&mut admin, kid, then).await,
            answer => answer,
        };
        assert!(
            !shown(&daemon).await.contains(kid),
            "{place}: {kid} is back"
        );
        assert!(answer.expect("it is revoked").durable, "{place}");
    }
    wait_until(async || {
        let set = shown(&daemon).await;
        assert!(!set.is_empty(), "{place}: an empty set");
        assert!(
            both.iter().all(|kid| !set.contains(kid)),
            "{place}: {set:?}"
        );
        let (_, mut admin) = daemon.clients().await.expect("a daemon that serves");
        is_whole(&mut admin).await
    })
    .await;
    healthy(&lab).await;
    died
}

/// One key signs, one stands by, and nothing is under way.
async fn is_whole(admin: &mut KeyAdminClient<Channel>) -> bool {
    let Ok(listing) = admin.list_keys(ListKeysRequest::default()).await else {
        return false;
    };
    let keys = listing.into_inner().key_sets.remove(0).keys;
    let count = |phase| keys.iter().filter(|key| key.phase() == phase).count();
    let destroyed = |key: &Key| {
        key.placements
            .iter()
            .all(|place| place.state == "destroyed")
    };
    let mut revoked = keys.iter().filter(|key| key.phase() == Phase::Revoked);
    count(Phase::Active) == 1
        && count(Phase::Published) >= 1
        && count(Phase::Generating) == 0
        && revoked.all(destroyed)
}

mod the_daemon_dies_at {
    use super::*;

    macro_rules! each {
        ($($name:ident: $effect:ident;)*) => {
            $(#[tokio::test]
            async fn $name() {
                dies(Effect::$effect).await;
            })*
        };
    }

    each! {
        store_record: StoreRecord;
        append_key_events: AppendKeyEvents;
        generate: Generate;
        destroy: Destroy;
        write_last_good: WriteLastGood;
        write_tombstone: WriteTombstone;
        swap_view: SwapView;
    }
}
