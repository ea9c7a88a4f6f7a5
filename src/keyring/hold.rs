//! That automation keeps away from a key.
//!
//! A hold only restricts, so it waits for no clock that is in doubt: a key that is revoked in
//! the meantime would be destroyed as soon as the time is confirmed, and with
//! it what forensics need. What it must not do on the word of such a clock is
//! take back a switch: whether readers have taken it already is a question of
//! time alone. In doubt none of them switches, so it is decided when the time
//! is confirmed.

use super::event::{Event, What};
use super::key::{Hold, KeyId, Mandate};
use super::operator::ordered;
use super::refusal::OperatorError;
use super::rules::Action;
use super::set::{KeySet, Plan, SeatId, Tick};
use crate::time::Time;

impl KeySet {
    /// Keeps automation away from a key: no activation, retirement, removal
    /// or destruction. A revocation still blocks and unpublishes it; the
    /// private half is kept for forensics. A key that is held already stays
    /// held since then, by the latest wish.
    ///
    /// A switch that touches it is taken back as long as every replica can
    /// still hear of that; [`KeySet::switches_at`] says which one goes on.
    ///
    /// # Errors
    /// [`OperatorError::UnknownKid`].
    pub fn hold(
        &mut self,
        kid: &str,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        let held = self.hold_in_doubt(kid, mandate, tick)?;
        let mut events = ordered(self.keep_holds(tick.now, plan), Action::Hold, mandate);
        events.extend(held);
        Ok(events)
    }

    /// When the active key of this key's track changes from it, or to it.
    #[must_use]
    pub fn switches_at(&self, kid: &str) -> Option<Time> {
        let key = self.by_kid(kid)?;
        let seat = self.seats.get(&key.seat())?;
        let switch = seat.switch.as_ref()?;
        (switch.to == key.id || seat.active == Some(key.id)).then_some(switch.at)
    }

    /// Keeps automation away from a key, as [`KeySet::hold`] does, but leaves a
    /// switch that lies ahead to [`KeySet::confirm_clock`]. `tick.now` is an
    /// estimate, and dates the hold.
    ///
    /// # Errors
    /// [`OperatorError::UnknownKid`].
    pub fn hold_in_doubt(
        &mut self,
        kid: &str,
        mandate: &Mandate,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        let id = self.find(kid)?.id;
        let key = self.key_mut(id);
        let since = key.hold.as_ref().map_or(tick.now, |hold| hold.since);
        key.hold = Some(Hold {
            since,
            mandate: mandate.clone(),
        });
        let held = Event::of(key, tick.now, What::Held);
        Ok(ordered(vec![held], Action::Hold, mandate))
    }

    /// Gives a held key back to automation. Nothing happens to one that nobody
    /// holds.
    ///
    /// # Errors
    /// [`OperatorError::UnknownKid`].
    pub fn release(
        &mut self,
        kid: &str,
        mandate: &Mandate,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        let id = self.find(kid)?.id;
        let key = self.key_mut(id);
        if key.hold.take().is_none() {
            return Ok(Vec::new());
        }
        let event = Event::of(key, tick.now, What::Released);
        Ok(vec![event.ordered(Action::Release, mandate)])
    }

    /// Takes back the switches that touch a held key, as far as every replica
    /// can still hear of it at `now`, which is believed.
    pub(super) fn keep_holds(&mut self, now: Time, plan: &Plan) -> Vec<Event> {
        let is_held = |id: KeyId| self.key(id).is_held();
        let touched = self.seats.iter().filter(|(_, seat)| {
            let ahead = seat.switch.as_ref().filter(|switch| {
                (is_held(switch.to) || seat.active.is_some_and(is_held))
                    && now + plan.timing.adoption <= switch.at
            });
            ahead.is_some()
        });
        let touched: Vec<SeatId> = touched.map(|(id, _)| id.clone()).collect();
        let mut events = Vec::new();
        for seat in touched {
            if let Some(to) = self.take_switch(&seat) {
                events.push(Event::of(self.key(to), now, What::ActivationCancelled));
            }
        }
        events
    }
}
