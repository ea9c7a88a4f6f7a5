//! What a child is working on.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{DeviceError, Job};
use crate::hsm::message::{Answer, Call, Fault, Reply, Request};

/// How many signatures each worker may have before it, done and waiting: at
/// most, and at least, so that none waits for the daemon.
const PER_WORKER: usize = 8;
const LEAST_PER_WORKER: usize = 2;
/// Work that a worker has before it: longer than the way to the daemon and
/// back takes on a busy machine. More would only wait in the wrong queue,
/// where a later request of another key set cannot pass it.
const AHEAD: Duration = Duration::from_millis(1);

/// The requests of one child that are not answered yet.
///
/// Few are in flight, so most wait in the daemon: there they form batches,
/// expire on time, and are not lost when the child is.
#[derive(Debug)]
pub(super) struct Flight {
    jobs: HashMap<u64, InFlight>,
    signing: usize,
    control: Option<u64>,
    workers: usize,
    next_id: u64,
    /// When the supervisor last asked whether the device is well.
    pub(super) last_health: Instant,
}

#[derive(Debug)]
struct InFlight {
    request: Request,
    /// `None`: the supervisor's own health check.
    caller: Option<Caller>,
    /// Since when the child has been at it, as far as we can tell.
    working: Option<Instant>,
}

#[derive(Debug)]
struct Caller {
    asked: Instant,
    deadline: Instant,
    reply: oneshot::Sender<Result<Answer, DeviceError>>,
    retried: bool,
}

impl Flight {
    pub(super) fn new(workers: u16) -> Self {
        Self {
            jobs: HashMap::new(),
            signing: 0,
            control: None,
            workers: usize::from(workers.max(1)),
            next_id: 1,
            last_health: Instant::now(),
        }
    }

    /// How many more signatures to send now to a device whose workers take so
    /// long for each.
    ///
    /// A slow device gets each as soon as there is room. A fast one gets
    /// nothing until half of the window is free: so replies that come one by
    /// one are followed by a batch.
    pub(super) fn room(&self, service: Option<Duration>) -> usize {
        let per_worker = per_worker(service);
        let window = per_worker * self.workers;
        let batch = if per_worker == LEAST_PER_WORKER {
            1
        } else {
            window / 2
        };
        let free = window.saturating_sub(self.signing);
        if free >= batch { free } else { 0 }
    }

    /// How many signatures are in flight.
    pub(super) fn signing(&self) -> usize {
        self.signing
    }

    /// Whether a control request may be sent: one at a time, so that each
    /// one's time is its own.
    pub(super) fn control_is_free(&self) -> bool {
        self.control.is_none()
    }

    /// Takes a job on board and returns its number; `None` where its caller
    /// has gone, or its time is up and it was told so.
    pub(super) fn board(&mut self, device: &str, job: Job, now: Instant) -> Option<u64> {
        if job.reply.is_closed() {
            return None;
        }
        let left = job.deadline.saturating_duration_since(now);
        if left.is_zero() {
            let late = DeviceError::Deadline {
                device: device.to_owned(),
                waited: now.saturating_duration_since(job.asked),
            };
            // A caller that has gone needs no answer.
            let _ = job.reply.send(Err(late));
            return None;
        }
        let mut call = job.call;
        if let Call::Sign(sign) = &mut call {
            sign.budget_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        }
        let caller = Caller {
            asked: job.asked,
            deadline: job.deadline,
            reply: job.reply,
            retried: job.retried,
        };
        Some(self.insert(call, Some(caller)))
    }

    /// The supervisor's own question.
    pub(super) fn health(&mut self, now: Instant) -> u64 {
        self.last_health = now;
        self.insert(Call::Health, None)
    }

    fn insert(&mut self, call: Call, caller: Option<Caller>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        match call {
            Call::Sign(_) => self.signing += 1,
            _ => self.control = Some(id),
        }
        let flying = InFlight {
            request: Request { id, call },
            caller,
            working: None,
        };
        self.jobs.insert(id, flying);
        id
    }

    /// The requests with these numbers, to be sent.
    pub(super) fn requests(&self, ids: &[u64]) -> Vec<&Request> {
        ids.iter()
            .filter_map(|id| self.jobs.get(id))
            .map(|flying| &flying.request)
            .collect()
    }

