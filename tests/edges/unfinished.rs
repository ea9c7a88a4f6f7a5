//! Requests that begin and do not end, and answers that nobody reads.

use std::path::Path;

use axum::body::{Body, Bytes};
use hyper::client::conn::http2::{Builder, SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// A connection whose peer takes one byte of each answer, and no more.
pub(crate) struct Unread(SendRequest<Body>);

/// An answer of which nobody reads more than the header.
pub(crate) struct Answer {
    /// The gRPC status, where the answer is nothing else.
    pub(crate) status: Option<i32>,
    _body: hyper::body::Incoming,
}

impl Unread {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        let mut client = Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(1);
        let (requests, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(requests)
    }

    /// Asks with an empty message.
    pub(crate) fn ask(&self, method: &str) -> impl Future<Output = Option<Answer>> + use<> {
        let empty = Bytes::from_static(&[0; 5]);
        let request = axum::http::Request::post(format!("http://x/sealkeeper.v1.Signer/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::from(empty))
            .unwrap();
        let mut requests = self.0.clone();
        async move {
            requests.ready().await.ok()?;
            let (head, body) = requests.send_request(request).await.ok()?.into_parts();
            let status = head.headers.get("grpc-status");
            Some(Answer {
                status: status.and_then(|status| status.to_str().ok()?.parse().ok()),
                _body: body,
            })
        }
    }
}

/// A connection on which calls of `SignJwt` begin.
pub(crate) struct Unfinished(SendRequest<Body>);

/// What has come of a message of 200 KiB: `sent` bytes.
pub(crate) fn message(sent: usize) -> Bytes {
    let mut message = vec![0];
    message.extend((200_u32 * 1024).to_be_bytes());
    message.resize(5 + sent, 0);
    message.into()
}

impl Unfinished {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(requests)
    }

    /// Begins one more. It goes on until the sender is dropped, or the agent
    /// answers: with this gRPC status.
    pub(crate) fn begin(
        &self,
        sent: Bytes,
    ) -> (
        mpsc::Sender<Bytes>,
        impl Future<Output = Option<i32>> + use<>,
    ) {
        let (more, body) = mpsc::channel(1);
        let body = tokio_stream::once(sent).chain(ReceiverStream::new(body));
        let body = Body::from_stream(body.map(Ok::<_, std::io::Error>));
        let request = axum::http::Request::post("http://x/sealkeeper.v1.Signer/SignJwt")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let mut requests = self.0.clone();
        // No answer, or one without a status of its own, is none.
        let answer = async move {
            requests.ready().await.ok()?;
            let answer = requests.send_request(request).await.ok()?;
            let status = answer.headers().get("grpc-status")?;
            status.to_str().ok()?.parse().ok()
        };
        (more, answer)
    }
}
