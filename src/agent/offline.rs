//! A revocation with the agent dead: on what it left on disk.
//!
//! The same steps in the same order as in the agent, by the same code: the
//! tombstone, the set on disk, the record. What needs a device is for the next
//! start: the record asks for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::admin::{AdminError, Changed, DeviceOrder, Ended, Order};
use super::impact::{self, AT_LEISURE, BRIEFLY, Foreseen, Thought};
use super::writer::Writer;
use super::{Context, Wanted, follow, whole_device};
use crate::policy::Caller;

/// A key set that no agent works with.
pub struct Offline {
    context: Arc<Context>,
    writer: Writer,
}

impl Offline {
    /// Loads what there is of a key set. `observed_at` are the names of the
    /// origins whose sightings count, where the configuration has none.
    pub async fn open(context: Context, wanted: Wanted, observed_at: &str) -> Self {
        let context = Arc::new(context);
        let mut plan = follow::plan(&wanted);
        if plan.origins.is_empty() {
            plan.origins = BTreeSet::from([observed_at.to_owned()]);
        }
        let mut writer = Writer::alone(Arc::clone(&context), &wanted);
        writer.plan = plan;
        writer.load().await;
        Self { context, writer }
    }

    /// The ids that a key may have: those of the record, or where it cannot be
    /// read, of the last set that verifiers got.
    #[must_use]
    pub fn kids(&self) -> Vec<String> {
        match self.writer.status() {
            Ok(status) => {
                let forgotten = status.forgotten.into_iter().map(|key| key.kid);
                let keys = status.keys.into_iter().map(|key| key.kid);
                keys.chain(forgotten).collect()
            }
            Err(_) => {
                let published = self.writer.published_in_the_dark();
                published.map(|set| set.kids()).unwrap_or_default()
            }
        }
    }

    /// What a revocation would mean. Changes nothing.
    ///
    /// # Errors
    /// [`AdminError::UnknownKey`].
    pub async fn foresee(&mut self, thought: &Thought) -> Result<Foreseen, AdminError> {
        let mut foreseen = self.writer.foresee(thought)?;
        let name = &self.writer.reader.name;
        let impact = &mut foreseen.impact;
        impact::count_tokens(
            &self.context,
            name,
            (&impact.kid, &mut impact.tokens),
            AT_LEISURE,
        )
        .await;
        Ok(foreseen)
    }

    /// The keys of which a device has the private half, and which have not
    /// ended yet; where the record cannot be read, those of the last set that
    /// verifiers got. None where that does not tell either.
    #[must_use]
    pub fn kids_on(&self, device: &str) -> Option<Vec<String>> {
        let Some(held) = &self.writer.held else {
            let kids = self.writer.on_device_in_the_dark(device);
            return Some(kids).filter(|kids| !kids.is_empty());
        };
        Some(whole_device::on_device(&held.record.set, device))
    }

    /// Ends every key of the set on a device, as a running agent does.
    pub async fn end_device(&mut self, caller: &Caller, order: &DeviceOrder) -> Vec<Ended> {
        let mut ended = self.writer.end_keys_on(caller, order).await;
        let name = &self.writer.reader.name;
        for outcome in ended.iter_mut().filter_map(|one| one.outcome.as_mut().ok()) {
            if let Some(impact) = &mut outcome.impact {
                impact::count_tokens(
                    &self.context,
                    name,
                    (&impact.kid, &mut impact.tokens),
                    BRIEFLY,
                )
                .await;
            }
            outcome.pending.push(NO_AGENT.to_owned());
        }
        ended
    }

    /// Carries a revocation out.
    ///
    /// # Errors
    /// As of a running agent. Where the key is ended and something of it is not
    /// stored, that is no error: the answer says so.
    pub async fn revoke(&mut self, caller: &Caller, order: &Order) -> Result<Changed, AdminError> {
        let mut changed = self.writer.carry_out(caller, order).await?;
        if let Some(impact) = &mut changed.impact {
            let name = &self.writer.reader.name;
            impact::count_tokens(
                &self.context,
                name,
                (&impact.kid, &mut impact.tokens),
                BRIEFLY,
            )
            .await;
        }
        changed.pending.push(NO_AGENT.to_owned());
        Ok(changed)
    }
}

/// What an order on a dead agent's record cannot do.
const NO_AGENT: &str =
    "no agent runs: keys are made, private halves destroyed and requests agreed to once one does";
