//! The keyring, asked: the same functions as the agent's, each question once.
//!
//! States share records, so a record is kept once and known by its number;
//! what a step makes of it, how it looks a unit later, and what a reader signs
//! by it are worked out when they are first wanted.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sealkeeper::jose::PublicKey;
use sealkeeper::keyring::{KeySet, Plan, View};
use sealkeeper::time::Span;

use super::ask::Ask;
use super::clock::{Clock, rebooted};
use super::facts::Facts;
use super::hash::Quick;
use super::instance::Instance;
use super::promises::Reading;
use super::record::{Frame, Mask, NOW, UNIT, id, slots};
use crate::simulation::outside::Device;
use crate::simulation::{promises, reason};

/// A record's number.
pub(crate) type Record = u32;

/// What does not hold.
pub(crate) type Broken = String;

/// The key that is shown when nothing else is left.
pub(crate) const PLACEHOLDER: usize = 7;

pub(crate) struct Lab {
    pub(crate) inst: Instance,
    /// The plan as the world has it.
    pub(crate) true_plan: Plan,
    pub(crate) frame: Frame,
    pub(crate) publics: Vec<PublicKey>,
    records: Vec<Entry>,
    /// By a hash of what they are.
    numbers: HashMap<u64, Vec<Record>, Quick>,
    steps: HashMap<u64, Option<Record>, Quick>,
    readings: HashMap<u64, Reading, Quick>,
    agreed: HashMap<u64, (), Quick>,
}

struct Entry {
    set: KeySet,
    view: View,
    facts: Facts,
    /// What it is a unit later.
    later: Option<Record>,
    /// What each agent signs that has blocked nothing and has this very record.
    readings: [Option<Reading>; 2],
}

/// Runs what may panic when a promise is broken.
pub(crate) fn kept<T>(check: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|cause| Err(reason(&*cause)))
}

pub(crate) fn kid(slot: usize) -> String {
    format!("k{slot}")
}

impl Lab {
    pub(crate) fn new(inst: &Instance) -> Self {
        let mut device = Device::default();
        Self {
            inst: inst.clone(),
            true_plan: Plan {
                timing: inst.world.timing,
                ..inst.plan.clone()
            },
            frame: Frame::new(inst),
            publics: (0..=PLACEHOLDER)
                .map(|slot| device.generate(id(slot), 0))
                .collect(),
            records: Vec::new(),
            numbers: HashMap::default(),
            steps: HashMap::default(),
            readings: HashMap::default(),
            agreed: HashMap::default(),
        }
    }

    /// A key set whose `init` has just ended, with every agent on record.
    pub(crate) fn beginning(&mut self) -> Result<Record, Broken> {
        let plan = self.inst.plan.clone();
        let tick = self.tick(0, NOW, 0);
        let mut ids = [0, PLACEHOLDER].map(id).into_iter();
        let mut ids = || ids.next().expect("init asks for two keys");
        let (mut set, _) = KeySet::genesis("orders", &plan, &tick, &mut ids);
        while let Some(intent) = set.intents.keys().next().copied() {
            let done = set.complete(intent, self.outcome(&set, intent), &tick);
            done.map_err(|e| e.to_string())?;
        }
        set.finish_genesis(&plan, NOW).map_err(|e| e.to_string())?;
        for r in 0..self.inst.replicas {
            let tick = self.tick(r, NOW, set.epoch);
            set.join(&tick);
        }
        let set = self.frame.settle(set, Span::ZERO);
        self.number(set)
    }

    pub(crate) fn set(&self, record: Record) -> &KeySet {
        &self.records[record as usize].set
    }

    pub(crate) fn facts(&self, record: Record) -> &Facts {
        &self.records[record as usize].facts
    }

    pub(crate) fn records(&self) -> usize {
        self.records.len()
    }

    /// The record after what an agent asks for, if that changes it.
    pub(crate) fn step(
        &mut self,
        record: Record,
        (r, ask): (usize, Ask),
        clock: Clock,
        fronts: [Mask; 2],
    ) -> Result<Option<Record>, Broken> {
        let seen = match ask {
            Ask::Observe(_) => fronts,
            _ => [0; 2],
        };
        let question = question([
            record,
            r as u32,
            ask.code() | clock.code() << 12,
            u32::from(u16::from_le_bytes(seen)),
        ]);
        if let Some(known) = self.steps.get(&question) {
            return Ok(*known);
        }
        let stored = kept(|| {
            let before = self.set(record);
            let Some((set, _)) = self.change(before, (r, ask), clock, fronts, NOW)? else {
                return Ok(None);
            };
            Ok(Some(self.frame.settle(set, Span::ZERO)))
        })?;
        let number = stored.map(|set| self.number(set)).transpose()?;
        let number = number.filter(|number| *number != record);
        self.steps.insert(question, number);
        Ok(number)
    }

