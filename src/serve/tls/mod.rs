//! TLS 1.3, from files that change while we serve: with client certificates for
//! callers ([`Tls`]), without any for verifiers ([`Public`]).
//!
//! Certificate, key, trust roots and revocation lists are one set: it is read
//! as a whole, checked as a whole, and swapped in one step. Whoever connects
//! after that meets the new set; whoever is connected is held to it too, and
//! leaves if its certificate does not stand any more. A set that makes no sense
//! leaves the one before in place.
//!
//! No session outlives its connection: there are no tickets, so each handshake
//! shows a certificate, and no early data. Verifiers come seldom, and lose
//! little by it.
//!
//! Trust: whoever may change the files may let anybody in, as anybody. The key
//! proves to callers that this is the agent; it signs no token.

mod clients;
mod public;
mod set;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{error, info};

use super::listener::{Arrival, Greeted, Listener, Refused, Remote, Source, Standing, Tcp};
use crate::clock::Clock;
use crate::policy::Caller;
use crate::time::Time;
use clients::refused;
use set::{Fingerprint, Set};

pub use public::Public;
pub use set::SetError;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// How often connections are held to a set that has not changed: certificates
/// end, and so do revocation lists.
const RECHECK: Duration = Duration::from_secs(60);

/// How often a set that made no sense is read again though its files did not
/// change: what was wrong may have been the clock.
const RETRY: Duration = Duration::from_secs(30);

/// Where a set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Our certificate and those between it and a root, PEM, ours first.
    pub certificate: PathBuf,
    /// Its private key, PEM. Must not be readable by everybody.
    pub key: PathBuf,
    /// Who must show a certificate; nobody is asked for one where absent.
    pub clients: Option<ClientFiles>,
}

/// Whose certificates are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The roots that client certificates must lead to, PEM.
    pub ca: PathBuf,
    /// Revocation lists, PEM: one for each authority that issues to clients.
    pub crl: Option<PathBuf>,
}

/// What is known of the set in use, for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When our certificate ends; absent while there is no set.
    pub certificate_ends: Option<Time>,
    /// When the first of the revocation lists ends; absent without any.
    pub crl_ends: Option<Time>,
    /// When the set in use was read.
    pub loaded: Option<Time>,
    /// How many sets were taken into use.
    pub loads: u64,
    /// How many times a set made no sense.
    pub failures: u64,
    /// What is wrong with the files as they are now.
    pub error: Option<String>,
}

/// Reads files as a [`Keeper`] does, for whoever looks after them.
///
/// # Errors
/// Why they make no set. One whose revocation lists have ended is a set, and
/// lets nobody in.
pub fn look(files: &Files, clock: Arc<dyn Clock>) -> Result<State, SetError> {
    let now = clock.read().wall;
    let set = Set::read(files, clock, now)?;
    Ok(State {
        certificate_ends: Some(set.certificate_ends),
        crl_ends: set.crl_ends,
        ..State::default()
    })
}

/// The set in use, and the watch over its files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Files,
    clock: Arc<dyn Clock>,
    set: watch::Sender<Option<Arc<Set>>>,
    state: Mutex<State>,
    asked: mpsc::Sender<Option<oneshot::Sender<()>>>,
}

impl Keeper {
    /// Reads the set, and watches its files until the last clone is dropped.
    ///
    /// Files that make no sense do not keep the agent from starting: nobody is
    /// let in until they do.
    #[must_use]
    pub fn start(files: Files, clock: Arc<dyn Clock>) -> Self {
        // One wish stands for all that come before it is granted.
        let (asked, wishes) = mpsc::channel(1);
        let inner = Arc::new(Inner {
            files,
            clock,
            set: watch::channel(None).0,
            state: Mutex::default(),
            asked,
        });
        let watched = Watched::begin(&inner);
        tokio::spawn(watched.run(Arc::downgrade(&inner), wishes));
        Self(inner)
    }

    /// Asks for the files to be read now, changed or not.
    pub fn reload(&self) {
        // Full means that somebody asked already.
        let _ = self.0.asked.try_send(None);
    }

