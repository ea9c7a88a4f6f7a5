//! An operator vouches for the time, after a clock was wrong.
//!
//! Where the clock was fast, what it dated lies too late: waits get longer,
//! never shorter, and nothing is to be done. Where it was slow, each instant
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
//! What is wanted (a rotation that is due) comes sooner, which no rule minds:
//! rule 1 still decides. Epochs count no time.

use super::advance::ahead;
use super::event::{Event, What};
use super::key::Phase;
use super::rules;
use super::set::{KeySet, Plan, Switch};
use crate::time::Time;

impl KeySet {
    /// The operator vouches for `now`. The clock that dated the record would
    /// read `expected`, as far as the agent can tell from its boot time; where
    /// that agrees, it was right, and no wait is longer for it.
    pub fn confirm_clock(&mut self, now: Time, expected: Time, plan: &Plan) -> Vec<Event> {
        let old = expected.max(self.high_water);
        self.high_water = now;
        if now <= old + plan.timing.skew {
            return Vec::new();
        }
        self.epoch += 1;
        let events = self.postpone_switches(now, old, plan);
        let over = now - plan.timing.skew;
        for key in self.keys.values_mut() {
            for since in key.sightings.values_mut() {
                if rules::rule_1_pre_publish(*since, &plan.timing) > old {
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
                    let exposure = rules::rule_5_compromise_exposure(*since, None, &plan.timing);
                    if exposure.bounded_until > old {
                        *since = now;
                    }
                }
                _ => {}
            }
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
            let what = if switch.rollback {
                What::RollbackScheduled { activates: at }
            } else {
                What::ActivationScheduled { activates: at }
            };
            events.push(self.set_switch(Switch { at, ..switch }, what, plan, now));
        }
        events
    }
}
