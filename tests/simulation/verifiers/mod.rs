//! Those who check the tokens: clients of every kind, each at an origin, behind
//! an edge that lags and a CDN that keeps copies.
//!
//! They only watch, so they have a randomness of their own, and nothing in the
//! world depends on them. What they meet is judged at its instant, from what
//! the origins served until then.

mod cache;
mod figures;
mod judge;
mod kinds;
mod past;
mod weakened;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;

use sealkeeper::keyring::{KeySet, Phase, SeatId, Timing};
use sealkeeper::time::{Span, Time};

use super::random::{Random, millis};
use super::world::{Flight, World, shift};
use cache::{Verdict, Verifier};
pub(crate) use figures::Crowd;
use kinds::{KINDS, Promise};
use past::Past;

/// How many clients there are in a world.
const CLIENTS: usize = 8;

/// To how many of them a token is shown.
const SHOWN: usize = 3;

pub(crate) struct Population {
    random: Random,
    /// The numbers as they are, whatever the agents were told.
    truth: Timing,
    /// The longest that a set is ever used.
    oldest: Span,
    clients: Vec<Verifier>,
    /// What each origin has served.
    pasts: Vec<Past>,
    ahead: BinaryHeap<Reverse<Visit>>,
    /// Visits ever planned: those of one instant happen in that order.
    planned: u64,
    /// Changes of the record. What comes after what is counted in these, as no
    /// clock tells two changes of one instant apart.
    changes: u64,
    /// With which of them a key was on record first.
    born: BTreeMap<String, u64>,
    /// With which of them it was revoked.
    ended: BTreeMap<String, u64>,
    /// Revoked keys after which one signed that was made later.
    followed: BTreeSet<String>,
    /// The public gets no key that signs no more; set where that is to be seen.
    pub(crate) without_overlap: bool,
    /// What verifiers of which kind found wrong, and how often, where a world
    /// is meant to be: otherwise it ends there.
    breaches: Option<BTreeMap<(&'static str, &'static str), u64>>,
    /// Until when verifiers may trust a revoked key, as an operator was told.
    answered: BTreeMap<String, Time>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Visit {
    at: Time,
    number: u64,
    client: usize,
    what: What,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A token comes that was signed with this key, or forged.
    Token(Rc<str>),
    /// The client starts, and gets what was served then.
    Wakes { as_of: Time },
}

impl Population {
    pub(crate) fn new(seed: u64, origins: usize, timing: &Timing) -> Self {
        let mut random = Random::new(!seed);
        let first = random.below(KINDS.len());
        let clients = (0..CLIENTS)
            .map(|n| {
                // Neighbours in the table are alike.
                let kind = &KINDS[(first + n * 5) % KINDS.len()];
                Verifier::new(kind, origins, timing, &mut random)
            })
            .collect();
        Self {
            random,
            truth: *timing,
            oldest: timing.propagation + timing.verifier_cache,
            clients,
            pasts: (0..origins).map(|_| Past::default()).collect(),
            ahead: BinaryHeap::new(),
            planned: 0,
            changes: 0,
            born: BTreeMap::new(),
            ended: BTreeMap::new(),
            followed: BTreeSet::new(),
            without_overlap: false,
            breaches: None,
            answered: BTreeMap::new(),
        }
    }

    /// The configuration lowers bounds, and everybody but the caches knows.
    pub(super) fn lowers(&mut self, now: Time, before: &Timing, after: &Timing) {
        self.truth = *after;
        for client in &mut self.clients {
            client.lowers(now, before, after);
        }
    }

    /// The record is another from now on.
    pub(crate) fn changed(&mut self) {
        self.changes += 1;
    }

    /// A key stands on record.
    pub(crate) fn on_record(&mut self, kid: &str) {
        if !self.born.contains_key(kid) {
            self.born.insert(kid.to_owned(), self.changes);
        }
    }

    /// A key is revoked on record.
    pub(crate) fn ends(&mut self, kid: &str) {
        if !self.ended.contains_key(kid) {
            self.ended.insert(kid.to_owned(), self.changes);
        }
    }

    /// A key signs from now on: whoever asks at unknown keys alone meets it.
    pub(crate) fn signs(&mut self, kid: &str, seat: &SeatId, record: &KeySet, now: Time) {
        let mine = record.keys.values().filter(|key| key.seat() == *seat);
        let ended = mine.filter(|key| matches!(key.phase, Phase::Revoked { .. }));
        let mut follows = false;
        for old in ended.filter_map(|key| key.kid.as_ref()) {
            if self.is_fresh(kid, old) {
                follows = true;
                self.followed.insert(old.clone());
            }
        }
        for client in (0..self.clients.len()).filter(|_| follows) {
            if self.clients[client].kind.promise == Promise::UntilItMeets {
                self.plan(now, client, What::Token(kid.into()));
            }
        }
    }

