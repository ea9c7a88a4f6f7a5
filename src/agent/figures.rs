//! The agent in figures: what writers last said of their key sets, how
//! devices are, and what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Agent;
use super::origins::OriginHealth;
use super::readiness::Watched;
use super::signing::SignError;
use super::writer::{Held, Writer};
use crate::hsm::State;
use crate::jose::Algorithm;
use crate::keyring::{Half, Key, KeySet, Phase, Plan, rules};
use crate::metrics::{DeviceState, Gauges, Outcome};
use crate::time::{Span, Time};

/// What the edge that serves figures asks of the agent.
pub trait Measured: Send + Sync + 'static {
    /// All figures in Prometheus' text format. From memory: it asks no device
    /// and waits for nobody.
    fn figures(&self) -> String;

    /// How long ago the slowest of the key sets' writers came round. Each does
    /// so every two seconds, unless it is stuck.
    fn slowest_writer(&self) -> Duration;
}

/// A key set as its writer last saw it: readers ask for it without a word to
/// the writer, which may be waiting for a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Overview {
    keys: BTreeMap<(Algorithm, &'static str), usize>,
    pub(super) rotations: Vec<Rotation>,
    doubt: bool,
    /// How many keys that were to sign next the token lacks.
    lost: usize,
    /// The origins that have not answered lately.
    pub(super) silent: BTreeSet<String>,
    /// All of them.
    pub(super) origins: Vec<OriginHealth>,
    /// When the writer looked, by a clock that it may not believe.
    pub(super) at: Time,
}

#[derive(Clone, Debug)]
pub(super) struct Rotation {
    pub(super) algorithm: Algorithm,
    /// When the active key is planned to be replaced.
    planned: Option<Time>,
    /// When it should have been replaced at the latest.
    pub(super) due: Time,
    created: Time,
    activated: Time,
    /// What that waits for, for people.
    pub(super) waits_for: String,
}

const PHASES: [&str; 6] = [
    "generating",
    "published",
    "active",
    "retiring",
    "retired",
    "revoked",
];

impl Overview {
    fn of(held: &Held, plan: &Plan, waits_for: impl Fn(&Key) -> String) -> Self {
        let set = &held.record.set;
        let mut keys = BTreeMap::new();
        for (algorithm, _) in &plan.tracks {
            for phase in PHASES {
                keys.insert((*algorithm, phase), 0);
            }
        }
        let mut rotations = Vec::new();
        for key in set.keys.values() {
            if matches!(key.phase, Phase::Placeholder) {
                continue;
            }
            *keys.entry((key.algorithm, key.phase.name())).or_default() += 1;
            if let Phase::Active { since } = key.phase {
                rotations.push(Rotation {
                    algorithm: key.algorithm,
                    planned: set.outlook(key, plan).retires,
                    due: due(set, key, since, plan),
                    created: key.created,
                    activated: key.activated().unwrap_or(since),
                    waits_for: waits_for(key),
                });
            }
        }
        let is_lost = |key: &&Key| key.placements.values().any(|half| *half == Half::Lost);
        Self {
            keys,
            rotations,
            lost: set.keys.values().filter(is_lost).count(),
            ..Self::default()
        }
    }
}

/// When the active key of a track should have been replaced at the latest: when
/// its period is over; or where a person or a revocation asks for it sooner,
/// once every verifier could hold the next key, had each origin shown it as
/// soon as it was there.
fn due(set: &KeySet, key: &Key, since: Time, plan: &Plan) -> Time {
    let due = since + plan.timing.rotate_every;
    let seat_id = key.seat();
    let Some(seat) = set.seats.get(&seat_id) else {
        return due;
    };
    let owed = seat.fresh_after.filter(|_| set.owes_fresh(&seat_id));
    let Some(asked) = seat.rotate_at.into_iter().chain(owed).min() else {
        return due;
    };
    let next = set.standby(&seat_id).and_then(|next| next.published);
    let from = next.map_or(asked, |published| published.max(asked));
    due.min(from + plan.timing.pre_publish())
}

