//! Tells one receiver, again and again until it has taken each event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::message::{Message, random};
use super::post::{PostError, post};
use super::progress::Progress;
use super::secret::Secrets;
use super::{PATIENCE, Ports, Webhook};
use crate::audit::{KeyEvent, Recorded};
use crate::metrics::WebhookMetrics;
use crate::time::{Span, Time};

/// How long an event is tried.
const GIVE_UP: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// How many may wait. Beyond it the oldest are given up.
const MOST: usize = 1000;

/// How many a receiver may refuse in one round: one that it does not like must
/// not keep a revocation back, and one that likes none is not to be flooded.
const REFUSALS: usize = 3;

/// The first wait after a failure; each is twice the one before.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// How often the figures of what waits are set anew.
const BEAT: Duration = Duration::from_secs(5);

/// One webhook at work.
pub(super) struct Teller {
    hook: Webhook,
    ports: Arc<Ports>,
    metrics: WebhookMetrics,
    news: watch::Receiver<u64>,
    progress: Progress,
    /// What is on disk of it.
    kept: Option<Progress>,
    /// Whether the disk refused it, as the log says already.
    disk_fails: bool,
    /// What is done, above `progress.told`.
    done: BTreeSet<u64>,
    /// When each that failed was first tried.
    tried: BTreeMap<u64, Instant>,
}

impl Teller {
    pub(super) fn new(hook: Webhook, ports: Arc<Ports>) -> Self {
        Self {
            metrics: ports.metrics.webhook(&hook.name),
            news: ports.audit.follow(),
            hook,
            ports,
            progress: Progress::default(),
            kept: None,
            disk_fails: false,
            done: BTreeSet::new(),
            tried: BTreeMap::new(),
        }
    }

    /// Never ends.
    pub(super) async fn run(mut self) {
        self.begin().await;
        let mut failures: u32 = 0;
        loop {
            let newest = *self.news.borrow_and_update();
            let waiting = self.waiting();
            let failed = self.round(waiting).await;
            let left = self.waiting();
            if left.is_empty() {
                self.progress.told = newest.max(self.progress.told);
                self.done = self.done.split_off(&(self.progress.told + 1));
                self.tried.clear();
                self.metrics.waiting(0, Span::ZERO);
            }
            self.note(failed.as_ref(), left.len());
            self.keep().await;
            failures = match failed {
                Some(_) => failures.saturating_add(1),
                None => 0,
            };
            match failures {
                0 if left.is_empty() => {
                    // The log outlives us: we hold it.
                    let _ = self.news.changed().await;
                }
                // It came meanwhile.
                0 => {}
                failures => self.pause(&left, backoff(failures)).await,
            }
        }
    }

    /// Goes on where it was; begins with what happens from now on where it
    /// never was.
    async fn begin(&mut self) {
        let newest = *self.news.borrow_and_update();
        let (book, name) = (self.ports.book.clone(), self.hook.name.clone());
        let loaded = blocking(move || book.load(&name)).await;
        let loaded = loaded.unwrap_or_else(|e| {
            tracing::error!(
                webhook = self.hook.name,
                "how far it was is not known: told is what happens from now on: {e}"
            );
            None
        });
        self.kept = loaded.clone();
        self.progress = loaded.unwrap_or(Progress {
            told: newest,
            ..Progress::default()
        });
        if self.progress.told > newest {
            // Another log than the one that was followed. What it shares with
            // that one has the same ids.
            tracing::warn!(
                webhook = self.hook.name,
                "the log of key events is a shorter one: it is told from its beginning"
            );
            self.progress.told = 0;
        }
        self.keep().await;
    }

    /// What is to be told; revocations first, then the oldest. Those that are
    /// too many or too old are given up.
    fn waiting(&mut self) -> Vec<Recorded<KeyEvent>> {
        let mut all = self.ports.audit.key_events_after(self.progress.told);
        all.retain(|event| {
            self.hook.events.contains(&event.what.event) && !self.done.contains(&event.seq.as_u64())
        });
        let too_many = all.len().saturating_sub(MOST);
        let given_up: Vec<_> = (all.iter().enumerate())
            .filter(|(n, event)| {
                let tried = self.tried.get(&event.seq.as_u64());
                *n < too_many || tried.is_some_and(|at| at.elapsed() > GIVE_UP)
            })
            .map(|(_, event)| event.seq.as_u64())
            .collect();
        for event in &all {
            let KeyEvent {
                key_set,
                event: what,
                kid,
                ..
            } = &event.what;
            if given_up.contains(&event.seq.as_u64()) {
                tracing::error!(
                    event = "webhook_gave_up",
                    webhook = self.hook.name,
                    key_set,
                    what,
                    kid,
                    "a key event was not delivered"
                );
                self.metrics.gave_up();
                self.done.insert(event.seq.as_u64());
            }
        }
        all.retain(|event| !given_up.contains(&event.seq.as_u64()));
        // Nothing that is left lies below the first of them.
        let first = all.first().map(|event| event.seq.as_u64());
        if let Some(first) = first {
            self.progress.told = first - 1;
            self.done = self.done.split_off(&first);
            self.tried = self.tried.split_off(&first);
        }
        all.sort_by_key(|event| event.what.event != "revoked");
        all
    }

