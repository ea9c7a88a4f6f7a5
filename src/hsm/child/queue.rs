//! What waits to be signed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::is_control;
use crate::hsm::message::{Call, Request, Sign};

/// Filled by the reader, emptied by the workers. The daemon bounds how much
/// is in it: it never has more than a few jobs for each worker in flight.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    filled: Condvar,
}

/// One signature to make.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) sign: Sign,
    received: Instant,
}

impl Job {
    /// Whether nobody waits for it any more.
    pub(super) fn expired(&self) -> bool {
        self.received.elapsed() >= Duration::from_millis(self.sign.budget_ms.into())
    }
}

impl Queue {
    /// Queues the signatures of a batch; returns the rest of it.
    pub(super) fn push(&self, batch: Vec<Request>) -> Vec<Request> {
        let received = Instant::now();
        let (controls, signs): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|request| is_control(&request.call));
        let new = signs.len();
        let mut jobs = self.lock();
        for request in signs {
            if let Call::Sign(sign) = request.call {
                jobs.push_back(Job {
                    id: request.id,
                    sign,
                    received,
                });
            }
        }
        drop(jobs);
        for _ in 0..new {
            self.filled.notify_one();
        }
        controls
    }

    /// Waits for a job.
    pub(super) fn pop(&self) -> Job {
        let mut jobs = self.lock();
        loop {
            if let Some(job) = jobs.pop_front() {
                return job;
            }
            jobs = self
                .filled
                .wait(jobs)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
