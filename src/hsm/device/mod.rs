//! The daemon's side of a device: a handle that many callers share, and the
//! supervisor that keeps a child alive behind it.

mod adopt;
mod error;
mod flight;
mod line;
mod pace;
mod process;
mod queue;
mod relay;
mod supervisor;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::message::{
    Answer, Call, Cure, Generated, Listed, ObjectId, Pairs, Sign, TokenIdentity, TokenSelector,
};
use super::pin_source::PinSupply;
use crate::jose::{Algorithm, KeyType};
use line::Line;
use supervisor::Supervisor;

pub use error::DeviceError;

/// The longest signing input that goes to a device, in bytes.
pub const MAX_INPUT: usize = 1 << 20;

/// What a device is and how patient the daemon is with it.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// Its name in the configuration.
    pub name: String,
    /// The PKCS#11 module, a shared library.
    pub module: PathBuf,
    /// Which token of the module.
    pub token: TokenSelector,
    /// The token's serial where it is known from before; otherwise that of
    /// the first token that is opened is held to.
    pub expected_serial: Option<String>,
    /// The user PIN.
    pub pin: PinSupply,
    /// The file that lets a wrong PIN be tried once, across restarts. Its
    /// directory must exist and be writable, and be the same for everybody
    /// who logs in to this token.
    pub pin_marker: PathBuf,
    /// How many sessions sign at the same time. About 30 is the most that a
    /// network HSM gains from; a software token gains nothing beyond the
    /// number of cores.
    pub workers: u16,
    /// Whether keys must say `CKA_LOCAL = true`.
    pub require_local: bool,
    /// All of the child's environment: what the module reads, and no more.
    pub env: Vec<(OsString, OsString)>,
    /// The program to run as child: `None` for this one.
    pub program: Option<PathBuf>,
    /// A Unix socket at which a service manager starts the child, with an
    /// environment of its own; `None` where the daemon starts it.
    pub socket: Option<PathBuf>,
    /// How many signatures may wait; more are turned away at once.
    pub queue: usize,
    /// How long a signature may wait for its turn, as far as can be told when
    /// it comes; what would wait longer is turned away at once.
    pub max_wait: Duration,
    /// How long one call to the device may take before the child counts as
    /// hung.
    pub call_timeout: Duration,
    /// The same for key generation: minutes on slow devices.
    pub generate_timeout: Duration,
    /// How long loading, finding the token and logging in may take.
    pub open_timeout: Duration,
    /// How often an idle device is asked whether it is well.
    pub health_interval: Duration,
}

impl DeviceConfig {
    /// A device with the usual patience.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        module: impl Into<PathBuf>,
        token: TokenSelector,
        pin: PinSupply,
        pin_marker: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            module: module.into(),
            token,
            expected_serial: None,
            pin,
            pin_marker: pin_marker.into(),
            workers: 2,
            require_local: true,
            env: Vec::new(),
            program: None,
            socket: None,
            queue: 1024,
            max_wait: Duration::from_millis(250),
            call_timeout: Duration::from_secs(10),
            generate_timeout: Duration::from_secs(120),
            open_timeout: Duration::from_secs(30),
            health_interval: Duration::from_secs(5),
        }
    }
}

/// How a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A child is being started; requests wait for it.
    Starting,
    /// Logged in and signing.
    Up {
        /// Which token.
        token: TokenIdentity,
        /// The process that holds it.
        pid: Option<u32>,
    },
    /// Requests are turned away; it is tried again and again.
    Down {
        /// For people.
        why: String,
        /// What cures it.
        cure: Cure,
        /// Whether the PIN must not be tried, and an operator has to look.
        pin_blocked: bool,
        /// Whether it surely stays so until somebody acts.
        lasting: bool,
        /// Since when.
        since: std::time::Instant,
    },
    /// The last handle is gone, or [`Device::shut_down`] was called.
    Closed,
}

/// A device that may be shared. Cloning is cheap; when the last clone is
/// dropped, the child ends.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    call_timeout: Duration,
    generate_timeout: Duration,
    signs: Arc<Line>,
    controls: mpsc::Sender<Job>,
    state: watch::Receiver<State>,
    token: Arc<OnceLock<TokenIdentity>>,
    stop: Arc<Notify>,
}

