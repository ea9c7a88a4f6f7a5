//! A revocation holds from the order on, whatever fails.

use super::*;
use crate::agent::admin::Administration as _;
use crate::agent::admin::KeyPhase;
use crate::agent::reader::Dark;
use crate::agent::revoke::OnDisk;
use crate::store::memory::Fault;

/// Found by review: once the disk had room again, the tombstone was not
/// written, and a restart brought the key back.
#[tokio::test]
async fn a_tombstone_that_found_no_room_is_written_once_there_is_some() {
    for dark in [false, true] {
        let bench = Bench::begun().await;
        let mut writer = bench.writer().await;
        writer.settle().await;
        let kid = writer.active();
        // Damage, so to say: no read of the store works, and no write.
        bench.store.fail_reads(usize::MAX);
        if dark {
            writer.load().await;
            assert!(matches!(writer.dark, Some(Dark::NoStore(_))));
        } else {
            bench.store.script([Fault::Full; 100]);
        }
        bench.disk.fail_syncs(usize::MAX);
        let changed = writer.order(revoke(&kid)).await.unwrap();
        assert!(!changed.durable);
        let said = changed.pending.join(" ");
        assert!(said.contains("do not stop or restart"), "{said}");
        assert!(writer.reader.unwritten().contains_key(&kid));
        writer.tick().await;
        bench.disk.fail_syncs(0);
        writer.tick().await;
        assert_eq!(writer.owed[&kid].on_disk, OnDisk::All);
        // And then it is left in peace.
        let operations = bench.disk.operations().len();
        writer.tick().await;
        assert_eq!(bench.disk.operations().len(), operations);
        drop(writer);

        bench.store.script([]);
        bench.store.fail_reads(0);
        let mut writer = bench.writer().await;
        assert!(!writer.shown().contains(&kid), "it is back");
        assert!(writer.reader.is_blocked(&kid), "it signs again");
        writer.settle().await;
        assert!(writer.owed.is_empty());
    }
}

fn order(change: Change, request_id: &str) -> Order {
    Order {
        request_id: request_id.to_owned(),
        key_set: NAME.to_owned(),
        expected_version: None,
        change,
    }
}

/// Without `then` where no standby is safe: refused.
fn refused(kid: &str) -> Change {
    Change::Revoke {
        kid: kid.to_owned(),
        reason: RevocationReason::Superseded,
        then: None,
        note: String::new(),
    }
}

fn uid_7() -> Caller {
    Caller::Unix {
        uid: 7,
        gid: 7,
        groups: std::collections::BTreeSet::new(),
        pid: None,
    }
}

/// Found by review: while the store was slow, the key that was to be revoked
/// signed on for half a minute.
#[tokio::test]
async fn a_key_is_blocked_before_the_writer_hears_of_it() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let kid = writer.active();
    let reader = Arc::clone(&writer.reader);
    let (agent, inbox) = agent(&writer);
    let orders = [("one", revoke(&kid)), ("two", refused("no key of ours"))];
    let orders = orders.map(|(id, change)| {
        let agent = agent.clone();
        tokio::spawn(async move { agent.change(&uid_7(), order(change, id)).await })
    });
    // Nobody reads the mailbox.
    wait_for(|| reader.is_blocked(&kid)).await;
    drop(agent);
    tokio::spawn(writer.run(inbox));
    let [accepted, unknown] = orders;
    assert!(accepted.await.unwrap().unwrap().durable);
    let unknown = unknown.await.unwrap();
    assert!(
        matches!(unknown, Err(AdminError::UnknownKey { .. })),
        "{unknown:?}"
    );
    assert!(reader.is_blocked(&kid) && !reader.is_blocked("no key of ours"));
}