impl Writer {
    /// For the figures, and for whoever watches over the writer's loop.
    pub(super) fn came_round(&mut self) {
        let at = self.context.clock.read().wall;
        let live = self.tick_for(at).live;
        let silent: BTreeSet<String> = self.plan.origins.difference(&live).cloned().collect();
        // In the dark, what the last good record says: its rotations are not
        // done by being out of sight.
        let known = self.held.as_ref().or(self.last.as_ref());
        let saw = known.map(|held| {
            let waits_for = |key: &Key| self.rotation_waits_for(held, key, &silent);
            Overview {
                doubt: self.guard.doubt().is_some(),
                at,
                ..Overview::of(held, &self.plan, waits_for)
            }
        });
        let now = self.estimate();
        let origins = self.origins_now(&silent, now);
        self.tell_of_origins(&origins);
        self.reader.came_round(saw.map(|saw| Overview {
            silent,
            origins,
            ..saw
        }));
        self.page();
        self.tell_of_crowds();
    }
}

impl Measured for Agent {
    fn figures(&self) -> String {
        let gauges = Gauges::new();
        for health in self.readiness() {
            let name = &health.key_set;
            gauges.health(name, health.jwks.is_ok(), health.signing.is_ok());
            for (algorithm, state) in &health.tracks {
                gauges.track(name, *algorithm, state.is_ok());
            }
        }
        let reading = self.clock().read();
        for (name, room) in &self.0.rooms {
            let reader = &room.reader;
            let (overview, now) = (reader.overview(), reader.judged(reading));
            for ((algorithm, phase), count) in &overview.keys {
                gauges.keys(name, *algorithm, phase, *count);
            }
            for rotation in &overview.rotations {
                let left = rotation.planned.unwrap_or(rotation.due).since(now);
                let overdue = rules::exception_overdue(rotation.due, now, &reader.terms().timing);
                let late = overdue.map_or(Span::ZERO, |overdue| overdue.late);
                gauges.rotation(name, rotation.algorithm, left, late);
                let age = |from: Time| now.since(from);
                let (made, signs) = (age(rotation.created), age(rotation.activated));
                gauges.age(name, rotation.algorithm, made, signs);
                let page = overdue.is_some_and(|overdue| overdue.page);
                gauges.page(name, rotation.algorithm, page);
            }
            gauges.writer(name, overview.doubt, reader.idle());
            gauges.unwritten(name, reader.unwritten().len());
            gauges.lost(name, overview.lost);
            if room.archive.is_some() {
                gauges.past(name, self.past_figures(room));
            }
            for origin in &overview.origins {
                let age = origin.answered.map(|at| now.since(at));
                gauges.origin(name, &origin.name, age, origin.silent, &origin.wrong);
                let waiver = origin.waiver.as_ref();
                let left = waiver.map_or(Span::ZERO, |waiver| waiver.until.since(now));
                gauges.waived(name, &origin.name, left);
            }
        }
        for (name, device) in &self.0.context.devices {
            gauges.device(name, state(&device.state().borrow()), device.load().waiting);
        }
        self.0.context.metrics.render(&gauges)
    }

    fn slowest_writer(&self) -> Duration {
        let rooms = self.0.rooms.values();
        let idle = rooms.map(|room| room.reader.idle());
        idle.max().unwrap_or_default()
    }
}

const fn state(state: &State) -> DeviceState {
    match state {
        State::Starting => DeviceState::Starting,
        State::Up { .. } => DeviceState::Up,
        State::Down {
            pin_blocked: true, ..
        } => DeviceState::PinBlocked,
        State::Down { .. } => DeviceState::Down,
        State::Closed => DeviceState::Closed,
    }
}

/// How a request ended, for the figures.
pub(super) const fn outcome<T>(result: &Result<T, SignError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Signed,
        Err(SignError::Refused(_)) => Outcome::Refused,
        Err(SignError::Unavailable { .. }) => Outcome::Unavailable,
        Err(SignError::Overloaded { .. }) => Outcome::Overloaded,
        Err(SignError::Deadline { .. }) => Outcome::Deadline,
        Err(SignError::Internal { .. }) => Outcome::Internal,
    }
}
