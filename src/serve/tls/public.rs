//! TLS for everybody: the server shows a certificate, and asks for none.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::{Inner, Keeper, shake_hands};
use crate::serve::listener::{Arrival, Greeted, Listener, Refused, Remote, Source, Standing, Tcp};

/// A TCP socket that speaks TLS 1.3 with whoever comes.
#[derive(Debug)]
pub struct Public {
    tcp: Tcp,
    keeper: Keeper,
}

impl Public {
    /// Speaks TLS on a socket.
    #[must_use]
    pub const fn new(tcp: Tcp, keeper: Keeper) -> Self {
        Self { tcp, keeper }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.tcp.address()
    }
}

impl Listener for Public {
    type Arrival = Anybody;

    async fn accept(&self) -> std::io::Result<Anybody> {
        let remote = self.tcp.accept().await?;
        let keeper = Arc::clone(&self.keeper.0);
        Ok(Anybody { remote, keeper })
    }

    fn name(&self) -> String {
        self.tcp.name()
    }
}

/// A TCP connection before its handshake.
#[derive(Debug)]
pub struct Anybody {
    remote: Remote,
    keeper: Arc<Inner>,
}

impl Arrival for Anybody {
    type Stream = TlsStream<TcpStream>;
    type Peer = SocketAddr;

    const SHAKES_HANDS: bool = true;

    /// Handshakes cost something, and no proxy that speaks HTTP stands between:
    /// an address is somebody.
    fn source(&self) -> Option<Source> {
        Some(Source::of(self.remote.address.ip()))
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.remote.address)
    }

    async fn greet(self) -> Result<Greeted<Self::Stream, SocketAddr>, Refused> {
        let current = self.keeper.set.borrow().clone();
        Ok(Greeted {
            stream: shake_hands(current, self.remote.stream).await?,
            peer: self.remote.address,
            standing: Standing::lasting(),
        })
    }
}
