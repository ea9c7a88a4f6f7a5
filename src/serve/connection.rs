//! Connections, from accept to farewell, the same for every protocol.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::lines::{Lines, now};
use super::listener::{self, Arrival, Greeted, Listener, Refused, Standing};
use super::sources::Sources;

/// What a server grants its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. One more waits in the kernel's queue.
    pub connections: usize,
    /// Connections at a time of one local user or one address, which may have
    /// no more than it leaves to others besides; so may a caller, wherever it
    /// comes from. One more is refused. Where everybody may come through one
    /// proxy, what it leaves to others is an address's only bound.
    pub connections_per_peer: usize,
    /// Connections at a time whose peer is not known yet: TLS handshakes. One
    /// more waits in the kernel's queue.
    pub handshakes: usize,
    /// The same, of one local user or one address, and as above.
    pub handshakes_per_peer: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// Requests at a time, all connections together, from the header on; the
    /// items of batches and streams each count as one. A caller may have as
    /// many as it leaves to others: one alone has half. One more is refused at
    /// once with `OVERLOADED`.
    pub in_flight: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// What goes on for long, at a time: streams of signatures, watches on a
    /// JWKS or on health, reflection. Shared and refused as above.
    pub long_lived: usize,
    /// Bytes of requests that are here and not answered. Shared and refused as
    /// above.
    pub bytes: usize,
    /// Items of one batch.
    pub batch: usize,
    /// Items of one batch or stream that are worked on at a time.
    pub window: usize,
    /// The largest gRPC message in bytes. Smaller ones that policy finds too
    /// large are refused by policy, which says so better.
    pub message: usize,
    /// The deadline of a request that names none, and the furthest that one
    /// can ask for. The keyring counts on it: a key that was replaced signs
    /// for no longer (the term `Q` of the rotation rules).
    pub deadline: Duration,
    /// How long a peer may take over a request's header, and a new connection
    /// over its first request.
    pub patience: Duration,
    /// How old a connection gets before it is asked to leave: what bounds a
    /// peer that never reads.
    pub age: Duration,
    /// How long what has begun may go on when a connection or the server is
    /// to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_peer: 256,
            handshakes: 64,
            handshakes_per_peer: 16,
            handshake: Duration::from_secs(5),
            in_flight: 4096,
            streams: 256,
            long_lived: 1024,
            bytes: 16 * 1024 * 1024,
            batch: 256,
            window: 64,
            message: 256 * 1024,
            deadline: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            age: Duration::from_secs(30 * 60),
            drain: Duration::from_secs(10),
        }
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// For what is fetched: every verifier speaks it.
    Http1,
    /// For gRPC.
    Http2,
}

/// The longest request header in bytes, as HTTP/1 text or as an HTTP/2 list.
/// Nothing that is served here needs more than a path.
const MAX_HEADER: usize = 8 * 1024;

/// Bytes of one request that may be here before anybody reads them, and of all
/// requests on one connection.
const UNREAD_OF_STREAM: u32 = 64 * 1024;
const UNREAD_OF_CONNECTION: u32 = 256 * 1024;

/// What the server makes of a peer.
pub(super) struct Guest<E> {
    /// Each request carries it as an extension.
    pub(super) known: E,
    /// Ends when the guest must leave at once.
    pub(super) dismissed: Pin<Box<dyn Future<Output = Refused> + Send>>,
}

impl<E> Guest<E> {
    /// One that may stay.
    pub(super) fn staying(known: E) -> Self {
        Self {
            known,
            dismissed: Box::pin(std::future::pending()),
        }
    }
}

/// Serves connections until `shutdown` ends, then finishes what has begun.
/// `enter` says what to make of a peer and of where it comes from.
pub(super) async fn serve<L: Listener, E: Clone + Send + Sync + 'static>(
    listener: L,
    router: Router,
    protocol: Protocol,
    limits: Limits,
    enter: impl Fn(Peer<L>, Option<SocketAddr>) -> Guest<E> + Clone + Send + 'static,
    shutdown: impl Future<Output = ()>,
) {
    let server = builder(protocol, limits);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let sources = Sources::new(&limits, L::Arrival::BEHIND_PROXY);
    let log = Arc::new(Refusals::of(&listener));
    let (stop, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            // Permits first: whoever comes when there is none stays in the
            // kernel's queue and costs nothing here.
            let permit = Arc::clone(&permits).acquire_owned().await;
            let handshake = Arc::clone(&handshakes).acquire_owned().await;
            let arrival = listener::next(&listener, |e| log.cannot_accept(e)).await;
            (permit, handshake, arrival)
        };
        let (permit, handshake, arrival) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = next => accepted,
        };
        let address = arrival.address();
        let mut place = match sources.admit(arrival.source()) {
            Ok(place) => place,
            Err(refused) => {
                log.report(address, &refused);
                continue;
            }
        };
        if !L::Arrival::SHAKES_HANDS {
            place.known();
        }
        let one = Connection {
            router: router.clone(),
            limits,
            stop: stop.subscribe(),
        };
        let (server, enter, log) = (server.clone(), enter.clone(), Arc::clone(&log));
        connections.spawn(async move {
            let greeted = one.greet(arrival).await;
            place.known();
            drop(handshake);
            match greeted {
                Ok(Greeted {
                    stream,
                    peer,
                    standing,
                }) => {
                    let guest = enter(peer, address);
                    if let Err(refused) = one.serve(&server, stream, guest, standing).await {
                        log.report(address, &refused);
                    }
                }
                Err(refused) => log.report(address, &refused),
            }
            drop((permit, place));
        });
        while connections.try_join_next().is_some() {}
    }

    drop(listener);
    stop.send_replace(true);
    // Each of them ends within `limits.drain`.
    while connections.join_next().await.is_some() {}
}

