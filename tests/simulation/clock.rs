//! The clock of a replica: judged before each step, noted in the record, and
//! confirmed by an operator.

use std::collections::BTreeSet;
use std::rc::Rc;

use sealkeeper::keyring::{ClockGuard, Doubt, KeySet, Mandate, Tick};

use super::agent::Stop;
use super::world::World;

impl World {
    /// Judges the clock of a replica, and makes what a step is told.
    pub(crate) fn judge(&mut self, r: usize) -> Result<Tick, Stop> {
        let (wall, boot) = (self.wall(r), self.boot(r));
        let timing = self.plan.timing;
        let replica = &mut self.replicas[r];
        let high_water = match &replica.cached {
            Some((set, _)) => set.high_water,
            None => return Err(Stop::Down),
        };
        let before = replica.guard.doubt();
        let judged = replica.guard.read(wall, boot, high_water, &timing);
        if let (None, Err(doubt)) = (before, judged) {
            self.totals.count(match doubt {
                Doubt::SteppedBack { .. } => "clock: doubted after a step back",
                Doubt::LeaptForward { .. } => "clock: doubted after a leap forward",
                Doubt::Gap { .. } => "clock: doubted at a start after a gap",
                Doubt::Unconfirmed { .. } => unreachable!("a reading does not begin that"),
            });
        }
        self.invariant_doubts_a_wrong_clock(r, judged.is_err());
        let Ok(now) = judged else {
            self.note_doubt(r);
            return Err(Stop::Doubt);
        };
        let recent = self.recent();
        let replica = &self.replicas[r];
        let reader = replica.guard.anchor().map(|anchor| anchor.expected(boot));
        let live = self
            .origins
            .iter()
            .zip(&replica.answered)
            .filter(|(_, at)| at.is_some_and(|at| reader.is_some_and(|now| now <= at + recent)))
            .map(|(origin, _)| origin.name.clone())
            .collect();
        Ok(Tick {
            now,
            replica: replica.name.clone(),
            adopted: replica.view.as_ref().map_or(0, |view| view.epoch),
            live,
        })
    }

    /// Goes on from what the process before put on record.
    pub(crate) fn resume_clock(&mut self, r: usize) {
        let (wall, boot, boot_id) = (self.wall(r), self.boot(r), self.boot_id(r));
        let set = &self.store.record;
        let known = set.replicas.get(&self.replicas[r].name);
        if let Some(note) = known.and_then(|known| known.clock.as_ref())
            && self.replicas[r].guard == ClockGuard::default()
        {
            let guard = ClockGuard::resume(note, &boot_id, wall, boot, set.high_water);
            if guard.doubt().is_some() {
                self.totals.count("clock: in doubt across a restart");
            }
            self.replicas[r].guard = guard;
        }
    }

    pub(crate) fn note_clock(&self, r: usize, set: &mut KeySet) {
        let replica = &self.replicas[r];
        set.note_clock(&replica.name, replica.guard.note(&self.boot_id(r)));
    }

    /// Puts a doubt on record, where it is not.
    fn note_doubt(&mut self, r: usize) {
        let Some((before, version)) = self.replicas[r].cached.clone() else {
            return;
        };
        let mut set = KeySet::clone(&before);
        self.note_clock(r, &mut set);
        if set == *before || !self.reaches_store(r) {
            return;
        }
        let set = Rc::new(set);
        if self.store.compare_and_swap(version, &set, false) {
            self.ledger.previous = Rc::clone(&set);
            self.replicas[r].cached = Some((set, version + 1));
        } else {
            self.replicas[r].cached = None;
        }
    }

    /// A hold only restricts: an estimate dates it.
    pub(crate) fn hold_in_doubt(&mut self, r: usize, kid: &str) {
        let (Some(moment), Some((before, version))) =
            (self.moment(r), self.replicas[r].cached.clone())
        else {
            return;
        };
        let tick = Tick {
            now: moment.time(),
            replica: self.replicas[r].name.clone(),
            adopted: 0,
            live: BTreeSet::new(),
        };
        let mut set = KeySet::clone(&before);
        let Ok(events) = set.hold_in_doubt(kid, &Mandate::default(), &tick) else {
            return;
        };
        let set = Rc::new(set);
        if self.reaches_store(r) && self.store.compare_and_swap(version, &set, false) {
            self.totals.count("held in doubt");
            self.stored(r, &events, tick.now);
            self.replicas[r].cached = Some((set, version + 1));
            self.adopt(r);
        }
    }

    /// An operator looks at the clock of a replica, sets it right and says so.
    pub(crate) fn confirm_clock(&mut self, r: usize) {
        if !self.replicas[r].up {
            return;
        }
        self.replicas[r].fault = 0;
        let (wall, boot) = (self.wall(r), self.boot(r));
        if self.replicas[r].guard.doubt().is_none() || self.load(r).is_err() {
            return;
        }
        let Some((before, version)) = self.replicas[r].cached.clone() else {
            return;
        };
        let mut set = KeySet::clone(&before);
        let anchor = self.replicas[r].guard.anchor();
        let expected = anchor.map_or(set.high_water, |anchor| anchor.expected(boot));
        let events = set.confirm_clock(wall, expected, &Mandate::default(), &self.plan);
        let mut vouched = self.replicas[r].guard.clone();
        vouched.confirm(wall, boot);
        set.note_clock(&self.replicas[r].name, vouched.note(&self.boot_id(r)));
        let set = Rc::new(set);
        if self.store.compare_and_swap(version, &set, false) {
            self.totals.count("clock: confirmed");
            self.stored(r, &events, wall);
            self.replicas[r].guard = vouched;
            self.replicas[r].cached = Some((set, version + 1));
            self.replicas[r].answered.fill(None);
            self.adopt(r);
        }
    }
}
