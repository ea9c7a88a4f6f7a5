//! The world: true time, and everybody in it.

use std::collections::BTreeSet;
use std::rc::Rc;

use sealkeeper::keyring::{
    ClockGuard, IntentId, Key, KeyId, KeySet, Moment, Phase, Plan, Tick, View,
};
use sealkeeper::time::{Span, Time};

use super::ledger::Ledger;
use super::outside::{Device, Origin, Store};
use super::random::{Random, millis};
use super::schedule;
use super::totals::Totals;
use super::verifiers::Population;

pub(crate) struct World {
    pub(crate) random: Random,
    /// True time: nobody but the invariants reads it.
    pub(crate) now: Time,
    pub(crate) started: Time,
    pub(crate) plan: Plan,
    /// Several replicas, each with a lease on its view; otherwise one, with a
    /// store that cannot get out of its sight.
    pub(crate) fleet: bool,
    pub(crate) store: Store,
    pub(crate) device: Device,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) origins: Vec<Origin>,
    pub(crate) agenda: Vec<(Time, Item)>,
    pub(crate) ledger: Ledger,
    pub(crate) totals: Totals,
    pub(crate) population: Population,
    /// Nothing fails for now.
    pub(crate) calm: bool,
    pub(crate) trace: bool,
}

/// What happens by itself at a later instant.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A signature is finished; `life` is the process that asked for it.
    Release { r: usize, life: u64, flight: Flight },
    /// A slow device made a key.
    Generated {
        r: usize,
        life: u64,
        intent: IntentId,
        key: KeyId,
    },
    /// A replica reads the store.
    Sync { r: usize },
}

#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) kid: String,
    pub(crate) exp: Time,
}

/// One agent: what its process knows, and what its machine is like.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) up: bool,
    /// Which process of this machine is running.
    pub(crate) life: u64,
    /// Real time less true time, in milliseconds: within half the skew.
    pub(crate) offset: i64,
    /// What somebody moved the clock by, beyond all skew.
    pub(crate) fault: i64,
    pub(crate) booted: Time,
    /// How often its machine has started.
    pub(crate) boots: u64,
    /// It does not reach the store.
    pub(crate) cut_off: bool,
    pub(crate) guard: ClockGuard,
    pub(crate) cached: Option<(Rc<KeySet>, u64)>,
    pub(crate) view: Option<View>,
    /// When, in true time, the view was last known to be the newest.
    pub(crate) fresh: Time,
    pub(crate) blocked: BTreeSet<String>,
    /// Blocked keys on disk.
    pub(crate) tombstones: BTreeSet<String>,
    /// Keys that a slow device is making for this process.
    pub(crate) working: BTreeSet<KeyId>,
    /// For each origin, when it last answered.
    pub(crate) answered: Vec<Option<Time>>,
}

