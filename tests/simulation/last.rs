//! The end of the last key of a set: a fresh one in the same change.

use std::cell::Cell;

use sealkeeper::keyring::{
    Ending, KeyId, Mandate, NotReplaced, Outcome, Reason, Replacement, Task, Then,
};

use super::outside::kid_of;
use super::world::World;

impl World {
    /// Ends the last key and publishes a fresh one, if it is the last and a
    /// device makes one now. The key is blocked already.
    pub(crate) fn replace_last(&mut self, r: usize, kid: &str, then: Option<Then>) -> bool {
        let cached = self.replicas[r].cached.as_ref();
        if !cached.is_some_and(|(set, _)| set.is_last(kid)) {
            return false;
        }
        let Some(replacement) = self.prepare(r, kid) else {
            return false;
        };
        let Some(outcome) = self.make_now(r, replacement) else {
            return false;
        };
        let either = if self.random.chance(500) {
            Then::Wait
        } else {
            Then::Activate
        };
        let ending = Ending {
            reason: Reason::Compromised,
            then: then.or(Some(either)),
            at: None,
            mandate: Mandate::default(),
        };
        let endings = std::collections::BTreeMap::from([(kid.to_owned(), ending)]);
        let gone = Cell::new(false);
        let until = Cell::new(None);
        let done = self.change(r, &|set, plan, tick| {
            let made = (replacement, outcome.clone());
            let replaced = set.replace_last(kid, &endings, made, plan, tick);
            gone.set(false);
            match replaced {
                Ok(revoked) => {
                    assert!(set.revoked.contains_key(kid), "{kid} was not ended");
                    assert!(
                        set.keys.values().any(|key| key.is_published()),
                        "no key took the place of {kid}"
                    );
                    until.set(Some(revoked.exposure.bounded_until));
                    Ok(revoked.events)
                }
                Err(NotReplaced::Refused(why)) => Err(why),
                // Another replica was faster: revoked, or taken back.
                Err(_) => {
                    gone.set(true);
                    Ok(Vec::new())
                }
            }
        });
        self.say(|| format!("replica {r} replaces {kid}, the last: {done:?}"));
        let replaced = done.is_ok() && !gone.get();
        if replaced {
            self.totals.count("revoked: the last, a fresh one with it");
            if let Some(until) = until.get() {
                self.promised(r, kid, until, false);
            }
        }
        replaced
    }

    fn prepare(&mut self, r: usize, kid: &str) -> Option<Replacement> {
        let prepared = Cell::new(None);
        let drawn = Cell::new(self.random.next());
        let done = self.change(r, &|set, plan, tick| {
            let mut ids = || {
                drawn.set(drawn.get().wrapping_add(1));
                let mut id = [0xee; 16];
                id[..8].copy_from_slice(&drawn.get().to_le_bytes());
                KeyId(id)
            };
            match set.prepare_replacement(kid, plan, tick, &mut ids) {
                Ok((replacement, events)) => {
                    prepared.set(Some(replacement));
                    Ok(events)
                }
                Err(NotReplaced::Refused(why)) => Err(why),
                Err(other) => panic!("{other}"),
            }
        });
        done.ok()?;
        prepared.get()
    }

    /// The device makes the replacement at once, or not in time.
    fn make_now(&mut self, r: usize, replacement: Replacement) -> Option<Outcome> {
        let (set, _) = self.replicas[r].cached.as_ref()?;
        let Task::Generate { key, .. } = set.intents.get(&replacement.intent)?.task else {
            return None;
        };
        if self.device.away || self.replicas[r].working.contains(&key) || self.mishap(100) {
            self.totals.count("revoked: the last, and no device");
            return None;
        }
        let salt = self.random.next();
        let public = self.device.generate(key, salt);
        if self.mishap(40) {
            self.crash(r, "after the device call");
            return None;
        }
        let kid = kid_of(&public);
        Some(Outcome::Generated {
            public,
            kid,
            token: None,
        })
    }
}