#[tokio::test]
async fn a_refused_order_leaves_the_key_signing() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let kid = writer.active();
    let reader = Arc::clone(&writer.reader);
    let (agent, inbox) = agent(&writer);
    tokio::spawn(writer.run(inbox));
    let no_then = agent.change(&uid_7(), order(refused(&kid), "one")).await;
    assert!(
        matches!(&no_then, Err(AdminError::Refused { reason, .. }) if *reason == "NO_SAFE_STANDBY"),
        "{no_then:?}"
    );
    assert!(!reader.is_blocked(&kid));
    let mut old = order(revoke(&kid), "two");
    old.expected_version = Some("no such version".to_owned());
    let old = agent.change(&uid_7(), old).await;
    assert!(matches!(old, Err(AdminError::Changed { .. })), "{old:?}");
    assert!(!reader.is_blocked(&kid));
    // Two at once: whichever comes first, the key stays blocked.
    let (no_then, accepted) = tokio::join!(
        async { agent.change(&uid_7(), order(refused(&kid), "three")).await },
        async { agent.change(&uid_7(), order(revoke(&kid), "four")).await },
    );
    assert!(
        no_then.is_err() && accepted.is_ok(),
        "{no_then:?} {accepted:?}"
    );
    assert!(reader.is_blocked(&kid));
}

/// The answers that are waited for in between count as one by one.
#[tokio::test]
async fn what_origins_say_does_not_queue_up() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let standby = writer.kids(|phase| matches!(phase, Phase::Published { .. }));
    let all = writer.served();
    let since = |writer: &Writer| {
        let set = &writer.held.as_ref().unwrap().record.set;
        set.by_kid(&standby[0]).unwrap().sightings["web"]
    };
    let began = bench.clock.read().wall;
    writer.news.seen("web", all.clone());
    writer.learn_all().await;
    assert_eq!(since(&writer), began);
    bench.clock.advance(Span::from_secs(10));
    for _ in 0..1000 {
        writer.news.seen("web", all.clone());
    }
    assert_eq!(writer.learn_all().await, 1);
    assert_eq!(since(&writer), began);
    for shown in [all.clone(), Shown::default(), all] {
        writer.news.seen("web", shown);
    }
    assert_eq!(writer.learn_all().await, 1);
    assert_eq!(since(&writer), bench.clock.read().wall);
}

impl Writer {
    /// Looks at all news, and says how many there were.
    pub(super) async fn learn_all(&mut self) -> usize {
        let mut learned = 0;
        while let Some(item) = self.news.take() {
            self.learn(item).await;
            learned += 1;
        }
        learned
    }
}

/// Found by review: the answer, and the log, named a standby that was to end.
#[tokio::test]
async fn what_is_owed_takes_no_place() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    writer.news.seen("web", writer.served());
    writer.learn_all().await;
    let began = bench.clock.read().wall;
    bench.clock.advance(Span::from_days(2));
    writer.tick().await;
    let active = writer.active();
    let standby = writer.kids(|phase| matches!(phase, Phase::Published { .. }));
    bench.store.script([Fault::Full; 3]);
    writer.order(revoke(&standby[0])).await.unwrap();
    let ordered = bench.clock.read().wall;
    assert!(ordered > began);
    bench.store.script([Fault::Full; 3]);
    let changed = writer.order(revoke(&active)).await.unwrap();
    assert_eq!(changed.done.len(), 1, "{:?}", changed.done);
    bench.store.script([]);
    bench.clock.advance(Span::from_secs(60));
    writer.settle().await;
    assert!(writer.owed.is_empty());
    let events = writer.logged_events();
    let mut activated = events.iter().filter(|event| event.event == "activated");
    assert!(activated.all(|event| event.kid.as_ref() != Some(&standby[0])));
    let set = &writer.held.as_ref().unwrap().record.set;
    assert_eq!(set.revoked[&standby[0]].at, ordered, "the order's date");
}

#[tokio::test]
async fn in_the_dark_no_version_is_asked_for() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    let kid = writer.active();
    bench.store.fail_reads(usize::MAX);
    writer.load().await;
    let (agent, inbox) = agent(&writer);
    tokio::spawn(writer.run(inbox));
    let mut order = order(revoke(&kid), "one");
    order.expected_version = Some("1".to_owned());
    agent.change(&uid_7(), order).await.unwrap();
}

