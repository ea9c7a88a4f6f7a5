//! The keys of the past: what left the set, when, and whether it was revoked.
//!
//! The log has every key with its public half; the record has the last word
//! on what is in the set, and on what was revoked and why. A revocation that
//! neither has yet is a tombstone on disk.

use std::collections::{BTreeMap, BTreeSet};

use super::event::What;
use super::key::{KeyId, Phase, Reason};
use super::recover::Told;
use super::set::{KeySet, Revocation};
use crate::jose::{Algorithm, PublicKey};
use crate::time::Time;

/// A key that is in the set no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its `kid`.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its public half.
    pub public: PublicKey,
    /// When it began to be made; not known of keys that others made.
    pub made: Option<Time>,
    /// When it left the set. A key that was revoked ended with that.
    pub ended: Time,
    /// Why it was revoked, if it was.
    pub revoked: Option<Reason>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// By the time of their end, then by `kid`.
    pub keys: Vec<Past>,
    /// The `kid`s that were revoked and whose public half nobody knows.
    pub unknown: BTreeSet<String>,
}

/// What is known of one `kid`.
#[derive(Default)]
struct Known {
    key: Option<(Algorithm, PublicKey)>,
    made: Option<Time>,
    left: Option<Time>,
    revoked: Option<(Time, Reason)>,
}

impl KeySet {
    /// The keys that left the set, as the log, this record and the revocations
    /// on disk tell it.
    #[must_use]
    pub fn history(&self, log: &[Told], tombstones: &BTreeMap<String, Revocation>) -> History {
        let mut all = of_the_log(log);
        for key in self.keys.values() {
            let Some((kid, public)) = key.kid.as_ref().zip(key.public.as_ref()) else {
                continue;
            };
            let known = all.entry(kid.clone()).or_default();
            known.key = Some((key.algorithm, public.clone()));
            known.left = match key.phase {
                Phase::Retired { since } | Phase::Revoked { since, .. } => Some(since),
                _ => None,
            };
            if let Phase::Revoked { since, reason } = key.phase {
                known.revoked.get_or_insert((since, reason));
            }
        }
        // What is on record is what an operator said last.
        for (kid, revocation) in &self.revoked {
            all.entry(kid.clone()).or_default().revoked = Some((revocation.at, revocation.reason));
        }
        for (kid, revocation) in tombstones {
            let known = all.entry(kid.clone()).or_default();
            known
                .revoked
                .get_or_insert((revocation.at, revocation.reason));
        }
        sorted(all)
    }
}

fn of_the_log(log: &[Told]) -> BTreeMap<String, Known> {
    let mut begun: BTreeMap<KeyId, Time> = BTreeMap::new();
    let mut all: BTreeMap<String, Known> = BTreeMap::new();
    for told in log {
        if matches!(told.what, What::GenerationBegun { .. }) {
            begun.insert(told.key, told.at);
        }
        let Some((kid, algorithm, public)) = &told.public else {
            continue;
        };
        let known = all.entry(kid.clone()).or_default();
        known.key = Some((*algorithm, public.clone()));
        known.made = known.made.or(begun.get(&told.key).copied());
        match &told.what {
            What::Removed => known.left = Some(told.at),
            // A key that was removed and is wanted again.
            What::Published | What::Activated | What::Imported { .. } => known.left = None,
            What::Revoked { reason } => {
                known.revoked.get_or_insert((told.at, *reason));
            }
            What::RevocationNoted { reason } => {
                let at = known.revoked.map_or(told.at, |(at, _)| at);
                known.revoked = Some((at, *reason));
            }
            _ => {}
        }
    }
    all
}

fn sorted(all: BTreeMap<String, Known>) -> History {
    let mut history = History::default();
    for (kid, known) in all {
        let ended = known.revoked.map(|(at, _)| at).or(known.left);
        let (Some(ended), Some((algorithm, public))) = (ended, known.key) else {
            if known.revoked.is_some() {
                history.unknown.insert(kid);
            }
            continue;
        };
        history.keys.push(Past {
            kid,
            algorithm,
            public,
            made: known.made,
            ended,
            revoked: known.revoked.map(|(_, reason)| reason),
        });
    }
    history.keys.sort_by_key(|past| past.ended);
    history
}