    /// Hands a reply to its caller. Returns the fault where the child has to
    /// be replaced; the job stays on board then, to be tried on the next one.
    pub(super) fn land(&mut self, device: &str, reply: Reply, now: Instant) -> Option<Fault> {
        if let Err(fault) = &reply.result
            && fault.cure.needs_new_child()
        {
            return Some(fault.clone());
        }
        let flying = self.jobs.remove(&reply.id)?;
        match flying.request.call {
            Call::Sign(_) => self.signing -= 1,
            _ => self.control = None,
        }
        if let Some(caller) = flying.caller {
            let waited = now.saturating_duration_since(caller.asked);
            let result = reply
                .result
                .map_err(|fault| DeviceError::from_fault(device, fault, waited));
            // A caller that has gone needs no answer.
            let _ = caller.reply.send(result);
        }
        None
    }

    /// Whether the child has been at one request for longer than it may be.
    /// To be asked often: it takes the time itself.
    ///
    /// Signatures are worked on in order, so the oldest ones, one for each
    /// worker, are being worked on and the rest wait. A slow device with a
    /// long queue is not a hung one.
    pub(super) fn stuck(&mut self, call: Duration, generate: Duration, now: Instant) -> bool {
        let mut working: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, flying)| matches!(flying.request.call, Call::Sign(_)))
            .map(|(&id, _)| id)
            .collect();
        working.sort_unstable();
        working.truncate(self.workers);
        working.extend(self.control);
        working.iter().any(|id| {
            let Some(flying) = self.jobs.get_mut(id) else {
                return false;
            };
            let limit = match flying.request.call {
                // Long by nature: a token may hold thousands of keys.
                Call::Generate { .. } | Call::List(_) => generate,
                _ => call,
            };
            let since = *flying.working.get_or_insert(now);
            now.saturating_duration_since(since) > limit
        })
    }

    /// The child is gone. Signatures that were tried once may be tried on the
    /// next; everybody else is told `lost`.
    ///
    /// Why only signatures: a second one does no harm. Whether a key was made
    /// or destroyed is for the caller to find out, from its own journal.
    pub(super) fn crash(self, now: Instant, lost: &DeviceError) -> Vec<Job> {
        let mut again = Vec::new();
        let mut jobs: Vec<_> = self.jobs.into_values().collect();
        jobs.sort_by_key(|flying| flying.request.id);
        for flying in jobs {
            let Some(caller) = flying.caller else {
                continue;
            };
            let retry = matches!(flying.request.call, Call::Sign(_))
                && !caller.retried
                && caller.deadline > now;
            if retry {
                again.push(Job {
                    call: flying.request.call,
                    asked: caller.asked,
                    deadline: caller.deadline,
                    reply: caller.reply,
                    retried: true,
                });
            } else {
                let _ = caller.reply.send(Err(lost.clone()));
            }
        }
        again
    }
}

