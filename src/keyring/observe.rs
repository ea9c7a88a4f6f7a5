//! What the public really gets: sightings of keys at the origins.

use std::collections::BTreeSet;

use super::event::{Event, What};
use super::key::{Key, Phase};
use super::rules;
use super::set::{KeySet, Plan};
use super::waiver::OWN_LISTENER;
use crate::time::Time;

impl KeySet {
    /// An origin answered at `at` (the instant at which the answer was whole)
    /// with a set that shows the keys of these `kid`s: [`KeySet::recognised`]
    /// says which, for a `kid` alone is but a name.
    ///
    /// A run of sightings starts at the first of them and is broken by the
    /// first answer without the key: an origin that regresses starts anew. So
    /// does one at which nobody looked for longer than
    /// [`Timing::patience`](super::Timing::patience), because it fell silent or
    /// no agent ran: it may have gone back and come again meanwhile, and a
    /// verifier may hold what it showed then. An agent's own listener shows
    /// what the record says, or nothing.
    pub fn observe(
        &mut self,
        origin: &str,
        kids: &BTreeSet<String>,
        at: Time,
        plan: &Plan,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let unseen_since = self.look(origin, at, plan);
        let required = rules::exception_waiver(&plan.origins, &self.waivers, at);
        for key in self.keys.values_mut().filter(|key| key.is_published()) {
            let Some(kid) = &key.kid else { continue };
            let seen = |key: &Key| rules::exception_observers(&required, &key.sightings, &required);
            let before = seen(key);
            if kids.contains(kid) {
                let since = key.sightings.entry(origin.to_owned()).or_insert(at);
                if let Some(last) = unseen_since
                    && *since < at
                {
                    *since = at;
                    let what = What::Unobserved {
                        origin: origin.to_owned(),
                        since: last,
                    };
                    let waits = matches!(key.phase, Phase::Published { .. });
                    events.extend(waits.then(|| Event::of(key, at, what)));
                }
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

    /// Puts on record that somebody looks at an origin; says since when nobody
    /// did, where what happened there meanwhile is not known.
    fn look(&mut self, origin: &str, at: Time, plan: &Plan) -> Option<Time> {
        if origin == OWN_LISTENER {
            return None;
        }
        let patience = plan.timing.patience();
        let known = self.looked.get(origin).copied();
        // A record of before this was kept knows when it last changed.
        let last = known.unwrap_or(self.high_water);
        let unseen = at.since(last);
        // Not each look is worth a write.
        if known.is_none() || unseen >= patience.divided_by(2) {
            self.looked.insert(origin.to_owned(), at);
        }
        (unseen > patience).then_some(last)
    }
}
