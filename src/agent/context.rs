//! What the agent works with: everything that outlives a step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::record;
use crate::audit::{Audit, AuditError, KeyEvent};
use crate::clock::Clock;
use crate::durable::{DurableError, LastGood, Tombstone, Tombstones};
use crate::hsm::Device;
use crate::keyring::{Ending, KeyId, Reason, Revocation};
use crate::metrics::{AuditLine, Metrics};
use crate::store::Store;
use crate::time::Time;

/// The agent's ports.
pub struct Context {
    /// The agent's stable name among the replicas of a store.
    pub(super) replica: String,
    /// The only clock.
    pub(super) clock: Arc<dyn Clock>,
    /// The records. It is trusted to keep what it was given and to compare
    /// before it swaps; that it did not go back is checked against the log.
    pub(super) store: Arc<dyn Store>,
    /// The log of signatures and key events.
    pub(super) audit: Arc<Audit>,
    /// Revocations that must survive a store which refused them.
    tombstones: Tombstones,
    /// The last good JWKS of each key set.
    last_good: LastGood,
    /// The devices by name.
    pub(super) devices: BTreeMap<String, Device>,
    /// What is counted.
    pub(super) metrics: Metrics,
    logs: Mutex<BTreeMap<String, KeyLog>>,
    /// By key set and by the id of the key.
    dates: Mutex<BTreeMap<(String, String), Dates>>,
    /// Carries out what devices are asked, in their place.
    #[cfg(test)]
    pub(super) hands: Option<Hands>,
}

/// A device of a test: a task in, and whether it is only to be looked for what
/// a hold keeps; what came of it out.
#[cfg(test)]
pub(super) type Hands = Arc<
    dyn Fn(crate::keyring::Task, bool) -> std::pin::Pin<Box<dyn Future<Output = Done> + Send>>
        + Send
        + Sync,
>;

#[cfg(test)]
type Done = Result<crate::keyring::Outcome, crate::hsm::DeviceError>;

/// What the log knows of a key set.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyLog {
    /// The number of its last event.
    pub(super) events: u64,
    /// Every `kid` that it saw revoked.
    pub(super) revoked: BTreeSet<String>,
}

/// What became of a key that the record says no date of any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dates {
    /// Since when another key signed in its place, the last time.
    pub(super) retiring: Option<Time>,
    /// When the last private half was destroyed.
    pub(super) destroyed: Option<Time>,
}

/// The ports, as whoever composes the agent opens them.
pub struct Ports {
    /// The agent's stable name among the replicas of a store.
    pub replica: String,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The log.
    pub audit: Arc<Audit>,
    /// Revocations on disk.
    pub tombstones: Tombstones,
    /// The last good sets on disk.
    pub last_good: LastGood,
    /// The devices by name.
    pub devices: BTreeMap<String, Device>,
    /// What is counted.
    pub metrics: Metrics,
}

