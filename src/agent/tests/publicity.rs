//! What is said of the origins right after a revocation.

use std::time::Instant;

use super::revoke::revoke_then;
use super::*;
use crate::agent::admin::AfterRevocation;
use crate::keyring::Wrong;

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
    writer.news.looked("web", before.clone(), Instant::now());
    while let Some(item) = writer.news.take() {
        writer.learn(item).await;
    }
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
    writer.news.looked("web", before, Instant::now());
    while let Some(item) = writer.news.take() {
        writer.learn(item).await;
    }
    assert_eq!(shows_revoked(&mut writer), 1);
}
