//! What must hold of every signature that leaves, in true time.

use sealkeeper::keyring::{Key, Moment, Phase, SigningKey, View};
use sealkeeper::time::Span;

use super::promises;
use super::world::{Flight, World};

impl World {
    /// A signature leaves a replica, now.
    pub(crate) fn invariant_release(&self, r: usize, flight: &Flight, moment: Moment) {
        let kid = flight.kid.as_str();
        let timing = &self.plan.timing;
        // (d) Never again where it was blocked, not even by a later process.
        assert!(
            !self.replicas[r].tombstones.contains(kid),
            "replica {r} signed with {kid}, which was revoked there"
        );
        let epoch = self.replicas[r].view.as_ref().map_or(0, |view| view.epoch);
        let key = self.store.record.by_kid(kid);
        let key = key.unwrap_or_else(|| panic!("{kid} signed and is not on record"));
        let tolerance = self.half_skew() + Span::from_millis(1);
        let doubtful = matches!(moment, Moment::Doubtful(_));
        match key.phase {
            // A replica that doubts its clock goes by an old one; what it signs
            // is dead as soon as it is born.
            Phase::Retired { .. } if doubtful && flight.exp + self.half_skew() <= self.now => {}
            // (d) Nowhere once every replica must have heard.
            Phase::Revoked { .. } => {
                let known = self.ledger.revoked[kid] + timing.handover();
                assert!(self.now <= known, "{kid} signed after its revocation");
                return;
            }
            Phase::Active { since } => {
                let early = since.since(self.now);
                assert!(
                    early <= tolerance,
                    "{kid} signed {early} before its activation"
                );
            }
            // (c) The old key signs until rule 2's bound. A replica that
            // doubts its clock does not switch by itself; it goes by the
            // record.
            // A rollback that has come true is a switch like any other.
            Phase::Retiring { .. } if self.is_switched_to(key) => {}
            Phase::Retiring { .. } if self.is_unaware(key, epoch) => {}
            Phase::Retiring { since, .. } => {
                let unaware = doubtful && epoch < key.left_epoch;
                let late = self.now.since(since + timing.handover());
                assert!(
                    late <= tolerance || unaware,
                    "{kid} signed {late} after the end of its handover"
                );
            }
            Phase::Published { .. } => self.invariant_signs_ahead(key, epoch),
            Phase::Generating | Phase::Retired { .. } | Phase::Placeholder => {
                panic!("{kid} signed and is {}", key.phase.name())
            }
        }
        // (i)
        let ceiling = key.exp_ceiling.expect("a key that signs has a ceiling");
        assert!(
            flight.exp <= ceiling,
            "{kid} signed above its stored ceiling"
        );
    }

    /// A key that the record still calls published signs where a switch to it
    /// has come true, or where nobody can know yet that it was taken back.
    fn invariant_signs_ahead(&self, key: &Key, epoch: u64) {
        if self.is_switched_to(key) {
            return;
        }
        let kid = key.kid.as_deref().unwrap_or_default();
        assert!(
            self.is_unaware(key, epoch),
            "{kid} signed and was never to be active"
        );
    }

    /// Whether whoever reads the record of this epoch cannot know yet that a
    /// switch to the key was taken back or put off.
    fn is_unaware(&self, key: &Key, epoch: u64) -> bool {
        let kid = key.kid.as_deref().unwrap_or_default();
        let cancelled = self.ledger.cancelled.get(kid);
        cancelled.is_some_and(|at| epoch < *at)
    }

    /// Whether the key is to be active, and the fastest clock has it that it is.
    fn is_switched_to(&self, key: &Key) -> bool {
        let seat = self.store.record.seats.get(&key.seat());
        let switch = seat.and_then(|seat| seat.switch.as_ref());
        switch.is_some_and(|switch| {
            let tolerance = self.half_skew() + Span::from_millis(1);
            switch.to == key.id && switch.at.since(self.now) <= tolerance
        })
    }

    /// (a) Whoever fetched the set P + C ago has the key that signs now.
    pub(crate) fn invariant_published_first(&mut self, r: usize, kid: &str) {
        let ledger = &self.ledger;
        if ledger.excused.contains(kid) || ledger.proven.contains(kid) {
            return;
        }
        let Some(key) = self.store.record.by_kid(kid) else {
            return;
        };
        if matches!(key.phase, Phase::Retiring { .. } | Phase::Revoked { .. }) {
            return;
        }
        let wait = ledger.wait[kid];
        let epoch = self.replicas[r].view.as_ref().map_or(0, |view| view.epoch);
        for o in 0..self.origins.len() {
            let run = (o, kid.to_owned());
            let unaware = ledger.broken.get(&run).filter(|(since, _)| epoch < *since);
            let since = unaware.map(|(_, since)| *since);
            let since = since.or_else(|| ledger.runs.get(&run).copied());
            let since = since.unwrap_or_else(|| panic!("{kid} signed, and origin {o} lacks it"));
            let short = (since + wait).since(self.now);
            assert!(
                short == Span::ZERO,
                "{kid} signed {short} before every verifier could hold it"
            );
        }
        self.ledger.proven.insert(kid.to_owned());
    }

    /// (f) Whoever begins to sign with a key finds it in the device.
    pub(crate) fn invariant_signs_with_what_exists(&self, r: usize, key: &SigningKey, at: Moment) {
        assert!(
            self.device.objects.contains_key(&key.id),
            "replica {r} wants to sign with {} at {at:?}, whose private half is gone",
            key.kid
        );
    }

    /// (c) What a view says of the handover of its own record.
    pub(crate) fn invariant_handover(&self, view: &View, moment: Moment) {
        let record = &self.store.record;
        if view.epoch == record.epoch {
            promises::handed_over(record, view, &self.plan, moment);
        }
    }
}