/// How busy a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Signatures that wait in the daemon.
    pub waiting: usize,
    /// Signatures that the child has.
    pub in_flight: usize,
    /// How long one of its workers takes for one signature, on the average of
    /// the last ones. None before the first.
    pub service: Option<Duration>,
}

/// A signature that is waiting for its turn, or being made. Where this is
/// dropped before its turn came, it is not made.
#[derive(Debug)]
pub struct Pending<'a> {
    device: &'a Device,
    asked: Instant,
    deadline: Instant,
    answer: oneshot::Receiver<Result<Answer, DeviceError>>,
}

/// A request and the caller who waits for its answer.
#[derive(Debug)]
struct Job {
    call: Call,
    asked: Instant,
    deadline: Instant,
    reply: oneshot::Sender<Result<Answer, DeviceError>>,
    /// Whether a child died over it before.
    retried: bool,
}

impl Device {
    /// Starts the device's supervisor on the current runtime. Returns at once:
    /// a device that is absent comes up when it can.
    #[must_use]
    pub fn start(config: DeviceConfig) -> Self {
        let signs = Arc::new(Line::new(&config));
        let (controls, control_jobs) = mpsc::channel(CONTROL_QUEUE);
        let (state_in, state) = watch::channel(State::Starting);
        let stop = Arc::new(Notify::new());
        let token = Arc::default();
        let inner = Inner {
            name: config.name.clone(),
            call_timeout: config.call_timeout,
            generate_timeout: config.generate_timeout,
            signs: Arc::clone(&signs),
            controls,
            state,
            token: Arc::clone(&token),
            stop: Arc::clone(&stop),
        };
        let supervisor = Supervisor::new(config, signs, control_jobs, state_in, token, stop);
        tokio::spawn(supervisor.run());
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How it is, and how that changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.inner.state.clone()
    }

    /// The token that was opened first: as long as this lives, no other is
    /// opened in its place. None before one was.
    #[must_use]
    pub fn token(&self) -> Option<&TokenIdentity> {
        self.inner.token.get()
    }

