//! A model of the agent: how the keyring is meant to be driven.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use sealkeeper::keyring::{
    Ending, Event, Genesis, Half, IntentId, KeyId, KeySet, Mandate, Moment, OperatorError, Outcome,
    Phase, Plan, Reason, Task, Then, Tick, UnexpectedOutcome,
};
use sealkeeper::time::Time;

use super::outside::kid_of;
use super::promises;
use super::random::millis;
use super::world::{Item, World, ids, shift};

/// What is done to a copy of the record before it is stored.
type Change<'a> = dyn Fn(&mut KeySet, &Plan, &Tick) -> Result<Vec<Event>, OperatorError> + 'a;

/// Why a change did not come about.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The replica is down, or has nothing to start from.
    Down,
    /// Its clock is in doubt.
    Doubt,
    /// The store does not take it.
    NoStore,
    /// The keyring refused.
    Refused(OperatorError),
}

impl World {
    /// One change of the record by one replica: apply it, take the steps that
    /// are due, store, adopt. A conflict reads the record anew and tries again.
    pub(crate) fn change(&mut self, r: usize, apply: &Change<'_>) -> Result<(), Stop> {
        if !self.replicas[r].up {
            return Err(Stop::Down);
        }
        for _ in 0..3 {
            if self.replicas[r].cached.is_none() {
                self.load(r)?;
            }
            let tick = self.judge(r)?;
            let Some((before, version)) = self.replicas[r].cached.clone() else {
                return Err(Stop::Down);
            };
            let mut set = KeySet::clone(&before);
            self.note_clock(r, &mut set);
            let mut events = apply(&mut set, &self.plan, &tick).map_err(Stop::Refused)?;
            let mut ids = ids(&mut self.random);
            events.extend(set.advance(&self.plan, &tick, &mut ids));
            if self.random.chance(300) {
                self.invariant_deadline(&set, &tick);
            }
            if !self.reaches_store(r) {
                self.totals.count("store: refused");
                return Err(Stop::NoStore);
            }
            if self.mishap(4) {
                self.crash(r, "before the write");
                return Err(Stop::Down);
            }
            if !set.is_worth_storing(&before, &self.plan) {
                if version == self.store.version {
                    self.adopt(r);
                    return Ok(());
                }
                self.replicas[r].cached = None;
                continue;
            }
            let as_json = self.random.chance(30);
            let set = Rc::new(set);
            if !self.store.compare_and_swap(version, &set, as_json) {
                self.totals.count("store: conflict");
                self.replicas[r].cached = None;
                continue;
            }
            self.stored(r, &events, tick.now);
            let intends = set.next_intent > before.next_intent;
            if self.mishap(if intends { 40 } else { 6 }) {
                self.crash(
                    r,
                    if intends {
                        "after the intents"
                    } else {
                        "after the outcome, before the view"
                    },
                );
                return Err(Stop::Down);
            }
            self.replicas[r].cached = Some((set, version + 1));
            self.adopt(r);
            return Ok(());
        }
        Err(Stop::NoStore)
    }

    pub(crate) fn load(&mut self, r: usize) -> Result<(), Stop> {
        if !self.reaches_store(r) {
            return Err(Stop::NoStore);
        }
        self.replicas[r].cached = Some((self.store.record.clone(), self.store.version));
        self.resume_clock(r);
        Ok(())
    }

    /// Gives readers the record that is cached, which is the store's.
    pub(crate) fn adopt(&mut self, r: usize) {
        let Some(moment) = self.moment(r) else { return };
        let Some((set, _)) = &self.replicas[r].cached else {
            return;
        };
        if matches!(set.genesis, Genesis::Pending { .. }) {
            return;
        }
        if !set.replicas.contains_key(&self.replicas[r].name) && !self.join(r, moment) {
            return;
        }
        let Some((set, _)) = &self.replicas[r].cached else {
            return;
        };
        let lease = self
            .fleet
            .then(|| moment.time() + self.plan.timing.adoption);
        let view = set.view(&self.plan, lease);
        if self.random.chance(30) {
            promises::revoked_stays_out(&self.store.record, &self.plan);
        }
        self.invariant_view(r, &view);
        let replica = &mut self.replicas[r];
        replica.view = Some(view);
        replica.fresh = self.now;
    }

    /// A replica puts itself on record before its readers get a view.
    fn join(&mut self, r: usize, moment: Moment) -> bool {
        let Some((before, version)) = self.replicas[r].cached.clone() else {
            return false;
        };
        let mut set = KeySet::clone(&before);
        set.join(&Tick {
            now: moment.time(),
            replica: self.replicas[r].name.clone(),
            adopted: 0,
            live: BTreeSet::new(),
        });
        let set = Rc::new(set);
        let joined = self.reaches_store(r) && self.store.compare_and_swap(version, &set, false);
        if joined {
            self.ledger.previous = Rc::clone(&set);
            self.replicas[r].cached = Some((set, version + 1));
        }
        joined
    }

