//! Waiting for what is to come about, with a deadline and never for a time.

use std::panic::Location;
use std::time::{Duration, Instant};

use super::lab::PATIENCE;

/// Waits for a condition; polls, because the condition is another process'.
/// Where it gives up it says who waited.
#[track_caller]
pub(crate) fn wait_for(mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    poll(Location::caller(), async move || condition())
}

/// The same, for a condition that takes a question to find out.
#[track_caller]
pub(crate) fn wait_until(condition: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    poll(Location::caller(), condition)
}

async fn poll(waiting: &Location<'_>, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !condition().await {
        let waited = began.elapsed();
        assert!(waited < PATIENCE, "gave up after {waited:?}: {waiting}");
        ticks.tick().await;
    }
}