    /// Makes a key pair and proves it: attributes read back, a signature made
    /// and verified. With an id that exists already, proves and returns that
    /// pair.
    pub async fn generate(
        &self,
        object: ObjectId,
        key_type: KeyType,
        algorithm: Algorithm,
        deadline: std::time::Instant,
    ) -> Result<Generated, DeviceError> {
        let call = Call::Generate {
            object,
            key_type,
            algorithm,
        };
        match self.control(call, deadline.into()).await? {
            Answer::Generated(generated) => Ok(generated),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The key pair with this id. `None` is certain: the right token answered,
    /// logged in, and does not hold it.
    pub async fn find(&self, object: ObjectId) -> Result<Option<Generated>, DeviceError> {
        match self.control(Call::Find { object }, self.patience()).await? {
            Answer::Found(found) => Ok(found),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Every private key that the token shows, whoever made it; the pairs of
    /// some. Two calls to the token for each key, and a dozen more for each
    /// pair.
    pub async fn list(&self, pairs: Pairs) -> Result<Vec<Listed>, DeviceError> {
        match self.control(Call::List(pairs), self.patience()).await? {
            Answer::Listed(listed) => Ok(listed),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Destroys both halves, or what there is of them. That nothing is there
    /// is fine, once the right token has said so.
    pub async fn destroy(&self, object: ObjectId) -> Result<(), DeviceError> {
        match self
            .control(Call::Destroy { object }, self.patience())
            .await?
        {
            Answer::Destroyed => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Whether the token is there, the same, and logged in.
    pub async fn health(&self) -> Result<(), DeviceError> {
        match self.control(Call::Health, self.patience()).await? {
            Answer::Healthy => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// How busy it is.
    #[must_use]
    pub fn load(&self) -> Load {
        self.inner.signs.load()
    }

    /// Whether the token lists the mechanisms for such a key: `Refused` names
    /// those that it lacks.
    pub async fn supports(
        &self,
        key_type: KeyType,
        algorithm: Algorithm,
    ) -> Result<(), DeviceError> {
        let call = Call::Supports {
            key_type,
            algorithm,
        };
        match self.control(call, self.patience()).await? {
            Answer::Supported => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Signs a JWS signing input; the signature comes in JOSE form (RFC 7518
    /// section 3), its length checked, not yet verified.
    pub async fn sign(
        &self,
        object: ObjectId,
        algorithm: Algorithm,
        input: impl Into<Vec<u8>>,
        deadline: std::time::Instant,
    ) -> Result<Vec<u8>, DeviceError> {
        self.enqueue("", object, algorithm, input.into(), deadline)?
            .signature()
            .await
    }

    /// The first half of [`Self::sign`]: a place in the queue, or at once the
    /// reason why there is none. Flows, one for each key set, get equal
    /// shares of the device and of the queue.
    pub fn enqueue(
        &self,
        flow: &str,
        object: ObjectId,
        algorithm: Algorithm,
        input: Vec<u8>,
        deadline: std::time::Instant,
    ) -> Result<Pending<'_>, DeviceError> {
        if input.len() > MAX_INPUT {
            return Err(DeviceError::Refused {
                device: self.inner.name.clone(),
                why: format!(
                    "expected a signing input of at most {MAX_INPUT} bytes, got {}",
                    input.len()
                ),
            });
        }
        let call = Call::Sign(Sign {
            object,
            algorithm,
            input,
            budget_ms: 0,
        });
        let (job, pending) = self.job(call, deadline.into());
        self.inner.signs.offer(flow, job)?;
        Ok(pending)
    }

    /// Ends the child and waits for its end; everybody who waits for an
    /// answer is told. Dropping the last handle does the same unawaited.
    pub async fn shut_down(&self) {
        self.inner.stop.notify_one();
        let mut state = self.inner.state.clone();
        // An error means that the supervisor is gone: just as well.
        let _ = state.wait_for(|state| *state == State::Closed).await;
    }

    async fn control(&self, call: Call, deadline: Instant) -> Result<Answer, DeviceError> {
        let (job, pending) = self.job(call, deadline);
        self.inner.controls.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => DeviceError::Overloaded {
                device: self.inner.name.clone(),
                queued: CONTROL_QUEUE,
                retry_after: RETRY_OVERLOADED,
            },
            mpsc::error::TrySendError::Closed(_) => self.closed(),
        })?;
        pending.answer().await
    }

    fn job(&self, call: Call, deadline: Instant) -> (Job, Pending<'_>) {
        let asked = Instant::now();
        let (reply, answer) = oneshot::channel();
        let job = Job {
            call,
            asked,
            deadline,
            reply,
            retried: false,
        };
        let pending = Pending {
            device: self,
            asked,
            deadline,
            answer,
        };
        (job, pending)
    }

    /// For calls that have no deadline of their own: they may have to wait
    /// for one key generation.
    fn patience(&self) -> Instant {
        Instant::now() + self.inner.generate_timeout + self.inner.call_timeout
    }

    fn closed(&self) -> DeviceError {
        DeviceError::Unavailable {
            device: self.inner.name.clone(),
            why: "it was shut down".into(),
            retry_after: RETRY_CLOSED,
        }
    }

    fn unexpected(&self, answer: &Answer) -> DeviceError {
        DeviceError::Defect {
            device: self.inner.name.clone(),
            why: format!(
                "the child gave another kind of answer than asked for: {}",
                kind(answer)
            ),
        }
    }
}

impl Pending<'_> {
    /// Waits for the signature until the deadline.
    pub async fn signature(self) -> Result<Vec<u8>, DeviceError> {
        let device = self.device;
        match self.answer().await? {
            Answer::Signed(signature) => Ok(signature),
            other => Err(device.unexpected(&other)),
        }
    }

    async fn answer(self) -> Result<Answer, DeviceError> {
        match tokio::time::timeout_at(self.deadline, self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) => Err(self.device.closed()),
            Err(_elapsed) => Err(DeviceError::Deadline {
                device: self.device.inner.name.clone(),
                waited: self.asked.elapsed(),
            }),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.inner.name)
            .field("state", &*self.inner.state.borrow())
            .finish_non_exhaustive()
    }
}

/// Few callers administer keys at the same time.
const CONTROL_QUEUE: usize = 64;
const RETRY_OVERLOADED: Duration = Duration::from_millis(100);
const RETRY_CLOSED: Duration = Duration::from_secs(1);

fn kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Opened(_) => "opened",
        Answer::Generated(_) => "generated",
        Answer::Found(_) => "found",
        Answer::Listed(_) => "listed",
        Answer::Signed(_) => "signed",
        Answer::Destroyed => "destroyed",
        Answer::Healthy => "healthy",
        Answer::Adoptable(_) => "adoptable",
        Answer::Supported => "supported",
    }
}
