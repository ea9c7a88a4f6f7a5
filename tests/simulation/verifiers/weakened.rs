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

/// In so many worlds at most each kind meets what it can see; most within fifty.
const WORLDS: u64 = 400;

const NOT_YET: &str = "a verifier cannot check a token: its key was not there yet";
const NO_MORE: &str = "a verifier cannot check a token: its key was there no more";
const TRUSTED: &str = "a verifier trusts a revoked key for longer than the operator was told";

/// By what was wrong and the kind that found it, how often.
type Breaches = BTreeMap<(&'static str, &'static str), u64>;

/// Rule 1 and rule 5 without P: as far as that goes, a set that takes longer.
#[test]
fn edges_that_are_behind_by_more_than_agents_know() {
    seen("without P", &[&[NOT_YET], &[TRUSTED]], |world| {
        for client in &mut world.population.clients {
            client.lag = client.lag + world.plan.timing.verifier_cache;
        }
    });
}

/// Rule 1 and rule 5 without C.
#[test]
fn agents_that_know_no_verifier_cache() {
    seen("without C", &[&[NOT_YET], &[TRUSTED]], |world| {
        world.plan.timing.verifier_cache = Span::ZERO
    });
}

/// Rule 3 without L.
#[test]
fn origins_that_show_no_key_that_signs_no_more() {
    seen("without L", &[&[NO_MORE]], |world| {
        world.population.without_overlap = true
    });
}

#[test]
fn verifiers_that_keep_sets_for_longer_than_they_say() {
    let refuses = "a verifier cannot check a token, by a set that is too old";
    let trusts = "a verifier trusts a revoked key, by a set that is too old";
    seen(
        "with sets that are too old",
        &[&[refuses, trusts]],
        |world| {
            for client in &mut world.population.clients {
                client.lies = true;
            }
        },
    );
}

/// Every kind sees something of each, in worlds that were made worse. It ends
/// with the world in which the last of them does.
fn seen(name: &str, expected: &[&[&'static str]], weaken: impl Fn(&mut World)) {
    let mut found = Breaches::new();
    for seed in BASE..BASE + WORLDS {
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
        if blind(&found, expected).is_empty() {
            println!("{name}: all have seen it in {} worlds", seed - BASE + 1);
            return;
        }
    }
    panic!("{name}: not seen by {:?}", blind(&found, expected));
}

/// The kinds that have not seen all of it yet.
fn blind(found: &Breaches, expected: &[&[&'static str]]) -> Vec<&'static str> {
    let sees = |kind: &str, whys: &[&'static str]| {
        let mut breaches = found.keys();
        breaches.any(|(why, by)| whys.contains(why) && *by == kind)
    };
    let kinds = KINDS.iter().map(|kind| kind.name);
    kinds
        .filter(|kind| !expected.iter().all(|whys| sees(kind, whys)))
        .collect()
}
