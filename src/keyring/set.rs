//! A key set as a value: what is stored, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::approval::Request;
use super::bounds::Known;
use super::clock::ClockNote;
use super::event::{Event, What};
use super::intent::{Intent, IntentId, Task};
use super::key::{Half, Key, KeyId, Mandate, Phase, Reason};
use super::rules;
use super::timing::Timing;
use super::waiver::Waiver;
use crate::jose::{Algorithm, KeyType};
use crate::time::{Span, Time};

/// The signer group of an agent that is configured with none: there is one
/// today.
pub const ONLY_GROUP: &str = "main";

/// The least that two instants can differ by.
pub(super) const INSTANT: Span = Span::from_millis(1);

/// How many ids are drawn until one is new: more than one means that
/// randomness is broken already.
const DRAWS: usize = 4;

/// What the configuration wants of a key set. It is an argument to each step
/// and never stored: what must outlive a change of it is in the keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The schedule's numbers.
    pub timing: Timing,
    /// The tracks; the first is the default.
    pub tracks: Vec<(Algorithm, KeyType)>,
    /// The device on which new keys are made.
    pub device: String,
    /// The signer group of this agent.
    pub group: String,
    /// The origins that must show a key before it may become active.
    pub origins: BTreeSet<String>,
    /// Whether what cannot be undone takes two people.
    pub two_people: bool,
}

/// Which agent does a step, and what it alone knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tick {
    /// The instant, already judged by [`super::ClockGuard`].
    pub now: Time,
    /// The agent's stable name.
    pub replica: String,
    /// The epoch of the view that this agent's readers have.
    pub adopted: u64,
    /// The origins that answered lately, to this agent.
    pub live: BTreeSet<String>,
}

/// Whether the key set has begun.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "genesis", rename_all = "kebab-case")]
pub enum Genesis {
    /// `init` is under way, or was cut short.
    Pending {
        /// Since when.
        since: Time,
    },
    /// Its first keys are, or were, active.
    Done {
        /// Since when.
        at: Time,
    },
}

/// Where one key at a time is active: one track in one signer group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seat {
    /// The active key. None after a revocation without a successor, or in a
    /// track that was added and has not been seen everywhere yet.
    pub active: Option<KeyId>,
    /// The next change of the active key: an instant that lies, when it is
    /// stored, at least R ahead, so that every replica has it in time.
    pub switch: Option<Switch>,
    /// An operator or a revocation wants the next change as soon as it is
    /// safe.
    pub rotate_at: Option<Time>,
    /// The next key must be younger than this (rule 5). It stays until no key
    /// of before can become active any more.
    pub fresh_after: Option<Time>,
    /// An operator wants the next key to sign before every verifier can hold
    /// it, because nothing else can sign.
    pub force: bool,
}

/// A change of the active key that lies ahead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Switch {
    /// The key that will be active.
    pub to: KeyId,
    /// From when on.
    pub at: Time,
    /// It goes back to a retiring key.
    pub rollback: bool,
    /// An operator wants it before every verifier can hold the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
}

/// What is known of an agent that signs from this record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// The newest epoch that it said it had adopted.
    pub confirmed: u64,
    /// When it last said anything.
    pub seen: Time,
    /// How its clock stood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockNote>,
}

/// The key of a seat in the record: `ES256/main`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SeatId {
    /// The track.
    pub algorithm: Algorithm,
    /// The signer group.
    pub group: String,
}

impl From<SeatId> for String {
    fn from(id: SeatId) -> Self {
        format!("{}/{}", id.algorithm, id.group)
    }
}

/// Not `ALGORITHM/GROUP`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected ALGORITHM/GROUP, got {0:?}")]
pub struct InvalidSeatId(String);

impl TryFrom<String> for SeatId {
    type Error = InvalidSeatId;
    fn try_from(text: String) -> Result<Self, InvalidSeatId> {
        text.split_once('/')
            .and_then(|(algorithm, group)| {
                Some(Self {
                    algorithm: algorithm.parse().ok()?,
                    group: group.to_owned(),
                })
            })
            .ok_or(InvalidSeatId(text))
    }
}