impl Context {
    /// Takes the ports over, and learns what the log knows of key events.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        let mut logs: BTreeMap<String, KeyLog> = BTreeMap::new();
        let mut dates = BTreeMap::new();
        for recorded in ports.audit.key_events() {
            date(&mut dates, &recorded.what);
            logs.entry(recorded.what.key_set.clone())
                .or_default()
                .learn(&recorded.what);
        }
        Self {
            replica: ports.replica,
            clock: ports.clock,
            store: ports.store,
            audit: ports.audit,
            tombstones: ports.tombstones,
            last_good: ports.last_good,
            devices: ports.devices,
            metrics: ports.metrics,
            logs: Mutex::new(logs),
            dates: Mutex::new(dates),
            #[cfg(test)]
            hands: None,
        }
    }

    /// Handles to the devices, for whoever waits for their end.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        self.devices.values().cloned().collect()
    }

    /// Whether this process can ask a device for anything: with the agent dead
    /// it asks none.
    pub(super) fn works_with(&self, device: &str) -> bool {
        #[cfg(test)]
        if self.hands.is_some() {
            return true;
        }
        self.devices.contains_key(device)
    }

    /// The log, for whoever follows it.
    #[must_use]
    pub fn audit(&self) -> Arc<Audit> {
        Arc::clone(&self.audit)
    }

    /// What is counted, for edges that count as well.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// What the log knows of a key set.
    pub(super) fn key_log(&self, key_set: &str) -> KeyLog {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(key_set).cloned().unwrap_or_default()
    }

    /// When what happened to a key, by its id, as far as the log tells.
    pub(super) fn dates(&self, key_set: &str, key: &str) -> Dates {
        let dates = self.dates.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = dates.get(&(key_set.to_owned(), key.to_owned()));
        of_it.copied().unwrap_or_default()
    }

    /// The key sets of which the log knows.
    pub(super) fn logged(&self) -> Vec<String> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.keys().cloned().collect()
    }

    /// Puts a key event on record; synced when it returns.
    pub(super) async fn log_key_event(
        self: &Arc<Self>,
        event: &KeyEvent,
    ) -> Result<(), AuditError> {
        let (context, line) = (Arc::clone(self), event.clone());
        let done = blocking(move || context.audit.key_event(line)).await;
        done.inspect_err(|_| self.metrics.audit_failed(AuditLine::KeyEvent))?;
        let mut dates = self.dates.lock().unwrap_or_else(PoisonError::into_inner);
        date(&mut dates, event);
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.entry(event.key_set.clone()).or_default().learn(event);
        Ok(())
    }

    /// What was revoked on disk, whatever the store says, by `kid`.
    ///
    /// # Errors
    /// A tombstone that cannot be read may block any key: nothing may sign
    /// until an operator has looked.
    pub(super) fn tombstones(
        &self,
        key_set: &str,
    ) -> Result<BTreeMap<String, Tombstone>, DurableError> {
        let stones = self.tombstones.all()?;
        let ours = stones.into_iter().filter(|stone| stone.key_set == key_set);
        Ok(ours.map(|stone| (stone.kid.clone(), stone)).collect())
    }

    /// The same, as a record has it.
    pub(super) fn buried(
        &self,
        key_set: &str,
    ) -> Result<BTreeMap<String, Revocation>, DurableError> {
        Ok(revocations(self.tombstones(key_set)?))
    }

    /// Revokes a key on disk.
    pub(super) async fn entomb(
        self: &Arc<Self>,
        key_set: &str,
        kid: &str,
        ending: &Ending,
        at: Time,
    ) -> Result<(), DurableError> {
        let stone = Tombstone {
            key_set: key_set.to_owned(),
            kid: kid.to_owned(),
            at,
            reason: Some(ending.reason),
            then: ending.then,
            mandate: Some(ending.mandate.clone()),
        };
        let context = Arc::clone(self);
        blocking(move || context.tombstones.put(&stone)).await
    }

    /// The last good set of a key set, if there ever was one.
    pub(super) fn read_last_good(&self, key_set: &str) -> Option<Vec<u8>> {
        self.last_good
            .load(key_set)
            .inspect_err(|e| tracing::error!(key_set, "the last good JWKS: {e}"))
            .ok()
            .flatten()
    }

    /// Keeps a set for the time when the store cannot be read. Failing to is
    /// no reason not to publish it.
    pub(super) async fn keep_last_good(
        self: &Arc<Self>,
        key_set: &str,
        jwks: &Arc<[u8]>,
    ) -> Result<(), DurableError> {
        let (context, name, jwks) = (Arc::clone(self), key_set.to_owned(), Arc::clone(jwks));
        blocking(move || context.last_good.put(&name, &jwks)).await
    }

    /// The document of a key set's past keys, as it was signed last.
    pub(super) fn read_history(&self, key_set: &str) -> Result<Option<Vec<u8>>, DurableError> {
        self.last_good.load_history(key_set)
    }

    /// Keeps that document for a start without a device.
    pub(super) async fn keep_history(
        self: &Arc<Self>,
        key_set: &str,
        token: &Arc<[u8]>,
    ) -> Result<(), DurableError> {
        let (context, name, token) = (Arc::clone(self), key_set.to_owned(), Arc::clone(token));
        blocking(move || context.last_good.put_history(&name, &token)).await
    }

    /// The placeholder of a key set, as it was kept.
    pub(super) fn read_placeholder(&self, key_set: &str) -> Option<Vec<u8>> {
        self.last_good
            .load_placeholder(key_set)
            .inspect_err(|e| tracing::error!(key_set, "the placeholder: {e}"))
            .ok()
            .flatten()
    }

    /// Keeps the placeholder for the time when the store cannot be read and
    /// every key of the last good set was revoked. Writes only what is not
    /// there.
    pub(super) async fn keep_placeholder(
        self: &Arc<Self>,
        key_set: &str,
        jwks: Vec<u8>,
    ) -> Result<(), DurableError> {
        let (context, name) = (Arc::clone(self), key_set.to_owned());
        blocking(move || {
            let kept = context.last_good.load_placeholder(&name);
            if kept.is_ok_and(|kept| kept.as_ref() == Some(&jwks)) {
                return Ok(());
            }
            context.last_good.put_placeholder(&name, &jwks)
        })
        .await
    }
}

/// Takes up what an event says of a key's past.
fn date(dates: &mut BTreeMap<(String, String), Dates>, event: &KeyEvent) {
    let of_it = || (event.key_set.clone(), event.key.clone());
    match event.event.as_str() {
        "retiring" => dates.entry(of_it()).or_default().retiring = Some(event.at),
        "destroyed" => dates.entry(of_it()).or_default().destroyed = Some(event.at),
        _ => {}
    }
}

impl KeyLog {
    fn learn(&mut self, event: &KeyEvent) {
        self.events = self.events.max(event.number);
        if let (true, Some(kid)) = (record::is_revocation(event), &event.kid) {
            self.revoked.insert(kid.clone());
        }
    }
}

/// Tombstones as a record has them.
pub(super) fn revocations(stones: BTreeMap<String, Tombstone>) -> BTreeMap<String, Revocation> {
    let revocations = stones.into_iter().map(|(kid, stone)| {
        let revocation = Revocation {
            at: stone.at,
            reason: stone.reason.unwrap_or(Reason::Compromised),
            mandate: stone.mandate.unwrap_or_default(),
        };
        (kid, revocation)
    });
    revocations.collect()
}

/// Runs what syncs files where it may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends before the work began, and whoever waits for it
            // ends with the runtime.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// A key's id: 16 random bytes from the kernel.
pub(super) fn random_id() -> KeyId {
    let mut id = [0; 16];
    let mut filled = 0;
    while filled < id.len() {
        // The kernel's generator is seeded long before any agent starts, and
        // a short read is only an interruption.
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut id[filled..], flags).unwrap_or(0);
    }
    KeyId(id)
}
