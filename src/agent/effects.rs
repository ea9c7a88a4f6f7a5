//! What an intent asks of a device. The same code runs for `init`, for the
//! daemon, and after a crash: each task may be done twice.

use std::time::{Duration, Instant};

use super::Context;
use super::failpoint::{Effect, Side, hit};
use super::record::Record;
use crate::hsm::{Device, DeviceError, Handle, ObjectId, Pairs, unhex};
use crate::jose::{Algorithm, thumbprint};
use crate::keyring::{Adoption, Key, KeySet, Outcome, Task};

/// RSA-4096 takes a YubiHSM the better part of a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// A task, and what the record says of it.
pub(super) struct Errand {
    key_set: String,
    task: Task,
    key: Option<Key>,
    /// The serial of the token that it is for, where one is known.
    token: Option<String>,
}

impl Errand {
    pub(super) fn of(set: &KeySet, task: &Task) -> Self {
        Self {
            key_set: set.name.clone(),
            key: set.keys.get(&task.key()).cloned(),
            token: set.token_for(task).map(str::to_owned),
            task: task.clone(),
        }
    }

    /// Whether a hold keeps the device from it, by the record that the store
    /// has now: that of when the errand began may be older than the hold, and
    /// another agent may have stored it.
    async fn is_held_back(&self, context: &Context) -> Result<bool, DeviceError> {
        // Nobody can tell: it waits, as it would for the device.
        let unknown = |why: String| DeviceError::Unavailable {
            device: self.task.device().to_owned(),
            why: format!(
                "nothing is destroyed before the store says whether it is held, and {why}"
            ),
            retry_after: Duration::ZERO,
        };
        let stored = context.store.load(&self.key_set).await;
        let stored = stored.map_err(|e| unknown(e.to_string()))?;
        let stored = stored.ok_or_else(|| unknown("there is no record".to_owned()))?;
        let record = Record::from_bytes(&stored.bytes).map_err(|e| unknown(e.to_string()))?;
        match record.set.asks_for(&self.task) {
            true => Ok(record.set.holds_back(&self.task)),
            false => Err(unknown("the record asks for it no more".to_owned())),
        }
    }
}

/// Carries a task out, or finds that it was done.
///
/// A crash before the device was asked leaves nothing; one after it leaves
/// objects whose id stands in the record, which the next run finds or
/// destroys.
pub(super) async fn perform(context: &Context, errand: &Errand) -> Result<Outcome, DeviceError> {
    let Errand {
        task, key, token, ..
    } = errand;
    #[cfg(test)]
    if let Some(hands) = &context.hands {
        let looks = matches!(task, Task::Destroy { .. }) && errand.is_held_back(context).await?;
        return hands(task.clone(), looks).await;
    }
    let name = task.device();
    let defect = |why: String| DeviceError::Defect {
        device: name.to_owned(),
        why,
    };
    let device = context.devices.get(name).ok_or_else(|| {
        defect("the record names this device, and the configuration does not".to_owned())
    })?;
    let object = ObjectId(task.key().0);
    let found = token_in(device).await?;
    if let Some(expected) = token
        && *expected != found
    {
        return Err(DeviceError::OtherToken {
            device: name.to_owned(),
            expected: expected.clone(),
            found,
        });
    }
    match task {
        Task::Generate { .. } => {
            let key = key.as_ref().ok_or_else(|| {
                defect(format!(
                    "the record asks for the key {} and does not know it",
                    task.key()
                ))
            })?;
            let deadline = Instant::now() + PATIENCE;
            hit(Side::Before, Effect::Generate);
            if let Some(adoption) = &key.adopted {
                return take_over(device, object, key.algorithm, adoption, found).await;
            }
            let made = device
                .generate(object, key.key_type, key.algorithm, deadline)
                .await?;
            hit(Side::After, Effect::Generate);
            let kid = thumbprint(&made.public);
            Ok(Outcome::Generated {
                public: made.public,
                kid,
                token: Some(found),
            })
        }
        // Last of all, so that a hold comes too late only for a call that is
        // under way.
        Task::Destroy { .. } if errand.is_held_back(context).await? => {
            look_for(device, object).await
        }
        Task::Destroy { .. } => {
            hit(Side::Before, Effect::Destroy);
            device.destroy(object).await?;
            hit(Side::After, Effect::Destroy);
            Ok(Outcome::Destroyed)
        }
    }
}

/// Whether there is a private half left to keep.
async fn look_for(device: &Device, object: ObjectId) -> Result<Outcome, DeviceError> {
    let found = match device.find(object).await {
        Ok(found) => found.is_some(),
        // No whole pair, or not one that would be published: it may be kept all
        // the same.
        Err(DeviceError::BadKey { .. }) => {
            let listed = device.list(Pairs::Ours).await?;
            listed.iter().any(|listed| listed.id == object.0)
        }
        Err(e) => return Err(e),
    };
    Ok(match found {
        true => Outcome::Kept,
        false => Outcome::Destroyed,
    })
}

/// The serial of the token that a device opens, now and for as long as it
/// lives.
pub(super) async fn token_in(device: &Device) -> Result<String, DeviceError> {
    device.health().await?;
    let token = device.token().ok_or_else(|| DeviceError::Defect {
        device: device.name().to_owned(),
        why: "it is well, and has opened no token".to_owned(),
    })?;
    Ok(token.serial.clone())
}

/// Gives a key pair of another tool its id here.
async fn take_over(
    device: &Device,
    object: ObjectId,
    algorithm: Algorithm,
    adoption: &Adoption,
    token: String,
) -> Result<Outcome, DeviceError> {
    let id = unhex(&adoption.former_id).filter(|id| !id.is_empty());
    let label = Some(adoption.label.clone()).filter(|label| !label.is_empty());
    let from = Handle { id, label };
    let expected = adoption.public.clone();
    let pair = device.adopt(from, algorithm, object, expected).await?;
    hit(Side::After, Effect::Generate);
    Ok(Outcome::Generated {
        public: pair.public,
        kid: adoption.kid.clone(),
        token: Some(token),
    })
}
