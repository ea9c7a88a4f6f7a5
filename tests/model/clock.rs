//! The clock of an agent's machine, judged by the guard that the program has.

use sealkeeper::keyring::{ClockGuard, ClockNote, Doubt, KeySet, Moment};
use sealkeeper::time::{Span, Time};

use super::lab::{Broken, Lab, name};

/// A clock, and what its agent makes of it. A guard that believes its clock
/// has one anchor: the readings that are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Clock {
    pub(crate) fault: Fault,
    pub(crate) doubted: bool,
}

/// By how much somebody moved a clock: by far more than all skew, and than the
/// longest gap that is taken for downtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    None,
    Ahead,
    Back,
}

impl Fault {
    const BY: Span = Span::from_days(3);

    fn shift(self, right: Time) -> Time {
        match self {
            Self::None => right,
            Self::Ahead => right + Self::BY,
            Self::Back => right - Self::BY,
        }
    }
}

/// How long the machine has been running at [`super::record::NOW`].
const UP: Span = Span::from_days(10);

/// The machine as it runs, and as it ran before it was started anew.
const BOOT: &str = "this start";
const BOOT_BEFORE: &str = "the start before";

impl Clock {
    pub(crate) const RIGHT: Self = Self {
        fault: Fault::None,
        doubted: false,
    };

    /// A number of its own; none for one that is right.
    pub(crate) fn code(self) -> u32 {
        self.fault as u32 | u32::from(self.doubted) << 2
    }

    /// The guard of a process that runs.
    fn guard(self, right: Time, lab: &Lab) -> ClockGuard {
        let mut guard = ClockGuard::default();
        guard.confirm(right, UP);
        if self.doubted {
            let wall = Fault::Ahead.shift(right);
            let judged = guard.read(wall, UP, right, &lab.inst.plan.timing);
            debug_assert!(judged.is_err(), "three days are more than the skew");
        }
        guard
    }
}

impl Lab {
    /// What a step may go by, or the doubt.
    pub(crate) fn judged(
        &self,
        set: &KeySet,
        clock: Clock,
        right: Time,
    ) -> Result<Result<Time, Doubt>, Broken> {
        let guard = clock.guard(right, self);
        self.read_clock(guard, set, clock.fault, right)
    }

    fn read_clock(
        &self,
        mut guard: ClockGuard,
        set: &KeySet,
        fault: Fault,
        right: Time,
    ) -> Result<Result<Time, Doubt>, Broken> {
        let timing = &self.inst.plan.timing;
        let judged = guard.read(fault.shift(right), UP, set.high_water, timing);
        match (judged, fault) {
            (Ok(_), Fault::Ahead | Fault::Back) => Err(format!(
                "an agent believes a clock that is off: {fault:?} by {}",
                Fault::BY
            )),
            _ => Ok(judged),
        }
    }

    /// Whether a process doubts its clock that starts with what the one before
    /// put on record.
    pub(crate) fn starts_in_doubt(
        &self,
        set: &KeySet,
        r: usize,
        fault: Fault,
        right: Time,
    ) -> Result<bool, Broken> {
        let note = set.replicas.get(&name(r)).and_then(|r| r.clock.as_ref());
        let wall = fault.shift(right);
        let guard = note.map(|note| ClockGuard::resume(note, BOOT, wall, UP, set.high_water));
        let guard = guard.unwrap_or_default();
        Ok(self.read_clock(guard, set, fault, right)?.is_err())
    }

    /// The time as readers have it.
    pub(crate) fn moment(&self, set: &KeySet, clock: Clock, right: Time) -> Result<Moment, Broken> {
        let guard = clock.guard(right, self);
        let wall = clock.fault.shift(right);
        let moment = guard.moment(wall, UP, set.high_water, &self.inst.plan.timing);
        match (moment, clock.fault) {
            (Moment::Sure(_), Fault::Ahead | Fault::Back) => {
                Err("readers go by a clock that is off".to_owned())
            }
            _ => Ok(moment),
        }
    }

    /// Puts on record how the clock of an agent stands.
    pub(crate) fn note(&self, set: &mut KeySet, r: usize, clock: Clock, right: Time) {
        if self.inst.clocks {
            set.note_clock(&name(r), clock.guard(right, self).note(BOOT));
        }
    }

    /// What an agent's clock would show, by boot time.
    pub(crate) fn expected(&self, clock: Clock, right: Time) -> Time {
        let guard = clock.guard(right, self);
        guard.anchor().map_or(right, |anchor| anchor.expected(UP))
    }
}

/// The record of a machine that is started anew: what was noted before was
/// noted in another life of it.
pub(crate) fn rebooted(mut set: KeySet, r: usize) -> KeySet {
    let known = set.replicas.get_mut(&name(r));
    if let Some(note) = known.and_then(|known| known.clock.as_mut()) {
        note.boot_id = BOOT_BEFORE.to_owned();
    }
    set
}

/// A note in relative time: its readings were right, and are still.
pub(crate) fn settled(note: ClockNote, now: Time) -> ClockNote {
    let ClockNote {
        boot_id,
        mut anchor,
        doubted,
    } = note;
    (anchor.wall, anchor.boot) = (now, UP);
    ClockNote {
        boot_id,
        anchor,
        doubted,
    }
}