#[tokio::test]
async fn a_rotation_without_an_active_key_says_what_is_to_come() {
    let bench = Bench::begun().await;
    bench.device.be(Mood::Away);
    let mut writer = bench.writer().await;
    let kid = writer.active();
    let changed = writer.order(revoke(&kid)).await.unwrap();
    let said = changed.pending.join(" ");
    assert!(
        said.contains("placeholder") && said.contains("--then"),
        "{said}"
    );
    let changed = writer.order(rotate()).await.unwrap();
    let said = changed.pending.join(" ");
    assert!(said.contains("keys rotate --force"), "{said}");
}

/// One key signs, and every verifier holds the one that stands by.
async fn with_a_safe_standby(bench: &Bench) -> (Writer, String, String) {
    let mut writer = bench.writer().await;
    writer.settle().await;
    writer.news.seen("web", writer.served());
    writer.learn_all().await;
    bench.clock.advance(Span::from_days(2));
    writer.tick().await;
    let active = writer.active();
    let mut standby = writer.kids(|phase| matches!(phase, Phase::Published { .. }));
    (writer, active, standby.remove(0))
}

/// What an operator sees of a key: its phase, and since when it is active.
fn seen(writer: &Writer, kid: &str) -> (KeyPhase, Option<Time>) {
    let mut keys = writer.status().unwrap().keys.into_iter();
    let key = keys.rfind(|key| key.kid == kid).unwrap();
    (key.phase, key.active_since)
}

/// Found by review: the answer, and the listing, had the successor active
/// while nothing signed.
#[tokio::test]
async fn a_successor_that_is_not_stored_is_not_active() {
    for doubt in [false, true] {
        let bench = Bench::begun().await;
        let (mut writer, active, standby) = with_a_safe_standby(&bench).await;
        let now = bench.clock.read().wall;
        if doubt {
            bench.clock.set_wall(now + Span::from_days(365));
            writer.tick().await;
        } else {
            bench.store.script([Fault::Full; 3]);
        }
        let changed = writer.order(revoke(&active)).await.unwrap();
        assert!(changed.durable);
        let done = changed.done.join(" ");
        assert!(
            changed.done.len() == 1 && done.contains(&active) && done.contains("has left the set"),
            "{done}"
        );
        let pending = changed.pending.join(" ");
        let once = match doubt {
            false => "the store takes it",
            true => "the time is confirmed: `sealkeeper clock confirm --key-set main`",
        };
        let signs = format!("the Ed25519 key {standby} signs once {once}");
        assert!(pending.contains(&signs), "{pending}");
        assert_eq!(seen(&writer, &active).0, KeyPhase::Revoked);
        assert_eq!(seen(&writer, &standby), (KeyPhase::Published, None));
        let next = writer.status().unwrap().next;
        let waits = next.iter().filter_map(|event| event.waits_for.as_deref());
        let all: Vec<&str> = waits.collect();
        assert!(all.len() == next.len() && !all.is_empty(), "{next:?}");
        let why = match doubt {
            false => "the store to take the revocation",
            true => "clock confirm --key-set main",
        };
        assert!(all.iter().all(|waits| waits.contains(why)), "{all:?}");

        if doubt {
            bench.clock.set_wall(now);
            let reading = now;
            let confirm = confirm(reading);
            writer.order(confirm).await.unwrap();
        }
        bench.store.script([]);
        writer.settle().await;
        assert_eq!(seen(&writer, &standby).0, KeyPhase::Active);
    }
}

pub(super) fn revoke_then(kid: &str, then: AfterRevocation) -> Change {
    Change::Revoke {
        kid: kid.to_owned(),
        reason: RevocationReason::Unspecified,
        then: Some(then),
        note: String::new(),
    }
}

