//! A year or more in the life of a key set: spells of chaos, spells of calm.

use sealkeeper::keyring::{Key, Mandate, Phase, SeatId, Then, rules};
use sealkeeper::time::{Span, Time};

use super::random::millis;
use super::schedule::{self, TRACKS};
use super::totals::Totals;
use super::world::{Item, World, extreme, shift};

/// In how many steps calm times come to rest.
const STEPS: u32 = 400;

/// Runs the world of one seed; panics where an invariant breaks.
pub(crate) fn run(seed: u64, trace: bool) -> Totals {
    live(World::new(seed, trace)).totals
}

/// Lets a world live its life.
pub(crate) fn live(mut world: World) -> World {
    world.begin();
    let spells = 1 + world.random.below(3);
    for _ in 0..spells {
        let events = 20 + world.random.below(100);
        for _ in 0..events {
            world.chaos();
        }
        world.settle();
    }
    world.totals.simulated = world.now.since(world.started);
    world.totals.crowd = world.population.crowd();
    world
}

impl World {
    fn any_replica(&mut self) -> usize {
        let count = self.replicas.len();
        self.random.below(count)
    }

    fn any_origin(&mut self) -> usize {
        let count = self.origins.len();
        self.random.below(count)
    }

    /// How far to the next event: often to an instant at which something is
    /// decided, to the millisecond or a little off.
    fn next_instant(&mut self) -> Time {
        let timing = self.plan.timing;
        let up_to = |world: &mut Self, most: Span| {
            world.now + millis(world.random.between(0, most.as_millis()))
        };
        match self.random.below(100) {
            0..50 => {
                let r = self.any_replica();
                let mut ahead: Vec<Time> = instants(self)
                    .into_iter()
                    .map(|at| self.truly(r, at))
                    .filter(|at| *at > self.now && *at < self.now + Span::from_days(400))
                    .collect();
                ahead.sort_unstable();
                let Some(at) = ahead.first().copied() else {
                    return up_to(self, timing.rotate_every);
                };
                let off = match self.random.below(5) {
                    0 | 1 => 0,
                    2 => -1,
                    3 => self.random.between(0, timing.adoption.as_millis()),
                    _ => self.random.between(0, timing.skew.as_millis()),
                };
                shift(at, off).max(self.now)
            }
            50..65 => up_to(self, timing.signing_deadline),
            65..80 => up_to(self, timing.adoption.times(3)),
            80..90 => up_to(self, timing.pre_publish()),
            90..96 => up_to(self, timing.max_token_lifetime),
            96..99 => up_to(self, timing.rotate_every.divided_by(3)),
            _ => up_to(self, timing.max_gap.times(2).min(Span::from_days(40))),
        }
    }

    fn chaos(&mut self) {
        self.totals.events += 1;
        let to = self.next_instant();
        self.pass(to);
        self.recover();
        match self.random.below(100) {
            0..45 => self.usual(),
            45..60 => self.signatures(),
            60..68 => {
                let r = self.any_replica();
                self.tick(r);
            }
            68..74 => {
                let (r, o) = (self.any_replica(), self.any_origin());
                self.pull(o);
                self.observe(r, &[o]);
            }
            74..84 => self.trouble(),
            84..90 => self.clocks(),
            90..98 => self.operator(),
            _ => self.configuration(),
        }
        self.invariants();
        self.invariant_recovery();
    }

    /// What goes on all the time where nothing is wrong.
    fn usual(&mut self) {
        for r in 0..self.replicas.len() {
            if self.mishap(100) {
                continue;
            }
            self.sync(r);
            let mut asked = Vec::new();
            for o in 0..self.origins.len() {
                if !self.mishap(100) {
                    self.pull(o);
                }
                if !self.mishap(100) {
                    asked.push(o);
                }
            }
            self.observe(r, &asked);
            if self.random.chance(300) {
                self.tick(r);
            } else {
                self.carry_out(r);
            }
            self.sync_others(r);
        }
        self.signatures();
    }

    /// Whoever watches the store hears of a change within R; some do not.
    fn sync_others(&mut self, r: usize) {
        let most = self.plan.timing.adoption.as_millis();
        for other in (0..self.replicas.len()).filter(|other| *other != r) {
            if !self.mishap(150) {
                let at = self.now + millis(self.random.between(0, most));
                self.agenda.push((at, Item::Sync { r: other }));
            }
        }
    }

    fn signatures(&mut self) {
        for _ in 0..self.random.below(5) {
            let r = self.any_replica();
            self.sign(r);
        }
    }

    /// What is broken does not stay so for ever.
    fn recover(&mut self) {
        for r in 0..self.replicas.len() {
            if self.random.chance(250) {
                self.start(r);
            }
            if self.random.chance(250) {
                self.replicas[r].cut_off = false;
            }
            if self.random.chance(150) {
                self.confirm_clock(r);
            }
        }
        for o in 0..self.origins.len() {
            if self.random.chance(150) {
                self.origins[o].dead = None;
                self.origins[o].mute = false;
            }
        }
        self.store.away &= !self.random.chance(400);
        self.device.away &= !self.random.chance(300);
    }

