//! One thread that writes what everybody queued, with one sync for all.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;

use super::line;
use super::segments::Segments;
use super::{AuditError, Entry, Intent, Outcome, Seq};

/// How long outcomes may wait for a signature to travel with.
const LINGER: Duration = Duration::from_millis(200);

type Answer = oneshot::Sender<Result<Seq, AuditError>>;

/// What callers and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    bound: usize,
    outcomes_lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    intents: VecDeque<(Intent, Answer)>,
    outcomes: VecDeque<(Seq, Outcome)>,
    closed: bool,
    /// The writer sleeps until it is woken, even for an outcome.
    idle: bool,
}

impl Shared {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            bound,
            outcomes_lost: AtomicU64::new(0),
        }
    }

    pub(super) fn push_intent(&self, intent: Intent, answer: Answer) -> Result<(), AuditError> {
        let mut queue = self.queue();
        if queue.closed {
            return Err(AuditError::Closed);
        }
        let waiting = queue.intents.len();
        if waiting >= self.bound {
            return Err(AuditError::Overloaded { waiting });
        }
        queue.intents.push_back((intent, answer));
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn push_outcome(&self, of: Seq, outcome: Outcome) {
        let mut queue = self.queue();
        if queue.closed || queue.outcomes.len() >= self.bound * 4 {
            self.outcomes_lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.outcomes.push_back((of, outcome));
        // While the writer lingers it finds the outcome by itself: no wake-up
        // on the signing path.
        let idle = queue.idle;
        drop(queue);
        if idle {
            self.wake.notify_one();
        }
    }

    pub(super) fn outcomes_lost(&self) -> u64 {
        self.outcomes_lost.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.wake.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change to the queue is one push or one swap: none is torn.
        self.queue.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits for something to write, and takes all there is.
    fn take(&self, mut linger: bool) -> Batch {
        let mut queue = self.queue();
        loop {
            if !queue.intents.is_empty() || queue.closed {
                return queue.take();
            }
            if linger {
                let (woken, wait) =
                    (self.wake.wait_timeout(queue, LINGER)).unwrap_or_else(|e| e.into_inner());
                queue = woken;
                if wait.timed_out() && !queue.outcomes.is_empty() {
                    return queue.take();
                }
                linger = !wait.timed_out();
            } else if queue.outcomes.is_empty() {
                queue.idle = true;
                queue = (self.wake.wait(queue)).unwrap_or_else(|e| e.into_inner());
                queue.idle = false;
            } else {
                linger = true;
            }
        }
    }
}

impl Queue {
    fn take(&mut self) -> Batch {
        Batch {
            intents: mem::take(&mut self.intents),
            outcomes: mem::take(&mut self.outcomes),
            last: self.closed,
        }
    }
}

/// What is written together.
struct Batch {
    intents: VecDeque<(Intent, Answer)>,
    outcomes: VecDeque<(Seq, Outcome)>,
    /// Nothing comes after it.
    last: bool,
}

/// The thread's own.
pub(super) struct Writer {
    shared: Arc<Shared>,
    segments: Segments,
    agent: String,
    /// Kept for its allocation.
    lines: Vec<u8>,
    /// The last batch could not be written. One message says so, not
    /// thousands.
    failing: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, segments: Segments, agent: &str) -> Self {
        Self {
            shared,
            segments,
            agent: agent.to_owned(),
            lines: Vec::new(),
            failing: false,
        }
    }

    pub(super) fn run(mut self) {
        let _end = End(Arc::clone(&self.shared));
        let mut linger = false;
        loop {
            let batch = self.shared.take(linger);
            let last = batch.last;
            linger = !batch.intents.is_empty();
            self.write(batch);
            if last {
                self.segments.finish();
                return;
            }
        }
    }

    /// Writes a batch, outcomes first, and tells everybody who waits for it.
    fn write(&mut self, batch: Batch) {
        let outcomes = batch.outcomes.len();
        let (intents, answers): (Vec<Intent>, Vec<Answer>) = batch.intents.into_iter().unzip();
        if outcomes + intents.len() == 0 {
            return;
        }
        let entries = (batch.outcomes.into_iter())
            .map(|(of, outcome)| Entry::Outcome { of, outcome })
            .chain(intents.into_iter().map(Entry::Signing));
        // Only signatures are worth a sync.
        match self.commit(entries, !answers.is_empty()) {
            Ok(first) => {
                if mem::take(&mut self.failing) {
                    tracing::info!("the audit log can be written again");
                }
                let seqs = first + outcomes as u64..;
                for (answer, seq) in answers.into_iter().zip(seqs) {
                    // Whoever asked may have gone; the record stays.
                    let _ = answer.send(Ok(Seq(seq)));
                }
            }
            Err(e) => {
                if !mem::replace(&mut self.failing, true) {
                    tracing::error!("nothing can be signed: {e}");
                }
                let lost = outcomes as u64;
                (self.shared.outcomes_lost).fetch_add(lost, Ordering::Relaxed);
                for answer in answers {
                    let _ = answer.send(Err(e.clone()));
                }
            }
        }
    }

    /// Returns the number of the first line.
    fn commit(
        &mut self,
        entries: impl Iterator<Item = Entry>,
        sync: bool,
    ) -> Result<u64, AuditError> {
        let (first, batch) = self.segments.begin()?;
        self.lines.clear();
        let mut next = first;
        for entry in entries {
            line::encode(&mut self.lines, next, batch, &self.agent, &entry);
            next += 1;
        }
        self.segments.write(&self.lines, next - first, sync)?;
        Ok(first)
    }
}

/// However the thread ends, nobody waits for it any longer.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        queue.intents.clear();
        queue.outcomes.clear();
    }
}
