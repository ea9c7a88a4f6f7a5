#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use super::table::CAPACITY;
use super::*;
use crate::clock::ManualClock;
use crate::durable::sim::{Loss, SimDisk};
use crate::policy::rules::{Algorithms, Draft, Matcher, Rule};
use crate::policy::{Names, Operation, Typ};
use crate::time::Span;

const NOW: Time = Time::from_secs(1_800_000_000);

struct House {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    callers: Arc<Callers>,
}

impl House {
    fn new() -> Self {
        Self::on(SimDisk::new())
    }

    fn on(disk: SimDisk) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let list = BlockList::open(Arc::new(disk.clone()), "/callers").unwrap();
        let callers = Callers::open(clock.clone(), list, vec![rules()]);
        Self {
            disk,
            clock,
            callers,
        }
    }

    /// As after `kill -9` and a loss of power.
    fn restart(&self) -> Self {
        Self::on(self.disk.crash(Loss::Everything))
    }

    fn status(&self, id: &str) -> CallerStatus {
        self.callers.status(&id.parse().unwrap())
    }

    async fn block(&self, id: &str) -> CallerBlocked {
        let id = id.parse().unwrap();
        self.callers.block(id, &unix(0), "why".into()).await
    }

    async fn unblock(&self, id: &str) -> Result<bool, AdminError> {
        self.callers.unblock(&id.parse().unwrap(), &unix(0)).await
    }
}

/// About the users 1 and 2, the group 70, and a few names.
pub(crate) fn rules() -> Rules {
    let rule = |name: &str, who| Rule {
        name: name.into(),
        who,
        operations: BTreeSet::from([Operation::SignJwt]),
        algorithms: Algorithms::All,
        typ: vec![Typ::Is("JWT".into())],
        required: BTreeSet::new(),
        forbidden: BTreeSet::new(),
        audiences: None,
        preset: None,
        max_lifetime: None,
        max_payload: None,
        rate: None,
    };
    let users = Matcher {
        uids: Some(BTreeSet::from([1, 2])),
        ..Matcher::default()
    };
    let group = Matcher {
        gids: Some(BTreeSet::from([70])),
        ..Matcher::default()
    };
    let hosts = Matcher {
        dns: Some(BTreeSet::from(["a.example".parse().unwrap()])),
        ..Matcher::default()
    };
    let workloads = Matcher {
        spiffe: Some(BTreeSet::from([
            "spiffe://td/login".parse().unwrap(),
            "spiffe://td/ns/*".parse().unwrap(),
        ])),
        ..Matcher::default()
    };
    Rules::try_from(Draft {
        key_set: "main".into(),
        issuer: "https://issuer.example".into(),
        max_token_lifetime: Span::from_hours(1),
        default_lifetime: Span::from_hours(1),
        skew: Span::from_mins(5),
        max_payload: 1024,
        rules: vec![
            rule("users", users),
            rule("group", group),
            rule("hosts", hosts),
            rule("workloads", workloads),
        ],
    })
    .unwrap()
}

fn unix(uid: u32) -> Caller {
    Caller::Unix {
        uid,
        gid: 9,
        groups: BTreeSet::from([70]),
        pid: None,
    }
}

fn tls(uris: &[&str], dns: &[&str]) -> Caller {
    Caller::Tls {
        names: Names::parse(uris, dns).unwrap(),
    }
}

fn is_blocked(known: &Known) -> bool {
    match known.check() {
        Ok(()) => false,
        Err(SignError::Refused(refusal)) => {
            assert_eq!(refusal.reason, Reason::CallerBlocked);
            true
        }
        Err(other) => panic!("{other}"),
    }
}