/// One to work on, and more for about [`AHEAD`].
fn per_worker(service: Option<Duration>) -> usize {
    let Some(service) = service else {
        return LEAST_PER_WORKER;
    };
    let more = AHEAD.as_nanos().div_ceil(service.as_nanos().max(1));
    usize::try_from(more).map_or(PER_WORKER, |more| {
        (1 + more).clamp(LEAST_PER_WORKER, PER_WORKER)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::hsm::message::{Cure, FaultKind, ObjectId, Sign};
    use crate::jose::Algorithm;

    type Answered = oneshot::Receiver<Result<Answer, DeviceError>>;

    fn job(deadline: Instant) -> (Job, Answered) {
        let (reply, answered) = oneshot::channel();
        let call = Call::Sign(Sign {
            object: ObjectId([0; 16]),
            algorithm: Algorithm::Es256,
            input: b"a.b".to_vec(),
            budget_ms: 0,
        });
        let job = Job {
            call,
            asked: deadline,
            deadline,
            reply,
            retried: false,
        };
        (job, answered)
    }

    fn lost() -> DeviceError {
        DeviceError::Unavailable {
            device: "d".into(),
            why: "gone".into(),
            retry_after: Duration::ZERO,
        }
    }

    fn fill(flight: &mut Flight, n: usize, now: Instant) -> Vec<Answered> {
        let board = |_| {
            let (job, answered) = job(now + Duration::from_secs(1));
            flight.board("d", job, now).unwrap();
            answered
        };
        (0..n).map(board).collect()
    }

    fn land(flight: &mut Flight, id: u64, now: Instant) {
        let result = Ok(Answer::Signed(vec![1]));
        assert_eq!(flight.land("d", Reply { id, result }, now), None);
    }

    #[test]
    fn a_batch_goes_when_half_of_a_fast_devices_window_is_free() {
        let now = Instant::now();
        let fast = Some(Duration::from_micros(50));
        let mut flight = Flight::new(1);
        let room = flight.room(fast);
        assert_eq!(room, PER_WORKER);
        let _answers = fill(&mut flight, room, now);
        assert_eq!(flight.room(fast), 0);
        for id in 1..=3 {
            land(&mut flight, id, now);
            assert_eq!(flight.room(fast), 0);
        }
        land(&mut flight, 4, now);
        assert_eq!(flight.room(fast), PER_WORKER / 2);
    }

    /// A slow device has one request behind each that it works on, and gets
    /// another as soon as it answers.
    #[test]
    fn a_slow_device_has_few_in_flight() {
        let now = Instant::now();
        let slow = Some(Duration::from_millis(2));
        let mut flight = Flight::new(3);
        assert_eq!(flight.room(slow), 6);
        let _answers = fill(&mut flight, 6, now);
        assert_eq!(flight.room(slow), 0);
        land(&mut flight, 1, now);
        assert_eq!(flight.room(slow), 1);
    }

    #[test]
    fn the_window_follows_the_device() {
        let at = |us| per_worker(Some(Duration::from_micros(us)));
        assert_eq!(per_worker(None), 2);
        assert_eq!(at(0), 8);
        assert_eq!(at(100), 8);
        assert_eq!(at(300), 5);
        assert_eq!(at(700), 3);
        assert_eq!(at(1000), 2);
        assert_eq!(at(60_000_000), 2);
        // A window that shrank below what is in flight leaves no room.
        let mut flight = Flight::new(1);
        let _answers = fill(&mut flight, 8, Instant::now());
        assert_eq!(flight.room(Some(Duration::from_millis(2))), 0);
    }

    #[test]
    fn an_expired_job_is_not_sent() {
        let now = Instant::now();
        let mut flight = Flight::new(1);
        let (late, mut told) = job(now);
        assert!(flight.board("d", late, now).is_none());
        let told = told.try_recv().unwrap();
        assert!(
            matches!(told, Err(DeviceError::Deadline { .. })),
            "{told:?}"
        );
        let (gone, answered) = job(now + Duration::from_secs(1));
        drop(answered);
        assert!(flight.board("d", gone, now).is_none());
        assert!(flight.jobs.is_empty());
    }

    #[test]
    fn a_signature_is_tried_on_one_more_child_only() {
        let now = Instant::now();
        let (first, mut answered) = job(now + Duration::from_secs(1));
        let mut flight = Flight::new(1);
        flight.board("d", first, now).unwrap();
        let mut again = flight.crash(now, &lost());
        assert!(answered.try_recv().is_err(), "not answered yet");

        let mut flight = Flight::new(1);
        flight.board("d", again.pop().unwrap(), now).unwrap();
        assert!(flight.crash(now, &lost()).is_empty());
        assert_eq!(answered.try_recv().unwrap(), Err(lost()));
    }

    #[test]
    fn a_fault_that_needs_a_new_child_keeps_the_job_on_board() {
        let now = Instant::now();
        let (first, _answered) = job(now + Duration::from_secs(1));
        let mut flight = Flight::new(1);
        flight.board("d", first, now).unwrap();
        let fault = Fault::new(FaultKind::Unavailable, Cure::Reopen, "gone");
        let reply = Reply {
            id: 1,
            result: Err(fault.clone()),
        };
        assert_eq!(flight.land("d", reply, now), Some(fault));
        assert_eq!(flight.crash(now, &lost()).len(), 1);
    }

    #[test]
    fn a_call_that_takes_too_long_is_stuck() {
        let now = Instant::now();
        let limit = Duration::from_secs(1);
        let (first, _answered) = job(now + limit * 9);
        let mut flight = Flight::new(1);
        flight.board("d", first, now).unwrap();
        assert!(!flight.stuck(limit, limit, now));
        assert!(!flight.stuck(limit, limit, now + limit));
        assert!(flight.stuck(limit, limit, now + limit * 2));
    }

    #[test]
    fn waiting_behind_others_is_not_being_stuck() {
        let now = Instant::now();
        let limit = Duration::from_secs(1);
        let mut flight = Flight::new(1);
        let mut answers = Vec::new();
        for _ in 0..4 {
            let (job, answered) = job(now + limit * 9);
            flight.board("d", job, now).unwrap();
            answers.push(answered);
        }
        // A device that takes nearly the limit for each.
        for id in 1..4 {
            let at = now + limit * u32::try_from(id).unwrap();
            assert!(!flight.stuck(limit, limit, at - limit), "{id}");
            assert!(!flight.stuck(limit, limit, at), "{id}");
            let result = Ok(Answer::Signed(vec![1]));
            flight.land("d", Reply { id, result }, at);
        }
        assert!(!flight.stuck(limit, limit, now + limit * 4));
        assert!(flight.stuck(limit, limit, now + limit * 6));
    }
}
