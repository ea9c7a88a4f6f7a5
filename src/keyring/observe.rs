//! What the public really gets: sightings of keys at the origins.

use std::collections::BTreeSet;

use super::event::{Event, What};
use super::key::{Key, Phase};
use super::rules;
use super::set::{KeySet, Plan};
use crate::time::Time;

impl KeySet {
    /// An origin answered at `at` (the instant at which the answer was whole)
    /// with a set that shows the keys of these `kid`s: [`KeySet::recognised`]
    /// says which, for a `kid` alone is but a name.
    ///
    /// A run of sightings starts at the first of them and is broken by the
    /// first answer without the key: an origin that regresses starts anew.
    /// Silence neither starts nor breaks a run; it only keeps the origin from
    /// counting as live.
    pub fn observe(
        &mut self,
        origin: &str,
        kids: &BTreeSet<String>,
        at: Time,
        plan: &Plan,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let required = rules::exception_waiver(&plan.origins, &self.waivers, at);
        for key in self.keys.values_mut().filter(|key| key.is_published()) {
            let Some(kid) = &key.kid else { continue };
            let seen = |key: &Key| rules::exception_observers(&required, &key.sightings, &required);
            let before = seen(key);
            if kids.contains(kid) {
                key.sightings.entry(origin.to_owned()).or_insert(at);
            } else if key.sightings.remove(origin).is_some() {
                let what = What::Regressed {
                    origin: origin.to_owned(),
                };
                events.push(Event::of(key, at, what));
            }
            let after = seen(key);
            if before.is_none() && after.is_some() && matches!(key.phase, Phase::Published { .. }) {
                events.push(Event::of(key, at, What::ObservedEverywhere));
            }
        }
        events
    }
}
