//! Public keys of an older system, for the tokens that it signed.
//!
//! An imported key has no private half here and never signs. It stands where a
//! key of ours stands that has signed its last token: in the set until no token
//! of it is good, which the operator dates. So nothing that is decided for the
//! keys of this set has to know of it.

use std::collections::BTreeMap;

use super::event::{Event, What};
use super::key::{Key, KeyId, Mandate, Phase};
use super::operator::ordered;
use super::rules::{self, Action};
use super::set::{Genesis, KeySet, Plan, Tick};
use super::view::PublishedKey;
use crate::jose::thumbprint;
use crate::time::{Span, Time};

/// Why keys are not imported. None of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It was revoked here, or by whoever used its `kid` before.
    #[error("the key {kid:?} was revoked, and does not come back")]
    Revoked {
        /// Its `kid`.
        kid: String,
    },
    /// The set knows another key, or this one in another place.
    #[error("the set knows a key {kid:?} already, which is {phase}")]
    Known {
        /// Its `kid`.
        kid: String,
        /// The phase of the one that is known.
        phase: &'static str,
    },
    /// Nothing is good until then.
    #[error("expected a date after now, {now}, got {until}")]
    Over {
        /// Now.
        now: Time,
        /// The date.
        until: Time,
    },
    /// The set has not begun.
    #[error("the key set {0:?} has not begun")]
    NotBegun(String),
    /// No randomness for an id.
    #[error("no id could be drawn for the key {kid:?}: the source of randomness is broken")]
    NoId {
        /// Its `kid`.
        kid: String,
    },
}

impl KeySet {
    /// Publishes keys that verify and never sign, in one change, until no token
    /// of theirs is good any more: `until` is the latest `exp` that the older
    /// system gave. A key that is there already, imported before, is given more
    /// time, never less.
    ///
    /// Recovering knows of them by their own event. `keys revoke` ends one
    /// before its time.
    ///
    /// # Errors
    /// [`ImportError`]; nothing was changed.
    pub fn import(
        &mut self,
        keys: &[PublishedKey],
        until: Time,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Result<Vec<Event>, ImportError> {
        let now = tick.now;
        if matches!(self.genesis, Genesis::Pending { .. }) {
            return Err(ImportError::NotBegun(self.name.clone()));
        }
        if until <= now {
            return Err(ImportError::Over { now, until });
        }
        let mut next = self.clone();
        let mut events = Vec::new();
        for shown in keys {
            let id = next.place_for(shown, ids)?;
            let key = next
                .keys
                .entry(id)
                .or_insert_with(|| foreign(id, shown, plan, now));
            if key.exp_ceiling.is_some_and(|ceiling| ceiling >= until) {
                continue;
            }
            key.exp_ceiling = Some(until);
            events.push(Event::of(key, now, What::Imported { until }));
            next.epoch += 1;
        }
        *self = next;
        Ok(ordered(events, Action::Import, mandate))
    }

    /// The id of a key that was imported before, or a new one.
    fn place_for(
        &self,
        shown: &PublishedKey,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Result<KeyId, ImportError> {
        let kid = shown.kid.clone();
        // A key that was made here has its thumbprint for a name; of others the
        // record knows the numbers until it forgets them.
        let own = thumbprint(&shown.public);
        let ended = self.keys.values().any(|key| {
            let over = matches!(key.phase, Phase::Revoked { .. });
            over && key.public.as_ref() == Some(&shown.public)
        });
        let may = |kid| rules::exception_revoked_for_ever(kid, &self.revoked);
        if ended || !may(&kid) || !may(&own) {
            return Err(ImportError::Revoked { kid });
        }
        if let Some(known) = self.by_kid(&kid) {
            let same = known.public.as_ref() == Some(&shown.public);
            let retiring = matches!(known.phase, Phase::Retiring { .. });
            return match same && retiring && known.placements.is_empty() {
                true => Ok(known.id),
                false => Err(ImportError::Known {
                    kid,
                    phase: known.phase.name(),
                }),
            };
        }
        let id = ids();
        match self.keys.contains_key(&id) {
            false => Ok(id),
            true => Err(ImportError::NoId { kid }),
        }
    }
}

fn foreign(id: KeyId, shown: &PublishedKey, plan: &Plan, now: Time) -> Key {
    Key {
        id,
        algorithm: shown.algorithm,
        key_type: shown.public.key_type(),
        group: plan.group.clone(),
        // Older than whatever is made here: it is not fresh after a compromise.
        created: Time::default(),
        kid: Some(shown.kid.clone()),
        public: Some(shown.public.clone()),
        phase: Phase::Retiring {
            since: now,
            last_sign: now,
        },
        published: Some(now),
        activated: None,
        placements: BTreeMap::new(),
        tokens: BTreeMap::new(),
        given_up: BTreeMap::new(),
        sightings: BTreeMap::new(),
        exp_ceiling: None,
        longest_lifetime: Span::ZERO,
        left_epoch: 0,
        hold: None,
        forced: false,
        adopted: None,
        was_to_sign_until: None,
    }
}