/// Found by review: after the restart nothing signed, as if `wait` had been
/// chosen.
#[tokio::test]
async fn what_is_to_sign_is_remembered_over_a_restart() {
    for said in [
        &[AfterRevocation::Activate][..],
        &[AfterRevocation::Wait, AfterRevocation::Activate],
        &[AfterRevocation::Wait],
    ] {
        let bench = Bench::begun().await;
        let mut writer = bench.writer().await;
        writer.settle().await;
        let kid = writer.active();
        let standby = writer.kids(|phase| matches!(phase, Phase::Published { .. }));
        bench.store.script([Fault::Full; 10]);
        for then in said {
            let order = revoke_then(&kid, *then);
            assert!(writer.order(order).await.unwrap().durable);
        }
        drop(writer);

        bench.store.script([]);
        let mut writer = bench.writer().await;
        writer.settle().await;
        assert!(writer.owed.is_empty());
        let active = writer.kids(|phase| matches!(phase, Phase::Active { .. }));
        match said.contains(&AfterRevocation::Activate) {
            true => assert_eq!(active, standby),
            false => assert!(active.is_empty(), "nobody chose {active:?}"),
        }
    }
}

/// What a restart would lose is said: the record has the revocation, and the
/// store refuses what was ordered since.
#[tokio::test]
async fn an_order_that_a_restart_forgets_says_so() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let kid = writer.active();
    writer.order(revoke(&kid)).await.unwrap();
    bench.store.script([Fault::Full; 3]);
    let order = revoke_then(&kid, AfterRevocation::Activate);
    let changed = writer.order(order).await.unwrap();
    let pending = changed.pending.join(" ");
    assert!(
        pending.contains("signs once the store takes it; a restart before that forgets it"),
        "{pending}"
    );
    let before = format!("the key {kid} was revoked before, at 20");
    let [done] = &changed.done[..] else {
        panic!("{:?}", changed.done);
    };
    assert!(done.starts_with(&before), "{done}");
    bench.store.script([]);
    writer.settle().await;
    assert_ne!(writer.active(), kid);
}

/// Found by review: in the outage that `wait` is, nothing said when it ends.
#[tokio::test]
async fn an_outage_says_when_it_ends_and_what_ends_it_earlier() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let kid = writer.active();
    writer.news.seen("web", writer.served());
    writer.learn_all().await;
    let standby = writer.kids(|phase| matches!(phase, Phase::Published { .. }));
    bench.clock.advance(Span::from_secs(60));
    writer.order(revoke(&kid)).await.unwrap();
    writer.settle().await;
    let next = writer.status().unwrap().next;
    let mut activations = next.iter().filter(|event| event.kind == "activate");
    let activation = activations.next().unwrap();
    assert_eq!(activation.kid.as_ref(), standby.first());
    assert!(activation.at > bench.clock.read().wall);
    let waits = activation.waits_for.clone().unwrap_or_default();
    let order = format!("`sealkeeper keys revoke {kid} --then activate`");
    assert!(
        waits.contains("(rule 1)") && waits.contains(&order),
        "{waits}"
    );
}

/// Found by review: the reason and the note of a second order were dropped.
#[tokio::test]
async fn what_is_said_of_a_revocation_later_is_in_the_log() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let kid = writer.active();
    let order = revoke_then(&kid, AfterRevocation::Wait);
    writer.order(order).await.unwrap();
    let ended = bench.clock.read().wall;
    bench.clock.advance(Span::from_secs(60));
    let order = Change::Revoke {
        kid: kid.clone(),
        reason: RevocationReason::Compromised,
        then: None,
        note: "seen elsewhere".to_owned(),
    };
    bench.store.script([Fault::Full]);
    let changed = writer.order(order).await.unwrap();
    let pending = changed.pending.join(" ");
    assert!(
        pending.contains("in the log of key events once"),
        "{pending}"
    );
    writer.settle().await;
    let events = writer.logged_events();
    let mut noted = events.iter().filter(|e| e.event == "revocation-noted");
    let event = noted.next().unwrap();
    assert_eq!(event.by.as_deref(), Some("unix:7"));
    assert_eq!(event.remark.as_deref(), Some("seen elsewhere"));
    assert_eq!(event.note.as_deref(), Some("reason compromised"));
    assert!(noted.next().is_none(), "once");
    let keys = writer.status().unwrap().keys.into_iter();
    let revocation = keys
        .filter(|key| key.kid == kid)
        .find_map(|key| key.revocation);
    let revocation = revocation.unwrap();
    assert_eq!(revocation.reason, RevocationReason::Compromised);
    assert_eq!(revocation.at, ended);
}