    /// Whether a key came after the revocation of another. One that comes with
    /// it, in one change, was made in its place.
    fn is_fresh(&self, kid: &str, revoked: &str) -> bool {
        let born = self.born.get(kid);
        let ended = self.ended.get(revoked);
        born.zip(ended).is_some_and(|(born, ended)| born >= ended)
    }

    fn plan(&mut self, at: Time, client: usize, what: What) {
        self.planned += 1;
        self.ahead.push(Reverse(Visit {
            at,
            number: self.planned,
            client,
            what,
        }));
    }

    /// A client meets a token.
    fn meets(&mut self, client: usize, kid: &str, at: Time) -> Verdict {
        let client = &mut self.clients[client];
        let past = &self.pasts[client.origin];
        client.meets(kid, at, past, &mut self.random)
    }

    /// An origin serves another set. Some clients start at the worst instant:
    /// just before this reaches them.
    pub(crate) fn served(
        &mut self,
        o: usize,
        now: Time,
        kids: &BTreeSet<String>,
        gone: Vec<String>,
    ) {
        self.pasts[o].serves(now, kids, gone);
        let as_of = shift(now, -1);
        for client in 0..self.clients.len() {
            let verifier = &self.clients[client];
            if verifier.origin != o {
                continue;
            }
            let latest = verifier.lag + verifier.cdn;
            if self.random.chance(300) {
                let late = self.random.span(Span::ZERO, latest);
                let at = shift(now + late, -1).max(now);
                self.plan(at, client, What::Wakes { as_of });
            }
        }
    }

    /// A token is out: some clients see it, at the first and at the last
    /// instant of its life among others.
    fn signed(&mut self, flight: &Flight, now: Time) {
        let kid: Rc<str> = flight.kid.as_str().into();
        for _ in 0..SHOWN {
            let client = self.random.below(self.clients.len());
            // Alive until the client's clock shows `exp`.
            let dies = shift(flight.exp, -self.clients[client].offset);
            if dies <= now {
                continue;
            }
            let last = shift(dies, -1);
            let at = match self.random.below(4) {
                0 => now,
                1 => last,
                _ => now + millis(self.random.between(0, last.since(now).as_millis())),
            };
            self.plan(at, client, What::Token(Rc::clone(&kid)));
        }
    }

    /// Somebody forges tokens with a key that was revoked.
    fn forges(&mut self, kid: &str, now: Time, answered: Time) {
        let kid: Rc<str> = kid.into();
        let most = self.oldest.times(2);
        for client in 0..self.clients.len() {
            let some = now + self.random.span(Span::ZERO, most);
            for at in [shift(answered, 1).max(now), some] {
                self.plan(at, client, What::Token(Rc::clone(&kid)));
            }
        }
    }
}

impl World {
    /// A signature left: its token is shown about.
    pub(crate) fn show(&mut self, flight: &Flight) {
        let now = self.now;
        self.population.signed(flight, now);
    }

    /// An operator was told until when verifiers may trust a revoked key.
    pub(crate) fn promised(&mut self, r: usize, kid: &str, until: Time, again: bool) {
        // By the clock of whoever ended it, which is not always this one's.
        let slack = if again {
            self.plan.timing.skew
        } else {
            Span::ZERO
        };
        let until = self.truly(r, until) + slack;
        self.say(|| format!("{kid} may be trusted until {}", until.as_millis()));
        let population = &mut self.population;
        let told = population.answered.entry(kid.to_owned()).or_insert(until);
        *told = (*told).min(until);
        let now = self.now;
        self.population.forges(kid, now, until);
    }

    /// Everybody meets what came to them until now.
    pub(crate) fn verifiers(&mut self) {
        for (origin, past) in self.origins.iter().zip(&mut self.population.pasts) {
            past.answers(origin.dead, self.now);
        }
        while let Some(Reverse(visit)) = self.population.ahead.peek() {
            if visit.at > self.now {
                return;
            }
            let Some(Reverse(visit)) = self.population.ahead.pop() else {
                return;
            };
            let population = &mut self.population;
            match visit.what {
                What::Wakes { as_of } => {
                    let client = &mut population.clients[visit.client];
                    client.wake(visit.at, as_of, &population.pasts[client.origin]);
                }
                What::Token(kid) => {
                    let verdict = population.meets(visit.client, &kid, visit.at);
                    self.judge_verdict(visit.client, &kid, visit.at, &verdict);
                }
            }
        }
    }
}