    /// How a record looks one unit later.
    pub(crate) fn later(&mut self, record: Record) -> Result<Record, Broken> {
        if let Some(later) = self.records[record as usize].later {
            return Ok(later);
        }
        let set = self.set(record).clone();
        let later = self.frame.settle(set, UNIT);
        let later = self.number(later)?;
        self.records[record as usize].later = Some(later);
        Ok(later)
    }

    /// How a record looks to a machine that was started anew.
    pub(crate) fn rebooted(&mut self, record: Record, r: usize) -> Result<Record, Broken> {
        let set = rebooted(self.set(record).clone(), r);
        self.number(set)
    }

    fn number(&mut self, set: KeySet) -> Result<Record, Broken> {
        let hash = BuildHasher::hash_one(&Quick::default(), &set);
        let alike = self.numbers.get(&hash).into_iter().flatten().copied();
        if let Some(known) = alike.into_iter().find(|known| *self.set(*known) == set) {
            return Ok(known);
        }
        let (view, facts) = kept(|| {
            let view = set.view(&self.inst.plan, None);
            promises::whole(&set);
            promises::shown(&view);
            if !set.revoked.is_empty() {
                promises::revoked_stays_out(&set, &self.inst.plan);
            }
            let facts = Facts::of(&self.inst, &set, &view);
            Ok((view, facts))
        })?;
        let number = Record::try_from(self.records.len()).expect("a few thousand");
        self.records.push(Entry {
            set,
            view,
            facts,
            later: None,
            readings: [None; 2],
        });
        self.numbers.entry(hash).or_default().push(number);
        Ok(number)
    }

    /// What an agent that has blocked some keys signs by a record.
    pub(crate) fn reading(
        &mut self,
        record: Record,
        r: usize,
        blocked: Mask,
        clock: Clock,
    ) -> Result<Reading, Broken> {
        let plain = blocked == 0 && clock == Clock::RIGHT;
        if let (true, Some(known)) = (plain, self.records[record as usize].readings[r]) {
            return Ok(known);
        }
        let question = question([record, r as u32, u32::from(blocked), clock.code()]);
        if let Some(known) = self.readings.get(&question) {
            return Ok(*known);
        }
        let Entry { set, view, .. } = &self.records[record as usize];
        let moment = self.moment(set, clock, self.wall(r, NOW))?;
        let reading = kept(|| {
            promises::handed_over(set, view, &self.true_plan, moment);
            self.promise_a_limit(set, view, moment)?;
            self.read(view, moment, blocked)
        })?;
        for slot in slots(reading.releases) {
            self.agrees((record, record), moment.time(), r, slot)?;
        }
        if plain {
            self.records[record as usize].readings[r] = Some(reading);
        } else {
            self.readings.insert(question, reading);
        }
        Ok(reading)
    }

    /// Whether what an agent signs by one record agrees with the one that is
    /// stored: `viewed` is what it has, which may be older. ([`Lab::reading`]
    /// has looked at whoever has the newest.)
    pub(crate) fn agree(&mut self, viewed: Record, stored: Record, r: usize) -> Result<(), Broken> {
        let question = question([viewed, r as u32, 0, stored]);
        if viewed == stored || self.agreed.contains_key(&question) {
            return Ok(());
        }
        let signs = self.reading(viewed, r, 0, Clock::RIGHT)?.releases;
        let moment = self.moment(self.set(viewed), Clock::RIGHT, self.wall(r, NOW))?;
        for slot in slots(signs) {
            self.agrees((viewed, stored), moment.time(), r, slot)?;
        }
        self.agreed.insert(question, ());
        Ok(())
    }
}

/// A question in one word: a record's number has 24 bits, and so has what is
/// last.
fn question([record, r, ask, last]: [u32; 4]) -> u64 {
    assert!(record < 1 << 24 && r < 2 && ask < 1 << 15 && last < 1 << 24);
    u64::from(record) | u64::from(r) << 24 | u64::from(ask) << 25 | u64::from(last) << 40
}

pub(crate) fn name(r: usize) -> String {
    format!("agent {r}")
}

/// Whole units.
pub(crate) fn units(span: Span) -> u8 {
    u8::try_from(span.as_secs() / UNIT.as_secs()).expect("an instance has seconds")
}
