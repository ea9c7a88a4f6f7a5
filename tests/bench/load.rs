//! Callers who ask again once they have their answer, for a while: how many
//! answers they got, how long each took, and what that took of the processors.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use super::machine::cpu;

/// What no figure needs more of.
const MOST: usize = 500_000;

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Signatures, or answers, a second.
    pub(crate) per_second: f64,
    /// What half of the requests took at most, and 99 of a hundred.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) mean_us: f64,
    /// Microseconds of a processor for each, by process.
    pub(crate) cpu_us: Vec<f64>,
}

/// The time that counts: after a fifth of it to warm up.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl Window {
    pub(crate) fn of(span: Duration) -> Self {
        let from = Instant::now() + span / 5;
        Self {
            from,
            until: from + span,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        Instant::now() < self.until
    }

    pub(crate) fn counts(&self, at: Instant) -> bool {
        self.from <= at && at < self.until
    }
}

impl Figure {
    /// From the times of all that ended within a window, each of them `of`
    /// signatures.
    pub(crate) fn new(mut took: Vec<Duration>, of: usize, span: Duration) -> Self {
        assert!(!took.is_empty(), "nothing was answered within {span:?}");
        took.sort_unstable();
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let at = |percent: usize| us(took[(took.len() * percent / 100).min(took.len() - 1)]);
        let sum: Duration = took.iter().sum();
        Self {
            per_second: (took.len() * of) as f64 / span.as_secs_f64(),
            p50_us: at(50),
            p99_us: at(99),
            mean_us: us(sum) / took.len() as f64,
            cpu_us: Vec::new(),
        }
    }

    /// The mean of two of the same kind: taken before and after something
    /// else, so that a machine that changes meanwhile does so for both.
    pub(crate) fn between(&self, other: &Self) -> Self {
        let mean = |a: f64, b: f64| f64::midpoint(a, b);
        let cpu = self.cpu_us.iter().zip(&other.cpu_us);
        Self {
            per_second: mean(self.per_second, other.per_second),
            p50_us: mean(self.p50_us, other.p50_us),
            p99_us: mean(self.p99_us, other.p99_us),
            mean_us: mean(self.mean_us, other.mean_us),
            cpu_us: cpu.map(|(a, b)| mean(*a, *b)).collect(),
        }
    }
}

/// Has these callers ask for `span`. Each call is one request for `of`
/// signatures. The processes are those whose use of the processors is told.
pub(crate) async fn drive<C>(
    span: Duration,
    of: usize,
    processes: &[Vec<u32>],
    callers: impl IntoIterator<Item = C>,
) -> Figure
where
    C: AsyncFnMut() + 'static,
{
    let window = Window::of(span);
    let local = LocalSet::new();
    let mut asking = Vec::new();
    for mut caller in callers {
        asking.push(local.spawn_local(async move {
            let mut took = Vec::new();
            while window.is_open() && took.len() < MOST {
                let asked = Instant::now();
                caller().await;
                let answered = Instant::now();
                if window.counts(answered) {
                    took.push(answered - asked);
                }
            }
            took
        }));
    }
    let used = async {
        let read = || -> Vec<Duration> { processes.iter().map(|pids| cpu(pids)).collect() };
        at(window.from).await;
        let before = read();
        at(window.until).await;
        let after = read();
        after.iter().zip(&before).map(|(b, a)| *b - *a).collect()
    };
    let all = async {
        let mut took = Vec::new();
        for asking in asking {
            took.extend(asking.await.unwrap());
        }
        took
    };
    let (took, used): (_, Vec<Duration>) = local.run_until(async { tokio::join!(all, used) }).await;
    let answers = (took.len() * of) as f64;
    let mut figure = Figure::new(took, of, span);
    figure.cpu_us = used
        .iter()
        .map(|t| t.as_secs_f64() * 1e6 / answers)
        .collect();
    figure
}

async fn at(instant: Instant) {
    let never = std::future::pending::<()>();
    tokio::time::timeout_at(instant.into(), never).await.ok();
}
