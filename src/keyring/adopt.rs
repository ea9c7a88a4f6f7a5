//! Keys that another tool made in a device of ours.
//!
//! An adopted key keeps its `kid`; in the device it is given an id of ours, so
//! that all that is done to keys of this set, and only to those, is done to it:
//! it is found, signed with and destroyed by that id alone. The intent stands
//! in the record before the device is asked, as of a key that is made here.
//!
//! It is published first and waits as any standby does (rule 1): that an older
//! system signed with it says nothing of the verifiers of this set. It is next
//! before the standbys that were made here, since it was adopted to be used.

use serde::{Deserialize, Serialize};

use super::event::{Event, What};
use super::intent::{IntentId, Task};
use super::key::{Key, KeyId, Mandate};
use super::rules::{self, Action};
use super::set::{Genesis, KeySet, Plan, SeatId, Tick};
use crate::jose::{Algorithm, PublicKey};
use crate::time::Time;

/// What is known of a key that another tool made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Adoption {
    /// The `kid` that it had, and keeps.
    pub kid: String,
    /// Its public half, as the device shows it.
    pub public: PublicKey,
    /// The `CKA_ID` that it had, in hexadecimal; may be empty.
    pub former_id: String,
    /// Its `CKA_LABEL`, which it keeps; may be empty.
    pub label: String,
    /// At whose wish.
    pub mandate: Mandate,
}

/// Why a key is not adopted. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// The set has not begun.
    #[error("the key set {0:?} has not begun")]
    NotBegun(String),
    /// Its `kid` was revoked here.
    #[error("the key {kid:?} was revoked, and does not come back")]
    Revoked {
        /// Its `kid`.
        kid: String,
    },
    /// Its `kid` is taken.
    #[error("the set knows a key {kid:?} already, which is {phase}")]
    Known {
        /// Its `kid`.
        kid: String,
        /// The phase of the one that is known.
        phase: &'static str,
    },
    /// The set has it, under another name.
    #[error("this key is in the set already, as {kid:?}")]
    SameKey {
        /// The `kid` of that.
        kid: String,
    },
    /// The set does not sign so.
    #[error("the key set has no track {algorithm}")]
    NoTrack {
        /// What was wanted.
        algorithm: Algorithm,
    },
    /// The numbers are of no key for this algorithm.
    #[error("expected a key for {algorithm}, got {got}")]
    WrongKey {
        /// What was wanted.
        algorithm: Algorithm,
        /// What it is.
        got: crate::jose::KeyType,
    },
    /// Rule 5: nothing of before a compromise may come after it.
    #[error(
        "a key of {algorithm} was revoked, and the next ones must be made after that: nobody knows when this one was made"
    )]
    AfterCompromise {
        /// The track.
        algorithm: Algorithm,
    },
    /// No randomness for an id.
    #[error("no id could be drawn for the key {kid:?}: the source of randomness is broken")]
    NoId {
        /// Its `kid`.
        kid: String,
    },
}

impl KeySet {
    /// Writes the intent to take over a key that the device holds. Once the
    /// device has done it, the key is published ([`KeySet::complete`]).
    ///
    /// # Errors
    /// [`AdoptError`]; nothing was changed.
    pub fn adopt(
        &mut self,
        algorithm: Algorithm,
        adoption: &Adoption,
        plan: &Plan,
        tick: &Tick,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Result<(IntentId, Vec<Event>), AdoptError> {
        let seat = self.may_adopt(algorithm, adoption, plan)?;
        let intent = IntentId(self.next_intent);
        let key_type = adoption.public.key_type();
        let kid = adoption.kid.clone();
        let begun = self.generate(&seat, key_type, plan, tick, ids);
        let id = begun.ok_or(AdoptError::NoId { kid })?.key;
        let key = self.key_mut(id);
        // Older than whatever is made here: it is not fresh after a compromise.
        key.created = Time::default();
        key.adopted = Some(Box::new(adoption.clone()));
        let begun = Event {
            kid: Some(adoption.kid.clone()),
            ..Event::of(key, tick.now, What::AdoptionBegun)
        };
        let begun = begun.ordered(Action::Adopt, &adoption.mandate);
        Ok((intent, vec![begun]))
    }

    fn may_adopt(
        &self,
        algorithm: Algorithm,
        adoption: &Adoption,
        plan: &Plan,
    ) -> Result<SeatId, AdoptError> {
        if matches!(self.genesis, Genesis::Pending { .. }) {
            return Err(AdoptError::NotBegun(self.name.clone()));
        }
        let mut seats = self.seats_of(plan).into_iter();
        let seat = seats.find(|seat| seat.algorithm == algorithm);
        let seat = seat.ok_or(AdoptError::NoTrack { algorithm })?;
        let got = adoption.public.key_type();
        if !algorithm.accepts(got) {
            return Err(AdoptError::WrongKey { algorithm, got });
        }
        let kid = adoption.kid.clone();
        if !rules::exception_revoked_for_ever(&kid, &self.revoked) {
            return Err(AdoptError::Revoked { kid });
        }
        if let Some(known) = self.keys.values().find(|key| key.name() == Some(&kid)) {
            let phase = known.phase.name();
            return Err(AdoptError::Known { kid, phase });
        }
        let same = |key: &&Key| key.numbers() == Some(&adoption.public);
        if let Some(kid) = self.keys.values().find(same).and_then(Key::name) {
            return Err(AdoptError::SameKey { kid: kid.clone() });
        }
        if (self.seats.get(&seat)).is_some_and(|seat| seat.fresh_after.is_some()) {
            return Err(AdoptError::AfterCompromise { algorithm });
        }
        Ok(seat)
    }

    /// Takes an adoption back that the device refused. Does nothing once it is
    /// done.
    pub fn give_up_adoption(&mut self, intent: IntentId, tick: &Tick) -> Vec<Event> {
        let Some(intent) = self.intents.get(&intent) else {
            return Vec::new();
        };
        let key = intent.task.key();
        match intent.task {
            Task::Generate { .. } if self.key(key).adopted.is_some() => self.abandon(key, tick),
            _ => Vec::new(),
        }
    }
}

impl Key {
    /// Its `kid`, or the one that it will have.
    fn name(&self) -> Option<&String> {
        let adopted = self.adopted.as_ref().map(|adoption| &adoption.kid);
        self.kid.as_ref().or(adopted)
    }

    fn numbers(&self) -> Option<&PublicKey> {
        let adopted = self.adopted.as_ref().map(|adoption| &adoption.public);
        self.public.as_ref().or(adopted)
    }
}
