//! Bounds that a configuration lowered, remembered for as long as they hold.
//!
//! C, P and S say something of other machines, and a configuration changes
//! none of those at once. A verifier that fetched the set before C was lowered
//! keeps it for the old C; an edge that got it before P was lowered serves it
//! for the old P; an instant on record was written by a clock that was off by
//! the old S. All of that has an end: `lowering + P + C + S`, by the numbers of
//! before. Until then rules 1 and 5 count with the longer numbers, as rule 3
//! does with the longest L.
//!
//! Rule 6 does not: it says when a standby is made, and one that is made later
//! breaks nobody. Nor does rule 7: the `max-age` of before lies within the C of
//! before. A bound that is raised holds at once, and nothing is remembered.
//!
//! Who made a record again, or has one of before this was kept, knows only the
//! configuration of now: lower no bound together with that.

use serde::{Deserialize, Serialize};

use super::rules::{self, Exposure};
use super::set::{KeySet, Plan};
use super::timing::Timing;
use crate::time::{Span, Time};

/// What a configuration says of how old a set may be that verifiers go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bounds {
    /// C.
    pub verifier_cache: Span,
    /// P.
    pub propagation: Span,
    /// S.
    pub skew: Span,
}

/// Bounds of before that still hold for what was fetched, served or written
/// then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lowered {
    /// The longest that still holds, of each.
    #[serde(flatten)]
    pub bounds: Bounds,
    /// Until when.
    pub until: Time,
}

/// The bounds as a record knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Known {
    /// Those that were in force at the last step: only so is it seen, across a
    /// restart too, that the configuration lowered one.
    #[serde(flatten)]
    pub last: Bounds,
    /// Those of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowered: Option<Lowered>,
}

impl Bounds {
    /// What a schedule says.
    #[must_use]
    pub fn of(timing: &Timing) -> Self {
        Self {
            verifier_cache: timing.verifier_cache,
            propagation: timing.propagation,
            skew: timing.skew,
        }
    }

    /// P + C + S.
    #[must_use]
    pub fn pre_publish(&self) -> Span {
        self.propagation + self.verifier_cache + self.skew
    }

    /// The longer of each.
    fn max(self, other: Self) -> Self {
        Self {
            verifier_cache: self.verifier_cache.max(other.verifier_cache),
            propagation: self.propagation.max(other.propagation),
            skew: self.skew.max(other.skew),
        }
    }
}

impl Known {
    pub(super) fn of(timing: &Timing) -> Self {
        Self {
            last: Bounds::of(timing),
            lowered: None,
        }
    }

    /// The longer bounds, where these are in force from `now` on.
    fn lowered_to(&self, bounds: Bounds, now: Time) -> Option<Lowered> {
        let before = self.lowered.filter(|lowered| now < lowered.until);
        if bounds.max(self.last) == bounds {
            return before;
        }
        let until = now + self.last.pre_publish();
        Some(before.map_or(
            Lowered {
                bounds: self.last,
                until,
            },
            |before| Lowered {
                bounds: before.bounds.max(self.last),
                until: before.until.max(until),
            },
        ))
    }
}

impl KeySet {
    /// Bounds of before that hold beside those of a plan. One that the record
    /// has not heard of holds without an end: that is known with the next step.
    #[must_use]
    pub fn lowered(&self, plan: &Plan) -> Option<Lowered> {
        let known = self.bounds?;
        let bounds = Bounds::of(&plan.timing);
        if bounds.max(known.last) == bounds {
            return known.lowered;
        }
        known.lowered_to(bounds, Time::FAR_FUTURE)
    }

    /// The same as it will be when this plan is in force from `now` on.
    #[must_use]
    pub fn lowered_by(&self, plan: &Plan, now: Time) -> Option<Lowered> {
        self.bounds?.lowered_to(Bounds::of(&plan.timing), now)
    }

    /// Rule 1, as this record knows the bounds.
    #[must_use]
    pub fn held_everywhere(&self, observed_everywhere: Time, plan: &Plan) -> Time {
        rules::rule_1_pre_publish(observed_everywhere, &plan.timing, self.lowered(plan))
    }

    /// Rule 5, as this record knows the bounds.
    pub(super) fn exposed(&self, removed: Time, newest: Option<Time>, plan: &Plan) -> Exposure {
        rules::rule_5_compromise_exposure(removed, newest, &plan.timing, self.lowered(plan))
    }

    /// Writes down which bounds are in force.
    pub(super) fn remember_bounds(&mut self, plan: &Plan, now: Time) {
        self.bounds = Some(Known {
            last: Bounds::of(&plan.timing),
            lowered: self.lowered_by(plan, now),
        });
    }

    /// An operator vouches that it is no later than `now`: no bound was lowered
    /// after that.
    pub(super) fn bounds_end_by(&mut self, now: Time) {
        if let Some(lowered) = self.bounds.as_mut().and_then(|it| it.lowered.as_mut()) {
            lowered.until = lowered.until.min(now + lowered.bounds.pre_publish());
        }
    }

    /// An operator vouches for `now`, and the clock of before, which showed
    /// `old`, was behind.
    pub(super) fn bounds_begin_anew(&mut self, now: Time, old: Time) {
        let lowered = self.bounds.as_mut().and_then(|it| it.lowered.as_mut());
        if let Some(lowered) = lowered.filter(|it| it.until > old) {
            lowered.until = now + lowered.bounds.pre_publish();
        }
    }

    /// When bounds of before hold no more.
    pub(super) fn bounds_end(&self) -> Option<Time> {
        Some(self.bounds?.lowered?.until)
    }
}
