//! One verifier: what it fetches, when, and what it says of a token.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sealkeeper::keyring::Timing;
use sealkeeper::time::{Span, Time};

use super::figures::Figures;
use super::kinds::{Holds, Keeps, Kind, Unknown};
use super::past::Past;
use crate::simulation::random::{Random, millis};

pub(crate) struct Verifier {
    pub(crate) kind: Kind,
    pub(crate) origin: usize,
    /// How long a set takes from the origin to the edge that it asks.
    pub(crate) lag: Span,
    /// The greatest age of a copy there.
    pub(crate) cdn: Span,
    /// It reckons with the age of a copy.
    pub(crate) minds_age: bool,
    /// Its clock less true time, in milliseconds.
    pub(crate) offset: i64,
    /// The greatest age of a set that it uses, counted from when it came to its
    /// edge; none if it has no bound.
    pub(crate) oldest: Option<Span>,
    /// It keeps sets for three times as long as it says; where it says that it
    /// keeps them for ever, it neither asks at an unknown key nor renews them.
    pub(crate) lies: bool,
    max_age: Span,
    /// The numbers of before, for what its origin served then.
    former: Vec<Former>,
    set: Option<Copy>,
    keys: BTreeMap<String, Copy>,
    fetched: Option<Time>,
    /// When a token came last.
    asked: Option<Time>,
    pub(super) figures: Figures,
    /// Keys of which it has taken tokens.
    taken: BTreeSet<String>,
}

/// Numbers that were lowered since.
pub(crate) struct Former {
    /// What was served before this goes by them.
    until: Time,
    lag: Span,
    cdn: Span,
    max_age: Span,
    keeps: Keeps,
    renews: Option<Span>,
    verifier_cache: Span,
}

/// What it got from a fetch.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) kids: Rc<BTreeSet<String>>,
    /// When its origin served this.
    pub(crate) as_of: Time,
    pub(crate) fetched: Time,
    until: Option<Time>,
}

/// What it says of a token.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) accepted: bool,
    /// What that rests on, if it has anything.
    pub(crate) by: Option<Copy>,
    /// It asked, and nobody answered.
    pub(crate) unanswered: bool,
    /// When a token came before this one.
    pub(crate) before: Option<Time>,
}

impl Copy {
    fn is_over(&self, at: Time) -> bool {
        self.until.is_some_and(|until| until <= at)
    }
}

impl Verifier {
    /// Where the plan's numbers stand, everything about it is random.
    pub(crate) fn new(kind: &Kind, origins: usize, timing: &Timing, random: &mut Random) -> Self {
        let behind_cdn = random.chance(500);
        let half_skew = timing.skew.as_millis() / 2;
        let mut verifier = Self {
            kind: kind.clone(),
            origin: random.below(origins),
            lag: random.span(Span::ZERO, timing.propagation),
            cdn: if behind_cdn {
                timing.max_age + timing.cdn_stale
            } else {
                Span::ZERO
            },
            minds_age: random.chance(500),
            offset: random.between(-half_skew, half_skew),
            oldest: None,
            lies: false,
            max_age: timing.max_age,
            former: Vec::new(),
            set: None,
            keys: BTreeMap::new(),
            fetched: None,
            asked: None,
            figures: Figures::default(),
            taken: BTreeSet::new(),
        };
        match random.below(3) {
            // As it comes.
            0 => {}
            // As a day is to the plan's bound.
            1 => verifier.scale(timing.verifier_cache.as_millis(), 86_400_000),
            // Set to the longest that the plan allows.
            _ => {
                verifier.scale(timing.verifier_cache.as_millis(), 86_400_000);
                if let Keeps::For(keeps) = &mut verifier.kind.keeps {
                    *keeps = less(timing.verifier_cache, verifier.cdn);
                    let most = keeps.divided_by(2);
                    verifier.kind.renews = verifier.kind.renews.map(|span| span.min(most));
                }
            }
        }
        verifier.oldest = verifier.bound();
        verifier
    }

    /// Whether the plan covers what it keeps.
    pub(crate) fn fits(&self, timing: &Timing) -> bool {
        self.oldest
            .is_some_and(|oldest| oldest <= timing.verifier_cache)
    }

    /// Everybody goes by lower numbers from now on, but for what was served
    /// before.
    pub(crate) fn lowers(&mut self, now: Time, before: &Timing, after: &Timing) {
        self.former.push(Former {
            until: now,
            lag: self.lag,
            cdn: self.cdn,
            max_age: self.max_age,
            keeps: self.kind.keeps,
            renews: self.kind.renews,
            verifier_cache: before.verifier_cache,
        });
        let (by, of) = (after.verifier_cache, before.verifier_cache);
        self.scale(by.as_millis(), of.as_millis().max(1));
        self.lag = self.lag.min(after.propagation);
        self.cdn = self.cdn.min(after.max_age + after.cdn_stale);
        self.max_age = after.max_age;
        self.oldest = self.bound();
    }

