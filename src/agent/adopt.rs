//! A key that another tool made in a device, taken into a set while no agent
//! runs.
//!
//! The device is asked what it is, the record says what is to be done, the
//! device does it, the record says that it is done. A crash after the second
//! leaves the intent, which the agent carries out when it starts; one before
//! leaves everything as it was.

use std::sync::Arc;

use super::context::random_id;
use super::effects::{self, Errand};
use super::writer::{Clock, StepError, Writer};
use super::{Context, Wanted};
use crate::durable::DurableError;
use crate::hsm::{DeviceError, Handle, hex};
use crate::jose::Algorithm;
use crate::keyring::{AdoptError, Adoption, IntentId, KeyId, Mandate, UnexpectedOutcome};
use crate::store::StoreError;
use crate::time::Span;

/// Which key, and what for.
#[derive(Clone, Debug)]
pub struct Adopting {
    /// How the other tool named it.
    pub from: Handle,
    /// The `kid` that its tokens have.
    pub kid: String,
    /// What it signs with.
    pub algorithm: Algorithm,
}

/// What was adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Its id, here and in the device.
    pub id: KeyId,
    /// The device.
    pub device: String,
    /// The `CKA_ID` that it had, in hexadecimal.
    pub former_id: String,
    /// Its `CKA_LABEL`.
    pub label: String,
    /// How long every origin must show it before it may become active (rule 1).
    pub waits: Span,
}

/// Why a key was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptFailure {
    /// The record cannot be used, or there is none.
    #[error("{0}")]
    Record(String),
    /// The clock is in doubt.
    #[error("the clock is in doubt: {0}")]
    Doubt(String),
    /// The store does not take it.
    #[error(transparent)]
    Store(StoreError),
    /// A revocation on disk cannot be read: it may be of this key.
    #[error(transparent)]
    Tombstone(DurableError),
    /// The keyring refuses.
    #[error(transparent)]
    Keyring(AdoptError),
    /// Another key set has it.
    #[error("the key with id {id} is one of the key set {key_set:?}")]
    OfAnother {
        /// Its `CKA_ID`.
        id: String,
        /// That key set.
        key_set: String,
    },
    /// The device refuses; nothing was changed.
    #[error(transparent)]
    Device(DeviceError),
    /// It stands in the record, and the device has not done it yet.
    #[error("the device has not taken the key over yet: {0}")]
    Unfinished(DeviceError),
    /// The device did something else.
    #[error(transparent)]
    Unexpected(UnexpectedOutcome),
}

/// Takes over the one key that is meant, and publishes it under its `kid`. The
/// caller keeps the agent from the folder.
///
/// # Errors
/// [`AdoptFailure`]; nothing was changed, but after
/// [`AdoptFailure::Unfinished`], which the agent goes on with.
pub async fn adopt(
    context: Context,
    wanted: Wanted,
    adopting: Adopting,
    mandate: &Mandate,
) -> Result<Adopted, AdoptFailure> {
    let context = Arc::new(context);
    let mut writer = Writer::alone(Arc::clone(&context), &wanted);
    writer.load().await;
    if let Some(dark) = &writer.dark {
        return Err(AdoptFailure::Record(dark.to_string()));
    }
    let stones = context.tombstones(&wanted.name);
    if stones
        .map_err(AdoptFailure::Tombstone)?
        .contains_key(&adopting.kid)
    {
        let kid = adopting.kid;
        return Err(AdoptFailure::Keyring(AdoptError::Revoked { kid }));
    }
    let adoption = look(&context, &writer, &wanted.name, &adopting, mandate).await?;

    let algorithm = adopting.algorithm;
    let step = writer.step(Clock::Sure, |set, plan, tick| {
        set.adopt(algorithm, &adoption, plan, tick, &mut random_id)
    });
    let intent = step.await.map_err(|e| failure(e, AdoptFailure::Keyring))?;
    let id = carry_out(&context, &mut writer, intent).await?;
    Ok(Adopted {
        id,
        device: writer.plan.device.clone(),
        former_id: adoption.former_id,
        label: adoption.label,
        waits: writer.plan.timing.pre_publish(),
    })
}

/// What the device says of the key, which must be nobody's.
async fn look(
    context: &Context,
    writer: &Writer,
    key_set: &str,
    adopting: &Adopting,
    mandate: &Mandate,
) -> Result<Adoption, AdoptFailure> {
    let name = &writer.plan.device;
    let device = context.devices.get(name);
    let device = device
        .ok_or_else(|| AdoptFailure::Record(format!("the configuration has no device {name:?}")))?;
    let found = device.look(adopting.from.clone(), adopting.algorithm);
    let found = found.await.map_err(AdoptFailure::Device)?;
    let id = hex(&found.id);
    let mut events = context.audit.key_events().into_iter();
    let others = events.find(|event| event.what.key == id && event.what.key_set != key_set);
    if let Some(event) = others {
        let key_set = event.what.key_set;
        return Err(AdoptFailure::OfAnother { id, key_set });
    }
    let bad = |why| {
        AdoptFailure::Device(DeviceError::BadKey {
            device: name.clone(),
            why,
        })
    };
    Ok(Adoption {
        kid: adopting.kid.clone(),
        public: found.pair.map_err(bad)?.public,
        former_id: id,
        label: found.label,
        mandate: mandate.clone(),
    })
}

/// Has the device do what stands in the record, and takes it back where the
/// device refuses.
async fn carry_out(
    context: &Arc<Context>,
    writer: &mut Writer,
    id: IntentId,
) -> Result<KeyId, AdoptFailure> {
    let vanished = || AdoptFailure::Record("the adoption vanished from the record".to_owned());
    let held = writer.held.as_ref().ok_or_else(vanished)?;
    let set = &held.record.set;
    let task = set.intents.get(&id).ok_or_else(vanished)?.task.clone();
    let key = task.key();
    let outcome = match effects::perform(context, &Errand::of(set, &task)).await {
        Ok(outcome) => outcome,
        Err(e @ (DeviceError::Refused { .. } | DeviceError::BadKey { .. })) => {
            let step = writer.step(Clock::Any, |set, _, tick| {
                Ok::<_, AdoptError>(((), set.give_up_adoption(id, tick)))
            });
            step.await.map_err(|e| failure(e, AdoptFailure::Keyring))?;
            return Err(AdoptFailure::Device(e));
        }
        Err(e) => return Err(AdoptFailure::Unfinished(e)),
    };
    let step = writer.step(Clock::Any, |set, _, tick| {
        set.complete(id, outcome.clone(), tick)
            .map(|events| (key, events))
    });
    step.await.map_err(|e| failure(e, AdoptFailure::Unexpected))
}

fn failure<E>(error: StepError<E>, of_keyring: impl Fn(E) -> AdoptFailure) -> AdoptFailure
where
    E: std::fmt::Display,
{
    match error {
        StepError::Keyring(e) => of_keyring(e),
        StepError::Store(e) => AdoptFailure::Store(e),
        StepError::Doubt(doubt) => AdoptFailure::Doubt(doubt.to_string()),
        e => AdoptFailure::Record(e.to_string()),
    }
}
