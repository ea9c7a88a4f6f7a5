//! What must hold, whatever happens. Each is judged in true time, from what
//! the world knows and no agent does.

use std::collections::BTreeSet;
use std::rc::Rc;

use sealkeeper::keyring::{Event, Genesis, Half, Key, KeyId, KeySet, Phase, Switch, Tick, View};
use sealkeeper::time::{Span, Time};

use super::promises;
use super::random::millis;
use super::world::{World, shift};

impl World {
    /// After each event.
    pub(crate) fn invariants(&mut self) {
        self.invariant_objects();
        self.invariant_set_size();
        self.verifiers();
    }

    pub(crate) fn half_skew(&self) -> Span {
        self.plan.timing.skew.divided_by(2)
    }

    /// A record was stored: what must hold between it and the one before.
    pub(crate) fn stored(&mut self, r: usize, events: &[Event], now: Time) {
        for event in events {
            self.totals.count(event.what.name());
        }
        if self.trace {
            for event in events {
                let kid = event.kid.as_deref().unwrap_or("?");
                println!(
                    "{}   {} {kid} at {} ({r}, {})",
                    self.now.as_millis(),
                    event.what.name(),
                    event.at.as_millis(),
                    now.as_millis()
                );
            }
        }
        let after = Rc::clone(&self.store.record);
        self.ledger.tell(events, &after);
        let before = std::mem::replace(&mut self.ledger.previous, Rc::clone(&after));
        self.population.changed();
        promises::held(&before, &after);
        promises::never_back(&before, &after);
        promises::told_in_time(&before, &after, self.plan.timing.adoption);
        self.note_switches(&before, &after);
        // First, as a key that takes the place of one in this very change comes
        // after its end.
        let revoked = |key: &&Key| matches!(key.phase, Phase::Revoked { .. });
        let ended = after.keys.values().filter(revoked);
        for kid in ended.filter_map(|key| key.kid.as_ref()) {
            self.population.ends(kid);
        }
        for key in after.keys.values() {
            let old = before.keys.get(&key.id);
            if old.is_none_or(|old| old.phase != key.phase) {
                self.note_phase(old, key, &before, &after);
            }
        }
        for key in before.keys.values() {
            self.invariant_rollback_window(key, after.keys.get(&key.id));
        }
        let revoked = after.revoked.len() > before.revoked.len();
        if revoked {
            self.ledger.oversize = true;
        }
    }

    fn note_switches(&mut self, before: &KeySet, after: &KeySet) {
        let wait = self.plan.timing.propagation + self.plan.timing.verifier_cache;
        for (id, seat) in &after.seats {
            let old = before.seats.get(id).and_then(|seat| seat.switch.as_ref());
            if seat.switch.as_ref() == old {
                continue;
            }
            if let Some(Switch {
                to,
                at,
                rollback,
                forced,
            }) = &seat.switch
            {
                let kid = kid(after, *to);
                self.ledger.wait.insert(kid.clone(), wait);
                self.ledger.proven.remove(&kid);
                let forced = seat.force || *forced;
                if forced {
                    self.ledger.excused.insert(kid.clone());
                }
                self.excuse_just_astray(&kid);
                // One that is put off was fixed before.
                let put_off = old.is_some_and(|old| old.to == *to && old.at < *at);
                if !rollback && !forced && !put_off {
                    self.invariant_origins_answer();
                }
            }
        }
        for (id, seat) in &before.seats {
            let Some(old) = &seat.switch else { continue };
            let now = after.seats.get(id).and_then(|seat| seat.switch.as_ref());
            let active = after.seats.get(id).and_then(|seat| seat.active);
            if now != Some(old) && active != Some(old.to) {
                let kid = kid(after, old.to);
                self.ledger.cancelled.insert(kid, after.epoch);
            }
        }
    }

    /// An activation is not fixed while an origin is known to be dead.
    fn invariant_origins_answer(&self) {
        let patience = self.recent() + self.plan.timing.skew;
        for origin in &self.origins {
            let silent = origin.dead.map(|dead| self.now.since(dead));
            assert!(
                silent.is_none_or(|silent| silent <= patience),
                "an activation is fixed, and {} has been dead for {silent:?}",
                origin.name
            );
        }
    }

