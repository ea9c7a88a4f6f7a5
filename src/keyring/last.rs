//! The end of the last key of a set: a fresh one enters the set in the change
//! in which it leaves, so that verifiers never get the placeholder where a
//! device can make a key.
//!
//! It takes three steps. The key is blocked in memory and on disk; an intent to
//! make the fresh one goes on record, and verifiers see nothing of it; once the
//! device has made it, one change ends the one and publishes the other. After a
//! crash between them the blocked key is revoked as any other.

use std::collections::BTreeMap;

use super::event::Event;
use super::intent::{IntentId, Outcome, Task, UnexpectedOutcome};
use super::key::{Key, KeyId, Phase};
use super::operator::{Ending, Revoked};
use super::refusal::OperatorError;
use super::set::{INSTANT, KeySet, Plan, SeatId, Tick};
use crate::jose::KeyType;

/// The key that is to take the place of the last one, on record and not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// What the device is asked.
    pub intent: IntentId,
    key: KeyId,
    /// Whether it was decided to make it after the last key was blocked; one
    /// that was on its way before does not count as made after a compromise.
    fresh: bool,
}

/// Why the last key was not replaced. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplaced {
    /// The key cannot be revoked.
    #[error(transparent)]
    Refused(#[from] OperatorError),
    /// The device made something unexpected, or the intent is gone.
    #[error(transparent)]
    Unexpected(#[from] UnexpectedOutcome),
    /// No track is configured, or there is no randomness for an id.
    #[error("no key can be made for the key set {0:?}")]
    NoneToMake(String),
}

impl KeySet {
    /// Whether verifiers would get the placeholder if this key were revoked.
    #[must_use]
    pub fn is_last(&self, kid: &str) -> bool {
        let mut published = self.keys.values().filter(|key| key.is_published());
        let is_it = |key: &Key| key.kid.as_deref() == Some(kid);
        published.next().is_some_and(is_it) && published.next().is_none()
    }

    /// Puts on record that a key is to be made in the place of the last one,
    /// which the caller has blocked. Waits for one that is on its way already
    /// and that this replica makes, instead of asking for a second one.
    ///
    /// Nothing that verifiers or signers see changes.
    pub fn prepare_replacement(
        &mut self,
        kid: &str,
        plan: &Plan,
        tick: &Tick,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Result<(Replacement, Vec<Event>), NotReplaced> {
        let none = || NotReplaced::NoneToMake(self.name.clone());
        let seats = self.seats_of(plan);
        let wanted = self.find(kid)?.seat();
        // A key of a track that was taken off: the default track's.
        let at = seats.iter().position(|seat| *seat == wanted).unwrap_or(0);
        let seat_id = seats.get(at).ok_or_else(none)?;
        let (_, key_type) = plan.tracks[at];
        if let Some(coming) = self.on_its_way(seat_id, key_type, tick) {
            return Ok((coming, Vec::new()));
        }
        let none = none();
        // Rule 5, as the revocation itself will have it: the key that is made
        // now is younger than whatever verifiers may hold.
        let mine = self.keys.values().filter(|key| key.seat() == *seat_id);
        let newest = mine.map(|key| key.created).max();
        let exposure = self.exposed(tick.now, newest, plan);
        let seat = self.seats.entry(seat_id.clone()).or_default();
        seat.fresh_after = seat.fresh_after.max(Some(exposure.fresh_after));
        let intent = IntentId(self.next_intent);
        let event = self
            .generate(seat_id, key_type, plan, tick, ids)
            .ok_or(none)?;
        let replacement = Replacement {
            intent,
            key: event.key,
            fresh: true,
        };
        Ok((replacement, vec![event]))
    }

    fn on_its_way(&self, seat: &SeatId, key_type: KeyType, tick: &Tick) -> Option<Replacement> {
        self.intents.iter().find_map(|(id, intent)| {
            let key = self.keys.get(&intent.task.key())?;
            let generates = matches!(intent.task, Task::Generate { .. });
            let generates = generates && key.adopted.is_none();
            let right = key.seat() == *seat && key.key_type == key_type;
            let coming = matches!(key.phase, Phase::Generating) && intent.owner == tick.replica;
            (generates && right && coming).then_some(Replacement {
                intent: *id,
                key: key.id,
                fresh: false,
            })
        })
    }

    /// Publishes the replacement, which the device has made, and ends the last
    /// key, with all others that are to end: one change, and no set between
    /// them. Where the operator wants a key to sign at once, it is the
    /// replacement.
    pub fn replace_last(
        &mut self,
        kid: &str,
        endings: &BTreeMap<String, Ending>,
        made: (Replacement, Outcome),
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Revoked, NotReplaced> {
        let (replacement, outcome) = made;
        let mut next = self.clone();
        let mut events = next.complete(replacement.intent, outcome, tick)?;
        let mut last = None;
        for (ended, revoked) in next.revoke_all(endings, plan, tick) {
            if let Ok(revoked) = revoked {
                events.extend(revoked.events.clone());
                last = last.or((ended == kid).then_some(revoked));
            }
        }
        let unknown = || OperatorError::UnknownKid {
            kid: kid.to_owned(),
            key_set: self.name.clone(),
        };
        let revoked = last.ok_or_else(unknown)?;
        if replacement.fresh {
            // No verifier has seen it, and it was made after the last key was
            // blocked: it is the key that rule 5 asks for.
            let key = next.key(replacement.key);
            let (seat_id, after) = (key.seat(), key.created - INSTANT);
            if let Some(seat) = next.seats.get_mut(&seat_id) {
                seat.fresh_after = Some(after);
            }
            next.settle(&seat_id);
        }
        *self = next;
        Ok(Revoked { events, ..revoked })
    }
}
