//! Why an order was not carried out.

use std::time::Duration;

use crate::jose::Algorithm;

/// Why an order was not carried out, by what the operator can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// No such key set is configured.
    #[error("no key set {name:?} is configured")]
    UnknownKeySet {
        /// What was asked for.
        name: String,
    },
    /// The key set has no such key.
    #[error("key set {key_set:?} has no key {kid:?}")]
    UnknownKey {
        /// The key set.
        key_set: String,
        /// What was asked for.
        kid: String,
    },
    /// The key set has no track of this algorithm.
    #[error("key set {key_set:?} has no track for {algorithm}")]
    UnknownTrack {
        /// The key set.
        key_set: String,
        /// What was asked for.
        algorithm: Algorithm,
    },
    /// The record changed since the caller looked.
    #[error("expected version {expected}, got {found}: the key set changed meanwhile")]
    Changed {
        /// The caller's.
        expected: String,
        /// The record's.
        found: String,
    },
    /// A rule of rotation says no, or not yet.
    #[error("{why}")]
    Refused {
        /// A stable code, such as `TOO_EARLY`.
        reason: &'static str,
        /// The rule, such as `pre_publish`.
        rule: String,
        /// What stands in the way, with dates.
        why: String,
        /// What the operator can do.
        hint: String,
        /// How long until the same order would be carried out, where time
        /// alone cures it.
        remaining: Option<Duration>,
    },
    /// Something behind the agent is at fault; nothing was changed.
    #[error("{why}")]
    Unavailable {
        /// A stable code, such as `STORE_FAILED`.
        reason: &'static str,
        /// What is wrong.
        why: String,
        /// When it makes sense to try again.
        retry_after: Option<Duration>,
    },
    /// A defect of the agent. It is in the log.
    #[error("{why}")]
    Internal {
        /// A stable code.
        reason: &'static str,
        /// What went wrong.
        why: String,
    },
}