    fn note_phase(&mut self, old: Option<&Key>, key: &Key, before: &KeySet, after: &KeySet) {
        let Some(kid) = key.kid.clone() else { return };
        self.population.on_record(&kid);
        match key.phase {
            Phase::Active { .. } => {
                self.population.signs(&kid, &key.seat(), after, self.now);
                let planned = before
                    .seats
                    .get(&key.seat())
                    .and_then(|seat| seat.switch.as_ref())
                    .is_some_and(|switch| switch.to == key.id);
                let timing = &self.plan.timing;
                if !planned {
                    let wait = timing.propagation + timing.verifier_cache;
                    self.ledger.wait.insert(kid.clone(), wait);
                    self.ledger.proven.remove(&kid);
                    self.excuse_astray(&kid);
                }
                let init = matches!(before.genesis, Genesis::Pending { .. });
                if init || key.forced {
                    self.ledger.excused.insert(kid);
                }
            }
            Phase::Retired { .. } => self.invariant_removed_dead(&kid),
            Phase::Revoked { .. } => {
                // A clock that is confirmed may date it anew.
                self.ledger.revoked.entry(kid).or_insert(self.now);
                let seat = before.seats.get(&key.seat());
                if old.is_some_and(|old| matches!(old.phase, Phase::Active { .. })) {
                    let next = after.seats.get(&key.seat()).and_then(|seat| seat.active);
                    let safe = next.is_some_and(|id| !after.keys[&id].forced);
                    self.totals.count(if safe {
                        "revoked: active, with a safe standby"
                    } else {
                        "revoked: active, without"
                    });
                }
                if seat.is_some_and(|seat| seat.switch.is_some()) {
                    self.totals.count("revoked: while a switch was ahead");
                }
            }
            _ => {}
        }
    }

    /// (b) A key leaves the set once every token that it signed is dead, at a
    /// verifier whose clock is half the skew behind.
    fn invariant_removed_dead(&self, kid: &str) {
        if let Some(exp) = self.ledger.tokens.get(kid) {
            let dead = *exp + self.half_skew();
            assert!(
                dead <= self.now,
                "{kid} left the set {} before its last token was dead",
                dead.since(self.now)
            );
        }
    }

    /// A retiring key can be gone back to for as long as promised.
    fn invariant_rollback_window(&self, before: &Key, after: Option<&Key>) {
        let now = self.now + self.half_skew();
        let mut kids = before.kid.iter();
        let given_up = kids.any(|kid| self.ledger.given_up.contains(kid));
        promises::rollback_window(before, after, now, given_up, &self.plan.timing);
    }

    /// (e) and (d), for every picture that readers get.
    pub(crate) fn invariant_view(&mut self, r: usize, view: &View) {
        promises::shown(view);
        for kid in self.ledger.revoked.keys() {
            assert!(
                view.revoked.contains(kid),
                "the revocation of {kid} is forgotten"
            );
        }
        if let Some(old) = &self.replicas[r].view {
            assert!(
                old.epoch <= view.epoch,
                "epoch {} after {}",
                view.epoch,
                old.epoch
            );
        }
        let live = |key: &Key| key.is_published();
        if !self.store.record.keys.values().any(live) {
            self.totals.count("placeholder shown");
        }
    }

    /// (f) Nothing is destroyed under the hands of a replica.
    pub(crate) fn invariant_destroys_what_nobody_uses(&self, r: usize, id: KeyId) {
        for user in 0..self.replicas.len() {
            assert!(
                !self.uses(user, id),
                "replica {r} destroys {id}, with which replica {user} may sign"
            );
        }
    }

    /// (g) Nothing is in the device that the record does not name, and nothing
    /// that it counts on is lost.
    fn invariant_objects(&self) {
        let record = &self.store.record;
        for id in self.device.objects.keys() {
            let named = record.keys.get(id).is_some_and(|key| {
                let there = |half: &Half| matches!(half, Half::Present | Half::Destroying);
                key.placements.values().any(there)
            });
            assert!(named, "{id} is in the device and not on record");
        }
        promises::whole(record);
        for id in self.present() {
            assert!(
                self.device.objects.contains_key(&id),
                "{id} is present on record and not in the device"
            );
        }
    }

    /// (h)
    fn invariant_set_size(&mut self) {
        let record = &self.store.record;
        let lifetimes = record.keys.values().map(|key| key.longest_lifetime);
        let most = promises::largest_set(lifetimes.max().unwrap_or_default(), &self.plan.timing);
        let algorithms: BTreeSet<_> = record.keys.values().map(|key| key.algorithm).collect();
        let largest = algorithms
            .iter()
            .map(|algorithm| {
                let mine = record
                    .keys
                    .values()
                    .filter(|key| key.algorithm == *algorithm);
                mine.filter(|key| key.is_published()).count()
            })
            .max()
            .unwrap_or(0);
        assert!(
            largest <= most || self.ledger.oversize,
            "{largest} keys of one algorithm, and rule 6 counts {most}"
        );
        let making = |key: &Key| matches!(key.phase, Phase::Generating);
        if largest <= most
            && !record.keys.values().any(making)
            && !record.seats.keys().any(|seat| record.owes_fresh(seat))
        {
            self.ledger.oversize = false;
        }
    }

    /// (j) A clock that is off by more than all skew is doubted; a replica in
    /// doubt takes no step.
    pub(crate) fn invariant_doubts_a_wrong_clock(&self, r: usize, doubted: bool) {
        let fault = self.replicas[r].fault;
        assert!(
            fault == 0 || doubted,
            "replica {r} believes a clock that is off by {fault} ms"
        );
    }