    /// Reads the files now, changed or not, and waits until that is done; what
    /// came of it is in [`Keeper::state`].
    pub async fn reloaded(&self) {
        let (done, is_done) = oneshot::channel();
        // An error says that the watch has ended: the server does.
        if self.0.asked.send(Some(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }

    /// Where the set is read from.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.0.files
    }

    /// What is known of the set in use.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.state().clone()
    }
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        self.clock.read().wall
    }

    /// Reads the files, and takes them into use if they make sense.
    fn load(self: &Arc<Self>) {
        let now = self.now();
        let current = self.set.borrow().clone();
        let read = Set::read(&self.files, Arc::clone(&self.clock), now);
        let read = read.and_then(|set| set.may_follow(current.as_deref(), now).map(|()| set));
        let mut state = self.state();
        match read {
            Ok(set) => {
                info!(
                    certificate = %self.files.certificate.display(),
                    certificate_ends = %set.certificate_ends,
                    crl_ends = set.crl_ends.map(tracing::field::display),
                    "TLS certificates loaded"
                );
                state.certificate_ends = Some(set.certificate_ends);
                state.crl_ends = set.crl_ends;
                state.loaded = Some(now);
                state.loads += 1;
                state.error = None;
                drop(state);
                self.set.send_replace(Some(Arc::new(set)));
            }
            Err(e) => {
                state.failures += 1;
                let said = state.error.replace(e.to_string());
                if said.as_deref() == Some(e.to_string().as_str()) {
                    return;
                }
                if current.is_some() {
                    error!("the TLS certificates before stay in use: {e}");
                } else if self.files.clients.is_some() {
                    error!("no caller is let in over TLS: {e}");
                } else {
                    error!("no verifier gets a JWKS over TLS: {e}");
                }
            }
        }
    }
}

/// What is remembered between two looks at the files.
struct Watched {
    /// The files as they were read last.
    read: Fingerprint,
    /// The files at the last look.
    seen: Fingerprint,
    retry: Instant,
    /// Whether it was said that the revocation list has ended.
    said_stale: bool,
}

impl Watched {
    fn begin(inner: &Arc<Inner>) -> Self {
        let read = Fingerprint::of(&inner.files);
        inner.load();
        Self {
            seen: read.clone(),
            read,
            retry: Instant::now() + RETRY,
            said_stale: false,
        }
    }

    async fn run(
        mut self,
        inner: std::sync::Weak<Inner>,
        mut wishes: mpsc::Receiver<Option<oneshot::Sender<()>>>,
    ) {
        loop {
            let (asked, waits) = tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(waits) => (true, waits),
                    None => return,
                },
                () = sleep(EVERY) => (false, None),
            };
            let Some(inner) = inner.upgrade() else { return };
            // Files, and a signature or two: where it may block.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(&inner, asked);
                self
            });
            match looked.await {
                Ok(watched) => self = watched,
                Err(e) => std::panic::resume_unwind(e.into_panic()),
            }
            if let Some(waits) = waits {
                // Whoever asked may have gone.
                let _ = waits.send(());
            }
        }
    }

    fn look(&mut self, inner: &Arc<Inner>, asked: bool) {
        let found = Fingerprint::of(&inner.files);
        // Certificate and key are two files: whoever replaces them is given
        // from one look to the next to finish.
        let changed = found != self.read && found == self.seen;
        let broken = inner.state().error.is_some();
        let again = broken && Instant::now() >= self.retry;
        if asked || changed || again {
            self.read = found.clone();
            self.retry = Instant::now() + RETRY;
            inner.load();
        }
        self.seen = found;
        self.tell_of_stale_list(inner);
    }

    fn tell_of_stale_list(&mut self, inner: &Arc<Inner>) {
        let set = inner.set.borrow().clone();
        let ended = set.and_then(|set| set.stale(inner.now()));
        match ended {
            Some(ended) if !self.said_stale => error!(
                "no caller is let in over TLS: the revocation list was good until {ended}; put a newer one in its place"
            ),
            _ => {}
        }
        self.said_stale = ended.is_some();
    }
}

