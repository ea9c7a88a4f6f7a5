//! What will happen to a key set if the schedule is all that happens: devices
//! and origins do at once what is asked of them, agents follow, and nobody
//! orders anything.

use std::collections::BTreeMap;

use super::event::{Event, What};
use super::genesis::GenesisError;
use super::intent::{Outcome, Task};
use super::key::{Key, KeyId, Phase};
use super::rules;
use super::set::{INSTANT, KeySet, Plan, Tick};
use super::timing::Timing;
use crate::jose::{Algorithm, KeyType, PublicKey};
use crate::time::Time;

/// The future of a key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// What happens, in the order of time.
    pub events: Vec<Event>,
    /// Each key that there is or will be, in the order in which they sign.
    pub lives: Vec<Life>,
    /// Where it ends before its time: so much happens that nobody reads it.
    pub cut_short: Option<Time>,
}

/// The dates of one key, those behind it as far as the record knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Its `kid`; of a key that is still to be made, a name.
    pub kid: String,
    /// Its track.
    pub algorithm: Option<Algorithm>,
    /// Into the JWKS.
    pub published: Option<Time>,
    /// From when it signs.
    pub active: Option<Time>,
    /// From when another key signs in its place.
    pub retiring: Option<Time>,
    /// The private half is gone.
    pub destroyed: Option<Time>,
    /// Out of the JWKS.
    pub removed: Option<Time>,
}

/// The work of one instant ends after so many rounds: each does something.
const ROUNDS: usize = 1000;

/// More than anybody reads: a hundred years of the default schedule, with
/// every kind of key, have a fifth of it.
const MOST_EVENTS: usize = 100_000;

/// Told of each instant on the way.
pub type Progress<'a> = &'a mut dyn FnMut(Time);

impl Forecast {
    /// From `now` to `until`. Every replica that is on record follows at once.
    #[must_use]
    pub fn of(set: KeySet, plan: &Plan, now: Time, until: Time, progress: Progress<'_>) -> Self {
        let mut lives = BTreeMap::new();
        for (id, key) in &set.keys {
            if key.kid.is_none() || matches!(key.phase, Phase::Placeholder) {
                continue;
            }
            lives.insert(*id, Life::so_far(key, &plan.timing, now));
        }
        // The agent that is there goes on; its name decides nothing.
        let replica = set.replicas.keys().next().cloned().unwrap_or_default();
        let mut run = Run {
            made: made(&set),
            tick: Tick {
                now: now.max(set.high_water),
                replica,
                adopted: set.epoch,
                live: plan.origins.clone(),
            },
            set,
            plan,
            events: Vec::new(),
        };
        while run.tick.now <= until && run.events.len() < MOST_EVENTS {
            progress(run.tick.now);
            run.instant();
            let next = run.set.next_step(plan, &run.tick);
            let next = next.max(run.tick.now + INSTANT);
            // Ceilings alone: a year has thousands of steps in which nothing
            // else happens.
            let end = next.min(until + INSTANT);
            run.set.raise_ceilings_until(plan, end);
            run.tick.now = next;
        }
        let cut_short = Some(run.tick.now).filter(|at| *at <= until);
        run.events.retain(|event| event.at <= until);
        // What a tick finds done carries the instant of the switch.
        run.events.sort_by_key(|event| event.at);
        for event in &run.events {
            let life = lives.entry(event.key).or_default();
            life.learn(event);
        }
        let mut lives: Vec<Life> = lives
            .into_values()
            .filter(|life| life.published.is_some())
            .collect();
        lives.sort_by_key(|life| (life.algorithm, life.active.or(life.published)));
        Self {
            events: run.events,
            lives,
            cut_short,
        }
    }

    /// Of a key set that would begin `now`.
    ///
    /// # Errors
    /// [`GenesisError`], which says that the plan has no track.
    pub fn from_genesis(
        name: &str,
        plan: &Plan,
        now: Time,
        until: Time,
        progress: Progress<'_>,
    ) -> Result<Self, GenesisError> {
        let tick = Tick {
            now,
            replica: String::new(),
            adopted: 0,
            live: plan.origins.clone(),
        };
        let mut made = 0;
        let (set, mut events) = KeySet::genesis(name, plan, &tick, &mut || id(&mut made));
        let mut run = Run {
            set,
            plan,
            tick,
            events: Vec::new(),
            made,
        };
        // Whose private half nobody needs is destroyed as soon as it is made.
        for _ in 0..ROUNDS {
            if run.set.intents.is_empty() {
                break;
            }
            run.devices();
        }
        events.append(&mut run.events);
        events.extend(run.set.finish_genesis(plan, now)?);
        let rest = Self::of(run.set, plan, now, until, progress);
        events.extend(rest.events);
        Ok(Self {
            events,
            lives: rest.lives,
            cut_short: rest.cut_short,
        })
    }
}

struct Run<'a> {
    set: KeySet,
    plan: &'a Plan,
    tick: Tick,
    events: Vec<Event>,
    made: u64,
}

