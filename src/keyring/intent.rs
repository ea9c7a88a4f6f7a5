//! Effects as data: what a device is to be asked, on record before it is
//! asked, and what came of it.

use serde::{Deserialize, Serialize};

use super::event::{Event, What};
use super::key::{Half, Key, KeyId, Phase};
use super::rules::{self, Action};
use super::set::{KeySet, Tick};
use crate::jose::PublicKey;
use crate::time::Time;

/// An intent's number in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntentId(pub u64);

/// One thing to ask of one device. It stays on record until an outcome is
/// reported, so whoever starts after a crash finds it and carries it out
/// through the same code; each task may be done twice without harm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Intent {
    /// The replica that carries it out.
    pub owner: String,
    /// When it was written.
    pub since: Time,
    /// What is to be done.
    pub task: Task,
}

/// What a device is to be asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Make the key pair whose id is `key`, or find that it was made. Where the
    /// key is one that is adopted: give the pair that there is this id.
    Generate {
        /// The key's id, which is the object's id too.
        key: KeyId,
        /// The device's name.
        device: String,
    },
    /// Destroy every object whose id is `key`, or find that there is none.
    Destroy {
        /// The key's id, which is the object's id too.
        key: KeyId,
        /// The device's name.
        device: String,
    },
}

impl Task {
    /// The key that it is about.
    #[must_use]
    pub const fn key(&self) -> KeyId {
        match self {
            Self::Generate { key, .. } | Self::Destroy { key, .. } => *key,
        }
    }

    /// The device that is asked.
    #[must_use]
    pub fn device(&self) -> &str {
        match self {
            Self::Generate { device, .. } | Self::Destroy { device, .. } => device,
        }
    }
}

/// What came of a task. A failure is no outcome: the intent stays, and is
/// tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pair exists, cannot be extracted, and signed what its public half
    /// verified.
    Generated {
        /// The public half.
        public: PublicKey,
        /// Its `kid`: the RFC 7638 thumbprint, or the one that it was adopted
        /// with.
        kid: String,
        /// The serial of the token that holds it, where it says one.
        token: Option<String>,
    },
    /// No object with this id is left in the device.
    Destroyed,
    /// The private half that was to be destroyed is in the device still, which
    /// was asked for nothing but that: [`KeySet::holds_back`].
    Kept,
}

/// An outcome that the record does not expect. The agent or the device is at
/// fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnexpectedOutcome {
    /// Somebody else reported it first.
    #[error("no intent {0:?} is on record")]
    NoIntent(IntentId),
    /// A generation reported for a destruction, or the reverse.
    #[error("intent {0:?} asks for something else")]
    OtherTask(IntentId),
    /// The device took over another key than was asked for.
    #[error("the device shows another key than the one that was to be adopted as {kid:?}")]
    OtherKey {
        /// The `kid` of the adoption.
        kid: String,
    },
    /// A device made a key that the set already knows.
    #[error("the device made a key that is known already, {kid}: its randomness may be broken")]
    KnownKid {
        /// The `kid` that stands twice.
        kid: String,
    },
}

impl KeySet {
    /// Reports what came of an intent.
    pub fn complete(
        &mut self,
        id: IntentId,
        outcome: Outcome,
        tick: &Tick,
    ) -> Result<Vec<Event>, UnexpectedOutcome> {
        let intent = self
            .intents
            .get(&id)
            .ok_or(UnexpectedOutcome::NoIntent(id))?;
        let key = intent.task.key();
        let device = intent.task.device().to_owned();
        let events = match (&intent.task, outcome) {
            (Task::Generate { .. }, Outcome::Generated { public, kid, token }) => {
                let events = self.generated(key, public, kid, tick)?;
                self.key_mut(key)
                    .tokens
                    .extend(token.map(|token| (device, token)));
                events
            }
            (Task::Destroy { .. }, Outcome::Destroyed) => self.destroyed(key, device, tick),
            // Released meanwhile: the destruction goes on.
            (Task::Destroy { .. }, Outcome::Kept) if !self.key(key).is_held() => {
                return Ok(Vec::new());
            }
            (Task::Destroy { .. }, Outcome::Kept) => self.kept(key, device, tick),
            _ => return Err(UnexpectedOutcome::OtherTask(id)),
        };
        self.intents.remove(&id);
        Ok(events)
    }

