//! Who ordered what, and what they noted.

use super::*;
use crate::agent::admin::PrivateHalf;
use crate::store::memory::Fault;

/// The last event of this name.
fn event(writer: &Writer, name: &str) -> KeyEvent {
    let mut events = writer.logged_events();
    events.retain(|event| event.event == name);
    events
        .pop()
        .unwrap_or_else(|| panic!("no {name} in the log"))
}

#[tokio::test]
async fn every_order_is_in_the_log_with_who_gave_it() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let kid = writer.active();
    let hold = Change::Hold {
        kid: kid.clone(),
        note: "forensics".to_owned(),
    };
    let release = Change::Release { kid: kid.clone() };
    let rotate = rotate();
    let orders = [
        (hold, "held", Some("forensics")),
        (release, "released", None),
        (rotate, "rotation-requested", None),
        (revoke(&kid), "revoked", Some("ticket 12")),
    ];
    for (change, name, remark) in orders {
        writer.order(change).await.unwrap();
        let event = event(&writer, name);
        assert_eq!(event.by.as_deref(), Some("unix:7"), "{name}");
        assert_eq!(event.remark.as_deref(), remark, "{name}");
    }
    assert_eq!(event(&writer, "revoked").note.unwrap(), "reason superseded");
    // Whoever vouched for the time, and for which.
    let expected = bench.clock.read().wall;
    let reading = expected + Span::from_days(2);
    bench.clock.set_wall(reading);
    writer.tick().await;
    let note = "ticket 9".to_owned();
    let confirm = Change::ConfirmClock { reading, note };
    let changed = writer.order(confirm).await.unwrap();
    let told = changed.done.join(" ");
    assert!(
        told.contains(&format!("the time {reading} is confirmed")),
        "{told}"
    );
    let confirmed = event(&writer, "clock-confirmed");
    assert_eq!(confirmed.by.as_deref(), Some("unix:7"));
    let moved = format!("reading {reading}, expected {expected}: moved forward by 2days");
    assert_eq!(confirmed.note.as_ref(), Some(&moved));
    assert_eq!(confirmed.remark.as_deref(), Some("ticket 9"));
    assert!(!confirmed.alone);
    // It is of no key: what is rebuilt from the log passes it over.
    assert_eq!(super::super::record::from_log(&confirmed), Ok(None));
    let log = writer.context.audit.key_events();
    let all: Vec<_> = confirmations(NAME, &log).collect();
    assert_eq!(all, [&confirmed]);
    assert_eq!(confirmations("other", &log).count(), 0);
    // Nobody ordered what time and the device brought about.
    assert_eq!(event(&writer, "published").by, None);
}

/// An order that may want a second person says who gave it alone, in the
/// answer and in the log; what restricts does not.
#[tokio::test]
async fn what_one_person_did_alone_is_on_record() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let first = writer.active();
    let held = &mut writer.held.as_mut().unwrap().record.set;
    let kids = held.keys.values().filter_map(|key| key.kid.clone());
    let kids = kids.collect();
    let _ = held.observe("web", &kids, bench.clock.read().wall, &writer.plan);
    bench.clock.advance(Span::from_days(2));
    let safe = writer.order(revoke(&first)).await.unwrap();
    assert_eq!(safe.alone, None, "{safe:?}");
    assert!(!event(&writer, "revoked").alone);
    writer.settle().await;

    let destroy = |kid: &str| Change::Destroy {
        kid: kid.to_owned(),
        end_rollback: false,
        note: "decommissioned".to_owned(),
    };
    // Time was faster: the half is gone, and nobody did anything.
    let late = writer.order(destroy(&first)).await.unwrap();
    assert_eq!(
        late.done,
        [format!("the private half of {first} is gone already")]
    );
    assert_eq!(late.alone, None);
    // One that was held is there still.
    let second = writer.active();
    let hold = |kid: &str| Change::Hold {
        kid: kid.to_owned(),
        note: String::new(),
    };
    writer.order(hold(&second)).await.unwrap();
    let forced = Change::Revoke {
        kid: second.clone(),
        reason: RevocationReason::Superseded,
        then: Some(AfterRevocation::Activate),
        note: String::new(),
    };
    let forced = writer.order(forced).await.unwrap();
    assert_eq!(forced.alone.as_deref(), Some("unix:7"), "{forced:?}");
    writer.settle().await;
    let refused = writer.order(destroy(&second)).await.unwrap_err();
    assert!(
        matches!(refused, AdminError::Refused { reason: "HELD", .. }),
        "{refused:?}"
    );
    let release = Change::Release {
        kid: second.clone(),
    };
    writer.order(release).await.unwrap();
    let destroyed = writer
        .order(Change::Destroy {
            kid: second.clone(),
            end_rollback: true,
            note: "decommissioned".to_owned(),
        })
        .await
        .unwrap();
    assert_eq!(destroyed.alone.as_deref(), Some("unix:7"));
    assert!(
        destroyed.pending[0].contains("is asked again"),
        "{destroyed:?}"
    );
    let begun = event(&writer, "destruction-begun");
    assert_eq!((begun.alone, begun.by.as_deref()), (true, Some("unix:7")));
    assert_eq!(begun.remark.as_deref(), Some("decommissioned"));
    writer.settle().await;
    let keys = writer.status().unwrap().keys;
    let key = keys.into_iter().find(|key| key.kid == second).unwrap();
    assert_eq!(key.private_half, PrivateHalf::Destroyed);
    assert!(!event(&writer, "destroyed").alone, "the device did that");
}