    /// (k) Between now and the deadline there is nothing to do.
    pub(crate) fn invariant_deadline(&mut self, set: &KeySet, tick: &Tick) {
        if matches!(set.genesis, Genesis::Pending { .. }) {
            return;
        }
        let deadline = set.deadline(&self.plan, tick);
        assert!(deadline > tick.now, "a deadline that is not ahead");
        let room = deadline.since(tick.now).as_millis();
        let later = match self.random.below(4) {
            0 => tick.now,
            1 => shift(deadline, -1),
            _ => tick.now + millis(self.random.between(0, room.min(1 << 45) - 1)),
        };
        let tick = Tick {
            now: later,
            ..tick.clone()
        };
        let mut again = set.clone();
        let events = again.advance(&self.plan, &tick, &mut || {
            panic!("a key is generated before the deadline")
        });
        assert_eq!(events, [], "at {later}, before the deadline {deadline}");
        again.high_water = set.high_water;
        // That this replica has adopted its view is news, not a step.
        again.replicas.clone_from(&set.replicas);
        assert_eq!(again, *set, "at {later}, before the deadline {deadline}");
    }

    /// An origin answered without some keys, and that is on record.
    pub(crate) fn observed(&mut self, r: usize, o: usize, kids: &BTreeSet<String>) {
        let record = &self.store.record;
        let now = self.wall(r).max(record.high_water);
        let epoch = record.epoch;
        let mut broke = Vec::new();
        for key in record.keys.values().filter(|key| key.is_published()) {
            let Some(kid) = key.kid.as_ref().filter(|kid| !kids.contains(*kid)) else {
                continue;
            };
            let seat = record.seats.get(&key.seat());
            let switch = seat.and_then(|seat| Some((seat, seat.switch.as_ref()?)));
            match (&key.phase, switch.filter(|(_, switch)| switch.to == key.id)) {
                // Taken back, as long as every replica can still hear of it.
                (Phase::Published { .. } | Phase::Retiring { .. }, Some((seat, switch))) => {
                    assert!(
                        seat.force || switch.forced || now + self.plan.timing.adoption > switch.at,
                        "{kid} is to be active at {}, and origin {o} lacks it",
                        switch.at
                    )
                }
                (Phase::Active { .. }, _) if !self.ledger.proven.contains(kid) => {}
                _ => broke.push(kid.clone()),
            }
        }
        for kid in broke {
            self.ledger.broke(o, &kid, epoch);
        }
    }

    /// (l) In calm times each rotation happens when it is due.
    pub(crate) fn invariant_progress(&self, patience: Span) {
        let record = &self.store.record;
        for (id, seat) in &record.seats {
            let active = seat.active.and_then(|id| record.keys.get(&id));
            let due = match record.due(id, &self.plan) {
                // A window that was missed in worse times is made up for when
                // the key is due.
                Some(due) if active.is_some_and(|key| !key.is_held()) => {
                    let asked = seat.rotate_at.is_some() || seat.fresh_after.is_some();
                    match active.map(|key| &key.phase) {
                        Some(Phase::Active { since }) if !asked => {
                            due.max(*since + self.plan.timing.rotate_every)
                        }
                        _ => due,
                    }
                }
                _ => self.ledger.calm_since,
            };
            let from = due.max(self.ledger.calm_since);
            let late = self.now.since(from);
            assert!(
                late <= patience || active.is_some() && due > self.now,
                "{}: no rotation for {late} in calm times: {seat:?}",
                String::from(id.clone())
            );
        }
    }

    /// (m) After all of it: one active key and a standby in each track, and
    /// nothing else in the device.
    pub(crate) fn has_settled(&self) -> Result<(), String> {
        let record = &self.store.record;
        if !record.intents.is_empty() {
            return Err(format!("intents: {:?}", record.intents));
        }
        for &(algorithm, _) in &self.plan.tracks {
            let count = |wanted: &dyn Fn(&Phase) -> bool| {
                let mine = record
                    .keys
                    .values()
                    .filter(|key| key.algorithm == algorithm);
                mine.filter(|key| wanted(&key.phase)).count()
            };
            let active = count(&|phase| matches!(phase, Phase::Active { .. }));
            let standby = count(&|phase| matches!(phase, Phase::Published { .. }));
            if (active, standby) != (1, 1) {
                return Err(format!("{algorithm}: {active} active, {standby} standby"));
            }
        }
        let mut seats = record.seats.iter();
        if let Some((_, seat)) = seats.find(|(id, _)| record.owes_fresh(id)) {
            return Err(format!("a rotation is still wanted: {seat:?}"));
        }
        let objects: BTreeSet<KeyId> = self.device.objects.keys().copied().collect();
        if objects != self.present() {
            return Err("the device holds something else".to_owned());
        }
        Ok(())
    }
}

fn kid(set: &KeySet, id: KeyId) -> String {
    set.keys[&id].kid.clone().expect("it is published")
}