    fn trouble(&mut self) {
        let (r, o) = (self.any_replica(), self.any_origin());
        match self.random.below(11) {
            0 | 1 => {
                if self.replicas[r].up {
                    self.crash(r, "out of the blue");
                }
            }
            2 => self.replicas[r].cut_off = true,
            3 => self.store.away = true,
            4 => self.device.away = true,
            5 => {
                self.totals.count("origin: died");
                self.origins[o].dead.get_or_insert(self.now);
            }
            6 | 7 => self.regress(o),
            8 | 9 => self.go_astray(o),
            _ => self.origins[o].source = r,
        }
    }

    /// An origin goes back to an older set, and somebody sees it.
    fn regress(&mut self, o: usize) {
        let Some(old) = self.random.pick(&self.origins[o].history).cloned() else {
            return;
        };
        self.totals.count("origin: went back to an older set");
        self.say(|| format!("origin {o} goes back"));
        self.serve(o, old);
        let r = self.any_replica();
        self.observe(r, &[o]);
    }

    fn clocks(&mut self) {
        let r = self.any_replica();
        let skew = self.plan.timing.skew.as_millis();
        if self.random.chance(600) {
            self.totals.count("clock: small step");
            self.replicas[r].offset = extreme(&mut self.random, skew / 2);
            return;
        }
        // A wrong clock from here on, and doubted from the next reading on.
        // So little that a start alone would believe it, or up to a year.
        let most = if self.random.chance(500) {
            self.plan.timing.max_gap.as_millis()
        } else {
            31_536_000_000
        };
        let by = 2 * skew + 1 + self.random.between(0, most);
        let by = if self.random.chance(500) { by } else { -by };
        if self.replicas[r].up && self.replicas[r].guard.anchor().is_some() {
            self.replicas[r].fault = by;
            self.say(|| format!("the clock of {r} is off by {by} ms"));
            self.tick(r);
        } else if self.replicas[r].up || self.reaches_store(r) {
            self.start_in_doubt(r, by);
        }
    }

    /// A start with a clock that the record contradicts. (One that it cannot
    /// contradict is beyond what a single machine can tell.)
    fn start_in_doubt(&mut self, r: usize, by: i64) {
        let high_water = self.store.record.high_water;
        let timing = self.plan.timing;
        let shown = if by > 0 {
            high_water + timing.max_gap + millis(by)
        } else {
            high_water - timing.skew - millis(-by)
        };
        let right = shift(self.now, self.replicas[r].offset);
        let fault = shown.as_millis() - right.as_millis();
        if fault.abs() > timing.skew.as_millis() && !self.replicas[r].up && self.reaches_store(r) {
            self.replicas[r].fault = fault;
            self.start(r);
        }
    }

    fn operator(&mut self) {
        let r = self.any_replica();
        match self.random.below(12) {
            0 | 1 => {
                let kids = self.kids(|phase| !matches!(phase, Phase::Placeholder));
                let then = *self
                    .random
                    .pick(&[None, Some(Then::Wait), Some(Then::Activate)])
                    .expect("three");
                if let Some(kid) = self.random.pick(&kids).cloned() {
                    self.revoke(r, &kid, then);
                }
            }
            2 => {
                let kids = self.kids(|phase| matches!(phase, Phase::Active { .. }));
                if let Some(kid) = self.random.pick(&kids).cloned() {
                    self.revoke(r, &kid, None);
                }
            }
            3..6 => self.roll_back(r),
            6 | 7 if self.random.chance(250) => self.force(r),
            6 | 7 => {
                let track = *self.random.pick(&self.plan.tracks).expect("one at least");
                let done = self.change(r, &|set, plan, tick| {
                    set.rotate(track.0, &Mandate::default(), plan, tick)
                });
                self.say(|| format!("rotate at {r}: {done:?}"));
                self.carry_out(r);
            }
            8 => self.hold(r),
            9 => self.release_all(r),
            10 => self.order_destruction(r),
            _ => self.begin_again(r),
        }
    }

    /// The operator changes the configuration, everywhere at once.
    fn configuration(&mut self) {
        if self.random.chance(500) {
            self.totals.count("timing changed");
            let before = self.plan.timing;
            self.plan.timing = schedule::changed(&before, &mut self.random);
            if self.plan.timing.verifier_cache < before.verifier_cache {
                self.totals.count("verifier cache lowered");
                // What came to them until now.
                self.verifiers();
                let now = self.now;
                let after = self.plan.timing;
                self.population.lowers(now, &before, &after);
            }
            let longest = &mut self.ledger.longest;
            *longest = self.plan.timing.max_token_lifetime.max(*longest);
            self.ledger.oversize = true;
        } else if self.plan.tracks.len() == 1 {
            self.totals.count("track added");
            self.plan.tracks = TRACKS.to_vec();
            // After a compromise a track that comes back waits for no room, and
            // its keys of before are still in the set.
            self.ledger.oversize |= !self.store.record.revoked.is_empty();
        } else {
            self.totals.count("track taken off");
            let gone = self.random.below(2);
            self.plan.tracks.remove(gone);
        }
        for r in 0..self.replicas.len() {
            self.tick(r);
        }
    }