    /// Reads the store and adopts what is there, in doubt or not.
    pub(crate) fn sync(&mut self, r: usize) {
        if self.replicas[r].up && self.load(r).is_ok() {
            // The first reading of a process anchors its readers too.
            let _ = self.judge(r);
            self.adopt(r);
        }
    }

    /// One round of the agent: what is due, what the device is to do, and
    /// blocked keys whose revocation is not yet durable.
    pub(crate) fn tick(&mut self, r: usize) {
        let done = self.change(r, &|_, _, _| Ok(Vec::new()));
        self.say(|| format!("tick {r}: {done:?}"));
        if done.is_err() {
            return;
        }
        let blocked: Vec<String> = self.replicas[r].blocked.iter().cloned().collect();
        for kid in blocked {
            if !self.store.record.revoked.contains_key(&kid) {
                let _ = self.revoke_stored(r, &kid, Some(Then::Wait));
            }
        }
        self.carry_out(r);
    }

    /// Carries out what is on record for this replica.
    pub(crate) fn carry_out(&mut self, r: usize) {
        let Some((set, _)) = &self.replicas[r].cached else {
            return;
        };
        let mine: Vec<(IntentId, Task)> = set
            .intents
            .iter()
            .filter(|(_, intent)| intent.owner == self.replicas[r].name)
            .map(|(id, intent)| (*id, intent.task.clone()))
            .collect();
        for (id, task) in mine {
            let key = task.key();
            if !self.replicas[r].up || self.replicas[r].working.contains(&key) {
                continue;
            }
            if self.device.away || self.mishap(60) {
                self.totals.count("device: refused");
                continue;
            }
            match task {
                Task::Generate { .. } if self.mishap(250) => {
                    self.totals.count("device: slow");
                    let life = self.replicas[r].life;
                    self.replicas[r].working.insert(key);
                    let most = self.plan.timing.adoption.times(20).as_millis();
                    let at = self.now + millis(self.random.between(0, most));
                    let item = Item::Generated {
                        r,
                        life,
                        intent: id,
                        key,
                    };
                    self.agenda.push((at, item));
                }
                Task::Generate { .. } => self.generate(r, id, key),
                Task::Destroy { .. } => self.destroy(r, id, &task),
            }
        }
    }

    /// The device makes a key, now.
    pub(crate) fn generate(&mut self, r: usize, intent: IntentId, key: KeyId) {
        if self.device.away {
            self.totals.count("device: refused");
            return;
        }
        let salt = self.random.next();
        let public = self.device.generate(key, salt);
        if self.mishap(60) {
            self.totals.count("device: made it and said no");
            return;
        }
        if self.mishap(40) {
            self.crash(r, "after the device call");
            return;
        }
        let kid = kid_of(&public);
        let outcome = Outcome::Generated {
            public,
            kid,
            token: None,
        };
        self.complete(r, intent, &outcome);
    }

    /// The device destroys a private half, unless the record that the store has
    /// by now says that it is held: then it is looked for.
    fn destroy(&mut self, r: usize, intent: IntentId, task: &Task) {
        let key = task.key();
        if !self.reaches_store(r) || !self.store.record.asks_for(task) {
            return;
        }
        if self.store.record.holds_back(task) {
            let outcome = match self.device.objects.contains_key(&key) {
                true => Outcome::Kept,
                false => Outcome::Destroyed,
            };
            return self.complete(r, intent, &outcome);
        }
        promises::nothing_held_is_destroyed(&self.store.record, key);
        self.invariant_destroys_what_nobody_uses(r, key);
        self.device.objects.remove(&key);
        if self.mishap(40) {
            self.crash(r, "after the device call");
            return;
        }
        self.complete(r, intent, &Outcome::Destroyed);
    }

    fn complete(&mut self, r: usize, intent: IntentId, outcome: &Outcome) {
        let done = self.change(r, &|set, _, tick| {
            match set.complete(intent, outcome.clone(), tick) {
                Ok(events) => Ok(events),
                // Taken back meanwhile: what was made will be destroyed.
                Err(UnexpectedOutcome::NoIntent(_)) => Ok(Vec::new()),
                Err(unexpected) => panic!("{unexpected}"),
            }
        });
        self.say(|| format!("replica {r} completes {intent:?}: {done:?}"));
    }