fn is_over(work: impl Future) -> bool {
    let mut work = pin!(work);
    work.as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

#[tokio::test]
async fn a_block_holds_at_once_and_across_restarts() {
    let house = House::new();
    let known = house.callers.enter(unix(1));
    let other = house.callers.enter(unix(2));
    let mut leaving = Box::pin(known.dismissed());
    assert!(!is_blocked(&known));
    assert!(!is_over(&mut leaving));

    let answer = house.block("unix:1").await;
    assert!(answer.durable);
    assert_eq!(answer.why, None);
    let block = answer.caller.block.unwrap();
    assert_eq!(block.id.to_string(), "unix:1");
    assert_eq!(
        (block.since, &*block.by, &*block.note),
        (NOW, "unix:0", "why")
    );
    assert!(is_blocked(&known) && !is_blocked(&other));
    assert!(is_over(&mut leaving));
    assert!(!is_over(other.dismissed()));
    // Who comes back may stay, to be told.
    let again = house.callers.enter(unix(1));
    assert!(is_blocked(&again) && !is_over(again.dismissed()));

    // Once more, later: blocked since the same instant.
    house.clock.advance(Span::from_hours(1));
    house.block("unix:1").await;
    let after = house.restart();
    assert!(is_blocked(&after.callers.enter(unix(1))));
    let status = after.status("unix:1");
    assert_eq!(status.block.unwrap().since, NOW);
    assert!(status.block_is_durable);

    assert!(after.unblock("unix:1").await.unwrap());
    assert!(!is_blocked(&after.callers.enter(unix(1))));
    assert!(!after.unblock("unix:1").await.unwrap());
    assert!(!is_blocked(&after.restart().callers.enter(unix(1))));
}

#[tokio::test]
async fn a_connection_ends_again_when_its_caller_is_blocked_again() {
    let house = House::new();
    house.block("unix:1").await;
    let known = house.callers.enter(unix(1));
    let mut leaving = Box::pin(known.dismissed());
    assert!(!is_over(&mut leaving));
    house.unblock("unix:1").await.unwrap();
    assert!(!is_over(&mut leaving));
    house.block("unix:1").await;
    assert!(is_over(&mut leaving));
}

#[tokio::test]
async fn who_has_several_names_is_blocked_by_each() {
    let certificate = tls(&["spiffe://td/login"], &["a.example", "b.example"]);
    for id in ["spiffe://td/login", "dns:a.example", "dns:b.example"] {
        let house = House::new();
        let known = house.callers.enter(certificate.clone());
        assert_eq!(known.id().to_string(), "spiffe://td/login");
        house.block(id).await;
        assert!(is_blocked(&known), "{id}");
        assert_eq!(
            house
                .status("spiffe://td/login")
                .block
                .unwrap()
                .id
                .to_string(),
            id
        );
        assert!(!is_blocked(&house.callers.enter(tls(&[], &["c.example"]))));
    }
}

/// Restrictions take effect before they are stored, and when they cannot be.
#[tokio::test]
async fn a_block_that_cannot_be_stored_holds_and_says_so() {
    let house = House::new();
    let known = house.callers.enter(unix(1));
    house.disk.set_free(Some(0));
    let answer = house.block("unix:1").await;
    assert!(!answer.durable);
    assert!(answer.why.unwrap().contains("make room"));
    assert!(is_blocked(&known));
    assert!(!house.status("unix:1").block_is_durable);
    assert!(!is_blocked(&house.restart().callers.enter(unix(1))));

    // The next change stores it too.
    house.disk.set_free(None);
    assert!(house.block("unix:2").await.durable);
    assert!(house.status("unix:1").block_is_durable);
    assert!(is_blocked(&house.restart().callers.enter(unix(1))));

    // A permission waits for the disk.
    house.disk.set_free(Some(0));
    let error = house.unblock("unix:1").await.unwrap_err();
    assert!(matches!(error, AdminError::Unavailable { .. }), "{error}");
    assert!(is_blocked(&known));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_holds_while_the_disk_hangs() {
    let house = House::new();
    let known = house.callers.enter(unix(1));
    house.disk.hold_syncs();
    let blocking = tokio::spawn({
        let callers = Arc::clone(&house.callers);
        async move {
            callers
                .block(CallerId::Unix(1), &unix(0), String::new())
                .await
        }
    });
    let disk = house.disk.clone();
    tokio::task::spawn_blocking(move || disk.wait_for_held_sync())
        .await
        .unwrap();
    assert!(is_blocked(&known));
    house.disk.release_syncs();
    assert!(blocking.await.unwrap().durable);
}

/// Blocked anew while the list without it is being written: still blocked,
/// here and on disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_during_an_unblock_wins() {
    let house = House::new();
    house.block("unix:1").await;
    house.disk.hold_syncs();
    let change = |block: bool| {
        let callers = Arc::clone(&house.callers);
        tokio::spawn(async move {
            let id = CallerId::Unix(1);
            if block {
                callers.block(id, &unix(0), String::new()).await;
            } else {
                callers.unblock(&id, &unix(0)).await.unwrap();
            }
        })
    };
    let unblocking = change(false);
    let disk = house.disk.clone();
    tokio::task::spawn_blocking(move || disk.wait_for_held_sync())
        .await
        .unwrap();
    let mut seen = house.callers.blocks.subscribe();
    seen.mark_unchanged();
    let blocking = change(true);
    seen.changed().await.unwrap();
    house.disk.release_syncs();
    unblocking.await.unwrap();
    blocking.await.unwrap();
    assert!(is_blocked(&house.callers.enter(unix(1))));
    assert!(is_blocked(&house.restart().callers.enter(unix(1))));
}

#[tokio::test]
async fn a_list_that_cannot_be_read_lets_nobody_in() {
    let house = House::new();
    house.block("unix:1").await;
    let path = std::path::Path::new("/callers/blocked.json");
    let good = String::from_utf8(crate::durable::Disk::read(&house.disk, path).unwrap()).unwrap();
    for bad in [
        &good[..good.len() / 2],
        "",
        &good.replace("unix:1", "unix:*"),
        &good.replace("\"version\": 1", "\"version\": 2"),
        &good.replace("\"note\"", "\"knot\""),
    ] {
        crate::durable::write_atomic(&house.disk, path, bad.as_bytes(), 0o600).unwrap();
        let after = house.restart();
        let error = after.callers.enter(unix(2)).check().unwrap_err();
        assert_eq!(error.reason(), "BLOCK_LIST_UNREADABLE");
        // What it may still say is not written over.
        assert!(!after.block("unix:3").await.durable);
        after.unblock("unix:1").await.unwrap_err();
        assert_eq!(
            crate::durable::Disk::read(&after.disk, path).unwrap(),
            bad.as_bytes()
        );
    }
}

#[tokio::test]
async fn the_list_shows_who_called_whom_a_rule_names_and_who_is_blocked() {
    let house = House::new();
    let known = house.callers.enter(unix(1));
    house.clock.advance(Span::from_secs(5));
    known.asked();
    known.asked();
    known.refused();
    drop(house.callers.enter(tls(&["spiffe://td/ns/x"], &[])));
    house.block("dns:z.example").await;
    let all = house.callers.list();
    let shown: Vec<_> = all
        .iter()
        .map(|caller| {
            let rules: Vec<_> = caller.rules.iter().map(|rule| &*rule.rule).collect();
            format!("{} [{}]", caller.id, rules.join(" "))
        })
        .collect();
    let expected = [
        "dns:a.example [hosts]",
        "dns:z.example []",
        "gid:70 [group]",
        "spiffe://td/login [workloads]",
        "spiffe://td/ns/* [workloads]",
        "spiffe://td/ns/x [workloads]",
        "unix:1 [users group]",
        "unix:2 [users]",
    ];
    assert_eq!(shown, expected);
    let caller = &all[6];
    assert_eq!((caller.requests, caller.refusals), (2, 1));
    assert_eq!(caller.first_seen, Some(NOW));
    assert_eq!(caller.last_seen, Some(NOW + Span::from_secs(5)));
    assert_eq!(all[7].first_seen, None);
    assert!(all[1].block.is_some() && all[2].ids.is_empty());
}

#[tokio::test]
async fn of_too_many_callers_those_seen_last_are_remembered() {
    let house = House::new();
    let bound = u32::try_from(CAPACITY).unwrap();
    let oldest = house.callers.enter(unix(10_000));
    for n in 0..bound {
        house.clock.advance(Span::from_millis(1));
        drop(house.callers.enter(unix(20_000 + n)));
    }
    let seen = |uid: u32| house.status(&format!("unix:{uid}")).first_seen.is_some();
    // Connected: it stays, and the next oldest goes.
    assert!(seen(10_000) && !seen(20_000) && seen(20_001));
    assert_eq!(house.callers.table().len(), CAPACITY);
    drop(oldest);
    drop(house.callers.enter(unix(30_000)));
    assert!(!seen(10_000) && seen(20_001) && seen(30_000));
}
