//! The end of every key on a device, on the wire.

use super::admin::{after_revocation, checked_note, revocation_reason};
use super::desk::timestamp;
use super::impact;
use super::status::Fault;
use crate::agent::admin::{DeviceOrder, Ended, EndedKey};
use crate::api::v1;

pub(super) fn order(request: v1::RevokeDeviceRequest) -> Result<DeviceOrder, Fault> {
    let field = |name, why: &str, hint| Err(Fault::field(name, why.to_owned(), hint));
    if request.device.is_empty() {
        let why = "expected a name, got none";
        return field("device", why, "name the device as the configuration does");
    }
    let Some(then) = after_revocation(request.then)? else {
        let why = "expected a choice, got none";
        let hint = "say whether to wait until a key is safe, or to activate one early";
        return field("then", why, hint);
    };
    Ok(DeviceOrder {
        device: request.device,
        reason: revocation_reason(request.reason)?,
        then,
        note: checked_note(request.note)?,
    })
}

/// What became of each key of a device.
#[must_use]
pub fn response(ended: Vec<Ended>) -> v1::RevokeDeviceResponse {
    v1::RevokeDeviceResponse {
        keys: ended.into_iter().map(key).collect(),
    }
}

fn key(ended: Ended) -> v1::DeviceKey {
    let Ended {
        key_set,
        kid,
        outcome,
    } = ended;
    let named = v1::DeviceKey {
        key_set,
        kid,
        ..Default::default()
    };
    match outcome {
        Ok(EndedKey {
            done,
            pending,
            trusted_until,
            durable,
            impact,
        }) => v1::DeviceKey {
            done,
            pending,
            trusted_until: trusted_until.map(timestamp),
            durable,
            impact: impact.map(impact::of),
            ..named
        },
        Err(error) => v1::DeviceKey {
            error: error.to_string(),
            ..named
        },
    }
}