#[tokio::test]
async fn a_hold_and_a_revocation_show_who_when_and_why() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let kid = writer.active();
    let began = bench.clock.read().wall;
    for note in ["forensics", "still at it"] {
        let (kid, note) = (kid.clone(), note.to_owned());
        writer.order(Change::Hold { kid, note }).await.unwrap();
        bench.clock.advance(Span::from_secs(60));
    }
    let status = |writer: &Writer| {
        let keys = writer.status().unwrap().keys;
        keys.into_iter().find(|key| key.kid == kid).unwrap()
    };
    let hold = status(&writer).hold.unwrap();
    assert_eq!(
        (hold.since, hold.by.as_str(), hold.note.as_str()),
        (began, "unix:7", "still at it")
    );
    let ended = bench.clock.read().wall;
    writer.order(revoke(&kid)).await.unwrap();
    let revocation = status(&writer).revocation.unwrap();
    assert_eq!(
        (revocation.at, revocation.by.as_str()),
        (ended, "unix:7"),
        "{revocation:?}"
    );
    assert_eq!(revocation.note, "ticket 12");
    assert_eq!(revocation.reason, RevocationReason::Superseded);
}

/// Found by review: dates in the past, and no word on why.
#[tokio::test]
async fn what_is_late_says_what_it_waits_for() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let (kid, next) = (writer.active(), writer.kids(|p| p.name() == "published"));
    let waits = |writer: &Writer| {
        let next = writer.status().unwrap().next;
        let retires = next.into_iter().find(|event| event.kind == "retire");
        retires.unwrap().waits_for.unwrap_or_default()
    };
    let unseen = format!("the origin web to show the key {}", next[0]);
    assert_eq!(waits(&writer), unseen);
    let order = Change::Hold {
        kid: kid.clone(),
        note: String::new(),
    };
    writer.order(order).await.unwrap();
    assert_eq!(waits(&writer), "the key is held");
    writer.order(Change::Release { kid }).await.unwrap();
    // Seen, and the origin does not answer any more.
    let held = &mut writer.held.as_mut().unwrap().record.set;
    let kids = next.iter().cloned().collect();
    let now = bench.clock.read().wall;
    let _ = held.observe("web", &kids, now, &writer.plan);
    assert_eq!(waits(&writer), "");
    writer.came_round();
    assert_eq!(waits(&writer), "the origin web to answer");
    bench.clock.set_wall(now + Span::from_days(1));
    writer.tick().await;
    assert!(waits(&writer).contains("clock confirm"));
}

/// The tombstone knows as much as the order did.
#[tokio::test]
async fn a_revocation_that_the_store_refused_keeps_its_note_over_a_restart() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let kid = writer.active();
    bench.store.script([Fault::Full]);
    let changed = writer.order(revoke(&kid)).await.unwrap();
    assert!(!changed.pending.is_empty());
    assert_eq!(
        writer
            .logged_events()
            .iter()
            .filter(|e| e.event == "revoked")
            .count(),
        0
    );
    drop(writer);

    let mut writer = bench.writer().await;
    assert!(!writer.shown().contains(&kid));
    writer.settle().await;
    let event = event(&writer, "revoked");
    assert_eq!(event.by.as_deref(), Some("unix:7"));
    assert_eq!(event.remark.as_deref(), Some("ticket 12"));
    assert_eq!(event.note.as_deref(), Some("reason superseded"));
}
