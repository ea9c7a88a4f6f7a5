//! The keyring as its callers see it: a bench that plays the agent, the device
//! and the origins, one step at a time.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on is a test that fails"
)]

mod adopt;
mod approval;
mod bounds;
mod confirm;
mod destroy;
mod force;
mod forecast;
mod forget;
mod genesis;
mod history;
mod import;
mod last;
mod life;
mod lost;
mod operator;
mod outdated;
mod outlook;
mod publicity;
mod record;
mod recover;
mod revoked;
mod tracks;
mod view;
mod waiver;

use std::collections::BTreeSet;

use super::*;
use crate::jose::key::RawKey;
use crate::jose::{Algorithm, KeyType, PublicKey};
use crate::time::{Span, Time};

/// Numbers that no two sums share. Rule 1 waits 1110 s, a switch is fixed
/// 90 s ahead of its instant, a handover takes 35 s.
pub(super) fn timing() -> Timing {
    Timing {
        rotate_every: Span::from_secs(10_000),
        verifier_cache: Span::from_secs(1000),
        propagation: Span::from_secs(100),
        skew: Span::from_secs(10),
        max_token_lifetime: Span::from_secs(2000),
        rollback_window: Span::from_secs(3000),
        adoption: Span::from_secs(30),
        signing_deadline: Span::from_secs(5),
        max_age: Span::from_secs(600),
        cdn_stale: Span::from_secs(400),
        window: None,
        max_gap: Span::from_secs(50_000),
        hard_limit: HardLimit::Page(Span::from_secs(7000)),
    }
}

pub(super) fn at(s: i64) -> Time {
    Time::from_secs(1_000_000 + s)
}

pub(super) fn just_before(time: Time) -> Time {
    time - Span::from_millis(1)
}

pub(super) fn sure(s: i64) -> Moment {
    Moment::Sure(at(s))
}

pub(super) struct Bench {
    pub(super) set: KeySet,
    pub(super) plan: Plan,
    /// What each step is told; its time is set by each step.
    pub(super) tick: Tick,
    drawn: u8,
    made: u8,
}

impl Bench {
    /// `init` has been asked for, and nothing has been done.
    pub(super) fn pending() -> Self {
        let origins: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        let plan = Plan {
            timing: timing(),
            tracks: vec![(Algorithm::Ed25519, KeyType::Ed25519)],
            device: "hsm".to_owned(),
            group: ONLY_GROUP.to_owned(),
            origins: origins.clone(),
            two_people: false,
        };
        let tick = Tick {
            now: at(0),
            replica: "one".to_owned(),
            adopted: 0,
            live: origins,
        };
        let mut drawn = 0;
        let (set, _) = KeySet::genesis("orders", &plan, &tick, &mut || id(&mut drawn));
        Self {
            set,
            plan,
            tick,
            drawn,
            made: 0,
        }
    }

    /// Begun at 0: `k1` is active. (`k2` is the placeholder.)
    pub(super) fn begun() -> Self {
        let mut bench = Self::pending();
        bench.device(0);
        bench.device(0);
        bench.set.finish_genesis(&bench.plan, at(0)).unwrap();
        bench
    }

    /// Begun at 0, with the standby `k3`, which every origin shows since 20.
    pub(super) fn with_standby() -> Self {
        let mut bench = Self::begun();
        bench.advance(0);
        bench.device(0);
        bench.observe("a", 10);
        bench.observe("b", 20);
        bench
    }

    /// With the standby, rotated at 10,000: `k3` is active, `k1` retiring, and
    /// `k4` the standby, which every origin shows since 10,001.
    pub(super) fn rotated() -> Self {
        let mut bench = Self::with_standby();
        bench.run(&[9910, 10_000]);
        bench.device(10_000);
        bench.observe_all(10_001);
        bench
    }