/// A key set: its keys, who is active, what is to be done, and by whom.
///
/// It is the whole record in the store. Every change goes through a method
/// that takes the time as an argument and returns the [`Event`]s that the
/// change means; the caller stores the value by compare-and-swap before any
/// reader sees a permission that it grants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeySet {
    /// Its name.
    pub name: String,
    /// Whether it has begun.
    #[serde(flatten)]
    pub genesis: Genesis,
    /// Grows by one with each change that readers must see.
    pub epoch: u64,
    /// The latest instant that the keyring acted upon.
    pub high_water: Time,
    /// Where a key is, or could be, active.
    pub seats: BTreeMap<SeatId, Seat>,
    /// Every key that is not yet forgotten.
    pub keys: BTreeMap<KeyId, Key>,
    /// The public key that is shown when nothing else is left.
    pub placeholder: Option<KeyId>,
    /// What devices have been, or are to be, asked to do.
    pub intents: BTreeMap<IntentId, Intent>,
    /// The next intent's number.
    pub next_intent: u64,
    /// The agents that sign from this record.
    pub replicas: BTreeMap<String, Replica>,
    /// Every `kid` that was ever revoked.
    pub revoked: BTreeMap<String, Revocation>,
    /// What waits for a second person, by number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<u64, Request>,
    /// The number of the last of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub last_request: u64,
    /// The origins that are not waited for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waivers: BTreeMap<String, Waiver>,
    /// When somebody last looked at each origin, to within half of
    /// [`Timing::patience`]; the agents' own listeners are not among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub looked: BTreeMap<String, Time>,
    /// How old a set may be that verifiers go by; none in a record of before
    /// this was kept, until the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Known>,
    /// Objects in devices that look like an agent's, and are none of this key
    /// set: what a recovery left alone, or an operator said to be another's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left_alone: BTreeSet<KeyId>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// That a key was revoked; never forgotten.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revocation {
    /// When.
    pub at: Time,
    /// Why.
    pub reason: Reason,
    /// At whose wish; the first records did not say.
    #[serde(flatten)]
    pub mandate: Mandate,
}

impl KeySet {
    /// An agent says that it signs from this record, and which view its
    /// readers have. [`KeySet::advance`] says so at each step; an agent that
    /// is new to the record, or whose clock is in doubt, says it before its
    /// readers get their first view. Whoever is not on record is not waited
    /// for when a private half is destroyed.
    pub fn join(&mut self, tick: &Tick) {
        let replica = self
            .replicas
            .entry(tick.replica.clone())
            .or_insert(Replica {
                confirmed: 0,
                seen: tick.now,
                clock: None,
            });
        if replica.confirmed < tick.adopted {
            replica.confirmed = tick.adopted;
            replica.seen = tick.now;
        }
    }

    /// How the clock of an agent stands that is on record.
    pub fn note_clock(&mut self, replica: &str, note: Option<ClockNote>) {
        if let (Some(replica), Some(_)) = (self.replicas.get_mut(replica), &note) {
            replica.clock = note;
        }
    }

    /// Whether this change of the record is worth a write. `high_water` alone
    /// is, once it has moved by a good part of what a start would doubt, or
    /// back at all.
    #[must_use]
    pub fn is_worth_storing(&self, before: &Self, plan: &Plan) -> bool {
        let moved = self.high_water.since(before.high_water);
        // Back: an operator vouched for an earlier time.
        if self.high_water < before.high_water || moved >= plan.timing.max_gap.divided_by(8) {
            return true;
        }
        *self
            != Self {
                high_water: self.high_water,
                ..before.clone()
            }
    }

