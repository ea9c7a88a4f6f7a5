//! What is said of the origins right after a revocation.

use std::time::Instant;

use super::revoke::revoke_then;
use super::*;
use crate::agent::admin::AfterRevocation;
use crate::agent::impact::Thought;
use crate::keyring::{Then, Wrong};

/// The revoked keys that origins show, as operators are told.
fn shows_revoked(writer: &mut Writer) -> usize {
    writer.came_round();
    let overview = writer.reader.overview();
    let wrong = overview.origins.iter().flat_map(|origin| &origin.wrong);
    wrong
        .filter(|wrong| wrong.what == Wrong::ShowsRevoked)
        .count()
}

/// Found by review: each revocation was followed by a warning that the agent's
/// own listener still shows the key, from a look of before.
#[tokio::test]
async fn a_look_of_before_a_revocation_shows_nothing_wrong() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let (kid, before) = (writer.active(), writer.served());
    answered(&mut writer, &before).await;
    // One that is waited for by the writer, and one that is under way.
    writer.news.looked("web", before.clone(), Instant::now());
    let began = Instant::now();
    writer
        .order(revoke_then(&kid, AfterRevocation::Wait))
        .await
        .unwrap();
    assert_eq!(shows_revoked(&mut writer), 0, "what was seen before");
    writer.news.looked("web", before.clone(), began);
    while let Some(item) = writer.news.take() {
        writer.learn(item).await;
        assert_eq!(shows_revoked(&mut writer), 0, "what was looked for before");
    }
    // Whoever asks from now on, and gets it, gets what is wrong.
    answered(&mut writer, &before).await;
    assert_eq!(shows_revoked(&mut writer), 1);
}

/// The origin answers as it should, and what came of that.
async fn answered(writer: &mut Writer, shown: &Shown) {
    writer.news.looked("web", shown.clone(), Instant::now());
    while let Some(item) = writer.news.take() {
        writer.learn(item).await;
    }
}

/// Found by review: an origin that was silent since before the next key was
/// made was said to be without it, and later to lack the active key.
#[tokio::test]
async fn a_silent_origin_lacks_no_key_that_is_younger_than_its_silence() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    let before = writer.served();
    answered(&mut writer, &before).await;
    writer.came_round();
    bench.clock.advance(writer.patience());
    writer.settle().await;
    assert_eq!(writer.kids(|phase| phase.name() == "published").len(), 1);
    bench.clock.advance(Span::from_days(1));
    let told = |writer: &mut Writer| {
        writer.came_round();
        writer.reader.overview().origins[0].clone()
    };
    let origin = told(&mut writer);
    assert!(origin.silent && origin.wrong.is_empty(), "{origin:?}");
    // Once it answers, and is without the key, that is so.
    answered(&mut writer, &before).await;
    let origin = told(&mut writer);
    let lags: Vec<_> = origin.wrong.iter().map(|wrong| wrong.what).collect();
    assert!(!origin.silent && lags == [Wrong::Lags], "{origin:?}");
}

/// Found by review: the answer to a revocation promised a date that an origin
/// which was known to be silent kept from coming.
#[tokio::test]
async fn a_revocation_names_the_origins_in_the_way_of_its_dates() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    let before = writer.served();
    writer.settle().await;
    let kid = writer.active();
    let thought = Thought {
        kid: kid.clone(),
        then: Some(Then::Wait),
        ..Thought::default()
    };
    let foreseen = |writer: &mut Writer| {
        writer.came_round();
        let impact = writer.foresee(&thought).unwrap().impact;
        (impact.waits_for.join("; "), impact.unbounded())
    };
    let shown = writer.served();
    answered(&mut writer, &shown).await;
    assert_eq!(foreseen(&mut writer).0, "", "nothing is in the way");
    bench.clock.advance(writer.patience() + Span::from_secs(1));
    let (waits, told) = foreseen(&mut writer);
    assert_eq!(waits, "the origin web to answer");
    assert!(
        told.contains("that waits for the origin web to answer"),
        "{told}"
    );
    answered(&mut writer, &before).await;
    let (waits, _) = foreseen(&mut writer);
    assert_eq!(waits, "the origin web to show the keys that it should");
    // So says the answer; but not where nobody waits for it.
    let order = revoke_then(&kid, AfterRevocation::Wait);
    let changed = writer.order(order).await.unwrap();
    let pending = changed.pending.join(" ");
    assert!(pending.contains(&waits), "{pending}");
    let waive = Change::WaiveOrigin {
        origin: "web".to_owned(),
        span: Span::from_days(90),
        note: "it is gone".to_owned(),
    };
    writer.order(waive).await.unwrap();
    assert_eq!(foreseen(&mut writer).0, "");
}

/// The origins that are called silent, as operators are told.
fn silent(writer: &mut Writer) -> usize {
    writer.came_round();
    let overview = writer.reader.overview();
    overview.origins.iter().filter(|it| it.silent).count()
}

/// Found by review: each confirmation of the time was followed by a page for
/// every origin, until it was asked the next time.
#[tokio::test]
async fn a_confirmed_clock_makes_no_origin_silent() {
    let (day, second) = (Span::from_days(1), Span::from_secs(1));
    for ahead in [true, false] {
        let bench = Bench::begun().await;
        let mut writer = bench.writer().await;
        writer.settle().await;
        let shown = writer.served();
        answered(&mut writer, &shown).await;
        assert_eq!(silent(&mut writer), 0);
        let now = bench.clock.read().wall;
        bench
            .clock
            .set_wall(if ahead { now + day } else { now - day });
        writer.tick().await;
        assert!(writer.guard.doubt().is_some());
        // It answers on; while the time is in doubt that is dated by boot.
        answered(&mut writer, &shown).await;
        let confirm = async |writer: &mut Writer| {
            let reading = bench.clock.read().wall;
            let confirm = confirm(reading);
            writer.order(confirm).await.unwrap();
        };
        confirm(&mut writer).await;
        assert_eq!(silent(&mut writer), 0, "ahead: {ahead}");
        // Nothing is activated on what it showed before, though.
        assert!(writer.live.is_empty());
        // Once it has had its time since, it is; and stays so, whatever is
        // confirmed, until it answers.
        bench.clock.advance(writer.patience());
        assert_eq!(silent(&mut writer), 0, "ahead: {ahead}");
        bench.clock.advance(second);
        assert_eq!(silent(&mut writer), 1, "ahead: {ahead}");
        confirm(&mut writer).await;
        assert_eq!(silent(&mut writer), 1, "ahead: {ahead}");
        answered(&mut writer, &shown).await;
        assert_eq!(silent(&mut writer), 0, "ahead: {ahead}");
    }
}
