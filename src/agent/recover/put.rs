//! The record that was made again, on its way into the store.

use super::{RecoverFailure, Stored};
use crate::agent::record::Record;
use crate::agent::writer::{Held, Writer};
use crate::keyring::Recovery;

/// Puts the record into the store.
pub(super) async fn put(
    writer: &mut Writer,
    made: &Recovery,
    stored: Stored,
    logged: u64,
) -> Result<(), RecoverFailure> {
    let mut record = Record::new(made.set.clone());
    // Numbers go on from what anybody has: an older copy stays refused.
    record.events = (stored.record.as_ref()).map_or(logged, |old| logged.max(old.events));
    // What the log may not have yet.
    record.outbox = (stored.record.into_iter())
        .flat_map(|record| record.outbox)
        .filter(|event| event.number > logged)
        .collect();
    record.post(made.events.clone());
    writer.held = Some(Held {
        record: record.clone(),
        version: stored.version,
    });
    writer.store(record).await.map_err(RecoverFailure::Store)
}
