//! What devices are at: each intent of the record that is this agent's runs
//! once at a time, beside the writer, and is tried again when it fails.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::Context;
use super::effects::{self, Errand};
use super::writer::{Clock, Writer};
use crate::hsm::DeviceError;
use crate::keyring::{Genesis, IntentId, Outcome};

/// Tasks that run, and those that are to be tried again. All of it can be lost
/// at any instant: the intents are on record.
#[derive(Default)]
pub(super) struct Tasks {
    running: JoinSet<Result<Outcome, DeviceError>>,
    ids: HashMap<Id, IntentId>,
    /// When each is tried again, and how long it waits after that.
    retries: BTreeMap<IntentId, (Instant, Duration)>,
}

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

impl Tasks {
    /// Runs an intent, unless it runs already.
    fn start(&mut self, context: &Arc<Context>, id: IntentId, errand: Errand) {
        if self.ids.values().any(|running| *running == id) {
            return;
        }
        let context = Arc::clone(context);
        let run = async move { effects::perform(&context, &errand).await };
        self.ids.insert(self.running.spawn(run).id(), id);
    }

    /// The next task that ends, and how. Waits for ever while none runs. A
    /// task that panicked has failed, and is tried again as any other.
    pub(super) async fn next(&mut self) -> (IntentId, Result<Outcome, String>) {
        loop {
            let Some(done) = self.running.join_next_with_id().await else {
                return pending().await;
            };
            let task = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let result = done.map(|(_, result)| result.map_err(|e| e.to_string()));
            if let Some(id) = self.ids.remove(&task) {
                return (id, result.unwrap_or_else(|e| Err(e.to_string())));
            }
        }
    }

    /// When the next one is tried again, if that lies ahead.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let retries = self.retries.values().map(|(at, _)| *at);
        retries.filter(|at| *at > now).min()
    }

    #[cfg(test)]
    pub(super) fn runs(&self) -> bool {
        !self.running.is_empty()
    }

    #[cfg(test)]
    pub(super) fn forget_all_failures(&mut self) {
        self.retries.clear();
    }

    fn is_due(&self, id: IntentId, now: Instant) -> bool {
        self.retries.get(&id).is_none_or(|(at, _)| *at <= now)
    }

    /// Lets a task be tried again at once.
    pub(super) fn forget_failures(&mut self, id: IntentId) {
        self.retries.remove(&id);
    }

    /// Puts a task off, each time for longer. Returns for how long.
    fn put_off(&mut self, id: IntentId) -> Duration {
        let before = self.retries.get(&id);
        let delay = before.map_or(FIRST_RETRY, |(_, delay)| *delay);
        let again = (Instant::now() + delay, (delay * 2).min(LAST_RETRY));
        self.retries.insert(id, again);
        delay
    }
}

impl Writer {
    /// Starts what devices are to do.
    pub(super) fn start_intents(&mut self) {
        let Some(held) = &self.held else { return };
        let set = &held.record.set;
        if matches!(set.genesis, Genesis::Pending { .. }) {
            return; // `init` carries these out.
        }
        let now = Instant::now();
        for (&id, intent) in &set.intents {
            // Another agent's intent is its own to carry out: two that ask one
            // device for the same key could leave half of a pair.
            let asked = self.reader.gate.is_open(intent.task.device());
            if intent.owner == self.context.replica && asked && self.tasks.is_due(id, now) {
                let errand = Errand::of(set, &intent.task);
                self.tasks.start(&self.context, id, errand);
            }
        }
        self.tasks
            .retries
            .retain(|id, _| set.intents.contains_key(id));
    }

    /// Stores what came of a task.
    pub(super) async fn report(&mut self, id: IntentId, result: Result<Outcome, String>) {
        let problem = match result {
            Ok(outcome) => {
                let step = self.step(Clock::Any, |set, _, tick| {
                    set.complete(id, outcome.clone(), tick)
                        .map(|events| ((), events))
                });
                match step.await {
                    Ok(()) => {
                        self.tasks.retries.remove(&id);
                        if outcome == Outcome::Kept {
                            // By a hold that this writer may not know yet.
                            self.load_if_changed().await;
                        }
                        return;
                    }
                    Err(e) => e.to_string(),
                }
            }
            Err(e) => e,
        };
        // An outcome that could not be stored is found again: every task may
        // be done twice.
        let delay = self.tasks.put_off(id);
        tracing::warn!(key_set = self.reader.name, retry_in = ?delay, "a device task failed: {problem}");
    }
}
