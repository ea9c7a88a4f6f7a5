//! What readers get to see, and what is kept of it for the time when the
//! record cannot be read.

use std::sync::Arc;

use super::failpoint::{Effect, Side, hit};
use super::reader::{PublishedSet, Signers, Snapshot};
use super::writer::{Held, Writer};
use crate::jose::{Jwk, JwkSet};
use crate::keyring::{KeySet, Phase, View};
use crate::time::Time;

/// What this process has put on disk for a start without a record.
#[derive(Default)]
pub(super) struct Kept {
    /// The set.
    set: Option<Arc<[u8]>>,
    /// Whether the placeholder is there.
    placeholder: bool,
    /// Whether the last try failed.
    failing: bool,
}

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
        self.keep(held, &published.body).await;
        self.show_view(view, published, set.high_water);
        let left = self.news.left(set.revoked.keys());
        self.origins.saw_nothing_of(&left);
        self.shown = self.guard.clone();
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
        // Refused only for a key that the set does not know: none is shown.
        let _ = set.revoke_all(&self.endings(), &self.plan, &tick);
        Some(set)
    }

    /// The key set less what is owed: what operators see of it. None of what a
    /// revocation permits happens before the store has it.
    pub(super) fn less_owed(&self, held: &Held) -> KeySet {
        let mut set = held.record.set.clone();
        let tick = self.tick_for(set.high_water);
        set.restrict(&self.endings(), &self.plan, &tick);
        set
    }

    /// Tries again to keep what readers see, if that failed.
    pub(super) async fn keep_shown(&mut self) {
        let Some(held) = self.held.clone() else {
            return;
        };
        let snapshot = self.reader.load();
        if let (Ok(_), Some(published)) = (&snapshot.signers, &snapshot.published) {
            self.keep(&held, &published.body).await;
        }
    }

    /// Keeps a set of before less what was revoked since: whoever serves the
    /// file shows the key no more, though the record does not know of it yet.
    pub(super) async fn keep_in_the_dark(&mut self, shown: &Arc<[u8]>) {
        let name = &self.reader.name;
        match self.context.keep_last_good(name, shown).await {
            Ok(()) => self.kept.set = Some(Arc::clone(shown)),
            // It is filtered by the tombstones at each start.
            Err(e) => tracing::error!(key_set = name, "the last good JWKS: {e}"),
        }
    }

    /// Keeps a set on disk, and the placeholder beside it, where they are not
    /// there yet. A crash before leaves the copy of before, which is filtered
    /// by what was revoked; a failure is mended at a later step.
    async fn keep(&mut self, held: &Held, shown: &Arc<[u8]>) {
        let name = &self.reader.name;
        let mut problem = None;
        if self.kept.set.as_ref() != Some(shown) {
            hit(Side::Before, Effect::WriteLastGood);
            match self.context.keep_last_good(name, shown).await {
                Ok(()) => self.kept.set = Some(Arc::clone(shown)),
                Err(e) => problem = Some(e),
            }
            hit(Side::After, Effect::WriteLastGood);
        }
        if !self.kept.placeholder
            && let Some(placeholder) = placeholder(&held.record.set)
        {
            hit(Side::Before, Effect::WritePlaceholder);
            match self.context.keep_placeholder(name, placeholder).await {
                Ok(()) => self.kept.placeholder = true,
                Err(e) => problem = Some(e),
            }
            hit(Side::After, Effect::WritePlaceholder);
        }
        match &problem {
            // Once for each outage.
            Some(e) if !self.kept.failing => {
                tracing::error!(key_set = name, "the last good JWKS: {e}; it is tried again");
            }
            None if self.kept.failing => {
                tracing::info!(key_set = name, "the last good JWKS is on disk again");
            }
            _ => {}
        }
        self.kept.failing = problem.is_some();
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

/// A JWKS of the placeholder alone; none before the device has made it.
fn placeholder(set: &KeySet) -> Option<Vec<u8>> {
    let key = set.keys.get(&set.placeholder?)?;
    if key.phase != Phase::Placeholder {
        return None;
    }
    let jwk = Jwk::new(key.kid.clone()?, key.algorithm, key.public.clone()?).ok()?;
    Some(JwkSet { keys: vec![jwk] }.to_json())
}
