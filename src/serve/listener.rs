//! Where connections come from: bound sockets, and an accept loop that
//! survives what peers and the system do to it.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::peer;
use crate::policy::Caller;

/// How long to wait when the process or the system has no file descriptor or
/// memory left. The connection stays in the kernel's queue meanwhile, and an
/// accept at once would fail at once.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Why a socket is not there.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something that is no socket stands at the path. It is left alone.
    #[error("cannot listen on {path}: a file that is no socket is there", path = path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Another process answers at the path.
    #[error("cannot listen on {path}: another process listens there", path = path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The system said no.
    #[error("cannot listen on {path}: {why}", path = path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The system said no to an address.
    #[error("cannot listen on {address}: {why}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        why: io::Error,
    },
}

/// A source of connections.
pub trait Listener: Send + 'static {
    /// What arrives.
    type Arrival: Arrival;

    /// The next connection. An error concerns one connection, or the system
    /// for a while; none ends the listener.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Arrival>> + Send;

    /// For messages.
    fn name(&self) -> String;
}

/// A connection whose peer is not known yet.
pub trait Arrival: Send + 'static {
    /// The connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// What is known of the peer.
    type Peer: Clone + Send + Sync + 'static;

    /// Whether finding out who it is takes the peer's part, and time.
    const SHAKES_HANDS: bool;

    /// Whether everybody may come through one proxy, so that one address is
    /// many peers.
    const BEHIND_PROXY: bool = false;

    /// Whose connections are counted together; `None` where nobody can tell,
    /// and only the whole is bounded.
    fn source(&self) -> Option<Source>;

    /// Where it comes from, for the log.
    fn address(&self) -> Option<SocketAddr>;

    /// Finds out who it is. May take as long as the peer likes: the caller
    /// has a deadline.
    fn greet(
        self,
    ) -> impl Future<Output = Result<Greeted<Self::Stream, Self::Peer>, Refused>> + Send;
}

/// A connection whose peer is known.
#[derive(Debug)]
pub struct Greeted<S, P> {
    /// The connection.
    pub stream: S,
    /// The peer.
    pub peer: P,
    /// Whether what the peer showed still counts.
    pub standing: Standing,
}

/// Whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A local user.
    User(u32),
    /// An address: all of an IPv4 address, and the first 64 bits of an IPv6
    /// address, since whoever has one of those has them all.
    Address(IpAddr),
}

impl Source {
    /// The source of connections from an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let network = v6.to_bits() & (u128::MAX << 64);
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
            v4 => v4,
        })
    }
}

/// Why a connection was not let in, or had to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({reason})")]
pub struct Refused {
    /// A stable code, such as `CERTIFICATE_REVOKED`.
    pub reason: &'static str,
    /// What is wrong. A name in the peer's certificate may be quoted, cut short.
    pub why: String,
}

/// How long what a peer showed counts.
#[derive(Default)]
pub struct Standing(Option<Pin<Box<dyn Future<Output = Refused> + Send>>>);

impl Standing {
    /// As long as the connection.
    #[must_use]
    pub const fn lasting() -> Self {
        Self(None)
    }

    /// Until `end`.
    pub fn until(end: impl Future<Output = Refused> + Send + 'static) -> Self {
        Self(Some(Box::pin(end)))
    }

    /// Ends when it counts no more.
    pub(super) async fn ended(&mut self) -> Refused {
        match &mut self.0 {
            Some(end) => end.await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Standing")
    }
}

/// A Unix socket whose peers are known by their credentials. Its file goes
/// when it is dropped.
#[derive(Debug)]
pub struct Unix {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our file: another process may have put its own in
    /// its place, which is not ours to remove.
    identity: (u64, u64),
}

/// A TCP socket. Its peers are anybody.
#[derive(Debug)]
pub struct Tcp {
    listener: TcpListener,
    address: SocketAddr,
}

impl Unix {
    /// Binds `path` with the permission bits `mode`.
    ///
    /// A socket file that a killed process left is replaced, once nobody
    /// answers there. The socket is made in a directory that only we can
    /// enter, given its mode, and moved to `path`: there is no moment in which
    /// it can be reached with a wider mode. Whether two daemons may run on one
    /// state is not settled here but by the store's lock.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(path: &Path, mode: u32) -> Result<Self, BindError> {
        let io = |why| BindError::Io {
            path: path.to_owned(),
            why,
        };
        // The staged name may fit where this one does not, and a rename does
        // not look: nobody could connect.
        std::os::unix::net::SocketAddr::from_pathname(path).map_err(io)?;
        clear(path)?;
        let nursery = Nursery::beside(path).map_err(io)?;
        let bound = bind_staged(&nursery.0.join("s"), path, mode);
        let (listener, identity) = bound.map_err(io)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // A file that stays is replaced by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener for Unix {
    type Arrival = Local;