/// What is known of a listener's peers.
type Peer<L> = <<L as Listener>::Arrival as Arrival>::Peer;

/// Tells of connections that were not let in or were cut off.
struct Refusals {
    listener: String,
    lines: Lines,
}

/// Whom lines are about that are about nobody.
const NOBODY: &str = "";

impl Refusals {
    fn of(listener: &impl Listener) -> Self {
        Self {
            listener: listener.name(),
            lines: Lines::default(),
        }
    }

    /// The system has no file descriptor left, or no memory. It is tried again
    /// many times a second.
    fn cannot_accept(&self, error: &std::io::Error) {
        if let Some(left_out) = self.lines.admit(NOBODY, now()) {
            let listener = &self.listener;
            let left_out = (left_out > 0).then_some(left_out);
            warn!(listener, %error, left_out, "cannot accept; trying again");
        }
    }

    /// A line that a jail can match. Of a flood not every one, but some about
    /// each address.
    fn report(&self, address: Option<SocketAddr>, refused: &Refused) {
        let peer = address.map(|address| address.ip().to_canonical());
        let whom = peer.map_or_else(String::new, |peer| peer.to_string());
        let Some(left_out) = self.lines.admit(&whom, now()) else {
            return;
        };
        warn!(
            event = "connection_refused",
            reason = refused.reason,
            peer = peer.map(tracing::field::display),
            port = address.map(|address| address.port()),
            listener = self.listener,
            why = refused.why,
            left_out = (left_out > 0).then_some(left_out),
            "connection refused"
        );
    }
}

fn builder(protocol: Protocol, limits: Limits) -> auto::Builder<TokioExecutor> {
    let server = auto::Builder::new(TokioExecutor::new());
    let mut server = match protocol {
        Protocol::Http1 => server.http1_only(),
        Protocol::Http2 => server.http2_only(),
    };
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.patience)
        .max_buf_size(MAX_HEADER);
    server
        .http2()
        .timer(TokioTimer::new())
        // A peer that vanished without closing is noticed.
        .keep_alive_interval(limits.patience)
        .keep_alive_timeout(limits.patience)
        .max_concurrent_streams(limits.streams)
        // What a peer may send of requests that nobody reads yet.
        .initial_stream_window_size(UNREAD_OF_STREAM)
        .initial_connection_window_size(UNREAD_OF_CONNECTION)
        .max_header_list_size(u32::try_from(MAX_HEADER).unwrap_or(u32::MAX));
    server
}

/// Says when a connection is to end, so that what would go on for ever ends in
/// good order. Each request carries it as an extension.
#[derive(Clone, Debug)]
pub(super) struct Leaving(watch::Receiver<bool>);

impl Leaving {
    /// Waits for it.
    pub(super) async fn begun(&mut self) {
        // An error says that the connection itself is gone.
        let _ = self.0.wait_for(|leaving| *leaving).await;
    }
}

struct Connection {
    router: Router,
    limits: Limits,
    stop: watch::Receiver<bool>,
}

impl Connection {
    /// Finds out who it is, within the deadline.
    async fn greet<A: Arrival>(&self, arrival: A) -> Result<Greeted<A::Stream, A::Peer>, Refused> {
        let patience = self.limits.handshake;
        let greeted = timeout(patience, arrival.greet()).await;
        greeted.unwrap_or_else(|_| {
            Err(Refused {
                reason: "HANDSHAKE_TIMEOUT",
                why: format!("the handshake took longer than {patience:?}"),
            })
        })
    }

    /// Serves until the connection ends.
    ///
    /// # Errors
    /// Why it was cut off: what the peer showed counts no more.
    async fn serve<E: Clone + Send + Sync + 'static>(
        mut self,
        server: &auto::Builder<TokioExecutor>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        guest: Guest<E>,
        mut standing: Standing,
    ) -> Result<(), Refused> {
        let Guest { known, dismissed } = guest;
        let asked = Arc::new(AtomicBool::new(false));
        let (leave, leaving) = watch::channel(false);
        let service = service_fn({
            let asked = Arc::clone(&asked);
            let router = self.router;
            move |mut request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(known.clone());
                request.extensions_mut().insert(Leaving(leaving.clone()));
                let router = router.clone();
                async move { answer(router, request).await }
            }
        });
        let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));

        let farewell = async {
            let silent = async {
                sleep(self.limits.patience).await;
                if asked.load(Ordering::Relaxed) {
                    std::future::pending().await
                }
            };
            tokio::select! {
                // An error says that the server itself is gone.
                _ = self.stop.wait_for(|stop| *stop) => {}
                () = sleep(self.limits.age) => {}
                () = silent => {}
            }
        };
        let work = async {
            let ended = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                () = farewell => None,
            };
            match ended {
                Some(ended) => Ok(ended),
                None => {
                    leave.send_replace(true);
                    connection.as_mut().graceful_shutdown();
                    timeout(self.limits.drain, connection).await
                }
            }
        };
        let ended = tokio::select! {
            biased;
            // Cut off with all that was going on: no answer leaves.
            refused = dismissed => return Err(refused),
            refused = standing.ended() => return Err(refused),
            ended = work => ended,
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "connection broke"),
            // Whether what is cut off here was signed, its record says.
            Err(_) => debug!("connection cut: it did not end in time"),
        }
        Ok(())
    }
}

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    router.oneshot(request).await
}
