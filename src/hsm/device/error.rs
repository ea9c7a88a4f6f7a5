//! Why a device did not do what it was asked.

use std::time::Duration;

use crate::hsm::message::{Fault, FaultKind};

/// Where the device itself says to try again.
const RETRY_BUSY: Duration = Duration::from_millis(250);

/// Why a device did not do what it was asked, by what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Wait and try again, or use another device.
    #[error("device {device} is not available: {why}")]
    Unavailable {
        /// Its name.
        device: String,
        /// For people.
        why: String,
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// It stays so until somebody acts: its module is not there, its PIN cannot
    /// be read. The device is tried again all the same.
    #[error("device {device} is not available: {why}")]
    Unusable {
        /// Its name.
        device: String,
        /// For people.
        why: String,
    },
    /// Send less. The request was not started.
    #[error("device {device} has {queued} requests waiting")]
    Overloaded {
        /// Its name.
        device: String,
        /// How many wait.
        queued: usize,
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// The caller's own deadline passed. A signature may have been made; it
    /// is not released.
    #[error("device {device} did not answer before the deadline, {waited:?} after it was asked")]
    Deadline {
        /// Its name.
        device: String,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The right token, logged in, does not hold the key.
    #[error("device {device}: {why}")]
    NoSuchKey {
        /// Its name.
        device: String,
        /// For people.
        why: String,
    },
    /// Another token stands in its place than the one that is meant. Nothing
    /// was asked of it.
    #[error(
        "device {device}: the token with serial {found:?} is in it, and what was asked is for the one with serial {expected:?}"
    )]
    OtherToken {
        /// Its name.
        device: String,
        /// The serial that the record knows.
        expected: String,
        /// The serial of the token that is there.
        found: String,
    },
    /// The key is there and must not be used as it is.
    #[error("device {device}: {why}")]
    BadKey {
        /// Its name.
        device: String,
        /// For people.
        why: String,
    },
    /// The request can never succeed on this device.
    #[error("device {device}: {why}")]
    Refused {
        /// Its name.
        device: String,
        /// For people.
        why: String,
    },
    /// An operator has to look at the PIN, then run `sealkeeper device unlock`.
    #[error("device {device}: {why}")]
    PinBlocked {
        /// Its name.
        device: String,
        /// For people. Names the command.
        why: String,
    },
    /// A defect, ours or the module's.
    #[error("device {device}: defect: {why}")]
    Defect {
        /// Its name.
        device: String,
        /// For people.
        why: String,
    },
}

impl DeviceError {
    pub(super) fn from_fault(device: &str, fault: Fault, waited: Duration) -> Self {
        let device = device.to_owned();
        let why = fault.why;
        match fault.kind {
            FaultKind::NoSuchKey => Self::NoSuchKey { device, why },
            FaultKind::BadKey => Self::BadKey { device, why },
            FaultKind::Refused => Self::Refused { device, why },
            FaultKind::PinBlocked => Self::PinBlocked { device, why },
            FaultKind::Defect => Self::Defect { device, why },
            FaultKind::Expired => Self::Deadline { device, waited },
            FaultKind::Unavailable => Self::Unavailable {
                device,
                why,
                retry_after: RETRY_BUSY,
            },
        }
    }
}
