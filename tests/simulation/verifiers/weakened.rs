//! That the verifiers see what is wrong, and which: worlds that lack a wait,
//! or in which verifiers keep sets for longer than they say. Such a world does not
//! end at the first breach; it counts them all.
//!
//! Nobody sees S by itself here: the other invariants end such a world before.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sealkeeper::time::Span;

use super::kinds::KINDS;
use crate::simulation::world::World;
use crate::simulation::{BASE, reason, year};

/// In so many worlds each kind meets what it can see.
const WORLDS: u64 = 50;

const NOT_YET: &str = "a verifier cannot check a token: its key was not there yet";
const NO_MORE: &str = "a verifier cannot check a token: its key was there no more";
const TRUSTED: &str = "a verifier trusts a revoked key for longer than the operator was told";

/// By what was wrong and the kind that found it, how often.
type Breaches = BTreeMap<(&'static str, &'static str), u64>;

/// Rule 1 and rule 5 without P: as far as that goes, a set that takes longer.
#[test]
fn edges_that_are_behind_by_more_than_agents_know() {
    let found = breaches(WORLDS, |world| {
        for client in &mut world.population.clients {
            client.lag = client.lag + world.plan.timing.verifier_cache;
        }
    });
    seen("without P", &found, &[&[NOT_YET], &[TRUSTED]]);
}

/// Rule 1 and rule 5 without C.
#[test]
fn agents_that_know_no_verifier_cache() {
    let found = breaches(WORLDS, |world| {
        world.plan.timing.verifier_cache = Span::ZERO
    });
    seen("without C", &found, &[&[NOT_YET], &[TRUSTED]]);
}

/// Rule 3 without L.
#[test]
fn origins_that_show_no_key_that_signs_no_more() {
    let found = breaches(WORLDS, |world| world.population.without_overlap = true);
    seen("without L", &found, &[&[NO_MORE]]);
}

#[test]
fn verifiers_that_keep_sets_for_longer_than_they_say() {
    let found = breaches(2 * WORLDS, |world| {
        for client in &mut world.population.clients {
            client.lies = true;
        }
    });
    let refuses = "a verifier cannot check a token, by a set that is too old";
    let trusts = "a verifier trusts a revoked key, by a set that is too old";
    seen("with sets that are too old", &found, &[&[refuses, trusts]]);
}

/// What verifiers find in worlds that were made worse.
fn breaches(worlds: u64, weaken: impl Fn(&mut World)) -> Breaches {
    let mut found = Breaches::new();
    for seed in BASE..BASE + worlds {
        let mut world = World::new(seed, false);
        world.population.breaches = Some(Breaches::new());
        weaken(&mut world);
        match catch_unwind(AssertUnwindSafe(|| year::live(world))) {
            Ok(lived) => {
                for (what, count) in lived.population.breaches.unwrap_or_default() {
                    *found.entry(what).or_default() += count;
                }
            }
            // Others have seen it too: there it ends.
            Err(cause) => println!("world {seed}: {}", reason(&*cause)),
        }
    }
    found
}

/// Every kind sees something of each.
fn seen(name: &str, found: &Breaches, expected: &[&[&'static str]]) {
    let mut blind = Vec::new();
    for kind in KINDS {
        let of = |why: &&'static str| found.get(&(*why, kind.name)).copied().unwrap_or_default();
        let count = |whys: &&[&'static str]| whys.iter().map(of).sum();
        let counts: Vec<u64> = expected.iter().map(count).collect();
        println!("{name}: {counts:?} by {}", kind.name);
        if counts.contains(&0) {
            blind.push(kind.name);
        }
    }
    assert!(blind.is_empty(), "{name}: not seen by {blind:?}");
}
