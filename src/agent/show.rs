//! What readers get to see, and what is kept of it for the time when the
//! record cannot be read.

use std::sync::Arc;

use super::failpoint::{Effect, Side, hit};
use super::reader::{PublishedSet, Signers, Snapshot};
use super::writer::{Held, Writer};
use crate::keyring::{KeySet, View};
use crate::time::Time;

impl Writer {
    /// Gives readers the view of a record that is stored.
    pub(super) async fn show(&mut self, held: &Held) {
        let set = &held.record.set;
        let view = set.view(&self.plan, None);
        let view = Arc::new(match self.with_owed(held) {
            Some(restricted) => view.publishing(restricted.view(&self.plan, None).published),
            None => view,
        });
        let published = PublishedSet::of(&view);
        if set.epoch != self.adopted || !self.owed.is_empty() {
            hit(Side::Before, Effect::WriteLastGood);
            self.context
                .write_last_good(&self.reader.name, &published.body)
                .await;
            hit(Side::After, Effect::WriteLastGood);
        }
        self.show_view(view, published, set.high_water);
        self.adopted = set.epoch;
    }

    /// The key set as it will be when every owed revocation is stored; none
    /// if nothing is owed. Verifiers are not to see a revoked key again for as
    /// long as the store is full, nor after a crash before it was written.
    pub(super) fn with_owed(&self, held: &Held) -> Option<KeySet> {
        if self.owed.is_empty() {
            return None;
        }
        let mut set = held.record.set.clone();
        let tick = self.tick_for(set.high_water);
        for (kid, ending) in &self.owed {
            // Refused only for a key that the set does not know: none is shown.
            let _ = set.revoke(kid, &ending.or_wait(), &self.plan, &tick);
        }
        Some(set)
    }

    /// Swaps what readers see.
    fn show_view(&self, view: Arc<View>, published: PublishedSet, high_water: Time) {
        let signers = Signers::new(view, self.guard.clone(), high_water);
        hit(Side::Before, Effect::SwapView);
        self.reader.swap(Snapshot {
            signers: Ok(Arc::new(signers)),
            published: Some(published),
        });
        hit(Side::After, Effect::SwapView);
    }
}