    pub(super) fn advance_at(&mut self, now: Time) -> Vec<&'static str> {
        self.tick.now = now;
        self.tick.adopted = self.set.epoch;
        self.attend();
        let drawn = &mut self.drawn;
        let events = self.set.advance(&self.plan, &self.tick, &mut || id(drawn));
        names(&events)
    }

    /// Whoever answers now has been looked at all the while.
    pub(super) fn attend(&mut self) {
        if matches!(self.set.genesis, Genesis::Pending { .. }) {
            return;
        }
        for origin in self.tick.live.iter().filter(|it| *it != OWN_LISTENER) {
            self.set.looked.insert(origin.clone(), self.tick.now);
        }
    }

    pub(super) fn advance(&mut self, s: i64) -> Vec<&'static str> {
        self.advance_at(at(s))
    }

    pub(super) fn run(&mut self, instants: &[i64]) {
        for s in instants {
            self.advance(*s);
        }
    }

    /// The device does all that it is asked.
    pub(super) fn device(&mut self, s: i64) -> Vec<&'static str> {
        self.tick.now = at(s);
        let mut done = Vec::new();
        for (id, intent) in self.set.intents.clone() {
            done.extend(self.complete(id, &intent.task, s));
        }
        done
    }

    /// A device does one thing that it is asked.
    pub(super) fn complete(&mut self, id: IntentId, task: &Task, s: i64) -> Vec<&'static str> {
        self.tick.now = at(s);
        let outcome = match task {
            Task::Generate { .. } => {
                self.made += 1;
                made(self.made)
            }
            Task::Destroy { .. } => Outcome::Destroyed,
        };
        names(&self.set.complete(id, outcome, &self.tick).unwrap())
    }

    /// An origin shows everything, and somebody has looked all the while.
    pub(super) fn observe(&mut self, origin: &str, s: i64) -> Vec<&'static str> {
        self.set.looked.insert(origin.to_owned(), at(s));
        self.look(origin, s)
    }

    /// An origin shows everything.
    pub(super) fn look(&mut self, origin: &str, s: i64) -> Vec<&'static str> {
        let kids = self.published().into_iter().collect();
        names(&self.set.observe(origin, &kids, at(s), &self.plan))
    }

    pub(super) fn observe_all(&mut self, s: i64) {
        self.observe("a", s);
        self.observe("b", s);
    }

    /// An origin shows nothing of ours.
    pub(super) fn lose(&mut self, origin: &str, s: i64) -> Vec<&'static str> {
        names(
            &self
                .set
                .observe(origin, &BTreeSet::new(), at(s), &self.plan),
        )
    }

    pub(super) fn view(&self) -> View {
        self.set.view(&self.plan, None)
    }

    pub(super) fn published(&self) -> Vec<String> {
        let view = self.view();
        view.published.into_iter().map(|key| key.kid).collect()
    }

    /// The `kid` that signs at this moment, by the view of now.
    pub(super) fn signer(&self, s: i64) -> Result<String, NoSigner> {
        let view = self.view();
        view.signer(None, sure(s)).map(|key| key.kid.clone())
    }

    pub(super) fn phase(&self, kid: &str) -> &'static str {
        self.set
            .by_kid(kid)
            .map_or("forgotten", |key| key.phase.name())
    }

    pub(super) fn half(&self, kid: &str) -> Half {
        self.set.by_kid(kid).unwrap().placements["hsm"]
    }

    pub(super) fn seat(&self) -> &Seat {
        self.set.seats.values().next().unwrap()
    }

    pub(super) fn revoke(
        &mut self,
        kid: &str,
        then: Option<Then>,
        s: i64,
    ) -> Result<Revoked, OperatorError> {
        self.tick.now = at(s);
        self.set.revoke(kid, &ending(then), &self.plan, &self.tick)
    }

    pub(super) fn rollback(&mut self, kid: &str, s: i64) -> Result<Vec<Event>, OperatorError> {
        self.tick.now = at(s);
        self.set.rollback(kid, &anna(), &self.plan, &self.tick)
    }

    pub(super) fn destroy(
        &mut self,
        kid: &str,
        end_rollback: bool,
        s: i64,
    ) -> Result<Vec<Event>, OperatorError> {
        self.tick.now = at(s);
        self.set
            .destroy(kid, end_rollback, &anna(), &self.plan, &self.tick)
    }

    pub(super) fn hold(&mut self, kid: &str, s: i64) {
        self.tick.now = at(s);
        self.set.hold(kid, &anna(), &self.plan, &self.tick).unwrap();
    }
}

/// Who asks, in these tests.
pub(super) fn anna() -> Mandate {
    Mandate {
        by: "unix:7".to_owned(),
        note: "ticket 12".to_owned(),
    }
}

pub(super) fn ending(then: Option<Then>) -> Ending {
    Ending {
        reason: Reason::Compromised,
        then,
        at: None,
        mandate: anna(),
    }
}

fn id(drawn: &mut u8) -> KeyId {
    *drawn += 1;
    KeyId([*drawn; 16])
}

/// The `n`th key that the device made: `k1` and on.
pub(super) fn made(n: u8) -> Outcome {
    let public = (0..).find_map(|salt| {
        let mut x = vec![salt; 32];
        x[0] = n;
        // Not every number is a point of the curve.
        PublicKey::try_from(RawKey::Ed25519 { x }).ok()
    });
    Outcome::Generated {
        public: public.unwrap(),
        kid: format!("k{n}"),
        token: None,
    }
}

pub(super) fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.what.name()).collect()
}
