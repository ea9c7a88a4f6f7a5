//! An operator vouches for the time, after a clock was wrong.
//!
//! Where the clock was fast, what it dated lies too late: after now, waits
//! would end when that clock said, and rotations come as late. What is dated
//! after now is dated now: nothing can have happened later, and each wait from
//! there is longer than the true one. `exp_ceiling` stays, for the tokens that
//! the fast clock dated. Where it was slow, each instant
//! on record lies too early by an unknown time, up to the whole step, and what
//! counts from there would end before its time. So each wait that had not
//! ended by the old clock begins anew:
//!
//! - Rule 1: a run of sightings begins now. A run that had lasted long enough
//!   by the old clock alone stands: the step adds nothing to it.
//! - Rule 1, a switch that lies ahead by the old clock: what was left of its
//!   wait is still to pass, and the time in which replicas hear of it. One that
//!   was due by the old clock has happened for readers, at an instant that was
//!   now at the latest.
//! - Rules 2 and 4: the time for a rollback begins anew. It counts from the
//!   last use, which is put S before now and no later: a replica whose clock is
//!   behind would take up the handover again. So B is short by S, and the
//!   handover of before is over.
//! - Rule 3: `exp_ceiling` stays. It bounds the `exp` of tokens, which
//!   verifiers hold against the true time, whatever the signer believed. The
//!   part that counts from the last use moves with rule 4; without a private
//!   half there is no rollback, and the ceiling alone decides.
//! - Rule 5: what verifiers may trust of a revoked key counts from now. A key
//!   made from now on is younger than every revocation on record already.
//!
//! - Rules 1 and 5, bounds that were lowered: they hold from now on for as long
//!   as they may.
//!
//! What is wanted (a rotation that is due) comes sooner, which no rule minds:
//! rule 1 still decides. Epochs count no time.

use super::advance::ahead;
use super::event::{Event, What};
use super::key::{Mandate, Phase};
use super::rules::{self, Action};
use super::set::{KeySet, Plan, Switch};
use crate::time::Time;

impl KeySet {
    /// The operator vouches for `now`. The clock that dated the record would
    /// read `expected`, as far as the agent can tell from its boot time; where
    /// that agrees, it was right, and no wait is longer for it.
    /// Then switches that touch a key which was held meanwhile are taken back.
    pub fn confirm_clock(
        &mut self,
        now: Time,
        expected: Time,
        by: &Mandate,
        plan: &Plan,
    ) -> Vec<Event> {
        let what = What::ClockConfirmed {
            reading: now,
            expected,
        };
        let confirmed = Event::of_no_key(plan, now, what);
        let mut events = vec![confirmed.ordered(Action::ConfirmClock, by)];
        events.extend(self.date_anew(now, expected, plan));
        events.extend(self.keep_holds(now, plan));
        events
    }

    fn date_anew(&mut self, now: Time, expected: Time, plan: &Plan) -> Vec<Event> {
        let old = expected.max(self.high_water);
        self.high_water = now;
        let mut events = self.date_back(now, plan);
        if now <= old + plan.timing.skew {
            return events;
        }
        self.epoch += 1;
        events.extend(self.postpone_switches(now, old, plan));
        let over = now - plan.timing.skew;
        let lowered = self.lowered(plan);
        self.bounds_begin_anew(now, old);
        for key in self.keys.values_mut() {
            for since in key.sightings.values_mut() {
                if rules::rule_1_pre_publish(*since, &plan.timing, lowered) > old {
                    *since = now;
                }
            }
            let half = key.has_private_half();
            match &mut key.phase {
                Phase::Retiring { last_sign, .. }
                    if half && rules::rule_4_destruction(*last_sign, &plan.timing) > old =>
                {
                    *last_sign = over.max(*last_sign);
                }
                Phase::Revoked { since, .. } => {
                    let timing = &plan.timing;
                    let exposure = rules::rule_5_compromise_exposure(*since, None, timing, lowered);
                    if exposure.bounded_until > old {
                        *since = now;
                    }
                }
                _ => {}
            }
        }
        events
    }

    /// Dates what is dated after now. A switch that a fast clock put far ahead
    /// is taken back where the schedule finds a better one by itself, and
    /// drawn near where an operator asked for it.
    fn date_back(&mut self, now: Time, plan: &Plan) -> Vec<Event> {
        let before = (self.keys.clone(), self.seats.clone());
        for waiver in self.waivers.values_mut().filter(|it| it.since > now) {
            waiver.until = now + waiver.until.since(waiver.since);
            waiver.since = now;
        }
        self.bounds_end_by(now);
        for looked in self.looked.values_mut() {
            *looked = now.min(*looked);
        }
        let last_use = rules::rule_2_last_use(now, &plan.timing);
        for key in self.keys.values_mut() {
            key.created = key.created.min(now);
            key.published = key.published.map(|at| at.min(now));
            key.activated = key.activated.map(|at| at.min(now));
            for since in key.sightings.values_mut() {
                *since = now.min(*since);
            }
            match &mut key.phase {
                Phase::Retiring { since, last_sign } => {
                    *since = now.min(*since);
                    *last_sign = last_use.min(*last_sign);
                }
                Phase::Published { since }
                | Phase::Active { since }
                | Phase::Retired { since }
                | Phase::Revoked { since, .. } => *since = now.min(*since),
                Phase::Generating | Phase::Placeholder => {}
            }
        }
        for seat in self.seats.values_mut() {
            seat.rotate_at = seat.rotate_at.map(|at| at.min(now));
            seat.fresh_after = seat.fresh_after.map(|at| at.min(now));
        }
        let mut events = Vec::new();
        let ahead_of_now = self.seats.values().filter_map(|seat| seat.switch.clone());
        for switch in ahead_of_now.collect::<Vec<_>>() {
            let key = self.key(switch.to);
            let seat_id = key.seat();
            let seen = key.sightings.values().max().copied().unwrap_or(now);
            let wanted = self
                .held_everywhere(seen, plan)
                .max(self.due(&seat_id, plan).unwrap_or(now))
                .max(now + ahead(plan));
            if switch.at <= wanted {
                continue;
            }
            if switch.rollback || switch.forced {
                let at = now + ahead(plan);
                events.push(self.set_switch(Switch { at, ..switch }, plan, now));
            } else {
                self.take_switch(&seat_id);
                let key = self.key(switch.to);
                events.push(Event::of(key, now, What::ActivationCancelled));
            }
        }
        if before != (self.keys.clone(), self.seats.clone()) {
            self.epoch += 1;
        }
        events
    }

    fn postpone_switches(&mut self, now: Time, old: Time, plan: &Plan) -> Vec<Event> {
        let switches = self.seats.values().filter_map(|seat| seat.switch.clone());
        let mut events = Vec::new();
        for switch in switches.collect::<Vec<_>>() {
            if switch.at <= old {
                events.extend(self.activate(switch.to, now, &plan.timing));
                continue;
            }
            // `ahead` as for any other.
            let at = now + switch.at.since(old) + ahead(plan);
            events.push(self.set_switch(Switch { at, ..switch }, plan, now));
        }
        events
    }
}