impl Run<'_> {
    /// All that happens now.
    fn instant(&mut self) {
        for _ in 0..ROUNDS {
            let before = self.events.len();
            let (tick, plan) = (&mut self.tick, self.plan);
            tick.adopted = self.set.epoch;
            let epoch = self.set.epoch;
            for replica in self.set.replicas.values_mut() {
                replica.confirmed = epoch;
            }
            // Agents look all the while.
            let origins = plan.origins.iter();
            let looked = origins.map(|origin| (origin.clone(), tick.now));
            self.set.looked.extend(looked);
            let made = &mut self.made;
            let events = self.set.advance(plan, tick, &mut || id(made));
            self.events.extend(events);
            self.devices();
            self.origins();
            if self.events.len() == before && self.set.epoch == epoch {
                return;
            }
        }
    }

    fn devices(&mut self) {
        for (intent, what) in self.set.intents.clone() {
            let outcome = match &what.task {
                Task::Generate { key, .. } => match self.generated(*key) {
                    Some(outcome) => outcome,
                    None => continue,
                },
                task if self.set.holds_back(task) => Outcome::Kept,
                Task::Destroy { .. } => Outcome::Destroyed,
            };
            // A key that nobody expects is one that nobody shows.
            let events = self.set.complete(intent, outcome, &self.tick);
            self.events.extend(events.unwrap_or_default());
        }
    }

    /// A key by a name, with a public half that nobody looks at.
    fn generated(&mut self, id: KeyId) -> Option<Outcome> {
        let key = self.set.keys.get(&id)?;
        if let Some(adoption) = &key.adopted {
            return Some(Outcome::Generated {
                public: adoption.public.clone(),
                kid: adoption.kid.clone(),
                token: None,
            });
        }
        // Ids that an agent gave out are long and say nothing.
        let number = match number(key.id) {
            Some(number) => number,
            None => {
                self.made += 1;
                self.made
            }
        };
        let key = self.set.keys.get(&id)?;
        Some(Outcome::Generated {
            public: stand_in(key.key_type)?,
            kid: format!("{} #{number}", key.algorithm),
            token: None,
        })
    }

    fn origins(&mut self) {
        let shown = |key: &&Key| key.is_published();
        let unseen = |key: &Key| {
            let mut origins = self.plan.origins.iter();
            origins.any(|origin| !key.sightings.contains_key(origin))
        };
        // Nobody looks a key up again that everybody has seen.
        if !self.set.keys.values().filter(shown).any(unseen) {
            return;
        }
        let kids = self.set.keys.values().filter(shown);
        let kids = kids.filter_map(|key| key.kid.clone()).collect();
        for origin in &self.plan.origins {
            let events = self.set.observe(origin, &kids, self.tick.now, self.plan);
            self.events.extend(events);
        }
    }
}

/// Ids that no device gave out.
fn id(made: &mut u64) -> KeyId {
    *made += 1;
    let mut id = [0xff; 16];
    id[..8].copy_from_slice(&made.to_be_bytes());
    KeyId(id)
}

/// How many of them there are.
fn made(set: &KeySet) -> u64 {
    let numbers = set.keys.keys().filter_map(|id| number(*id));
    numbers.max().unwrap_or_default()
}

/// Of one of ours.
fn number(id: KeyId) -> Option<u64> {
    let ours = id.0[8..] == [0xff; 8];
    let first = id.0.first_chunk().filter(|_| ours)?;
    Some(u64::from_be_bytes(*first))
}

/// A public key that is no secret's: the generator of its curve, or a number of
/// the right size.
fn stand_in(kind: KeyType) -> Option<PublicKey> {
    use p256::elliptic_curve::sec1::ToEncodedPoint as _;
    let rsa = |bytes: usize| {
        let mut n = vec![0xff; bytes];
        n[bytes - 1] = 1;
        PublicKey::rsa(&n, &[1, 0, 1])
    };
    let point = |bytes: &[u8]| PublicKey::ec_point(kind, bytes);
    match kind {
        KeyType::Rsa2048 => rsa(256),
        KeyType::Rsa3072 => rsa(384),
        KeyType::Rsa4096 => rsa(512),
        KeyType::P256 => point(
            p256::AffinePoint::GENERATOR
                .to_encoded_point(false)
                .as_bytes(),
        ),
        KeyType::P384 => point(
            p384::AffinePoint::GENERATOR
                .to_encoded_point(false)
                .as_bytes(),
        ),
        KeyType::P521 => point(
            p521::AffinePoint::GENERATOR
                .to_encoded_point(false)
                .as_bytes(),
        ),
        KeyType::Ed25519 => {
            // RFC 8032 section 5.1: y is 4/5, and its encoding this.
            let mut x = vec![0x66; 32];
            x[0] = 0x58;
            PublicKey::try_from(crate::jose::key::RawKey::Ed25519 { x })
        }
    }
    .ok()
}

impl Life {
    fn so_far(key: &Key, timing: &Timing, now: Time) -> Self {
        let mut life = Self {
            kid: key.kid.clone().unwrap_or_default(),
            algorithm: Some(key.algorithm),
            published: key.published,
            ..Self::default()
        };
        match key.phase {
            Phase::Active { since } => life.active = Some(since),
            Phase::Retiring {
                since, last_sign, ..
            } => {
                life.active = key.activated.or(key.published);
                life.retiring = Some(since);
                // The record has no date of it: that of rule 4, unless
                // somebody ordered it before.
                let due = rules::rule_4_destruction(last_sign, timing);
                life.destroyed = (!key.has_private_half()).then(|| due.min(now).max(since));
            }
            // What is over is not drawn.
            Phase::Retired { .. } | Phase::Revoked { .. } => life.published = None,
            _ => {}
        }
        life
    }

    fn learn(&mut self, event: &Event) {
        if let Some(kid) = &event.kid {
            self.kid.clone_from(kid);
        }
        self.algorithm = Some(event.algorithm);
        let at = Some(event.at);
        match event.what {
            What::Published => self.published = at,
            What::Activated => self.active = at,
            What::Retiring => self.retiring = at,
            What::Destroyed { .. } => self.destroyed = at,
            What::Removed => self.removed = at,
            _ => {}
        }
    }
}
