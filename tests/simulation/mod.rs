//! Years of random life, judged in true time.
//!
//! A seed makes a world: replicas with clocks of their own, a store, a device,
//! origins, an operator, and mishaps at every point. After each event the
//! functions named `invariant_*` run; verifiers of every kind run along and
//! judge each token. To replay what failed:
//!
//! ```text
//! scripts/simulate --seed <seed>
//! ```
//!
//! `SEALKEEPER_RUNS` sets the number of seeds, and `SEALKEEPER_BASE` is the
//! first of them. `scripts/simulate` runs many more than a push does.

mod agent;
mod clock;
mod invariants;
mod last;
mod ledger;
mod orders;
pub(crate) mod outside;
pub(crate) mod promises;
pub(crate) mod random;
mod recovery;
mod schedule;
mod signatures;
mod signing;
mod totals;
mod verifiers;
mod watching;
mod world;
mod year;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use totals::Totals;

/// The first seed of an ordinary run: the same today and tomorrow, so that a
/// push that breaks nothing is not broken by chance.
const BASE: u64 = 20_260_101;

/// Broken worlds after which a run gives up.
const ENOUGH: u64 = 10;

#[test]
fn simulation() {
    if let Some(seed) = number("SEALKEEPER_SEED") {
        let totals = year::run(seed, true);
        println!("{totals}");
        return;
    }
    let runs = number("SEALKEEPER_RUNS").unwrap_or(2_000);
    let base = number("SEALKEEPER_BASE").unwrap_or(BASE);
    let (totals, broken) = many(base, runs);
    println!("{totals}");
    let years = totals.simulated.as_secs() / 31_557_600;
    println!(
        "{runs} worlds from seed {base}: {years} simulated years, {} events, {} signatures, {} tokens shown",
        totals.events,
        totals.signatures,
        totals.crowd.tokens()
    );
    for (seed, why) in &broken {
        println!("seed {seed}: {why}");
    }
    if let Some((seed, why)) = broken.first() {
        panic!(
            "{} of {runs} worlds broke. scripts/simulate --seed {seed} replays the first: {why}",
            broken.len()
        );
    }
    // Fewer seeds need not meet every kind of mishap.
    if runs >= 500 {
        let missing = totals.missing();
        assert!(missing.is_empty(), "the simulation never met: {missing:?}");
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}: expected a number, got {text:?}")),
    )
}

/// Runs so many seeds on all processors; what broke comes back with its seed,
/// the lowest first.
fn many(base: u64, runs: u64) -> (Totals, Vec<(u64, String)>) {
    let next = AtomicU64::new(base);
    let broke = AtomicU64::new(0);
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        let (mut totals, mut broken) = (Totals::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= base + runs || broke.load(Ordering::Relaxed) >= ENOUGH {
                return (totals, broken);
            }
            match catch_unwind(AssertUnwindSafe(|| year::run(seed, false))) {
                Ok(more) => totals.add(&more),
                Err(cause) => {
                    broke.fetch_add(1, Ordering::Relaxed);
                    // At once: a long run ends much later.
                    eprintln!("seed {seed} broke");
                    broken.push((seed, reason(&*cause)));
                }
            }
        }
    };
    let (mut totals, mut broken) = (Totals::default(), Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let (more, worse) = thread
                .join()
                .expect("the worker catches what its worlds do");
            totals.add(&more);
            broken.extend(worse);
        }
    });
    broken.sort();
    (totals, broken)
}

pub(crate) fn reason(cause: &(dyn std::any::Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}
