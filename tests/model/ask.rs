//! A change of the record, made as the agent makes it.

use std::collections::BTreeSet;
use std::fmt;

use sealkeeper::keyring::{
    Ending, Event, IntentId, KeySet, Mandate, OWN_LISTENER, OperatorError, Outcome, Reason, Task,
    Then, Tick,
};
use sealkeeper::time::{Span, Time};

use super::clock::Clock;
use super::instance::{Order, origin};
use super::lab::{Broken, Lab, PLACEHOLDER, Record, kept, kid, name};
use super::record::{Mask, NOW, UNIT, id, slot, slots};

/// How long nobody waits for an origin: longer than rule 1 has a key wait, so
/// that one is active by it, and shorter than a period, so that it ends before
/// the next.
const WAIVED: Span = UNIT.times(5);

/// One change of the record, asked for by one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// What is due.
    Tick,
    /// These origins answer, with what they serve.
    Observe(Mask),
    /// The device did what was asked for this key.
    Report(usize),
    /// It looked for a key that is held, and found it.
    ReportKept(usize),
    Rotate,
    Force(usize),
    Rollback(usize),
    Revoke(usize, Option<Then>),
    Hold(usize),
    Release(usize),
    Destroy(usize, bool),
    /// No activation waits for this origin, for a while.
    Waive(usize),
    Init,
    /// The doubt goes on record.
    Note,
    /// An operator vouches for the clock.
    Confirm,
}

impl Ask {
    /// A number of its own.
    pub(crate) fn code(self) -> u32 {
        let of = |kind: u32, key: usize, way: u32| kind << 8 | (key as u32) << 4 | way;
        match self {
            Self::Tick => of(0, 0, 0),
            Self::Observe(origins) => of(1, usize::from(origins), 0),
            Self::Report(key) => of(2, key, 0),
            Self::Rotate => of(3, 0, 0),
            Self::Rollback(key) => of(4, key, 0),
            Self::Revoke(key, then) => of(5, key, then.map_or(0, |then| 1 + then as u32)),
            Self::Hold(key) => of(6, key, 0),
            Self::Release(key) => of(7, key, 0),
            Self::Destroy(key, end) => of(8, key, u32::from(end)),
            Self::Init => of(9, 0, 0),
            Self::Note => of(10, 0, 0),
            Self::Confirm => of(11, 0, 0),
            Self::ReportKept(key) => of(12, key, 0),
            Self::Force(key) => of(13, key, 0),
            Self::Waive(o) => of(14, o, 0),
        }
    }
}

impl Lab {
    /// What an agent would store, as it would: the change, and what is due.
    pub(crate) fn change(
        &self,
        before: &KeySet,
        (r, ask): (usize, Ask),
        clock: Clock,
        fronts: [Mask; 2],
        now: Time,
    ) -> Result<Option<(KeySet, Vec<Event>)>, Broken> {
        let plan = &self.inst.plan;
        let right = self.wall(r, now);
        match ask {
            Ask::Note => return Ok(self.noted(before, r, clock, right)),
            Ask::Confirm => return Ok(Some(self.confirmed(before, r, clock, right))),
            _ => {}
        }
        let Ok(now) = self.judged(before, clock, right)? else {
            return Ok(None);
        };
        let mut tick = self.tick(r, now, before.epoch);
        let attended = self.attended(before, now);
        let before = &attended;
        let mut set = before.clone();
        self.note(&mut set, r, clock, right);
        if let Ask::Observe(origins) = ask {
            tick.live = slots(origins).map(origin).collect();
            tick.live.insert(OWN_LISTENER.to_owned());
        }
        let mut events = match self.ask(&mut set, ask, &tick, fronts) {
            Ok(events) => events,
            Err(_) => return Ok(None),
        };
        let mut fresh = (0..PLACEHOLDER)
            .map(id)
            .filter(|id| !before.keys.contains_key(id));
        let mut ids = || fresh.next().expect("there are a few keys");
        events.extend(set.advance(plan, &tick, &mut ids));
        if events.is_empty() && !set.is_worth_storing(before, plan) {
            return Ok(None);
        }
        self.promises_of_a_change(before, &set, ask, &tick)?;
        Ok(Some((set, events)))
    }

    /// The record of agents that look at origins all the time, but where it is
    /// the question whether they do.
    fn attended(&self, before: &KeySet, now: Time) -> KeySet {
        let mut set = before.clone();
        if !self.inst.gaps {
            let origins = self.inst.plan.origins.iter();
            set.looked = origins.map(|origin| (origin.clone(), now)).collect();
        }
        // An agent's own listener shows each key from the first moment, and says
        // nothing of the origins: it counts where nobody waits for any of them.
        if self.inst.orders.contains(&Order::Waive) {
            let long_ago = now - self.inst.plan.timing.pre_publish();
            for key in set.keys.values_mut().filter(|key| key.is_published()) {
                key.sightings.insert(OWN_LISTENER.to_owned(), long_ago);
            }
        }
        set
    }

    /// An agent puts its doubt on record.
    fn noted(
        &self,
        before: &KeySet,
        r: usize,
        clock: Clock,
        right: Time,
    ) -> Option<(KeySet, Vec<Event>)> {
        let mut set = before.clone();
        self.note(&mut set, r, clock, right);
        (set != *before).then_some((set, Vec::new()))
    }

