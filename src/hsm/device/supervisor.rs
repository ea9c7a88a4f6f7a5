//! The task that keeps a child alive and feeds it.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::flight::Flight;
use super::line::Line;
use super::process::Process;
use super::{DeviceConfig, DeviceError, Job, State};
use crate::hsm::message::{Answer, Cure, Fault, FaultKind, Reply, TokenIdentity};
use crate::hsm::pin_marker::{self, Status};

/// The wait before the first new attempt; it doubles up to [`SLOWEST`].
const FASTEST: Duration = Duration::from_millis(50);
const SLOWEST: Duration = Duration::from_secs(2);
/// A child that lived so long was no false start.
const STABLE: Duration = Duration::from_secs(5);

/// Owns the device's queues and its child, one after the other.
pub(super) struct Supervisor {
    config: DeviceConfig,
    signs: Arc<Line>,
    controls: mpsc::Receiver<Job>,
    state: watch::Sender<State>,
    stop: Arc<Notify>,
    /// The first token that was opened.
    token: Arc<OnceLock<TokenIdentity>>,
    /// Signatures that a child died over, to be tried once more.
    again: VecDeque<Job>,
}

/// Nobody needs the device any more.
struct Stopped;

/// Why a child that was up is to be replaced.
enum Loss {
    /// It ended, or its stream broke.
    Crashed(io::Error),
    /// A call took longer than it may.
    Stuck,
    /// It said so itself.
    Fault(Fault),
}

impl Supervisor {
    pub(super) fn new(
        config: DeviceConfig,
        signs: Arc<Line>,
        controls: mpsc::Receiver<Job>,
        state: watch::Sender<State>,
        token: Arc<OnceLock<TokenIdentity>>,
        stop: Arc<Notify>,
    ) -> Self {
        Self {
            config,
            signs,
            controls,
            state,
            token,
            stop,
            again: VecDeque::new(),
        }
    }

    /// Runs until the last handle is dropped.
    pub(super) async fn run(mut self) {
        let mut delay = FASTEST;
        loop {
            let started = Instant::now();
            let Ok(up) = self.one_child().await else {
                break;
            };
            if up && started.elapsed() >= STABLE {
                delay = FASTEST;
            }
            if self.meanwhile(tokio::time::sleep(delay)).await.is_err() {
                break;
            }
            delay = (delay * 2).min(SLOWEST);
        }
        self.state.send_replace(State::Closed);
    }

    /// The life of one child; says whether it came up.
    async fn one_child(&mut self) -> Result<bool, Stopped> {
        let mut process = match self.process().await? {
            Ok(process) => process,
            Err(fault) => {
                self.go_down(&fault);
                return Ok(false);
            }
        };
        let token = match self.open(&mut process).await {
            Ok(Ok(token)) => token,
            Ok(Err(fault)) => {
                self.go_down(&fault);
                self.see_off(process).await?;
                return Ok(false);
            }
            Err(Stopped) => {
                process.leave().await;
                return Err(Stopped);
            }
        };
        let pid = process.pid;
        info!(
            device = self.config.name,
            pid,
            serial = token.serial,
            "device up"
        );
        self.token.get_or_init(|| token.clone());
        self.state.send_replace(State::Up { token, pid });
        let mut flight = Flight::new(self.config.workers);
        match self.serve(&mut process, &mut flight).await {
            Ok(Stopped) => {
                process.end().await;
                Err(Stopped)
            }
            Err(loss) => {
                self.replace(process, flight, loss).await;
                Ok(true)
            }
        }
    }

    /// A process that knows nothing yet, unless no login may be tried.
    async fn process(&mut self) -> Result<Result<Process, Fault>, Stopped> {
        let marker = self.config.pin_marker.clone();
        match self.blocking(move || pin_marker::status(&marker)).await? {
            Ok(Ok(Status::Clear | Status::LoggingIn)) => {}
            Ok(Ok(Status::Standing { reason, .. })) => {
                let why = format!(
                    "{reason}; check the PIN, then run: sealkeeper device unlock {}",
                    self.config.name
                );
                return Ok(Err(Fault::new(FaultKind::PinBlocked, Cure::Never, why)));
            }
            Ok(Err(e)) => return Ok(Err(unavailable(Cure::Never, e.to_string()))),
            Err(fault) => return Ok(Err(fault)),
        }
        let config = self.config.clone();
        let starting = Process::start(&config);
        let started = self.meanwhile(pin!(starting)).await?;
        Ok(started.map_err(|e| {
            let what = match &self.config.socket {
                None => "cannot start its process",
                Some(_) => "cannot reach its process",
            };
            unavailable(Cure::Restart, format!("{what}: {e}"))
        }))
    }