    /// Tries each once; the reason why some are left.
    async fn round(&mut self, waiting: Vec<Recorded<KeyEvent>>) -> Option<PostError> {
        if waiting.is_empty() {
            return None;
        }
        let source = self.hook.secret.clone();
        // Anew each time: one that was replaced counts without a restart.
        let secrets = match blocking(move || Secrets::read(&source)).await {
            Ok(secrets) => secrets,
            Err(e) => {
                self.failed(waiting.iter().take(1));
                return Some(e.into());
            }
        };
        let mut last = None;
        let mut refusals = 0;
        for event in &waiting {
            let issuer = self.ports.issuers.get(&event.what.key_set);
            let message = Message::of(&event.what, issuer.map(String::as_str));
            match post(&self.hook, &secrets, &message, self.now(), PATIENCE).await {
                Ok(_) => {
                    self.metrics.delivered();
                    self.done.insert(event.seq.as_u64());
                    self.progress.answered = Some(self.now());
                }
                Err(e) => {
                    self.failed([event]);
                    refusals += 1;
                    let go_on = e.is_answer() && refusals < REFUSALS;
                    last = Some(e);
                    if !go_on {
                        break;
                    }
                }
            }
        }
        last
    }

    fn failed<'a>(&mut self, events: impl IntoIterator<Item = &'a Recorded<KeyEvent>>) {
        for event in events {
            self.metrics.failed();
            let first = self.tried.entry(event.seq.as_u64());
            first.or_insert_with(Instant::now);
        }
    }

    /// Says once that it begins to fail, and once that it is over.
    fn note(&mut self, failed: Option<&PostError>, waiting: usize) {
        let webhook = &self.hook.name;
        match (failed, self.progress.failing) {
            (Some(e), since) => {
                self.progress.why = e.to_string();
                if since.is_none() {
                    self.progress.failing = Some(self.now());
                    tracing::warn!(
                        event = "webhook_failing",
                        webhook,
                        waiting,
                        "a webhook's receiver takes no key event; it is tried again: {e}"
                    );
                }
            }
            (None, Some(since)) if waiting == 0 => {
                self.progress.failing = None;
                self.progress.why.clear();
                let lasted = self.now().since(since).to_string();
                tracing::info!(
                    event = "webhook_answers",
                    webhook,
                    lasted,
                    "a webhook's receiver takes key events again"
                );
            }
            (None, _) => {}
        }
    }

    /// Puts on disk how far it is. Failing to is no reason to tell nothing: it
    /// is told again after a restart.
    async fn keep(&mut self) {
        if self.kept.as_ref() == Some(&self.progress) {
            return;
        }
        let (book, name, progress) = (
            self.ports.book.clone(),
            self.hook.name.clone(),
            self.progress.clone(),
        );
        match blocking(move || book.put(&name, &progress)).await {
            Ok(()) => {
                self.kept = Some(self.progress.clone());
                self.disk_fails = false;
            }
            // Once for each outage.
            Err(e) if !std::mem::replace(&mut self.disk_fails, true) => tracing::error!(
                webhook = self.hook.name,
                "how far it is is not on disk, and after a restart it is told again: {e}"
            ),
            Err(_) => {}
        }
    }

    /// Waits before the next round: not at all long where something new
    /// happened, which may be a revocation.
    async fn pause(&mut self, left: &[Recorded<KeyEvent>], wait: Duration) {
        let began = Instant::now();
        let mut until = began + wait;
        loop {
            let oldest = left.iter().map(|event| event.what.at).min();
            let age = oldest.map_or(Span::ZERO, |at| self.now().since(at));
            self.metrics.waiting(left.len(), age);
            let next = until.min(Instant::now() + BEAT);
            tokio::select! {
                _ = self.news.changed() => until = until.min(began + FIRST),
                () = tokio::time::sleep_until(next) => {}
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    fn now(&self) -> Time {
        self.ports.clock.read().wall
    }
}

/// After so many failures in a row; up to half of it at random, so that agents
/// which failed together do not come back together.
fn backoff(failures: u32) -> Duration {
    let whole = FIRST
        .saturating_mul(1 << (failures - 1).min(16))
        .min(LONGEST);
    let part = u32::from(random()[0]);
    whole / 2 + whole / 2 * part / 255
}

/// Runs what reads and syncs files where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_growing() {
        for (failures, longest) in [
            (1, 1),
            (2, 2),
            (5, 16),
            (9, 256),
            (10, 300),
            (u32::MAX, 300),
        ] {
            let longest = Duration::from_secs(longest);
            for _ in 0..50 {
                let wait = backoff(failures);
                assert!(
                    wait <= longest && wait >= longest / 2,
                    "{failures}: {wait:?}"
                );
            }
        }
    }
}
