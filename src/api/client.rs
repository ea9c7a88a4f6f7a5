//! A client's connection to the agent.

use std::io;
use std::path::Path;
use std::time::Duration;

use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to come about. A Unix socket answers at
/// once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A wait for an answer asks for a sign of life (an HTTP/2 PING) this often.
/// An agent that is at work gives one whatever else it does.
const PING: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// After this long without a sign of life an agent hangs: it runs, and its
/// calls fail with what [`hangs`] knows.
pub const SILENCE: Duration = PING.saturating_add(PING_TIMEOUT);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The path cannot be used.
    #[error("expected a socket path in UTF-8, got {0:?}")]
    Path(std::path::PathBuf),
    /// Nobody answers there.
    #[error("cannot connect to {path}: {why}", path = path.display())]
    Unreachable {
        /// The socket.
        path: std::path::PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

/// Connects to the agent's Unix socket. The channel connects again by itself
/// when the agent was restarted.
///
/// # Errors
/// [`ConnectError::Unreachable`] when nobody listens there, or when the
/// socket's permissions keep the caller out.
pub async fn connect(path: &Path) -> Result<Channel, ConnectError> {
    let text = path
        .to_str()
        .ok_or_else(|| ConnectError::Path(path.to_owned()))?;
    Endpoint::from_shared(format!("unix:{text}"))
        .map_err(|_| ConnectError::Path(path.to_owned()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_TIMEOUT)
        .connect()
        .await
        .map_err(|error| ConnectError::Unreachable {
            path: path.to_owned(),
            why: root_cause(&error),
        })
}

/// Whether a call ended since the agent gave no sign of life for [`SILENCE`].
#[must_use]
pub fn hangs(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return error.is_timeout();
        }
        cause = error.source();
    }
    false
}

/// The id of the process that listens at a socket. None where nobody does, or
/// where systemd does in its place.
#[must_use]
pub fn process_id(path: &Path) -> Option<i32> {
    let stream = std::os::unix::net::UnixStream::connect(path).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Some(peer.pid.as_raw_pid()).filter(|pid| *pid > 1)
}

/// The system's own words: what tonic says around them is "transport error".
fn root_cause(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut cause = error;
    loop {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return io.raw_os_error().map_or_else(
                || io::Error::other(io.to_string()),
                io::Error::from_raw_os_error,
            );
        }
        match cause.source() {
            Some(next) => cause = next,
            None => return io::Error::other(cause.to_string()),
        }
    }
}
