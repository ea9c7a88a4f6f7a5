//! A listener whose connections are counted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::listener::{Arrival, Greeted, Listener, Refused, Source};
use crate::metrics::{Connections, OpenConnection};

/// Any listener, with its connections in the figures.
#[derive(Debug)]
pub struct Counted<L> {
    listener: L,
    connections: Connections,
}

/// A connection that is counted from when it came, before anybody knows whose
/// it is.
#[derive(Debug)]
pub struct CountedArrival<A> {
    arrival: A,
    open: OpenConnection,
}

/// A connection that is counted for as long as it is open.
#[derive(Debug)]
pub struct CountedStream<S> {
    stream: S,
    _open: OpenConnection,
}

impl<L> Counted<L> {
    /// Counts the connections of `listener`.
    #[must_use]
    pub const fn new(listener: L, connections: Connections) -> Self {
        Self {
            listener,
            connections,
        }
    }
}

impl<L: Listener + Sync> Listener for Counted<L> {
    type Arrival = CountedArrival<L::Arrival>;

    async fn accept(&self) -> io::Result<Self::Arrival> {
        Ok(CountedArrival {
            arrival: self.listener.accept().await?,
            open: self.connections.open(),
        })
    }

    fn name(&self) -> String {
        self.listener.name()
    }
}

impl<A: Arrival> Arrival for CountedArrival<A> {
    type Stream = CountedStream<A::Stream>;
    type Peer = A::Peer;

    const SHAKES_HANDS: bool = A::SHAKES_HANDS;
    const BEHIND_PROXY: bool = A::BEHIND_PROXY;

    fn source(&self) -> Option<Source> {
        self.arrival.source()
    }

    fn address(&self) -> Option<SocketAddr> {
        self.arrival.address()
    }

    async fn greet(self) -> Result<Greeted<Self::Stream, Self::Peer>, Refused> {
        let Greeted {
            stream,
            peer,
            standing,
        } = self.arrival.greet().await?;
        Ok(Greeted {
            stream: CountedStream {
                stream,
                _open: self.open,
            },
            peer,
            standing,
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
