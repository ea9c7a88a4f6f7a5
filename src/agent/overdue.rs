//! Rotations that are late: what operators are told of them, and when whoever
//! is on call is.

use std::collections::BTreeSet;

use super::figures::Overview;
use super::status::{self, Stuck};
use super::writer::{Held, Writer};
use crate::jose::Algorithm;
use crate::keyring::{Key, Timing, rules};
use crate::time::{Span, Time};

/// A rotation that should have been done. The old key signs on meanwhile,
/// unless the operator asked for a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateRotation {
    /// The track.
    pub algorithm: Algorithm,
    /// For how long it has been due, in whole seconds.
    pub late: Span,
    /// Whether that is past the key set's `hard_limit`.
    pub page: bool,
    /// What it waits for, for people.
    pub waits_for: String,
}

impl Overview {
    /// The rotations that are late at this instant.
    pub(super) fn late(&self, now: Time, timing: &Timing) -> Vec<LateRotation> {
        let rotations = self.rotations.iter();
        let late = rotations.filter_map(|rotation| {
            let overdue = rules::exception_overdue(rotation.due, now, timing)?;
            Some(LateRotation {
                algorithm: rotation.algorithm,
                late: whole_seconds(overdue.late),
                page: overdue.page,
                waits_for: rotation.waits_for.clone(),
            })
        });
        late.collect()
    }
}

impl Writer {
    /// Says in the log that a rotation is late past the hard limit, and that it
    /// no longer is. Once each: whoever is on call is woken by one line as well
    /// as by a thousand. A restart says it again.
    pub(super) fn page(&mut self) {
        let now = self.estimate();
        let late = self.reader.overview().late(now, &self.plan.timing);
        let key_set = &self.reader.name;
        let mut paged = BTreeSet::new();
        for rotation in late.into_iter().filter(|rotation| rotation.page) {
            let LateRotation {
                algorithm,
                late,
                waits_for,
                ..
            } = rotation;
            if !self.paged.contains(&algorithm) {
                tracing::error!(
                    key_set,
                    %algorithm,
                    reason = "ROTATION_OVERDUE",
                    "the rotation of the {algorithm} key is {late} late, past hard_limit; waits for: {waits_for}"
                );
            }
            paged.insert(algorithm);
        }
        for algorithm in self.paged.difference(&paged) {
            tracing::info!(key_set, %algorithm, "the rotation of the {algorithm} key is no longer late past hard_limit");
        }
        self.paged = paged;
    }

    /// Says in the log that a track has no standby because the set is full, and
    /// until when. Once, until that is over.
    pub(super) fn tell_of_crowds(&mut self) {
        let Some(held) = &self.held else { return };
        let set = &held.record.set;
        let mut crowded = BTreeSet::new();
        for seat in set.seats.keys() {
            let Some(crowd) = set.no_room(seat, &self.plan) else {
                continue;
            };
            if !self.crowded.contains(seat) {
                tracing::warn!(
                    key_set = self.reader.name,
                    algorithm = %seat.algorithm,
                    reason = "NO_STANDBY",
                    "{}",
                    status::no_standby(&crowd)
                );
            }
            crowded.insert(seat.clone());
        }
        self.crowded = crowded;
    }

    /// What the rotation of an active key waits for, in the operator's words.
    pub(super) fn rotation_waits_for(
        &self,
        held: &Held,
        key: &Key,
        silent: &BTreeSet<String>,
    ) -> String {
        let key_set = &self.reader.name;
        if self.guard.doubt().is_some() {
            return status::in_doubt(key_set);
        }
        if let Some(dark) = &self.dark {
            return format!("the record of the key set: {dark}");
        }
        if let Some(kid) = self.owed.keys().next() {
            return Stuck::Owed(kid.clone()).waits_for(key_set);
        }
        let set = &held.record.set;
        let planned = set.outlook(key, &self.plan).retires;
        match (set.waits_for(key, &self.plan, silent), planned) {
            (Some(wait), _) => status::waits_for(&wait, key, key_set),
            (None, Some(at)) => format!("its instant alone, {at}"),
            (None, None) => "its instant alone".to_owned(),
        }
    }
}

/// Whoever reads it counts in days.
fn whole_seconds(span: Span) -> Span {
    Span::from_secs(u32::try_from(span.as_secs()).unwrap_or(u32::MAX))
}
