//! A key that signs before its time, as its operator sees it.

use super::*;

fn force() -> Change {
    Change::Rotate {
        algorithm: None,
        force: true,
        note: "ticket 7".to_owned(),
    }
}

/// With a standby that nobody has seen yet.
async fn with_a_standby(bench: &Bench) -> (Writer, String, String) {
    let mut writer = bench.writer().await;
    writer.settle().await;
    let active = writer.active();
    let mut standby = writer.kids(|phase| matches!(phase, Phase::Published { .. }));
    (writer, active, standby.remove(0))
}

#[tokio::test]
async fn it_is_told_what_it_breaks_and_how_to_go_back_before_and_after() {
    let bench = Bench::begun().await;
    let (mut writer, active, standby) = with_a_standby(&bench).await;
    let before = writer.held.clone().unwrap().record;
    let foreseen = writer.foresee_rotation(None).unwrap();
    assert_eq!(foreseen.signs.as_ref(), Some(&active));
    assert_eq!(foreseen.next.as_ref(), Some(&standby));
    let early = foreseen.forced.unwrap();
    let now = writer.estimate();
    let timing = Timing::default();
    assert_eq!(early.at, now + timing.adoption.times(2));
    let until = early.refused_until.unwrap();
    assert_eq!(until, now + timing.pre_publish());
    assert_eq!(early.lacking, ["web"]);
    // By the rules it waits for as long, and for the origin.
    let waits = foreseen.waits_for.unwrap();
    assert!(waits.contains("the origin web to show"), "{waits}");
    assert_eq!(writer.held.as_ref().unwrap().record, before, "a question");

    let changed = writer.order(force()).await.unwrap();
    let done = changed.done.join(" ");
    assert!(done.contains(&format!("{standby} will be active at")));
    assert!(done.contains("before every verifier can hold it"), "{done}");
    let said = changed.pending.join(" ");
    for told in [
        "rule 1",
        "later where web shows it later",
        // The key of `init` was seen by nobody either.
        &format!("`sealkeeper keys rollback {active}` goes back only once web has shown {active}"),
        &format!("`sealkeeper keys hold {standby}` stops it"),
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert_eq!(changed.alone.as_deref(), Some("unix:7"));
    let last = writer.logged_events().pop().unwrap();
    assert_eq!(last.event, "activation-forced");
    assert_eq!(last.remark.as_deref(), Some("ticket 7"));
    // Until then: it is decided, and neither asked for nor forced anew.
    let foreseen = writer.foresee_rotation(None).unwrap();
    assert_eq!((foreseen.forced, foreseen.safe_at), (None, None));
    assert_eq!(foreseen.decided, Some(now + timing.adoption.times(2)));
    let notes = foreseen.notes.join(" ");
    assert!(notes.contains("that was forced"), "{notes}");
    let ordinary = Change::Rotate {
        algorithm: None,
        force: false,
        note: String::new(),
    };
    let said = writer.order(ordinary).await.unwrap().pending.join(" ");
    assert!(said.contains(&format!("{standby} signs from")), "{said}");
    bench.clock.advance(timing.adoption.times(2));
    writer.tick().await;
    assert_eq!(writer.active(), standby);
    // Once more: there is nothing to do, and it says so.
    let foreseen = writer.foresee_rotation(None).unwrap();
    assert_eq!(foreseen.signs.as_ref(), Some(&standby));
}

#[tokio::test]
async fn what_every_verifier_holds_is_rotated_to_as_any_other() {
    let bench = Bench::begun().await;
    let (mut writer, _, standby) = with_a_standby(&bench).await;
    // Somebody looks all the while.
    let (timing, step) = (Timing::default(), Timing::default().patience());
    let began = bench.clock.read().wall;
    while bench.clock.read().wall < began + timing.pre_publish() + step {
        writer.news.seen("web", writer.served());
        writer.learn_all().await;
        bench.clock.advance(step);
    }
    writer.news.seen("web", writer.served());
    writer.learn_all().await;
    let early = writer.foresee_rotation(None).unwrap().forced.unwrap();
    assert_eq!(early.refused_until, None);
    let changed = writer.order(force()).await.unwrap();
    assert_eq!(changed.alone, None);
    for _ in 0..2 {
        writer.tick().await;
        bench.clock.advance(timing.adoption.times(2));
    }
    writer.tick().await;
    assert_eq!(writer.active(), standby);
    let names = writer.logged_events();
    assert!(names.iter().all(|event| event.event != "activation-forced"));
}

/// Found by review: a track just added said that nobody would be hit, and the
/// callers of the track before it were.
#[tokio::test]
async fn a_new_default_is_told_with_the_callers_that_it_takes() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let (active, former) = (writer.active(), writer.default_track());
    let new = Algorithm::Es384;
    assert_ne!(former, new);
    writer.plan.tracks.insert(0, (new, KeyType::P384));
    writer.settle().await;
    // Who names no track means the one that signs for those who name none.
    assert_eq!(writer.foresee_rotation(None).unwrap().algorithm, former);
    let foreseen = writer.foresee_rotation(Some(new)).unwrap();
    assert_eq!(foreseen.signs, None);
    assert_eq!(foreseen.instead_of.as_ref(), Some(&active));
    let notes = foreseen.notes.join(" ");
    let told = format!("with it {new} is the default");
    assert!(notes.contains(&told) && notes.contains(&active), "{notes}");
    assert_eq!(foreseen.forced.unwrap().back, None);

    let forced = Change::Rotate {
        algorithm: Some(new),
        force: true,
        note: String::new(),
    };
    let changed = writer.order(forced).await.unwrap();
    let said = changed.pending.join(" ");
    assert!(said.contains(&told), "{said}");
    assert_eq!(writer.default_track(), new);
    let names = writer.logged_events();
    let names: Vec<_> = names.iter().map(|event| event.event.as_str()).collect();
    assert!(
        names.ends_with(&["activation-forced", "activated"]),
        "{names:?}"
    );
    // The track before it gives way to nothing.
    let foreseen = writer.foresee_rotation(Some(former)).unwrap();
    assert_eq!(foreseen.instead_of.as_ref(), Some(&active));
    assert!(!foreseen.notes.join(" ").contains("is the default"));
}