    /// A replica asks origins what they serve.
    pub(crate) fn observe(&mut self, r: usize, origins: &[usize]) {
        let Some(Moment::Sure(reader)) = self.moment(r) else {
            return;
        };
        if !self.replicas[r].up {
            return;
        }
        let at = self.wall(r);
        let mut answers = Vec::new();
        for &o in origins.iter().filter(|o| self.origins[**o].answers()) {
            self.replicas[r].answered[o] = Some(reader);
            let origin = &self.origins[o];
            answers.push((o, origin.name.clone(), origin.serves.clone()));
        }
        let done = self.change(r, &|set, plan, _| {
            let sightings = answers.iter();
            Ok(sightings
                .flat_map(|(_, name, kids)| set.observe(name, kids, at, plan))
                .collect())
        });
        if done.is_ok() {
            for (o, _, kids) in &answers {
                self.origins[*o].astray = None;
                self.origins[*o].lost = None;
                self.observed(r, *o, kids);
            }
        }
        self.say(|| format!("replica {r} observes {answers:?}: {done:?}"));
    }

    /// Ends a key: in memory and on disk first, then in the record.
    pub(crate) fn revoke(&mut self, r: usize, kid: &str, then: Option<Then>) {
        if !self.replicas[r].up {
            return;
        }
        self.replicas[r].blocked.insert(kid.to_owned());
        self.replicas[r].tombstones.insert(kid.to_owned());
        if self.replace_last(r, kid, then) {
            return self.carry_out(r);
        }
        let mut done = self.revoke_stored(r, kid, then);
        if let Err(Stop::Refused(OperatorError::NoSafeStandby { .. })) = done {
            let then = if self.random.chance(500) {
                Then::Wait
            } else {
                Then::Activate
            };
            done = self.revoke_stored(r, kid, Some(then));
        }
        match &done {
            Err(Stop::Refused(_)) => {
                self.replicas[r].blocked.remove(kid);
                self.replicas[r].tombstones.remove(kid);
            }
            Err(_) => self.totals.count("revoked: not yet durable"),
            Ok(()) => {}
        }
        self.say(|| format!("replica {r} revokes {kid}: {done:?}"));
        self.carry_out(r);
    }

    fn revoke_stored(&mut self, r: usize, kid: &str, then: Option<Then>) -> Result<(), Stop> {
        let known = self.store.record.revoked.contains_key(kid);
        let until = Cell::new(None);
        let done = self.change(r, &|set, plan, tick| {
            let ending = Ending {
                reason: Reason::Compromised,
                then,
                at: None,
                mandate: Mandate::default(),
            };
            let revoked = set.revoke(kid, &ending, plan, tick)?;
            until.set(Some(revoked.exposure.bounded_until));
            Ok(revoked.events)
        });
        if let (Ok(()), Some(until)) = (&done, until.get()) {
            self.promised(r, kid, until, known);
        }
        done
    }

    /// Ends `init`, once every first key exists.
    pub(crate) fn begin(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "init does not end");
            self.pass(self.now + self.plan.timing.adoption);
            self.start(0);
            self.tick(0);
            if self.store.record.intents.is_empty() {
                let ended = self.finish_genesis();
                if ended {
                    return;
                }
            }
        }
    }

    fn finish_genesis(&mut self) -> bool {
        let Ok(tick) = self.judge(0) else {
            return false;
        };
        let mut set = KeySet::clone(&self.store.record);
        let Ok(events) = set.finish_genesis(&self.plan, tick.now) else {
            return false;
        };
        let version = self.store.version;
        let swapped = self.store.compare_and_swap(version, &Rc::new(set), true);
        assert!(swapped, "nobody else is there yet");
        self.stored(0, &events, tick.now);
        for r in 0..self.replicas.len() {
            self.sync(r);
        }
        true
    }

    /// Somebody asks for `init` once more.
    pub(crate) fn begin_again(&mut self, r: usize) {
        let done = self.change(r, &|set, plan, tick| {
            Ok(set.finish_genesis(plan, tick.now).unwrap_or_default())
        });
        self.totals.count("init asked for again");
        self.say(|| format!("init again at {r}: {done:?}"));
    }

    /// The `kid`s of keys in some phase.
    pub(crate) fn kids(&self, wanted: impl Fn(&Phase) -> bool) -> Vec<String> {
        self.store
            .record
            .keys
            .values()
            .filter(|key| wanted(&key.phase))
            .filter_map(|key| key.kid.clone())
            .collect()
    }

    /// The objects that the record says are in the device.
    pub(crate) fn present(&self) -> BTreeSet<KeyId> {
        self.store
            .record
            .keys
            .values()
            .filter(|key| !matches!(key.phase, Phase::Generating))
            .filter(|key| key.placements.values().any(|half| *half == Half::Present))
            .map(|key| key.id)
            .collect()
    }

    /// The local time of a replica at which true time is `at`, and back.
    pub(crate) fn truly(&self, r: usize, local: Time) -> Time {
        shift(local, -self.replicas[r].offset)
    }
}