    /// Has the child log in, with the PIN as it is now.
    async fn open(
        &mut self,
        process: &mut Process,
    ) -> Result<Result<TokenIdentity, Fault>, Stopped> {
        let supply = self.config.pin.clone();
        let pin = match self.blocking(move || supply.pin()).await? {
            Ok(Ok(pin)) => pin,
            Ok(Err(e)) => return Ok(Err(unavailable(Cure::Never, e.to_string()))),
            Err(fault) => return Ok(Err(fault)),
        };
        let config = self.config.clone();
        let serial = (self.token.get().map(|token| token.serial.clone()))
            .or_else(|| config.expected_serial.clone());
        let opening = process.open(&config, serial.as_deref(), pin);
        self.meanwhile(pin!(opening)).await
    }

    /// Feeds the child and hands its replies out. Ends well only when nobody
    /// needs the device any more.
    async fn serve(&mut self, process: &mut Process, flight: &mut Flight) -> Result<Stopped, Loss> {
        let often = self.config.call_timeout / 8;
        let mut tick =
            tokio::time::interval(often.clamp(Duration::from_millis(5), Duration::from_secs(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut replies = Vec::new();
        loop {
            let room = flight.room(self.signs.service());
            if room > 0 && !self.again.is_empty() {
                let n = room.min(self.again.len());
                let again = self.again.drain(..n).collect();
                self.sign(process, flight, again)?;
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.notified() => return Ok(Stopped),
                ready = process.socket().readable() => {
                    ready?;
                    let end = process.receive(&mut replies);
                    let now = Instant::now();
                    if let Some(fault) = self.land(flight, &mut replies, now) {
                        return Err(Loss::Fault(fault));
                    }
                    end?;
                }
                ready = process.socket().writable(), if process.has_output() => {
                    ready?;
                    process.flush()?;
                }
                () = self.signs.filled(), if room > 0 => {
                    let jobs = self.signs.take(room);
                    self.sign(process, flight, jobs)?;
                }
                job = self.controls.recv(), if flight.control_is_free() => {
                    let Some(job) = job else {
                        return Ok(Stopped);
                    };
                    send(&self.config.name, process, flight, vec![job])?;
                }
                _ = tick.tick() => self.look_after(process, flight)?,
            }
        }
    }

    /// Sends signatures, less those that nobody waits for any more.
    fn sign(&self, process: &mut Process, flight: &mut Flight, jobs: Vec<Job>) -> Result<(), Loss> {
        let before = flight.signing();
        let sent = send(&self.config.name, process, flight, jobs);
        self.signs.sent(flight.signing() - before);
        Ok(sent?)
    }

    /// Hands replies out. Returns a fault that only another child cures.
    fn land(&self, flight: &mut Flight, replies: &mut Vec<Reply>, now: Instant) -> Option<Fault> {
        let before = flight.signing();
        let signed = replies
            .iter()
            .filter(|reply| matches!(reply.result, Ok(Answer::Signed(_))))
            .count();
        let mut beyond = None;
        for reply in replies.drain(..) {
            beyond = flight.land(&self.config.name, reply, now).or(beyond);
        }
        self.signs.landed(before - flight.signing(), signed);
        beyond
    }

    /// Is a call stuck? Has nothing been heard for long?
    fn look_after(&self, process: &mut Process, flight: &mut Flight) -> Result<(), Loss> {
        let now = Instant::now();
        if flight.stuck(self.config.call_timeout, self.config.generate_timeout, now) {
            return Err(Loss::Stuck);
        }
        if flight.control_is_free()
            && now.saturating_duration_since(flight.last_health) >= self.config.health_interval
        {
            let id = flight.health(now);
            process.queue(&flight.requests(&[id]))?;
            process.flush()?;
        }
        Ok(())
    }

    /// Ends a child that was up, and keeps what may be tried on the next.
    async fn replace(&mut self, process: Process, flight: Flight, loss: Loss) {
        let pid = process.pid;
        let why = match loss {
            Loss::Stuck => {
                process.kill().await;
                "a call to it was stuck; its process was killed and is being replaced".to_owned()
            }
            Loss::Crashed(e) => {
                let ended = process.end().await;
                format!("its process ended ({ended}: {e}) and is being replaced")
            }
            Loss::Fault(fault) => {
                process.end().await;
                fault.why
            }
        };
        self.signs.lost();
        warn!(device = self.config.name, pid, why, "device lost");
        let lost = DeviceError::Unavailable {
            device: self.config.name.clone(),
            why,
            retry_after: FASTEST * 2,
        };
        self.state.send_replace(State::Starting);
        self.again.extend(flight.crash(Instant::now(), &lost));
    }

    /// Lets a child leave by itself, since a login may be under way.
    async fn see_off(&mut self, process: Process) -> Result<(), Stopped> {
        let mut leaving = pin!(process.leave());
        if let Err(Stopped) = self.meanwhile(leaving.as_mut()).await {
            leaving.await;
            return Err(Stopped);
        }
        Ok(())
    }

    /// From now on requests are turned away, those that wait first.
    fn go_down(&mut self, fault: &Fault) {
        let since = match &*self.state.borrow() {
            State::Down { why, since, .. } if *why == fault.why => *since,
            State::Down { since, .. } => {
                warn!(
                    device = self.config.name,
                    why = fault.why,
                    "device still down"
                );
                *since
            }
            _ => {
                warn!(device = self.config.name, why = fault.why, "device down");
                std::time::Instant::now()
            }
        };
        self.state.send_replace(State::Down {
            why: fault.why.clone(),
            cure: fault.cure,
            pin_blocked: fault.kind == FaultKind::PinBlocked,
            // What a module says that we do not know may pass.
            lasting: matches!(fault.kind, FaultKind::PinBlocked | FaultKind::Unavailable)
                && fault.cure == Cure::Never,
            since,
        });
        if let Some(refusal) = self.refusal() {
            for job in self.again.drain(..) {
                // A caller that has gone needs no answer.
                let _ = job.reply.send(Err(refusal.clone()));
            }
        }
    }

    /// Waits for something; while the device is down, turns requests away.
    async fn meanwhile<F: Future>(&mut self, doing: F) -> Result<F::Output, Stopped> {
        let mut doing = pin!(doing);
        let refusal = self.refusal();
        loop {
            tokio::select! {
                biased;
                () = self.stop.notified() => return Err(Stopped),
                done = &mut doing => return Ok(done),
                () = self.signs.filled(), if refusal.is_some() => {
                    for job in self.signs.take(usize::MAX) {
                        turn_away(job, refusal.as_ref());
                    }
                }
                Some(job) = self.controls.recv(), if refusal.is_some() => turn_away(job, refusal.as_ref()),
            }
        }
    }

    /// Runs what may block on the disk.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Result<T, Fault>, Stopped> {
        let done = self.meanwhile(tokio::task::spawn_blocking(work)).await?;
        Ok(done.map_err(|e| Fault::new(FaultKind::Defect, Cure::TryAgain, e.to_string())))
    }

    /// What is said to whoever asks while the device is down.
    fn refusal(&self) -> Option<DeviceError> {
        let device = self.config.name.clone();
        match &*self.state.borrow() {
            State::Down {
                why,
                pin_blocked,
                lasting,
                ..
            } => {
                let why = why.clone();
                Some(match (*pin_blocked, *lasting) {
                    (true, _) => DeviceError::PinBlocked { device, why },
                    (false, true) => DeviceError::Unusable { device, why },
                    (false, false) => DeviceError::Unavailable {
                        device,
                        why,
                        retry_after: SLOWEST,
                    },
                })
            }
            State::Starting | State::Up { .. } | State::Closed => None,
        }
    }
}

/// Whatever ends the supervisor, nobody waits for it in vain.
impl Drop for Supervisor {
    fn drop(&mut self) {
        self.signs.close();
    }
}

impl From<io::Error> for Loss {
    fn from(e: io::Error) -> Self {
        Self::Crashed(e)
    }
}

/// Puts jobs on board and on their way, in frames of bounded size.
fn send(
    device: &str,
    process: &mut Process,
    flight: &mut Flight,
    jobs: Vec<Job>,
) -> io::Result<()> {
    let now = Instant::now();
    let ids: Vec<u64> = jobs
        .into_iter()
        .filter_map(|job| flight.board(device, job, now))
        .collect();
    let requests = flight.requests(&ids);
    let mut rest = requests.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest
            .iter()
            .take_while(|request| {
                bytes += request.call.size();
                bytes <= MAX_BATCH
            })
            .count()
            .max(1);
        let (batch, later) = rest.split_at(fits);
        process.queue(batch)?;
        rest = later;
    }
    process.flush()
}

/// The most input in one frame, in bytes; a single input may be longer.
const MAX_BATCH: usize = 1 << 20;

fn turn_away(job: Job, refusal: Option<&DeviceError>) {
    if let Some(refusal) = refusal {
        // A caller that has gone needs no answer.
        let _ = job.reply.send(Err(refusal.clone()));
    }
}

fn unavailable(cure: Cure, why: String) -> Fault {
    Fault::new(FaultKind::Unavailable, cure, why)
}