    /// Everything heals, and for a few periods nothing goes wrong: rotations
    /// happen when they are due, and the set comes to rest.
    fn settle(&mut self) {
        self.calm = true;
        self.heal();
        self.ledger.calm_since = self.now;
        let patience = self.patience();
        let mut settled = Err("nothing happened yet".to_owned());
        for _ in 0..STEPS {
            self.totals.events += 1;
            let to = self.next_decision();
            self.pass(to);
            for _ in 0..2 {
                self.usual();
                self.invariants();
                self.pass(self.now + self.plan.timing.adoption.divided_by(4));
            }
            self.invariant_progress(patience);
            settled = self.has_settled();
            let rested = self.now.since(self.ledger.calm_since) > patience;
            if rested && settled.is_ok() {
                break;
            }
        }
        if let Err(why) = settled {
            panic!("the set does not come to rest: {why}");
        }
        self.invariant_forgotten();
        self.calm = false;
    }

    /// In calm times, all is done within this: at the latest when the tokens
    /// are dead that a configuration of before allowed.
    fn patience(&self) -> Span {
        let timing = self.plan.timing;
        let lifetimes = self.store.record.keys.values();
        let longest = lifetimes.fold(timing.max_token_lifetime, |longest, key| {
            longest.max(key.longest_lifetime)
        });
        let lowered = self.store.record.lowered(&self.plan);
        let wait = lowered.map_or(Span::ZERO, |before| before.bounds.pre_publish());
        timing.pre_publish().max(wait).times(2)
            + longest
            + timing.ceiling_step()
            + timing.rollback_window
            + timing.skew.times(3)
            + timing.adoption.times(60)
    }

    fn next_decision(&mut self) -> Time {
        let timing = self.plan.timing;
        let record = &self.store.record;
        let soon = self.now + timing.adoption;
        let ahead = instants(self);
        let next = ahead.into_iter().filter(|at| *at > self.now).min();
        // A track that was added has no seat yet.
        let wanting = |id: &SeatId| record.due(id, &self.plan).is_none_or(|due| due <= self.now);
        let tracks = self.plan.tracks.iter().map(|&(algorithm, _)| SeatId {
            algorithm,
            group: self.plan.group.clone(),
        });
        let most = if self.is_busy() {
            timing.adoption.times(5)
        } else if tracks
            .chain(record.seats.keys().cloned())
            .any(|id| wanting(&id))
        {
            // Not in more steps than there are.
            let step = timing.pre_publish().divided_by(6);
            step.max(self.patience().divided_by(STEPS / 2))
        } else {
            timing.rotate_every
        };
        let most = self.now + most;
        // A little late, as timers are: past the slowest clock.
        let next = next.map_or(most, |at| at.min(most)) + timing.skew;
        next.max(soon)
    }

    /// Whether something is under way that time alone does not bring about.
    fn is_busy(&self) -> bool {
        let record = &self.store.record;
        let unseen = |key: &Key| {
            matches!(key.phase, Phase::Published { .. })
                && self
                    .plan
                    .origins
                    .iter()
                    .any(|origin| !key.sightings.contains_key(origin))
        };
        !record.intents.is_empty() || record.keys.values().any(unseen)
    }

    fn heal(&mut self) {
        self.store.away = false;
        self.device.away = false;
        for origin in &mut self.origins {
            origin.dead = None;
            origin.mute = false;
        }
        for r in 0..self.replicas.len() {
            self.replicas[r].cut_off = false;
            self.replicas[r].fault = 0;
            self.start(r);
            self.sync(r);
            self.confirm_clock(r);
            self.sync(r);
            // An agent steps as soon as it may again, and whatever it owes.
            self.tick(r);
        }
        self.release_all(0);
    }
}

/// The instants around which something is decided.
fn instants(world: &World) -> Vec<Time> {
    let (record, timing) = (&world.store.record, &world.plan.timing);
    let lead = timing.adoption.times(3);
    let mut found = Vec::new();
    for (id, seat) in &record.seats {
        if let Some(switch) = &seat.switch {
            found.push(switch.at);
            found.push(switch.at - timing.adoption);
            found.push(rules::rule_2_last_use(switch.at, timing));
        }
        if let Some(due) = record.due(id, &world.plan) {
            found.push(due - lead);
            found.push(due);
        }
    }
    for key in record.keys.values() {
        if let Phase::Published { .. } = key.phase {
            for seen in key.sightings.values() {
                found.push(
                    rules::rule_1_pre_publish(*seen, timing, record.lowered(&world.plan)) - lead,
                );
                found.push(rules::rule_1_pre_publish(
                    *seen,
                    timing,
                    record.lowered(&world.plan),
                ));
            }
        }
        if let Phase::Retiring { last_sign, .. } = key.phase {
            let outlook = record.outlook(key, &world.plan);
            found.extend(
                [Some(last_sign), outlook.destroyed, outlook.removed]
                    .iter()
                    .flatten(),
            );
        }
    }
    found
}
