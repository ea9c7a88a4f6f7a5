//! What the agent works with: everything that outlives a step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::record::KeyEvent;
use crate::audit::{self, Audit, AuditError};
use crate::clock::Clock;
use crate::durable::{DurableError, LastGood, Tombstone, Tombstones};
use crate::hsm::Device;
use crate::store::Store;
use crate::time::Time;

/// The agent's ports.
pub struct Context {
    /// The agent's stable name among the replicas of a store.
    pub replica: String,
    /// The only clock.
    pub clock: Arc<dyn Clock>,
    /// The records. It is trusted to keep what it was given and to compare
    /// before it swaps; that it did not go back is checked against the log.
    pub store: Arc<dyn Store>,
    /// The log of signatures and key events.
    pub audit: Audit,
    /// Revocations that must survive a store which refused them.
    pub tombstones: Tombstones,
    /// The last good JWKS of each key set.
    pub last_good: LastGood,
    /// The devices by name.
    pub devices: BTreeMap<String, Device>,
}

/// What the log knows of a key set.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyLog {
    /// The number of its last event.
    pub(super) events: u64,
    /// Every `kid` that it saw revoked.
    pub(super) revoked: BTreeSet<String>,
}
