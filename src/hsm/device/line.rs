//! The queue as callers and the supervisor share it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::queue::{Limits, Offered, Queue, Refusal};
use super::{DeviceConfig, DeviceError, Job, Load, RETRY_CLOSED};

/// How often a queue that turns requests away is searched for those whose
/// callers have gone.
const SWEEP_EVERY: Duration = Duration::from_millis(10);

/// Signatures that wait for a device. The lock is held for a few
/// instructions, never across a wait.
#[derive(Debug)]
pub(super) struct Line {
    device: String,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug)]
struct State {
    queue: Queue<Job>,
    swept: Instant,
    closed: bool,
}

impl Line {
    pub(super) fn new(config: &DeviceConfig) -> Self {
        let now = Instant::now();
        let limits = Limits {
            places: config.queue,
            max_wait: config.max_wait,
        };
        Self {
            device: config.name.clone(),
            state: Mutex::new(State {
                queue: Queue::new(limits, usize::from(config.workers), now),
                swept: now,
                closed: false,
            }),
            filled: Notify::new(),
        }
    }

    /// Takes a job in; or says at once why not.
    pub(super) fn offer(&self, flow: &str, job: Job) -> Result<(), DeviceError> {
        let now = Instant::now();
        if job.deadline <= now {
            return Err(DeviceError::Deadline {
                device: self.device.clone(),
                waited: now.saturating_duration_since(job.asked),
            });
        }
        let mut state = self.lock();
        if state.closed {
            return Err(DeviceError::Unavailable {
                device: self.device.clone(),
                why: "it was shut down".into(),
                retry_after: RETRY_CLOSED,
            });
        }
        let deadline = job.deadline;
        let mut offered = state.queue.offer(flow, job, deadline, now);
        // Places of callers who hung up are free, once somebody looks.
        if let Offered::Refused(job, refusal) = offered {
            offered = if now.saturating_duration_since(state.swept) >= SWEEP_EVERY {
                state.swept = now;
                state
                    .queue
                    .retain(|job| !job.reply.is_closed() && job.deadline > now, now);
                state.queue.offer(flow, job, deadline, now)
            } else {
                Offered::Refused(job, refusal)
            };
        }
        drop(state);
        match offered {
            Offered::Accepted => {}
            Offered::InPlaceOf(out, refusal) => {
                // A caller that has gone needs no answer.
                let _ = out.reply.send(Err(self.overloaded(refusal)));
            }
            Offered::Refused(_, refusal) => return Err(self.overloaded(refusal)),
        }
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until there is something. For the supervisor alone.
    pub(super) async fn filled(&self) {
        // Whoever fills it between the look and the wait leaves a permit.
        while self.lock().queue.waiting() == 0 {
            self.filled.notified().await;
        }
    }

    /// At most `n`, in their order.
    pub(super) fn take(&self, n: usize) -> Vec<Job> {
        let now = Instant::now();
        let mut state = self.lock();
        let mut jobs = Vec::new();
        while jobs.len() < n
            && let Some(job) = state.queue.take(now)
        {
            jobs.push(job);
        }
        jobs
    }

    /// So many were sent to the child.
    pub(super) fn sent(&self, n: usize) {
        self.lock().queue.sent(n, Instant::now());
    }

    /// So many were answered; `signed` of them with a signature.
    pub(super) fn landed(&self, n: usize, signed: usize) {
        self.lock().queue.landed(n, signed, Instant::now());
    }

    /// The child is gone, and with it what was in flight.
    pub(super) fn lost(&self) {
        self.lock().queue.lost(Instant::now());
    }

    /// How long one worker takes for one signature, once that is known.
    pub(super) fn service(&self) -> Option<Duration> {
        self.lock().queue.pace().service()
    }

    pub(super) fn load(&self) -> Load {
        let state = self.lock();
        Load {
            waiting: state.queue.waiting(),
            in_flight: state.queue.pace().in_flight(),
            service: state.queue.pace().service(),
        }
    }

    /// Nobody takes from it any more: whoever waits is let go, and nobody
    /// else gets in.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.queue.retain(|_| false, Instant::now());
    }

    fn overloaded(&self, refusal: Refusal) -> DeviceError {
        DeviceError::Overloaded {
            device: self.device.clone(),
            queued: refusal.waiting,
            retry_after: refusal.retry_after,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