    /// The numbers for what was served then, where they were others.
    fn former(&self, as_of: Time) -> Option<&Former> {
        self.former.iter().find(|former| as_of < former.until)
    }

    /// How old a set may be, at a verifier whose bound the plan covers.
    pub(crate) fn most(&self, as_of: Time, timing: &Timing) -> Span {
        self.former(as_of)
            .map_or(self.lag + timing.verifier_cache, |former| {
                former.lag + former.verifier_cache
            })
    }

    /// When a copy is renewed at the next token.
    pub(crate) fn due(&self, copy: &Copy) -> Option<Time> {
        let former = self.former(copy.as_of);
        let renews = former.map_or(self.kind.renews, |it| it.renews);
        renews.map(|age| copy.fetched + age)
    }

    fn scale(&mut self, by: i64, of: i64) {
        let scaled = |span: &mut Span| {
            let ms = i128::from(span.as_millis()) * i128::from(by) / i128::from(of);
            *span = millis(i64::try_from(ms).expect("spans of years"));
        };
        match &mut self.kind.keeps {
            Keeps::For(keeps) => scaled(keeps),
            Keeps::MaxAge { less, least, most } => {
                scaled(less);
                scaled(least);
                scaled(most);
            }
            Keeps::Ever => {}
        }
        if let Some(renews) = &mut self.kind.renews {
            scaled(renews);
        }
        match &mut self.kind.unknown {
            Unknown::Fetch { cooldown } | Unknown::FetchLater { cooldown } => scaled(cooldown),
            Unknown::Refuse => {}
        }
    }

    fn bound(&self) -> Option<Span> {
        match self.kind.keeps {
            // While tokens come.
            Keeps::Ever => self.kind.renews.map(|age| self.cdn + age),
            Keeps::For(keeps) => Some(self.cdn + keeps),
            Keeps::MaxAge { least, .. } if self.minds_age => {
                Some(self.max_age.max(self.cdn + least))
            }
            Keeps::MaxAge { .. } => {
                Some(self.cdn + self.keeps(&self.kind.keeps, self.max_age, Span::ZERO)?)
            }
        }
    }

    /// For how long it uses a copy of this age.
    fn keeps(&self, keeps: &Keeps, max_age: Span, age: Span) -> Option<Span> {
        match *keeps {
            Keeps::Ever => None,
            Keeps::For(keeps) => Some(keeps),
            Keeps::MaxAge { less, least, most } => {
                let age = if self.minds_age { age } else { Span::ZERO };
                let left = self::less(self::less(max_age, age), less);
                Some(left.max(least).min(most.max(least)))
            }
        }
    }

    /// It forgets everything.
    pub(crate) fn restart(&mut self) {
        self.set = None;
        self.keys.clear();
        self.fetched = None;
        self.asked = None;
    }

    /// It starts, and its edge has the oldest copy that it may have.
    pub(crate) fn wake(&mut self, at: Time, as_of: Time, past: &Past) {
        self.restart();
        let former = self.former(as_of);
        let (lag, cdn) = former.map_or((self.lag, self.cdn), |it| (it.lag, it.cdn));
        if self.kind.holds == Holds::TheSet && at - lag - cdn <= as_of {
            self.set = self.copy(at, as_of.min(at - lag), past);
            self.fetched = Some(at);
        }
    }

    fn copy(&self, at: Time, as_of: Time, past: &Past) -> Option<Copy> {
        let kids = past.at(as_of).filter(|_| !past.is_dead(at))?;
        let former = self.former(as_of);
        let (lag, max_age, keeps) = former
            .map_or((self.lag, self.max_age, &self.kind.keeps), |it| {
                (it.lag, it.max_age, &it.keeps)
            });
        let age = (at - lag).since(as_of);
        let keeps = self.keeps(keeps, max_age, age);
        let keeps = keeps.map(|keeps| keeps.times(if self.lies { 3 } else { 1 }));
        Some(Copy {
            kids: Rc::clone(kids),
            as_of,
            fetched: at,
            until: keeps.map(|keeps| at + keeps),
        })
    }

    fn fetch(&mut self, at: Time, past: &Past, random: &mut Random) -> Option<Copy> {
        let of_before = self.former.iter().find_map(|former| {
            let age = random.span(Span::ZERO, former.cdn);
            Some(at - former.lag - age).filter(|as_of| *as_of < former.until)
        });
        let as_of = of_before.unwrap_or_else(|| {
            let latest = self.former.last().map_or(Time::default(), |it| it.until);
            let age = random.span(Span::ZERO, self.cdn);
            (at - self.lag - age).max(latest.min(at - self.lag))
        });
        self.fetched = Some(at);
        let copy = self.copy(at, as_of, past);
        self.figures.fetches += 1;
        self.figures.in_vain += u64::from(copy.is_none());
        copy
    }

