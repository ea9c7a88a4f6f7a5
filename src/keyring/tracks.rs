//! What follows when the configuration names other tracks, or another device.

use std::collections::BTreeSet;

use super::event::{Event, What};
use super::key::{Key, KeyId, Phase};
use super::rules;
use super::set::{KeySet, Plan, Seat, SeatId, Tick};
use crate::time::Time;

impl KeySet {
    /// The seats that the plan wants, in its order.
    pub(super) fn seats_of(&self, plan: &Plan) -> Vec<SeatId> {
        plan.tracks
            .iter()
            .map(|&(algorithm, _)| SeatId {
                algorithm,
                group: plan.group.clone(),
            })
            .collect()
    }

    /// Follows the configuration: a new track gets a seat, one that was taken
    /// off retires its keys, and nothing more is made on a device that was
    /// changed for another.
    pub(super) fn adopt_tracks(&mut self, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let wanted = self.seats_of(plan);
        for seat in &wanted {
            if !self.seats.contains_key(seat) {
                let fresh_after = self.last_revocation(seat);
                let back = Seat {
                    fresh_after,
                    ..Seat::default()
                };
                self.seats.insert(seat.clone(), back);
            }
        }
        let elsewhere = |key: &&Key| key.is_coming() && !key.placements.contains_key(&plan.device);
        let elsewhere: Vec<KeyId> = (self.keys.values().filter(elsewhere))
            .filter(|key| wanted.contains(&key.seat()))
            .map(|key| key.id)
            .collect();
        let mut events = Vec::new();
        for id in elsewhere {
            events.extend(self.abandon(id, tick));
        }
        // A key that was held when its track was taken off follows when it is
        // released.
        let waiting = (self.keys.values()).filter(|key| !key.is_held() && key.is_for_its_track());
        let gone: BTreeSet<SeatId> = (self.seats.keys().cloned())
            .chain(waiting.map(Key::seat))
            .filter(|seat| !wanted.contains(seat))
            .collect();
        for seat in gone {
            events.extend(self.take_off(&seat, plan, tick));
        }
        events
    }

    /// When a key of a track was revoked last, as far as that is on record: a
    /// track that comes back begins with a key that was made after it (rule 5).
    fn last_revocation(&self, seat: &SeatId) -> Option<Time> {
        let mine = self.keys.values().filter(|key| key.seat() == *seat);
        mine.filter_map(|key| match key.phase {
            Phase::Revoked { since, .. } => Some(since),
            _ => None,
        })
        .max()
    }

    /// Retires what a track has, but for what an operator holds.
    fn take_off(&mut self, seat: &SeatId, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let mine = self.keys.values().filter(|key| key.seat() == *seat);
        let keys: Vec<KeyId> = mine
            .filter(|key| !key.is_held() && key.is_for_its_track())
            .map(|key| key.id)
            .collect();
        let active = self.seats.get(seat).and_then(|seat| seat.active);
        let keeps_seat = active.is_some_and(|id| self.key(id).is_held());
        self.take_switch(seat);
        if keeps_seat && keys.is_empty() {
            return Vec::new();
        }
        if !keeps_seat {
            self.seats.remove(seat);
        }
        self.epoch += 1;
        let left_epoch = self.epoch;
        let mut events = Vec::new();
        for id in keys {
            match self.key(id).phase {
                Phase::Generating => events.extend(self.abandon(id, tick)),
                _ => events.push(self.withdraw(id, left_epoch, plan, tick)),
            }
        }
        events
    }

    /// A published key that is to sign no more, or never: no view from
    /// `left_epoch` on signs with it.
    pub(super) fn withdraw(
        &mut self,
        id: KeyId,
        left_epoch: u64,
        plan: &Plan,
        tick: &Tick,
    ) -> Event {
        let last_sign = rules::rule_2_last_use(tick.now, &plan.timing);
        let key = self.key_mut(id);
        if key.exp_ceiling.is_some() {
            // A key that was to be active may have signed at a replica that
            // has not heard of the change, or whose clock is ahead.
            key.left_epoch = left_epoch;
            key.phase = Phase::Retiring {
                since: tick.now,
                last_sign,
            };
            return Event::of(key, tick.now, What::Retiring);
        }
        // It never signed: no verifier needs it.
        key.phase = Phase::Retired { since: tick.now };
        Event::of(key, tick.now, What::Removed)
    }

    /// A key that is no longer wanted before it exists: whatever the device
    /// may already hold of it is destroyed, by the replica that was to make
    /// it. Only that one knows whether the device is still at it; a destruction
    /// by another would find nothing, and the key would appear afterwards.
    pub(super) fn abandon(&mut self, id: KeyId, tick: &Tick) -> Vec<Event> {
        let mut owner = tick.replica.clone();
        self.intents.retain(|_, intent| {
            let about = intent.task.key() == id;
            if about {
                owner.clone_from(&intent.owner);
            }
            !about
        });
        let abandoned = Event::of(self.key(id), tick.now, What::GenerationAbandoned);
        let mut events = vec![abandoned];
        if self.key(id).adopted.is_some() {
            // Somebody else made it, and may sign with it: it stays.
            self.keys.remove(&id);
            return events;
        }
        let tick = Tick {
            replica: owner,
            ..tick.clone()
        };
        events.extend(self.begin_destruction(id, &tick));
        events
    }
}
