//! What an intent asks of a device. The same code runs for `init`, for the
//! daemon, and after a crash: each task may be done twice.

use std::time::{Duration, Instant};

use super::Context;
use super::failpoint::{Effect, Side, hit};
use crate::hsm::{Device, DeviceError, Handle, ObjectId, unhex};
use crate::jose::{Algorithm, thumbprint};
use crate::keyring::{Adoption, Key, KeySet, Outcome, Task};

/// RSA-4096 takes a YubiHSM the better part of a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// A task, and what the record says of it.
pub(super) struct Errand {
    task: Task,
    key: Option<Key>,
    /// The serial of the token that it is for, where one is known.
    token: Option<String>,
}

impl Errand {
    pub(super) fn of(set: &KeySet, task: &Task) -> Self {
        Self {
            key: set.keys.get(&task.key()).cloned(),
            token: set.token_for(task).map(str::to_owned),
            task: task.clone(),
        }
    }
}

/// Carries a task out, or finds that it was done.
///
/// A crash before the device was asked leaves nothing; one after it leaves
/// objects whose id stands in the record, which the next run finds or
/// destroys.
pub(super) async fn perform(context: &Context, errand: &Errand) -> Result<Outcome, DeviceError> {
    let Errand { task, key, token } = errand;
    #[cfg(test)]
    if let Some(hands) = &context.hands {
        return hands(task.clone()).await;
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
        Task::Destroy { .. } => {
            hit(Side::Before, Effect::Destroy);
            device.destroy(object).await?;
            hit(Side::After, Effect::Destroy);
            Ok(Outcome::Destroyed)
        }
    }
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
