//! Which time to believe. The readings are arguments; the port that takes
//! them stands a floor above.

use serde::{Deserialize, Serialize};

use super::rules;
use super::timing::Timing;
use super::view::Moment;
use crate::time::{Span, Time};

/// A pair of readings that were true together: real time, and the time since
/// boot, which no operator and no NTP step can move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Anchor {
    /// Real time.
    pub wall: Time,
    /// Time since boot, suspension included.
    pub boot: Span,
}

impl Anchor {
    /// What real time must be when the time since boot is `boot`.
    #[must_use]
    pub fn expected(&self, boot: Span) -> Time {
        Time::from_millis(self.wall.as_millis() + boot.as_millis() - self.boot.as_millis())
    }
}

/// Why the clock is not believed. While it is not, nothing is activated,
/// retired, removed or destroyed, and no `exp_ceiling` is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Time ran backwards by more than the skew.
    #[error("the clock stepped back: expected about {expected}, got {wall}")]
    SteppedBack {
        /// What the clock says.
        wall: Time,
        /// What it should say.
        expected: Time,
    },
    /// Real time ran ahead of boot time by more than the skew.
    #[error("the clock leapt forward: expected about {expected}, got {wall}")]
    LeaptForward {
        /// What the clock says.
        wall: Time,
        /// What it should say.
        expected: Time,
    },
    /// At a start: the record is so old that a wrong clock is as likely as a
    /// long downtime.
    #[error("the last instant on record is {high_water}, and the clock says {wall}")]
    Gap {
        /// What the clock says.
        wall: Time,
        /// The latest instant on record.
        high_water: Time,
    },
    /// An earlier process of this agent doubted it, and nobody has vouched for
    /// the time since.
    #[error(
        "the clock was in doubt before the restart, and nobody has confirmed the time since: expected {} {expected}, got {wall}",
        if *.restarted { "at least" } else { "about" }
    )]
    Unconfirmed {
        /// What the clock says.
        wall: Time,
        /// What it should say; where the machine was started anew, the least.
        expected: Time,
        /// Whether the machine was started anew: nobody knows how long that
        /// took.
        restarted: bool,
    },
}

impl Doubt {
    /// The same after a while: the clock says `wall` now, and what it should
    /// say has moved on.
    fn later(self, wall: Time, by: Span) -> Self {
        match self {
            Self::SteppedBack { expected, .. } => Self::SteppedBack {
                wall,
                expected: expected + by,
            },
            Self::LeaptForward { expected, .. } => Self::LeaptForward {
                wall,
                expected: expected + by,
            },
            Self::Gap { high_water, .. } => Self::Gap { wall, high_water },
            Self::Unconfirmed {
                expected,
                restarted,
                ..
            } => Self::Unconfirmed {
                wall,
                expected: expected + by,
                restarted,
            },
        }
    }
}

/// How an agent's clock stood: what its next process begins with, so that a
/// restart makes no wrong clock right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClockNote {
    /// Which start of the machine the anchor's `boot` counts from.
    pub boot_id: String,
    /// The readings that later ones are held against.
    pub anchor: Anchor,
    /// Whether the clock was in doubt.
    pub doubted: bool,
}

/// The judgement over one process' clock: the writer asks it before each
/// `advance`, and readers ask a copy of its anchor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockGuard {
    anchor: Option<Anchor>,
    doubt: Option<Doubt>,
    /// The time since boot when the doubt began.
    doubted: Span,
}

impl ClockGuard {
    /// Goes on from what the process before left. While the machine has not
    /// started anew, readings are judged as if it were the same process; a
    /// doubt stays in any case.
    #[must_use]
    pub fn resume(
        note: &ClockNote,
        boot_id: &str,
        wall: Time,
        boot: Span,
        high_water: Time,
    ) -> Self {
        let same = !boot_id.is_empty() && note.boot_id == boot_id && boot >= note.anchor.boot;
        // As at a doubt with no anchor: an estimate that is not too late.
        let estimate = Anchor {
            wall: wall.min(high_water),
            boot,
        };
        let unconfirmed = Doubt::Unconfirmed {
            wall,
            expected: if same {
                note.anchor.expected(boot)
            } else {
                high_water
            },
            restarted: !same,
        };
        Self {
            anchor: match (same, note.doubted) {
                (true, _) => Some(note.anchor),
                (false, true) => Some(estimate),
                (false, false) => None,
            },
            doubt: note.doubted.then_some(unconfirmed),
            doubted: if note.doubted { boot } else { Span::ZERO },
        }
    }

    /// What the next process is to begin with; none before the first reading.
    #[must_use]
    pub fn note(&self, boot_id: &str) -> Option<ClockNote> {
        self.anchor.map(|anchor| ClockNote {
            boot_id: boot_id.to_owned(),
            anchor,
            doubted: self.doubt.is_some(),
        })
    }

    /// Judges a reading. A doubt stays until [`ClockGuard::confirm`], even if
    /// the clock comes back: something moved it, and may again.
    ///
    /// The anchor is taken at the first believable reading and then kept: an
    /// anchor renewed at each reading would let many small steps add up.
    pub fn read(
        &mut self,
        wall: Time,
        boot: Span,
        high_water: Time,
        timing: &Timing,
    ) -> Result<Time, Doubt> {
        if let Some(doubt) = self.doubt_now(wall, boot) {
            return Err(doubt);
        }
        match rules::exception_clock(self.anchor.as_ref(), high_water, wall, boot, timing) {
            Ok(now) => {
                self.anchor.get_or_insert(Anchor { wall, boot });
                Ok(now)
            }
            Err(doubt) => {
                // With no anchor yet, readers still need an estimate that
                // moves: the record's own time, which is not too late.
                let estimate = wall.min(high_water);
                self.anchor.get_or_insert(Anchor {
                    wall: estimate,
                    boot,
                });
                self.doubt = Some(doubt);
                self.doubted = boot;
                Err(doubt)
            }
        }
    }

