//! What the right token lacks, and nobody here destroyed.

use super::event::{Event, What};
use super::key::{Half, Key, Phase};
use super::set::{KeySet, Plan, Tick};

impl KeySet {
    /// The keys that are to sign next, as far as the record knows.
    pub fn standbys_by_record(&self) -> impl Iterator<Item = &Key> {
        let keys = self.keys.values();
        keys.filter(|key| {
            let next = matches!(key.phase, Phase::Published { .. });
            next && !key.is_held() && key.has_private_half() && self.placeholder != Some(key.id)
        })
    }

    /// A device says that it lacks a key that is to sign next: the key leaves
    /// the set, as it will sign nothing, and the next step asks for another.
    ///
    /// Nothing where it is none of these, or is held, or where its activation
    /// is so near that agents may have it already.
    pub fn standby_lost(&mut self, kid: &str, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let id = self.by_kid(kid).map(|key| key.id);
        let Some(id) = id.filter(|id| self.standbys_by_record().any(|key| key.id == *id)) else {
            return Vec::new();
        };
        let seat = self.key(id).seat();
        let switch = self.seats.get(&seat).and_then(|seat| seat.switch.as_ref());
        let mut events = Vec::new();
        if let Some(switch) = switch.filter(|switch| switch.to == id) {
            if tick.now + plan.timing.adoption > switch.at {
                return events;
            }
            self.take_switch(&seat);
            events.push(Event::of(self.key(id), tick.now, What::ActivationCancelled));
        }
        let key = self.key_mut(id);
        let halves = key.placements.iter_mut();
        let present = halves.filter(|(_, half)| **half == Half::Present);
        let lost: Vec<String> = present
            .map(|(device, half)| {
                *half = Half::Lost;
                device.clone()
            })
            .collect();
        let told = |device| Event::of(self.key(id), tick.now, What::Lost { device });
        events.extend(lost.into_iter().map(told));
        self.epoch += 1;
        events.push(self.withdraw(id, self.epoch, plan, tick));
        events
    }
}
