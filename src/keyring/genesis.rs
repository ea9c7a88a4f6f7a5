//! The explicit beginning of a key set.

use std::collections::{BTreeMap, BTreeSet};

use super::bounds::Known;
use super::event::{Event, What};
use super::intent::Task;
use super::key::{Half, Key, KeyId, Phase};
use super::rules;
use super::set::{Genesis, KeySet, Plan, Tick};
use crate::time::Time;

/// Why a key set cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not every first key exists yet.
    #[error("{0} keys are still to be made")]
    Unfinished(usize),
    /// It has begun already.
    #[error("the key set {0:?} has begun already")]
    Done(String),
}

impl KeySet {
    /// The explicit beginning of a key set, on `init` alone: asks for one key
    /// for each track, and for the placeholder.
    pub fn genesis(
        name: &str,
        plan: &Plan,
        tick: &Tick,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> (Self, Vec<Event>) {
        let mut set = Self {
            name: name.to_owned(),
            genesis: Genesis::Pending { since: tick.now },
            epoch: 0,
            high_water: tick.now,
            seats: BTreeMap::new(),
            keys: BTreeMap::new(),
            placeholder: None,
            intents: BTreeMap::new(),
            next_intent: 1,
            replicas: BTreeMap::new(),
            revoked: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_request: 0,
            waivers: BTreeMap::new(),
            looked: BTreeMap::new(),
            bounds: None,
            left_alone: BTreeSet::new(),
        };
        set.join(tick);
        let events = set.resume_genesis(plan, tick, ids);
        (set, events)
    }

    /// Goes on with a beginning that was cut short, by the configuration of
    /// now: what is missing is asked for, and what nobody wants any more is
    /// given up. No verifier has seen any of it. Does nothing once the set has
    /// begun.
    pub fn resume_genesis(
        &mut self,
        plan: &Plan,
        tick: &Tick,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Vec<Event> {
        if !rules::exception_genesis(&self.genesis) {
            return Vec::new();
        }
        self.bounds = Some(Known::of(&plan.timing));
        let mut events = self.give_up_unwanted(plan, tick);
        let seats = self.seats_of(plan);
        self.seats.retain(|seat, _| seats.contains(seat));
        for (seat, &(_, key_type)) in seats.iter().zip(&plan.tracks) {
            self.seats.entry(seat.clone()).or_default();
            let mut keys = self.keys.values();
            if !keys.any(|key| key.seat() == *seat && self.is_wanted(key, plan)) {
                events.extend(self.generate(seat, key_type, plan, tick, ids));
            }
        }
        // The placeholder is of the default track's kind, so that a verifier
        // that can read the set can read it when it is alone.
        if let (Some(seat), Some((_, key_type)), None) =
            (seats.first(), plan.tracks.first(), self.placeholder)
        {
            let made = self.generate(seat, *key_type, plan, tick, ids);
            self.placeholder = made.as_ref().map(|event| event.key);
            events.extend(made);
        }
        events
    }

    /// Whether a key is the first of its track, made or to be made.
    fn is_wanted(&self, key: &Key, plan: &Plan) -> bool {
        let mut tracks = self.seats_of(plan).into_iter().zip(&plan.tracks);
        let right = tracks.any(|(seat, (_, kind))| seat == key.seat() && *kind == key.key_type);
        let here = key.placements.get(&plan.device) == Some(&Half::Present);
        let live = matches!(key.phase, Phase::Generating | Phase::Published { .. });
        right && here && live && self.placeholder != Some(key.id)
    }

    /// Whether the placeholder is, or will be, of the default track.
    fn is_placeholder_wanted(&self, key: &Key, plan: &Plan) -> bool {
        let default = self.seats_of(plan).into_iter().zip(&plan.tracks).next();
        let right =
            default.is_some_and(|(seat, (_, kind))| seat == key.seat() && *kind == key.key_type);
        let here = key.placements.get(&plan.device) == Some(&Half::Present);
        // Its public half is what it is for.
        right && (here || key.phase == Phase::Placeholder)
    }

    fn give_up_unwanted(&mut self, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let placeholder = self.placeholder.filter(|id| {
            let key = self.key(*id);
            !self.is_placeholder_wanted(key, plan)
        });
        self.placeholder.take_if(|id| Some(*id) == placeholder);
        let unwanted = |key: &&Key| {
            let live = matches!(key.phase, Phase::Published { .. } | Phase::Placeholder);
            (live || key.is_coming())
                && self.placeholder != Some(key.id)
                && !self.is_wanted(key, plan)
        };
        let unwanted: Vec<KeyId> = self
            .keys
            .values()
            .filter(unwanted)
            .map(|key| key.id)
            .collect();
        let mut events = Vec::new();
        for id in unwanted {
            if self.key(id).is_coming() {
                events.extend(self.abandon(id, tick));
                continue;
            }
            let key = self.key_mut(id);
            key.phase = Phase::Retired { since: tick.now };
            events.push(Event::of(key, tick.now, What::Removed));
            events.extend(self.begin_destruction(id, tick));
        }
        events
    }

    /// Ends `init`: the first keys become active at once, though nobody
    /// observed them ([`rules::exception_genesis`]). What is to be destroyed on
    /// a device that the configuration has no more use for is not waited for.
    pub fn finish_genesis(&mut self, plan: &Plan, now: Time) -> Result<Vec<Event>, GenesisError> {
        if !rules::exception_genesis(&self.genesis) {
            return Err(GenesisError::Done(self.name.clone()));
        }
        let tasks = self.intents.values().map(|intent| &intent.task);
        let open = tasks
            .filter(|task| task.device() == plan.device || matches!(task, Task::Generate { .. }))
            .count();
        if open > 0 {
            return Err(GenesisError::Unfinished(open));
        }
        let made = |seat| {
            let mut keys = self.keys.values();
            keys.find(|key| key.kid.is_some() && key.seat() == seat && self.is_wanted(key, plan))
        };
        let first: Vec<Option<KeyId>> = (self.seats_of(plan).into_iter())
            .map(|seat| made(seat).map(|key| key.id))
            .collect();
        let placeholder = self.placeholder.map(|id| &self.key(id).phase);
        let missing = first.iter().filter(|key| key.is_none()).count()
            + usize::from(placeholder != Some(&Phase::Placeholder));
        if missing > 0 {
            return Err(GenesisError::Unfinished(missing));
        }
        let mut events = Vec::new();
        for id in first.into_iter().flatten() {
            events.extend(self.activate(id, now, &plan.timing));
        }
        self.genesis = Genesis::Done { at: now };
        self.high_water = now;
        self.epoch += 1;
        Ok(events)
    }
}
