//! What must hold of a change, and of what is signed by a record. What must
//! hold of a state stands beside it, in `world.rs`.

use std::collections::BTreeSet;

use sealkeeper::keyring::{Genesis, HardLimit, KeySet, Moment, NoSigner, Phase, Tick, View};
use sealkeeper::time::Time;

use super::ask::Ask;
use super::lab::{Broken, Lab, Record, kid, units};
use super::record::{Mask, NOW, bit, id, slot, slots};
use crate::simulation::promises;

/// What an agent signs by a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What may be signed with now.
    pub(crate) signs: Mask,
    /// What may still be released now.
    pub(crate) releases: Mask,
    /// For how many units a token lives that is signed now, at verifiers.
    pub(crate) lives: [u8; 8],
}

impl Lab {
    /// What is signed by a view at a moment.
    pub(crate) fn read(
        &self,
        view: &View,
        moment: Moment,
        blocked: Mask,
    ) -> Result<Reading, Broken> {
        let timing = &self.inst.world.timing;
        let kids: BTreeSet<String> = slots(blocked).map(kid).collect();
        let mut reading = Reading {
            signs: 0,
            releases: 0,
            lives: [0; 8],
        };
        let now = moment.time();
        for slot in 0..8 {
            if view.may_release(&kid(slot), moment, &kids) {
                reading.releases |= bit(slot);
            }
        }
        if reading.releases & blocked != 0 {
            return Err("a key signs that was blocked in memory".to_owned());
        }
        let asked = now + timing.signing_deadline;
        for key in view.nameable(moment).unwrap_or_default() {
            let slot = slot(key.id);
            let done = match moment {
                Moment::Sure(_) => Moment::Sure(asked),
                Moment::Doubtful(_) => Moment::Doubtful(asked),
            };
            // An operator may prefer an outage to a key that is too old.
            let stopped = matches!(view.signer(None, done), Err(NoSigner::Overdue { .. }));
            let in_time = stopped || view.may_release(&key.kid, done, &BTreeSet::new());
            if !in_time {
                return Err(format!(
                    "a signature with {} is accepted, and dropped when it is done in time",
                    key.kid
                ));
            }
            let longest = now + timing.max_token_lifetime;
            let exp = match self.inst.world.ceilings {
                true => longest.min(key.exp_ceiling),
                false => longest,
            };
            if exp > now && reading.releases & bit(slot) != 0 {
                reading.signs |= bit(slot);
                reading.lives[slot] = units(exp.since(NOW));
            }
        }
        Ok(reading)
    }

    /// Whether the record that is stored lets an agent sign with a key, at what
    /// it takes for now. It has an older one, or the same.
    pub(crate) fn agrees(
        &self,
        (viewed, stored): (Record, Record),
        now: Time,
        r: usize,
        slot: usize,
    ) -> Result<(), Broken> {
        let timing = &self.inst.world.timing;
        let (kid, set) = (kid(slot), self.set(stored));
        let Some(key) = set.keys.get(&id(slot)) else {
            return Err(format!("{kid} signs and is not on record"));
        };
        let switches = |record: Record| {
            let mut seats = self.set(record).seats.values();
            seats.any(|seat| {
                let switch = seat.switch.as_ref();
                switch.is_some_and(|switch| switch.to == key.id && switch.at <= now)
            })
        };
        let holds = match key.phase {
            Phase::Active { since } => since <= now + timing.skew,
            Phase::Retiring { since, .. } => {
                now <= since + timing.handover() || switches(stored) || switches(viewed)
            }
            Phase::Published { .. } => switches(stored) || viewed != stored && switches(viewed),
            Phase::Revoked { since, .. } => viewed != stored && NOW <= since + timing.handover(),
            Phase::Generating | Phase::Retired { .. } | Phase::Placeholder => false,
        };
        if holds {
            return Ok(());
        }
        let since = match key.phase {
            Phase::Active { since } | Phase::Retiring { since, .. } => since,
            _ => now,
        };
        let ago = now.as_millis() - since.as_millis();
        Err(format!(
            "agent {r} signs with {kid}, which is {} since {ago} ms",
            key.phase.name()
        ))
    }