    /// Writes the intent to make a key for a seat, and says which. None where
    /// `ids` gives only ids that are taken: the source of randomness is broken,
    /// and no key must be overwritten for it.
    pub(super) fn generate(
        &mut self,
        seat: &SeatId,
        key_type: KeyType,
        plan: &Plan,
        tick: &Tick,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Option<Event> {
        let id = std::iter::repeat_with(ids)
            .take(DRAWS)
            .find(|id| !self.keys.contains_key(id))?;
        // Why: "after the revocation" is an order, not a reading of the clock,
        // which stands still while it is clamped.
        let fresh_after = self.seats.get(seat).and_then(|seat| seat.fresh_after);
        let created = fresh_after.map_or(tick.now, |after| tick.now.max(after + INSTANT));
        let key = Key {
            id,
            algorithm: seat.algorithm,
            key_type,
            group: seat.group.clone(),
            created,
            kid: None,
            public: None,
            phase: Phase::Generating,
            published: None,
            activated: None,
            placements: BTreeMap::from([(plan.device.clone(), Half::Present)]),
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
        };
        let device = Some(plan.device.clone());
        let event = Event::of(&key, tick.now, What::GenerationBegun { device });
        self.keys.insert(id, key);
        self.intend(
            Task::Generate {
                key: id,
                device: plan.device.clone(),
            },
            tick,
        );
        Some(event)
    }

    /// Puts a task on record.
    pub(super) fn intend(&mut self, task: Task, tick: &Tick) {
        let intent = Intent {
            owner: tick.replica.clone(),
            since: tick.now,
            task,
        };
        self.intents.insert(IntentId(self.next_intent), intent);
        self.next_intent += 1;
    }

    /// Makes a key the active one of its seat at `at`; the one before it
    /// retires at the same instant.
    pub(super) fn activate(&mut self, id: KeyId, at: Time, timing: &Timing) -> Vec<Event> {
        let seat_id = self.key(id).seat();
        let seat = self.seats.get(&seat_id);
        let switch = seat.and_then(|seat| seat.switch.as_ref());
        let ordered = switch.is_some_and(|switch| switch.to == id && switch.forced);
        // A revocation may come before a rollback.
        self.take_switch(&seat_id);
        let seat = self.seats.entry(seat_id).or_default();
        let before = seat.active.replace(id);
        seat.rotate_at = None;
        let forced = std::mem::take(&mut seat.force) || ordered;
        let mut events = Vec::new();
        self.epoch += 1;
        let left_epoch = self.epoch;
        if let Some(before) = before.filter(|before| *before != id) {
            let last_sign = rules::rule_2_last_use(at, timing);
            let key = self.key_mut(before);
            key.left_epoch = left_epoch;
            key.phase = Phase::Retiring {
                since: at,
                last_sign,
            };
            events.push(Event::of(key, at, What::Retiring));
        }
        let key = self.key_mut(id);
        key.phase = Phase::Active { since: at };
        key.activated = key.activated.or(Some(at));
        key.forced |= forced;
        raise_ceiling(key, at, timing);
        events.push(Event::of(key, at, What::Activated));
        let seat_id = key.seat();
        self.settle(&seat_id);
        events
    }

    /// Whether a revocation still asks for a rotation: no key that was made
    /// after it is active (rule 5).
    #[must_use]
    pub fn owes_fresh(&self, seat_id: &SeatId) -> bool {
        let Some(seat) = self.seats.get(seat_id) else {
            return false;
        };
        let fresh = |id| rules::rule_5_fresh_key(self.key(id).created, seat.fresh_after);
        seat.fresh_after.is_some() && !seat.active.is_some_and(fresh)
    }

    /// Forgets when the next key of a seat had to be made, once a key of after
    /// that is active, and none of before can be again.
    pub(super) fn settle(&mut self, seat_id: &SeatId) {
        if self.owes_fresh(seat_id) {
            return;
        }
        let Some(seat) = self.seats.get(seat_id) else {
            return;
        };
        let mut mine = self.keys.values().filter(|key| key.seat() == *seat_id);
        let returns = mine.any(|key| {
            let alive = matches!(
                key.phase,
                Phase::Generating | Phase::Published { .. } | Phase::Retiring { .. }
            );
            let before = !rules::rule_5_fresh_key(key.created, seat.fresh_after);
            // A destruction that has begun may be stopped by a hold.
            let may_sign = match key.phase {
                Phase::Generating => key.has_private_half(),
                _ => key.may_have_private_half(),
            };
            alive && before && may_sign
        });
        if !returns && let Some(seat) = self.seats.get_mut(seat_id) {
            seat.fresh_after = None;
        }
    }

    /// Takes a change of the active key off the record; says to which key.
    ///
    /// Replicas that have not heard of it yet will still switch to that key,
    /// and sign: its private half stays until each has.
    pub(super) fn take_switch(&mut self, seat: &SeatId) -> Option<KeyId> {
        let switch = self.seats.get_mut(seat)?.switch.take()?;
        self.epoch += 1;
        let left_epoch = self.epoch;
        self.key_mut(switch.to).left_epoch = left_epoch;
        Some(switch.to)
    }

    /// A key by its id, which is one of this set's own.
    pub(super) fn key(&self, id: KeyId) -> &Key {
        self.keys
            .get(&id)
            .expect("every id in the record names a key: keys are forgotten last")
    }

    /// The same, to change it.
    pub(super) fn key_mut(&mut self, id: KeyId) -> &mut Key {
        self.keys
            .get_mut(&id)
            .expect("every id in the record names a key: keys are forgotten last")
    }

    /// A key by its `kid`.
    #[must_use]
    pub fn by_kid(&self, kid: &str) -> Option<&Key> {
        self.keys
            .values()
            .find(|key| key.kid.as_deref() == Some(kid))
    }
}

impl Key {
    /// The seat that it is made for.
    #[must_use]
    pub fn seat(&self) -> SeatId {
        SeatId {
            algorithm: self.algorithm,
            group: self.group.clone(),
        }
    }
}

/// Raises a ceiling so that tokens of the longest lifetime can be signed from
/// `now` on for a while. Never lowers it.
pub(super) fn raise_ceiling(key: &mut Key, now: Time, timing: &Timing) {
    let ceiling = now + timing.max_token_lifetime + timing.ceiling_step();
    key.exp_ceiling = key.exp_ceiling.max(Some(ceiling));
    key.longest_lifetime = key.longest_lifetime.max(timing.max_token_lifetime);
}
