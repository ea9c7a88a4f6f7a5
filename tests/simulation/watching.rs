//! What agents see of the origins between two events, and what they do not.

use std::rc::Rc;

use sealkeeper::keyring::{Moment, Phase};
use sealkeeper::time::{Span, Time};

use super::outside::Origin;
use super::world::World;

impl World {
    /// Agents look all the time, and not only when something happens: where one
    /// could while this time passed, the record says so. Their first look after
    /// a gap is one that happens.
    pub(crate) fn attend(&mut self, passed: Span) {
        let patience = self.plan.timing.patience();
        let mut looked = Vec::new();
        for o in 0..self.origins.len() {
            let origin = &self.origins[o];
            let known = self.store.record.looked.get(&origin.name).copied();
            let Some(known) = known.filter(|_| origin.answers() && origin.astray.is_none()) else {
                continue;
            };
            let name = origin.name.clone();
            let watchers: Vec<usize> = (0..self.replicas.len())
                .filter(|r| self.watches(*r))
                .filter(|r| (self.wall(*r) - passed).since(known) <= patience)
                .collect();
            for &r in &watchers {
                if let Some(Moment::Sure(now)) = self.moment(r) {
                    self.replicas[r].answered[o] = Some(now);
                }
            }
            let latest = watchers.iter().map(|r| self.wall(*r)).max();
            let latest = latest.filter(|at| at.since(known) >= patience.divided_by(2));
            looked.extend(latest.map(|at| (name, at)));
        }
        if looked.is_empty() {
            return;
        }
        let old = Rc::clone(&self.store.record);
        Rc::make_mut(&mut self.store.record).looked.extend(looked);
        for replica in &mut self.replicas {
            if let Some((set, _)) = &mut replica.cached
                && Rc::ptr_eq(set, &old)
            {
                *set = Rc::clone(&self.store.record);
            }
        }
    }

    fn watches(&self, r: usize) -> bool {
        let sure = matches!(self.moment(r), Some(Moment::Sure(_)));
        self.replicas[r].up && self.reaches_store(r) && sure
    }

    /// For how long an origin must have gone back that no agent ever saw it: by
    /// the clocks of two of them, longer than their patience.
    pub(crate) fn unnoticed(&self) -> Span {
        self.plan.timing.patience() + self.plan.timing.skew
    }

    /// Nobody can know that an origin has just gone astray with a key.
    pub(crate) fn excuse_just_astray(&mut self, kid: &str) {
        let within = self.unnoticed();
        let just = |since: Time| self.now.since(since) <= within;
        let lost = |origin: &Origin| {
            origin.lost.as_deref() == Some(kid) && origin.astray.is_some_and(just)
        };
        if self.origins.iter().any(lost) {
            self.ledger.excused.insert(kid.to_owned());
        }
    }

    /// A key takes the place of a revoked one by what is on record: an outage
    /// does not add to an emergency.
    pub(crate) fn excuse_astray(&mut self, kid: &str) {
        let lost = |origin: &Origin| origin.lost.as_deref() == Some(kid);
        if self.origins.iter().any(lost) {
            self.ledger.excused.insert(kid.to_owned());
        }
    }

    /// An origin answers no agent any more, and verifiers with a set without
    /// the next key. What happens so between the decision for an activation
    /// and its instant nobody can know.
    pub(crate) fn go_astray(&mut self, o: usize) {
        let record = Rc::clone(&self.store.record);
        let fixed = |id| {
            let mut next = record
                .seats
                .values()
                .filter_map(|seat| seat.switch.as_ref());
            next.any(|switch| switch.to == id)
        };
        let waits = record.keys.values().find(|key| {
            let waits = matches!(key.phase, Phase::Published { .. }) && !fixed(key.id);
            let shown = key.kid.as_ref();
            waits && shown.is_some_and(|kid| self.origins[o].serves.contains(kid))
        });
        let Some(kid) = waits.and_then(|key| key.kid.clone()) else {
            return;
        };
        // With one key at a time: that one is excused while nobody can know.
        if !self.origins[o].answers() || self.origins[o].lost.is_some() {
            return;
        }
        self.totals.count("origin: went back out of sight");
        self.say(|| format!("origin {o} goes back to a set without {kid}, out of sight"));
        let mut left = self.origins[o].serves.clone();
        left.remove(&kid);
        self.serve(o, left);
        self.ledger.runs.remove(&(o, kid.clone()));
        self.origins[o].lost = Some(kid);
        self.origins[o].mute = true;
        self.origins[o].astray = Some(self.now);
    }
}