    /// Where an operator prefers an outage to a key that is too old, nothing
    /// signs with one.
    pub(crate) fn promise_a_limit(
        &self,
        set: &KeySet,
        view: &View,
        moment: Moment,
    ) -> Result<(), Broken> {
        let timing = &self.inst.world.timing;
        let (HardLimit::Stop(limit), Moment::Sure(now)) = (timing.hard_limit, moment) else {
            return Ok(());
        };
        let Ok(signer) = view.signer(None, moment) else {
            return Ok(());
        };
        match set.keys[&signer.id].phase {
            Phase::Active { since } if since + timing.rotate_every + limit <= now => {
                Err(format!("{} signs past the hard limit", signer.kid))
            }
            _ => Ok(()),
        }
    }

    /// What must hold between a record and the next.
    pub(crate) fn promises_of_a_change(
        &self,
        before: &KeySet,
        after: &KeySet,
        ask: Ask,
        tick: &Tick,
    ) -> Result<(), Broken> {
        let timing = &self.inst.world.timing;
        promises::held(before, after);
        promises::never_back(before, after);
        promises::told_in_time(before, after, timing.adoption);
        for key in before.keys.values() {
            let given_up = ask == Ask::Destroy(slot(key.id), true);
            let after = after.keys.get(&key.id);
            promises::rollback_window(key, after, tick.now, given_up, timing);
        }
        self.promise_of_a_switch(before, after, tick)?;
        self.promise_a_standby(before, after)
    }

    /// An activation is fixed while every origin answers that is waited for at
    /// its instant, and after a revocation to a key that was made later.
    fn promise_of_a_switch(
        &self,
        before: &KeySet,
        after: &KeySet,
        tick: &Tick,
    ) -> Result<(), Broken> {
        for (id, seat) in &after.seats {
            let Some(switch) = seat
                .switch
                .as_ref()
                .filter(|s| !s.rollback && !s.forced && !seat.force)
            else {
                continue;
            };
            let old = before.seats.get(id).and_then(|seat| seat.switch.as_ref());
            if old.is_some_and(|old| old.to == switch.to) {
                continue;
            }
            let waits = |origin: &&String| {
                let waiver = after.waivers.get(*origin);
                waiver.is_none_or(|waiver| switch.at >= waiver.until)
            };
            let mut required = self.inst.plan.origins.iter().filter(waits);
            if required.any(|origin| !tick.live.contains(origin)) {
                return Err("an activation is fixed while an origin does not answer".to_owned());
            }
            let created = after.keys[&switch.to].created;
            if seat.active.is_some() && seat.fresh_after.is_some_and(|after| created <= after) {
                return Err("after a revocation the next key is one of before".to_owned());
            }
        }
        Ok(())
    }

    /// There is a standby, or one is coming, as long as there is room; and no
    /// key is begun when there is none.
    fn promise_a_standby(&self, before: &KeySet, after: &KeySet) -> Result<(), Broken> {
        let plan = &self.inst.plan;
        if !matches!(after.genesis, Genesis::Done { .. }) {
            return Ok(());
        }
        let room = promises::largest_set(plan.timing.max_token_lifetime, &plan.timing);
        let published = after.keys.values().filter(|key| key.is_published()).count();
        for (id, seat) in &after.seats {
            let fresh = |created: Time| seat.fresh_after.is_none_or(|after| created > after);
            let begun = after.keys.len() > before.keys.len();
            if begun && published >= room && !after.owes_fresh(id) {
                return Err(format!("a key is begun, and {published} are published"));
            }
            let coming = after.keys.values().any(|key| {
                let ahead = key.is_coming() || matches!(key.phase, Phase::Published { .. });
                ahead && !key.is_held() && fresh(key.created)
            });
            if !coming && published < room {
                return Err(format!(
                    "{published} keys are published, and none is coming"
                ));
            }
        }
        Ok(())
    }
}