    /// The serial of the token that a task is for; none where the record does
    /// not say. A private half is destroyed in the token that holds it, and in
    /// no other is its absence a proof. A new one is made in the token that
    /// holds the latest of its device: one of the same label that was put into
    /// its place by mistake, or by somebody else, gets none.
    #[must_use]
    pub fn token_for(&self, task: &Task) -> Option<&str> {
        let device = task.device();
        let of = |key: &Key| key.placements.get(device) == Some(&Half::Present);
        let key = match task {
            Task::Destroy { key, .. } => self.keys.get(key),
            Task::Generate { .. } => (self.keys.values())
                .filter(|key| of(key) && key.tokens.contains_key(device))
                .max_by_key(|key| (key.created, key.id)),
        };
        key?.tokens.get(device).map(String::as_str)
    }

    fn generated(
        &mut self,
        id: KeyId,
        public: PublicKey,
        kid: String,
        tick: &Tick,
    ) -> Result<Vec<Event>, UnexpectedOutcome> {
        let fresh = rules::exception_revoked_for_ever(&kid, &self.revoked);
        if !fresh || self.by_kid(&kid).is_some() {
            return Err(UnexpectedOutcome::KnownKid { kid });
        }
        let adoption = self.key(id).adopted.clone();
        if let Some(adoption) = &adoption
            && (adoption.kid != kid || adoption.public != public)
        {
            let kid = adoption.kid.clone();
            return Err(UnexpectedOutcome::OtherKey { kid });
        }
        let placeholder = self.placeholder == Some(id);
        let now = tick.now;
        let key = self.key_mut(id);
        key.kid = Some(kid);
        key.public = Some(public);
        if placeholder {
            key.phase = Phase::Placeholder;
            let made = Event::of(key, now, What::PlaceholderMade);
            let mut events = vec![made];
            events.extend(self.begin_destruction(id, tick));
            return Ok(events);
        }
        key.phase = Phase::Published { since: now };
        key.published = Some(now);
        let adopted = adoption.map(|adoption| {
            let device = key.placements.keys().next().cloned().unwrap_or_default();
            let what = What::Adopted {
                device,
                id: adoption.former_id,
                label: adoption.label,
            };
            Event::of(key, now, what).ordered(Action::Adopt, &adoption.mandate)
        });
        let published = Event::of(key, now, What::Published);
        self.epoch += 1;
        Ok(adopted.into_iter().chain([published]).collect())
    }

    fn destroyed(&mut self, id: KeyId, device: String, tick: &Tick) -> Vec<Event> {
        let key = self.key_mut(id);
        key.placements.insert(device.clone(), Half::Destroyed);
        let event = Event::of(key, tick.now, What::Destroyed { device });
        if matches!(key.phase, Phase::Generating) {
            // An abandoned generation: nothing of it is left to remember.
            self.keys.remove(&id);
        }
        vec![event]
    }

    /// Whether a hold keeps a device from what a task asks of it. To be asked
    /// of the record that the store has, right before the device is: deletion
    /// obeys a hold where deletion happens.
    ///
    /// What was to be destroyed is looked for then instead: a call that was
    /// carried out, and that nobody could report, left nothing to keep.
    #[must_use]
    pub fn holds_back(&self, task: &Task) -> bool {
        match task {
            Task::Generate { .. } => false,
            Task::Destroy { key, .. } => self.keys.get(key).is_some_and(Key::is_held),
        }
    }

    /// Whether this is still asked of a device.
    #[must_use]
    pub fn asks_for(&self, task: &Task) -> bool {
        self.intents.values().any(|intent| intent.task == *task)
    }

    /// A hold came in time: the half is as it was before its destruction
    /// began, and so are the ways back to the key.
    fn kept(&mut self, id: KeyId, device: String, tick: &Tick) -> Vec<Event> {
        let key = self.key_mut(id);
        key.placements.insert(device.clone(), Half::Present);
        let event = Event::of(key, tick.now, What::DestructionStopped { device });
        let held_by = key.hold.as_ref().map(|hold| &hold.mandate);
        vec![match held_by {
            Some(mandate) => event.ordered(Action::Hold, mandate),
            None => event,
        }]
    }

    /// Writes the intents that destroy a private half wherever it is present.
    /// From here on there is no way back (rule 4), but by a hold that comes
    /// before the device was asked.
    pub(super) fn begin_destruction(&mut self, id: KeyId, tick: &Tick) -> Vec<Event> {
        let mut events = Vec::new();
        let present: Vec<String> = self
            .key(id)
            .placements
            .iter()
            .filter(|(_, half)| half.may_be_destroyed())
            .map(|(device, _)| device.clone())
            .collect();
        for device in present {
            let key = self.key_mut(id);
            key.placements.insert(device.clone(), Half::Destroying);
            let what = What::DestructionBegun {
                device: device.clone(),
            };
            events.push(Event::of(key, tick.now, what));
            self.intend(Task::Destroy { key: id, device }, tick);
        }
        events
    }
}
