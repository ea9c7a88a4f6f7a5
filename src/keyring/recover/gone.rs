//! What left the set after the record's time, where the whole folder went back
//! and no log tells of it.
//!
//! Nobody here knows whether such a key was revoked. One that its token lacks
//! and that no origin shows has left the set, by its time or by a revocation:
//! verifiers do not hold it, and to publish it again could only do harm. Where
//! an origin did not answer, tokens of it may be about: it stays.

use std::collections::BTreeSet;

use super::Witnesses;
use super::draft::{Draft, Drafts};
use crate::keyring::key::{Half, KeyId, Phase};
use crate::keyring::set::KeySet;
use crate::keyring::view::PublishedKey;

impl Drafts {
    /// Compares an old record with what origins show.
    pub(super) fn look_at_origins(&mut self, witnesses: &Witnesses) {
        if !witnesses.outdated {
            return;
        }
        // One that shows none of our keys shows another set.
        let known = |shown: &PublishedKey| {
            let named = self.keys.values().filter_map(|draft| draft.named.as_ref());
            let mut named = named.map(|named| &named.public);
            named.any(|public| *public == shown.public)
        };
        let ours = |shown: &Vec<PublishedKey>| shown.iter().any(known);
        let all = witnesses.all_answered && witnesses.origins.values().all(ours);
        let any = witnesses.origins.values().any(ours);
        for draft in self.keys.values_mut() {
            let shown = !draft.origins.is_empty();
            draft.gone = all && !shown && draft.may_be_gone();
            draft.unshown = any && !shown;
        }
    }
}

impl Draft {
    /// Whether it was in the set, and no device has its private half.
    fn may_be_gone(&self) -> bool {
        let in_the_set = matches!(
            self.phase,
            Phase::Published { .. } | Phase::Active { .. } | Phase::Retiring { .. }
        );
        let mut halves = self.halves.values();
        // What was imported never had one here.
        let none = !self.halves.is_empty() && halves.all(|half| *half == Half::Destroyed);
        in_the_set && none && self.hold.is_none()
    }
}

impl KeySet {
    /// Puts on record which objects of an agent's label are none of this set,
    /// so that no start takes them for a proof that the record is old.
    pub(super) fn leave_alone(&mut self, drafts: &Drafts, witnesses: &Witnesses) {
        let unknown = drafts.unknown(witnesses).into_iter();
        let unknown: BTreeSet<KeyId> = unknown.filter_map(|finding| finding.id).collect();
        let labelled = unknown.intersection(&witnesses.labelled);
        self.left_alone.extend(labelled.copied());
    }
}