/// A TCP socket whose peers show certificates.
#[derive(Debug)]
pub struct Tls {
    tcp: Tcp,
    keeper: Keeper,
}

impl Tls {
    /// Speaks TLS on a socket.
    #[must_use]
    pub const fn new(tcp: Tcp, keeper: Keeper) -> Self {
        Self { tcp, keeper }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> std::net::SocketAddr {
        self.tcp.address()
    }
}

impl Listener for Tls {
    type Arrival = Stranger;

    async fn accept(&self) -> std::io::Result<Stranger> {
        let remote = self.tcp.accept().await?;
        let keeper = Arc::clone(&self.keeper.0);
        Ok(Stranger { remote, keeper })
    }

    fn name(&self) -> String {
        self.tcp.name()
    }
}

/// A TCP connection before its handshake.
#[derive(Debug)]
pub struct Stranger {
    remote: Remote,
    keeper: Arc<Inner>,
}

impl Arrival for Stranger {
    type Stream = TlsStream<TcpStream>;
    type Peer = Caller;

    const SHAKES_HANDS: bool = true;

    fn source(&self) -> Option<Source> {
        Some(Source::of(self.remote.address.ip()))
    }

    fn address(&self) -> Option<std::net::SocketAddr> {
        Some(self.remote.address)
    }

    async fn greet(self) -> Result<Greeted<Self::Stream, Caller>, Refused> {
        let mut sets = self.keeper.set.subscribe();
        let current = sets.borrow_and_update().clone();
        let stream = shake_hands(current, self.remote.stream).await?;
        let (_, session) = stream.get_ref();
        // A client that names no protocol gets none guessed (RFC 9113 section
        // 3.3).
        if session.alpn_protocol() != Some(set::ALPN) {
            return Err(refuse(
                "NO_ALPN",
                "the client does not say that it speaks h2",
            ));
        }
        let chain = session.peer_certificates().unwrap_or_default();
        let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
        let names = chain.first().ok_or_else(|| {
            // Invariant: the verifier lets nobody in without one.
            refuse("NO_CERTIFICATE", "the client shows no certificate")
        })?;
        let names = clients::names(names).map_err(|e| Refused {
            reason: "CERTIFICATE_NAMES_NOBODY",
            why: e.to_string(),
        })?;
        let keeper = self.keeper;
        let standing = Standing::until(async move {
            loop {
                let recheck = tokio::time::timeout(RECHECK, sets.changed()).await;
                if matches!(recheck, Ok(Err(_))) {
                    // Nobody watches the files any more: the server ends.
                    return std::future::pending().await;
                }
                let set = sets.borrow_and_update().clone();
                let Some(clients) = set.and_then(|set| set.clients.clone()) else {
                    continue;
                };
                if let Err(error) = clients.verify(&chain, unix(keeper.now())) {
                    return refused(&error);
                }
            }
        });
        Ok(Greeted {
            stream,
            peer: Caller::Tls { names },
            standing,
        })
    }
}

fn refuse(reason: &'static str, why: &str) -> Refused {
    Refused {
        reason,
        why: why.to_owned(),
    }
}

/// Makes a connection a TLS one, by the set in use.
async fn shake_hands(
    set: Option<Arc<Set>>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Refused> {
    let set = set.ok_or_else(|| refuse("TLS_NOT_READY", "there is no certificate to show"))?;
    let acceptor = TlsAcceptor::from(Arc::clone(&set.config));
    acceptor.accept(stream).await.map_err(|e| {
        let tls = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        match tls {
            Some(error) => refused(error),
            None => Refused {
                reason: "HANDSHAKE_FAILED",
                why: format!("the connection broke: {}", e.kind()),
            },
        }
    })
}

/// The wall clock's reading, as rustls has it. Nothing was ever valid before
/// 1970.
fn unix(now: Time) -> UnixTime {
    let ms = u64::try_from(now.as_millis()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_millis(ms))
}
