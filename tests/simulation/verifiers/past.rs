//! What an origin has served, and when it answered nobody.

use std::collections::BTreeSet;
use std::rc::Rc;

use sealkeeper::time::Time;

#[derive(Default)]
pub(crate) struct Past {
    sets: Vec<Served>,
    /// From when to when it was dead.
    silences: Vec<(Time, Option<Time>)>,
}

struct Served {
    since: Time,
    kids: Rc<BTreeSet<String>>,
    /// Keys that this set lacks and the one before had, though they stand in
    /// the set on record.
    against_record: Vec<String>,
}

/// Why an origin lacked a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// It had not come there yet.
    NotYet,
    /// The origin went back to an older set, by itself.
    WentBack,
    /// The record had it removed.
    Removed,
}

impl Past {
    pub(crate) fn serves(
        &mut self,
        now: Time,
        kids: &BTreeSet<String>,
        against_record: Vec<String>,
    ) {
        self.sets.push(Served {
            since: now,
            kids: Rc::new(kids.clone()),
            against_record,
        });
    }

    /// It is dead since then, or answers now.
    pub(crate) fn answers(&mut self, dead: Option<Time>, now: Time) {
        let last = self.silences.last_mut().filter(|(_, to)| to.is_none());
        match (dead, last) {
            (Some(since), None) => self.silences.push((since, None)),
            (None, Some((_, to))) => *to = Some(now),
            _ => {}
        }
    }

    pub(crate) fn is_dead(&self, at: Time) -> bool {
        let silent = |(from, to): &(Time, Option<Time>)| *from <= at && to.is_none_or(|to| at < to);
        self.silences.iter().rev().any(silent)
    }

    /// What it served at an instant; nothing before its first set.
    pub(crate) fn at(&self, at: Time) -> Option<&Rc<BTreeSet<String>>> {
        let upto = self.sets.partition_point(|served| served.since <= at);
        self.sets[..upto].last().map(|served| &served.kids)
    }

    /// Why it lacked a key at an instant.
    pub(crate) fn lack(&self, kid: &str, at: Time) -> Lack {
        let upto = self.sets.partition_point(|served| served.since <= at);
        for pair in self.sets[..upto].windows(2).rev() {
            if pair[0].kids.contains(kid) {
                let itself = pair[1].against_record.iter().any(|gone| gone == kid);
                return if itself {
                    Lack::WentBack
                } else {
                    Lack::Removed
                };
            }
        }
        Lack::NotYet
    }
}