    /// An operator has set the clock right, and vouches for it.
    fn confirmed(
        &self,
        before: &KeySet,
        r: usize,
        clock: Clock,
        right: Time,
    ) -> (KeySet, Vec<Event>) {
        let mut set = before.clone();
        let expected = self.expected(clock, right);
        let events = set.confirm_clock(right, expected, &Mandate::default(), &self.inst.plan);
        self.note(&mut set, r, Clock::RIGHT, right);
        (set, events)
    }

    fn ask(
        &self,
        set: &mut KeySet,
        ask: Ask,
        tick: &Tick,
        fronts: [Mask; 2],
    ) -> Result<Vec<Event>, OperatorError> {
        let plan = &self.inst.plan;
        let by = Mandate::default();
        match ask {
            Ask::Tick | Ask::Note | Ask::Confirm => Ok(Vec::new()),
            Ask::Observe(origins) => {
                let mut events = Vec::new();
                for o in slots(origins) {
                    let kids: BTreeSet<String> = slots(fronts[o]).map(kid).collect();
                    events.extend(set.observe(&origin(o), &kids, tick.now, plan));
                }
                Ok(events)
            }
            Ask::Report(slot) | Ask::ReportKept(slot) => {
                let mut intents = set.intents.iter();
                let intent = intents.find(|(_, intent)| intent.task.key() == id(slot));
                let intent = *intent.expect("it is on record").0;
                let outcome = match ask {
                    Ask::ReportKept(_) => Outcome::Kept,
                    _ => self.outcome(set, intent),
                };
                Ok(set
                    .complete(intent, outcome, tick)
                    .expect("the record waits for it"))
            }
            Ask::Rotate => set.rotate(plan.tracks[0].0, &by, plan, tick),
            Ask::Force(slot) => set.force(&kid(slot), &by, plan, tick),
            Ask::Rollback(slot) => set.rollback(&kid(slot), &by, plan, tick),
            Ask::Revoke(slot, then) => {
                let ending = Ending {
                    reason: Reason::Compromised,
                    then,
                    at: None,
                    mandate: by,
                };
                let revoked = set.revoke(&kid(slot), &ending, plan, tick)?;
                let timing = &self.inst.world.timing;
                let exposed = tick.now + timing.propagation + timing.verifier_cache;
                assert!(
                    revoked.exposure.bounded_until >= exposed,
                    "the operator is told that bounded verifiers trust {} until {}, and some do until {exposed}",
                    kid(slot),
                    revoked.exposure.bounded_until
                );
                Ok(revoked.events)
            }
            Ask::Hold(slot) => set.hold(&kid(slot), &by, plan, tick),
            Ask::Release(slot) => set.release(&kid(slot), &by, tick),
            Ask::Destroy(slot, end) => set.destroy(&kid(slot), end, &by, plan, tick),
            Ask::Waive(o) => set.waive(&origin(o), WAIVED, &by, plan, tick),
            Ask::Init => Ok(set.finish_genesis(plan, tick.now).unwrap_or_default()),
        }
    }

    pub(crate) fn outcome(&self, set: &KeySet, intent: IntentId) -> Outcome {
        let task = &set.intents[&intent].task;
        match task {
            Task::Generate { key, .. } => Outcome::Generated {
                public: self.publics[slot(*key)].clone(),
                kid: kid(slot(*key)),
                token: None,
            },
            Task::Destroy { .. } => Outcome::Destroyed,
        }
    }

    pub(crate) fn tick(&self, r: usize, now: Time, adopted: u64) -> Tick {
        Tick {
            now,
            replica: name(r),
            adopted,
            live: BTreeSet::new(),
        }
    }

    /// The clock of an agent.
    pub(crate) fn wall(&self, r: usize, now: Time) -> Time {
        match r == self.inst.fast {
            true => now + self.inst.world.timing.skew,
            false => now,
        }
    }

    /// The same in words.
    pub(crate) fn events(
        &self,
        record: Record,
        who: (usize, Ask),
        clock: Clock,
        fronts: [Mask; 2],
    ) -> String {
        let told = |event: &Event| {
            let key = event.kid.clone().unwrap_or_else(|| kid(slot(event.key)));
            format!("{} {key}", event.what.name())
        };
        match kept(|| self.change(self.set(record), who, clock, fronts, NOW)) {
            Ok(Some((_, events))) => events.iter().map(told).collect::<Vec<_>>().join(", "),
            Ok(None) => String::new(),
            Err(why) => why,
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tick => f.write_str("takes what is due"),
            Self::Observe(origins) => {
                let names: Vec<_> = slots(origins).map(super::instance::origin).collect();
                write!(f, "asks {}", names.join(" and "))
            }
            Self::Report(key) => write!(f, "reports what the device did for {}", kid(key)),
            Self::ReportKept(key) => write!(f, "reports that the device has {}", kid(key)),
            Self::Rotate => f.write_str("is ordered to rotate"),
            Self::Force(key) => write!(f, "is ordered to have {} sign before its time", kid(key)),
            Self::Rollback(key) => write!(f, "is ordered to go back to {}", kid(key)),
            Self::Revoke(key, then) => write!(f, "ends {} ({then:?})", kid(key)),
            Self::Hold(key) => write!(f, "is ordered to hold {}", kid(key)),
            Self::Release(key) => write!(f, "is ordered to release {}", kid(key)),
            Self::Destroy(key, end) => {
                write!(f, "is ordered to destroy {} (no rollback: {end})", kid(key))
            }
            Self::Waive(o) => write!(f, "is told not to wait for {}", origin(o)),
            Self::Init => f.write_str("is asked for init again"),
            Self::Note => f.write_str("notes its doubt"),
            Self::Confirm => f.write_str("is told that its clock is right now"),
        }
    }
}