    async fn accept(&self) -> io::Result<Local> {
        let (stream, _) = self.listener.accept().await?;
        let caller = peer::caller(&stream)?;
        Ok(Local { stream, caller })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl Tcp {
    /// Binds `address`; port 0 asks for any free one.
    ///
    /// # Errors
    /// [`BindError::Address`].
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let error = |why| BindError::Address { address, why };
        let listener = TcpListener::bind(address).await.map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        Ok(Self { listener, address })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A connection to a Unix socket.
#[derive(Debug)]
pub struct Local {
    stream: UnixStream,
    caller: Caller,
}

impl Arrival for Local {
    type Stream = UnixStream;
    type Peer = Caller;

    const SHAKES_HANDS: bool = false;

    fn source(&self) -> Option<Source> {
        match self.caller {
            Caller::Unix { uid, .. } => Some(Source::User(uid)),
            Caller::Tls { .. } => None,
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        None
    }

    async fn greet(self) -> Result<Greeted<UnixStream, Caller>, Refused> {
        Ok(Greeted {
            stream: self.stream,
            peer: self.caller,
            standing: Standing::lasting(),
        })
    }
}

impl Listener for Tcp {
    type Arrival = Remote;

    async fn accept(&self) -> io::Result<Remote> {
        let (stream, address) = self.listener.accept().await?;
        // Answers are small and whole: waiting for more to send only delays.
        stream.set_nodelay(true)?;
        Ok(Remote { stream, address })
    }

    fn name(&self) -> String {
        self.address.to_string()
    }
}

/// A connection to a TCP socket.
#[derive(Debug)]
pub struct Remote {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
}

impl Arrival for Remote {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    const SHAKES_HANDS: bool = false;
    const BEHIND_PROXY: bool = true;

    fn source(&self) -> Option<Source> {
        Some(Source::of(self.address.ip()))
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    async fn greet(self) -> Result<Greeted<TcpStream, SocketAddr>, Refused> {
        Ok(Greeted {
            stream: self.stream,
            peer: self.address,
            standing: Standing::lasting(),
        })
    }
}

/// The next connection, whatever happens before it; what the system does to
/// all of them is told.
pub(super) async fn next<L: Listener>(listener: &L, tell: impl Fn(&io::Error)) -> L::Arrival {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tell(&error);
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Errors that say: this peer is gone already (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::Interrupted
    )
}

/// Makes sure that `path` may be replaced: nothing, or a socket at which
/// nobody answers.
fn clear(path: &Path) -> Result<(), BindError> {
    let io = |why| BindError::Io {
        path: path.to_owned(),
        why,
    };
    // Not following links: a link to a socket elsewhere is not ours.
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // Its owner removed it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full queue is somebody who listens; so is an answer.
        Ok(_) => Err(BindError::InUse {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse {
            path: path.to_owned(),
        }),
        Err(error) => Err(io(error)),
    }
}

fn bind_staged(staged: &Path, path: &Path, mode: u32) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = std::os::unix::net::UnixListener::bind(staged)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(staged, Permissions::from_mode(mode))?;
    let identity = identity(staged)?;
    std::fs::rename(staged, path)?;
    Ok((UnixListener::from_std(listener)?, identity))
}

/// A directory for a socket that is not ready; goes when dropped.
struct Nursery(PathBuf);

impl Nursery {
    /// Beside `path`, so that a rename can move the socket. Its name is short,
    /// because a socket's whole path has at most 107 bytes (unix(7)). Names
    /// that are taken were left by a killed process or are being used by
    /// another listener.
    fn beside(path: &Path) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for n in 0..100 {
            let name = path.with_file_name(format!(".sk{n}"));
            match std::fs::DirBuilder::new().mode(0o700).create(&name) {
                Ok(()) => return Ok(Self(name)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // What stays is empty or a dead socket, and is passed over.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests;
