//! Requests that begin and do not end.

use std::path::Path;

use axum::body::{Body, Bytes};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

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