/// Moves an instant by milliseconds of either sign.
pub(crate) fn shift(at: Time, by: i64) -> Time {
    Time::from_millis(at.as_millis() + by)
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = schedule::plan(&mut random);
        let fleet = random.chance(650);
        let now = Time::from_secs(1_767_225_600 + random.between(0, 100_000_000));
        let half_skew = plan.timing.skew.as_millis() / 2;
        let replicas = (0..if fleet { 2 } else { 1 })
            .map(|r| Replica {
                name: format!("replica-{r}"),
                up: true,
                life: 0,
                offset: extreme(&mut random, half_skew),
                fault: 0,
                booted: now - millis(random.between(0, 10_000_000)),
                boots: 0,
                cut_off: false,
                guard: ClockGuard::default(),
                cached: None,
                view: None,
                fresh: now,
                blocked: BTreeSet::new(),
                tombstones: BTreeSet::new(),
                working: BTreeSet::new(),
                answered: vec![None; plan.origins.len()],
            })
            .collect::<Vec<_>>();
        let origins = (0..plan.origins.len())
            .map(|o| Origin {
                name: schedule::origin(o),
                serves: BTreeSet::new(),
                history: Vec::new(),
                source: o % replicas.len(),
                dead: None,
                mute: false,
                astray: None,
                lost: None,
            })
            .collect();
        let tick = Tick {
            now: shift(now, replicas[0].offset),
            replica: replicas[0].name.clone(),
            adopted: 0,
            live: BTreeSet::new(),
        };
        let mut totals = Totals::default();
        let (record, events) = KeySet::genesis("orders", &plan, &tick, &mut ids(&mut random));
        for event in &events {
            totals.count(event.what.name());
        }
        let record = Rc::new(record);
        let mut ledger = Ledger::new(Rc::clone(&record), now);
        ledger.tell(&events, &record);
        ledger.longest = plan.timing.max_token_lifetime;
        Self {
            population: Population::new(seed, plan.origins.len(), &plan.timing),
            random,
            now,
            started: now,
            plan,
            fleet,
            ledger,
            store: Store {
                record,
                version: 1,
                away: false,
            },
            device: Device::default(),
            replicas,
            origins,
            agenda: Vec::new(),
            totals,
            calm: false,
            trace,
        }
    }

    /// A fault that happens so often, except in calm times.
    pub(crate) fn mishap(&mut self, per_mille: i64) -> bool {
        !self.calm && self.random.chance(per_mille)
    }

    /// What the machine's clock shows.
    pub(crate) fn wall(&self, r: usize) -> Time {
        let replica = &self.replicas[r];
        shift(self.now, replica.offset + replica.fault)
    }

    /// Time since the machine started.
    pub(crate) fn boot(&self, r: usize) -> Span {
        self.now.since(self.replicas[r].booted)
    }

    pub(crate) fn boot_id(&self, r: usize) -> String {
        format!("boot-{}", self.replicas[r].boots)
    }

    /// The time as a reader has it: from boot time, so that a step of the
    /// clock stretches no lease; doubtful once the clock disagrees.
    pub(crate) fn moment(&self, r: usize) -> Option<Moment> {
        let guard = &self.replicas[r].guard;
        let expected = guard.anchor()?.expected(self.boot(r));
        let off = (self.wall(r).as_millis() - expected.as_millis()).abs();
        if guard.doubt().is_some() || off > self.plan.timing.skew.as_millis() {
            return Some(Moment::Doubtful(expected));
        }
        Some(Moment::Sure(expected))
    }

    /// For how long an answer of an origin shows that it is there.
    pub(crate) fn recent(&self) -> Span {
        self.plan.timing.patience()
    }

    pub(crate) fn reaches_store(&self, r: usize) -> bool {
        !self.store.away && !self.replicas[r].cut_off
    }

    /// Says what happens, when a seed is replayed.
    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{} {}", self.now.as_millis(), what());
        }
    }

    /// Lets true time pass up to `to`; what is on the agenda happens on the
    /// way, in order.
    pub(crate) fn pass(&mut self, to: Time) {
        let from = self.now;
        self.pass_unwatched(to);
        self.attend(self.now.since(from));
    }

    fn pass_unwatched(&mut self, to: Time) {
        while let Some(next) = self.earliest(to) {
            let (at, item) = self.agenda.remove(next);
            self.now = self.now.max(at);
            self.happen(item);
        }
        self.now = self.now.max(to);
    }

    fn earliest(&self, to: Time) -> Option<usize> {
        let due = self.agenda.iter().enumerate();
        due.filter(|(_, (at, _))| *at <= to)
            .min_by_key(|(index, (at, _))| (*at, *index))
            .map(|(index, _)| index)
    }

    fn happen(&mut self, item: Item) {
        match item {
            Item::Release { r, life, flight } => {
                if self.is_alive(r, life) {
                    self.release(r, &flight);
                }
            }
            Item::Generated {
                r,
                life,
                intent,
                key,
            } => {
                if self.is_alive(r, life) {
                    self.replicas[r].working.remove(&key);
                    self.generate(r, intent, key);
                }
            }
            Item::Sync { r } => self.sync(r),
        }
    }

    fn is_alive(&self, r: usize, life: u64) -> bool {
        self.replicas[r].up && self.replicas[r].life == life
    }

    /// The process of a replica ends; its machine goes on, or starts anew with
    /// a clock that is right. What the record says of its clock stays.
    pub(crate) fn crash(&mut self, r: usize, when: &str) {
        self.totals.count(&format!("crash: {when}"));
        self.say(|| format!("replica {r} crashes: {when}"));
        // A key that a slow device was making is made, or is not.
        let working = std::mem::take(&mut self.replicas[r].working);
        for key in working {
            if self.random.chance(500) {
                let salt = self.random.next();
                self.device.generate(key, salt);
            }
        }
        let anew = self.random.chance(300);
        let known = self.store.record.replicas.get(&self.replicas[r].name);
        let note = known.and_then(|known| known.clock.as_ref());
        let noted = note.is_some_and(|note| note.boot_id == self.boot_id(r));
        let now = self.now;
        let replica = &mut self.replicas[r];
        replica.up = false;
        replica.life += 1;
        if anew {
            replica.booted = now;
            replica.boots += 1;
        }
        if anew || !noted {
            // Nothing to hold a wrong clock against.
            replica.fault = 0;
        }
        replica.guard = ClockGuard::default();
        replica.cached = None;
        replica.view = None;
        replica.blocked.clear();
        replica.answered.fill(None);
    }

    pub(crate) fn start(&mut self, r: usize) {
        let replica = &mut self.replicas[r];
        if replica.up {
            return;
        }
        replica.up = true;
        replica.blocked = replica.tombstones.clone();
        self.say(|| format!("replica {r} starts"));
        self.sync(r);
        if self.replicas[r].cached.is_none() {
            // Nothing to hold a wrong clock against.
            self.replicas[r].fault = 0;
        }
        self.tick(r);
    }

    /// An origin serves something else from now on.
    pub(crate) fn serve(&mut self, o: usize, kids: BTreeSet<String>) {
        let origin = &mut self.origins[o];
        if origin.serves != kids {
            let lost = origin.serves.difference(&kids);
            let shown = |kid: &&String| {
                let key = self.store.record.by_kid(kid);
                key.is_some_and(Key::is_published)
            };
            let against_record = lost.filter(shown).cloned().collect();
            let mut public = kids.clone();
            if self.population.without_overlap {
                let signs_no_more = |key: &Key| matches!(key.phase, Phase::Retiring { .. });
                let record = &self.store.record;
                public.retain(|kid| !record.by_kid(kid).is_some_and(signs_no_more));
            }
            self.population.served(o, self.now, &public, against_record);
            let old = std::mem::replace(&mut origin.serves, kids);
            origin.history.push(old);
            if origin.history.len() > 4 {
                origin.history.remove(0);
            }
        }
        for kid in &self.origins[o].serves {
            self.ledger.shown(o, kid, self.now);
        }
    }

    /// An origin gets the set from its replica.
    pub(crate) fn pull(&mut self, o: usize) {
        let origin = &self.origins[o];
        let unseen = origin.astray.map(|since| self.now.since(since));
        if origin.dead.is_some() || origin.mute || unseen.is_some_and(|it| it <= self.unnoticed()) {
            return;
        }
        self.origins[o].astray = None;
        let source = &self.replicas[self.origins[o].source];
        if let Some(view) = source.view.as_ref().filter(|_| source.up) {
            let kids = view.published.iter().map(|key| key.kid.clone()).collect();
            self.serve(o, kids);
        }
    }
}

/// An offset within the bound, and often at it.
pub(crate) fn extreme(random: &mut Random, bound: i64) -> i64 {
    match random.below(4) {
        0 => -bound,
        1 => bound,
        _ => random.between(-bound, bound),
    }
}

/// Ids for new keys.
pub(crate) fn ids(random: &mut Random) -> impl FnMut() -> KeyId + use<> {
    let mut random = Random::new(random.next());
    move || {
        let (a, b) = (random.next().to_le_bytes(), random.next().to_le_bytes());
        let mut id = [0; 16];
        id[..8].copy_from_slice(&a);
        id[8..].copy_from_slice(&b);
        KeyId(id)
    }
}
