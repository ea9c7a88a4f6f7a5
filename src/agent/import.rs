//! Public keys of an older system, taken into a set while no agent runs.

use std::sync::Arc;

use super::context::random_id;
use super::writer::{Clock, StepError, Writer};
use super::{Context, Wanted};
use crate::jose::Jwk;
use crate::keyring::{ImportError, Mandate, PublishedKey};
use crate::store::StoreError;
use crate::time::Time;

/// Why keys are not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportFailure {
    /// The record cannot be used, or there is none.
    #[error("{0}")]
    Record(String),
    /// The clock is in doubt.
    #[error("the clock is in doubt: {0}")]
    Doubt(String),
    /// The store does not take it.
    #[error(transparent)]
    Store(StoreError),
    /// The keys cannot be imported.
    #[error(transparent)]
    Keyring(ImportError),
}

/// Publishes keys that verify and never sign, until `until`. The caller keeps
/// the agent from the folder. What was imported before stays as it is.
///
/// # Errors
/// [`ImportFailure`]; none of the keys was imported.
pub async fn import(
    context: Context,
    wanted: Wanted,
    keys: Vec<Jwk>,
    until: Time,
    mandate: &Mandate,
) -> Result<(), ImportFailure> {
    let context = Arc::new(context);
    let mut writer = Writer::alone(context, &wanted);
    writer.load().await;
    if let Some(dark) = &writer.dark {
        return Err(ImportFailure::Record(dark.to_string()));
    }
    let keys = keys.into_iter().map(|jwk| PublishedKey {
        kid: jwk.kid,
        algorithm: jwk.algorithm,
        public: jwk.key,
    });
    let keys: Vec<PublishedKey> = keys.collect();
    let step = writer.step(Clock::Sure, |set, plan, tick| {
        let events = set.import(&keys, until, mandate, plan, tick, &mut random_id)?;
        Ok::<_, ImportError>(((), events))
    });
    step.await.map_err(|e| match e {
        StepError::Keyring(e) => ImportFailure::Keyring(e),
        StepError::Store(e) => ImportFailure::Store(e),
        StepError::Doubt(doubt) => ImportFailure::Doubt(doubt.to_string()),
        e => ImportFailure::Record(e.to_string()),
    })
}
