//! How key sets and devices are, on the wire.

use super::origins;
use crate::agent::{Health, LateRotation};
use crate::api::v1;

pub(super) fn response(health: Health) -> v1::GetHealthResponse {
    let Health { key_sets, devices } = health;
    let key_sets = key_sets.into_iter().map(|set| v1::KeySetHealth {
        name: set.name,
        signs: set.fault.is_none(),
        reason: set.fault.as_ref().map_or("", |(reason, _)| reason).into(),
        why: set.fault.map(|(_, why)| why).unwrap_or_default(),
        late_rotations: set.late.into_iter().map(late_rotation).collect(),
        origins: set.origins.into_iter().map(origins::origin).collect(),
        revoked_in_memory: set.unwritten.into_keys().collect(),
    });
    let devices = devices.into_iter().map(|device| v1::DeviceHealth {
        name: device.name,
        up: device.fault.is_none(),
        why: device.fault.unwrap_or_default(),
        pin_blocked: device.pin_blocked,
        token: device.token.unwrap_or_default(),
        token_serial: device.serial.unwrap_or_default(),
        opening: device.opening,
    });
    v1::GetHealthResponse {
        key_sets: key_sets.collect(),
        devices: devices.collect(),
    }
}

fn late_rotation(rotation: LateRotation) -> v1::LateRotation {
    v1::LateRotation {
        alg: rotation.algorithm.name().to_owned(),
        late: prost_types::Duration::try_from(rotation.late.to_duration()).ok(),
        past_hard_limit: rotation.page,
        waits_for: rotation.waits_for,
    }
}
