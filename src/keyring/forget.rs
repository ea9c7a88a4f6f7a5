//! What the record does not keep, so that it stays small however long the key
//! set lives. The log of key events keeps all of it.
//!
//! What grows with time alone is bounded here. What is left to grow is what
//! operators do: a revocation leaves some 150 bytes for ever, a held key stays
//! until it is released.

use super::key::{Half, Key, KeyId, Phase};
use super::set::{KeySet, Revocation};
use crate::time::Time;

/// How many retired keys are remembered, for an instant re-publication, and
/// how many revoked ones, for whoever looks into what happened.
const REMEMBERED: usize = 8;

/// How many revocations are remembered with their note, which may be long.
const NOTED: usize = 64;

impl KeySet {
    /// Forgets the oldest keys that left the set, retired and revoked ones
    /// apart, and the oldest notes. That a `kid` was revoked is never
    /// forgotten.
    pub(super) fn forget(&mut self) {
        self.forget_keys(|phase| match phase {
            Phase::Retired { since } => Some(*since),
            _ => None,
        });
        self.forget_keys(|phase| match phase {
            Phase::Revoked { since, .. } => Some(*since),
            _ => None,
        });
        let noted = self.revoked.values_mut();
        let mut noted: Vec<_> = noted.filter(|r| !r.mandate.note.is_empty()).collect();
        noted.sort_by_key(|revocation| revocation.at);
        let spare = noted.len().saturating_sub(NOTED);
        for revocation in &mut noted[..spare] {
            revocation.mandate.note.clear();
        }
    }

    /// The revoked keys that are forgotten but for their end, by `kid`.
    pub fn forgotten(&self) -> impl Iterator<Item = (&str, &Revocation)> {
        let revoked = self.revoked.iter();
        let forgotten = revoked.filter(|(kid, _)| self.by_kid(kid).is_none());
        forgotten.map(|(kid, revocation)| (kid.as_str(), revocation))
    }

    /// Never a key that is held, nor one whose private half may still be there.
    fn forget_keys(&mut self, left: impl Fn(&Phase) -> Option<Time>) {
        let gone = |key: &Key| key.placements.values().all(|half| *half == Half::Destroyed);
        let mut over: Vec<(Time, KeyId)> = self
            .keys
            .values()
            .filter(|key| !key.is_held() && gone(key))
            .filter_map(|key| Some((left(&key.phase)?, key.id)))
            .collect();
        over.sort_unstable();
        let spare = over.len().saturating_sub(REMEMBERED);
        for (_, id) in &over[..spare] {
            self.keys.remove(id);
        }
    }
}