    /// The moment of a reading, for those who only look: what the writer will
    /// judge at its next step holds for them at once, so that no reader
    /// follows a clock that leaps to an activation before its time.
    #[must_use]
    pub fn moment(&self, wall: Time, boot: Span, high_water: Time, timing: &Timing) -> Moment {
        let Some(anchor) = &self.anchor else {
            return Moment::Doubtful(wall.min(high_water));
        };
        if self.doubt.is_some() {
            return Moment::Doubtful(anchor.expected(boot));
        }
        match rules::exception_clock(Some(anchor), high_water, wall, boot, timing) {
            Ok(now) => Moment::Sure(now),
            Err(_) => Moment::Doubtful(anchor.expected(boot)),
        }
    }

    /// The operator, or a second source, says that this reading is true.
    pub fn confirm(&mut self, wall: Time, boot: Span) {
        self.anchor = Some(Anchor { wall, boot });
        self.doubt = None;
        self.doubted = Span::ZERO;
    }

    /// Why the clock is not believed, if it is not: as that was found out.
    #[must_use]
    pub const fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// The same as of now, for whoever is to confirm the time.
    #[must_use]
    pub fn doubt_now(&self, wall: Time, boot: Span) -> Option<Doubt> {
        let at = |boot: Span| Time::default() + boot;
        let by = at(boot).since(at(self.doubted));
        self.doubt.map(|doubt| doubt.later(wall, by))
    }

    /// The pair of readings that later ones are held against.
    #[must_use]
    pub const fn anchor(&self) -> Option<Anchor> {
        self.anchor
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn s(s: i64) -> Time {
        Time::from_secs(s)
    }

    fn boot(s: u32) -> Span {
        Span::from_secs(s)
    }

    #[test]
    fn many_small_steps_do_not_add_up() {
        let timing = Timing::default();
        let mut guard = ClockGuard::default();
        assert_eq!(
            guard.read(s(1_000_000), boot(10), Time::default(), &timing),
            Ok(s(1_000_000))
        );
        // Each reading is 200 s ahead of the one before it, with no time passed.
        let first = guard.read(s(1_000_200), boot(10), s(1_000_000), &timing);
        assert_eq!(first, Ok(s(1_000_200)));
        let second = guard.read(s(1_000_400), boot(10), s(1_000_200), &timing);
        assert!(
            matches!(second, Err(Doubt::LeaptForward { .. })),
            "{second:?}"
        );
    }

    /// Found by review: a restart made every clock right.
    #[test]
    fn a_restart_ends_no_doubt_and_moves_no_anchor() {
        let timing = Timing::default();
        let mut guard = ClockGuard::default();
        guard
            .read(s(1_000_000), boot(10), s(1_000_000), &timing)
            .unwrap();
        let note = guard.note("one").unwrap();
        let resume = |note: &ClockNote, id: &str, wall, since| {
            ClockGuard::resume(note, id, s(wall), boot(since), s(1_000_000))
        };
        // A day ahead while nobody looked: nothing that a start alone doubts.
        let day = 1_000_000 + 86_400;
        let mut same = resume(&note, "one", day, 40);
        let judged = same.read(s(day), boot(40), s(1_000_000), &timing);
        assert!(matches!(judged, Err(Doubt::LeaptForward { .. })));
        let mut anew = resume(&note, "two", day, 40);
        assert_eq!(
            anew.read(s(day), boot(40), s(1_000_000), &timing),
            Ok(s(day))
        );
        // Nor does a machine without a name look like another's.
        assert_eq!(resume(&note, "", day, 40), ClockGuard::default());
        // What was doubted stays so, whatever started anew.
        let note = same.note("one").unwrap();
        for id in ["one", "two"] {
            let mut guard = resume(&note, id, 1_000_100, 110);
            let judged = guard.read(s(1_000_100), boot(110), s(1_000_000), &timing);
            let (wall, expected) = match id {
                "one" => (s(1_000_100), s(1_000_100)),
                _ => (s(1_000_100), s(1_000_000)),
            };
            let restarted = id == "two";
            let unconfirmed = Doubt::Unconfirmed {
                wall,
                expected,
                restarted,
            };
            assert_eq!(judged, Err(unconfirmed));
            let estimate = guard.moment(s(1_000_100), boot(111), s(1_000_000), &timing);
            assert!(matches!(estimate, Moment::Doubtful(at) if at <= s(1_000_101)));
            guard.confirm(s(1_000_100), boot(110));
            assert!(!guard.note(id).unwrap().doubted);
        }
    }

    #[test]
    fn a_doubt_stays_until_it_is_confirmed() {
        let timing = Timing::default();
        let mut guard = ClockGuard::default();
        let _ = guard.read(s(1_000_000), boot(10), Time::default(), &timing);
        assert!(
            guard
                .read(s(2_000_000), boot(11), s(1_000_000), &timing)
                .is_err()
        );
        assert!(
            guard
                .read(s(1_000_002), boot(12), s(1_000_000), &timing)
                .is_err()
        );
        // Whoever is to confirm it reads what it says now, and should say.
        let (wall, expected) = (s(1_000_900), s(1_000_090));
        let now = Doubt::LeaptForward { wall, expected };
        assert_eq!(guard.doubt_now(wall, boot(100)), Some(now));
        guard.confirm(s(1_000_003), boot(13));
        assert_eq!(
            guard.read(s(1_000_004), boot(14), s(1_000_000), &timing),
            Ok(s(1_000_004))
        );
    }
}
