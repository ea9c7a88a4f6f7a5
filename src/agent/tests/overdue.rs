//! Rotations that are late.

use super::*;
use crate::agent::overdue::LateRotation;
use crate::store::Store;

/// What operators would be told now.
fn late(bench: &Bench, writer: &mut Writer) -> Vec<LateRotation> {
    writer.came_round();
    let now = writer.reader.judged(bench.clock.read());
    writer.reader.overview().late(now, &writer.plan.timing)
}

#[tokio::test]
async fn a_late_rotation_says_what_it_waits_for_and_pages_past_the_hard_limit() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    assert_eq!(late(&bench, &mut writer), []);
    bench
        .clock
        .advance(Span::from_days(90) + Span::from_hours(1));
    writer.tick().await;
    let told = late(&bench, &mut writer);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].late, Span::from_hours(1));
    assert!(!told[0].page && writer.paged.is_empty());
    let wait = &told[0].waits_for;
    assert!(wait.starts_with("the origin web to show the key"), "{wait}");
    bench.clock.advance(Span::from_days(7));
    assert!(late(&bench, &mut writer)[0].page);
    assert_eq!(writer.paged, BTreeSet::from([Algorithm::Ed25519]));
    // A store that is lost meanwhile makes no rotation come sooner.
    let stored = bench.store.load(NAME).await.unwrap().unwrap();
    let damage = bench
        .store
        .compare_and_swap(NAME, Some(stored.version), b"{}");
    damage.await.unwrap();
    writer.load().await;
    let told = late(&bench, &mut writer);
    assert!(told[0].page && !writer.paged.is_empty());
    let wait = &told[0].waits_for;
    assert!(wait.starts_with("the record of the key set: "), "{wait}");
}

/// Found by review: an origin that lagged kept verifiers trusting a revoked key
/// for months, behind figures that were all well.
#[tokio::test]
async fn a_rotation_that_is_asked_for_is_late_as_well() {
    let revoke = |kid| Change::Revoke {
        kid,
        reason: RevocationReason::Compromised,
        then: Some(AfterRevocation::Activate),
        note: String::new(),
    };
    let timing = Timing::default();
    for owed in [true, false] {
        let bench = Bench::begun().await;
        let mut writer = bench.writer().await;
        writer.settle().await;
        let order = match owed {
            true => revoke(writer.active()),
            false => rotate(),
        };
        writer.order(order).await.unwrap();
        writer.settle().await;
        bench.clock.advance(timing.pre_publish());
        writer.tick().await;
        assert_eq!(late(&bench, &mut writer), []);
        bench.clock.advance(Span::from_hours(1));
        writer.tick().await;
        let told = late(&bench, &mut writer);
        assert_eq!(told.len(), 1);
        let slack = Span::from_secs(1);
        assert!(told[0].late + slack >= Span::from_hours(1), "{told:?}");
        let wait = &told[0].waits_for;
        assert!(wait.starts_with("the origin web to show the key"), "{wait}");
        assert!(!told[0].page);
        bench.clock.advance(Span::from_days(7));
        writer.tick().await;
        assert!(late(&bench, &mut writer)[0].page);
    }
}

/// A clock that leaps by a year makes no rotation a year late.
#[tokio::test]
async fn a_clock_that_is_not_believed_pages_nobody() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let year = Span::from_days(365);
    bench.clock.set_wall(bench.clock.read().wall + year);
    writer.tick().await;
    assert!(writer.guard.doubt().is_some());
    assert_eq!(late(&bench, &mut writer), []);
    assert!(writer.paged.is_empty());
}