    /// What it says of a token with this `kid`.
    pub(crate) fn meets(
        &mut self,
        kid: &str,
        at: Time,
        past: &Past,
        random: &mut Random,
    ) -> Verdict {
        let before = self.asked.replace(at);
        self.figures.tokens += 1;
        let has_some = self.set.is_some() || !self.keys.is_empty();
        if has_some && !self.knows(kid) && !self.keys.contains_key(kid) {
            self.figures.unknown += 1;
        }
        let verdict = match self.kind.holds {
            Holds::TheSet => self.asks_its_set(kid, at, past, random),
            Holds::Keys { most, unknown } => {
                self.asks_its_keys(kid, (most, unknown), at, past, random)
            }
        };
        if verdict.accepted && self.taken.insert(kid.to_owned()) && self.taken.len() > 1 {
            self.figures.rotations += 1;
        }
        Verdict { before, ..verdict }
    }

    fn asks_its_set(&mut self, kid: &str, at: Time, past: &Past, random: &mut Random) -> Verdict {
        self.catch_up(at, past, random);
        let mut unanswered = false;
        if self.set.as_ref().is_none_or(|set| set.is_over(at)) {
            let new = self.fetch(at, past, random);
            unanswered = new.is_none();
            if !(unanswered && self.kind.stale_on_error) {
                self.set = new;
            }
        }
        let idle = self.lies && matches!(self.kind.keeps, Keeps::Ever);
        let later = !idle
            && self.set.as_ref().is_some_and(|set| {
                let old = |age: Span| set.fetched + age <= at;
                self.kind.renews.is_some_and(old)
            });
        let mut accepted = self.knows(kid);
        let mut by = self.set.clone();
        let cooled = |cooldown: Span| self.fetched.is_none_or(|last| last + cooldown <= at);
        let ask_later = match self.kind.unknown {
            _ if idle => false,
            Unknown::Fetch { cooldown } if !accepted && by.is_some() && cooled(cooldown) => {
                match self.fetch(at, past, random) {
                    Some(new) => {
                        self.set = Some(new);
                        accepted = self.knows(kid);
                        by = self.set.clone();
                    }
                    None => unanswered = true,
                }
                false
            }
            Unknown::FetchLater { cooldown } => later || !accepted && cooled(cooldown),
            _ => later,
        };
        if ask_later {
            self.set = self.fetch(at, past, random).or(self.set.take());
        }
        Verdict {
            accepted,
            by,
            unanswered,
            before: None,
        }
    }

    fn knows(&self, kid: &str) -> bool {
        self.set.as_ref().is_some_and(|set| set.kids.contains(kid))
    }

    /// What its timer has fetched since it was last asked.
    fn catch_up(&mut self, at: Time, past: &Past, random: &mut Random) {
        let (true, Some(set)) = (self.kind.timer, &self.set) else {
            return;
        };
        let Some(step) = set.until.map(|until| until.since(set.fetched).as_millis()) else {
            return;
        };
        let since = set.fetched;
        let passed = at.since(since).as_millis() / step.max(1);
        // The last that was answered; what came long before that is no matter.
        for missed in 0..passed.min(20) {
            let then = since + millis(step.max(1) * (passed - missed));
            if let Some(new) = self.fetch(then, past, random) {
                self.set = Some(new);
                return;
            }
        }
    }

    fn asks_its_keys(
        &mut self,
        kid: &str,
        (most, unknown): (usize, bool),
        at: Time,
        past: &Past,
        random: &mut Random,
    ) -> Verdict {
        if let Some(known) = self.keys.get(kid).filter(|known| !known.is_over(at)) {
            return Verdict {
                accepted: known.kids.contains(kid),
                by: Some(known.clone()),
                unanswered: false,
                before: None,
            };
        }
        self.keys.remove(kid);
        let Some(new) = self.fetch(at, past, random) else {
            return Verdict {
                accepted: false,
                by: None,
                unanswered: true,
                before: None,
            };
        };
        let accepted = new.kids.contains(kid);
        if accepted || unknown {
            if self.keys.len() >= most {
                self.keys.pop_first();
            }
            self.keys.insert(kid.to_owned(), new.clone());
        }
        Verdict {
            accepted,
            by: Some(new),
            unanswered: false,
            before: None,
        }
    }
}

fn less(span: Span, by: Span) -> Span {
    millis((span.as_millis() - by.as_millis()).max(0))
}
