//! One try to tell a receiver.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::Webhook;
use super::message::Message;
use super::secret::{SecretError, Secrets};
use crate::observe::{causes, connector};
use crate::time::Time;

/// The longest head of an answer that is read, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// Why a receiver has not taken an event. Names no address: there may be a
/// secret in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// No answer, or it broke off.
    #[error("cannot reach {host}: {why}")]
    Unreachable {
        /// The receiver's host and port.
        host: String,
        /// What the network said.
        why: String,
    },
    /// No answer in time.
    #[error("cannot reach {host}: expected an answer within {timeout:?}")]
    Slow {
        /// The receiver's host and port.
        host: String,
        /// How long it had.
        timeout: Duration,
    },
    /// It answered something else than that it has taken the event.
    #[error("{host} answered {status}, expected a status of 200 to 299{}", advice(*status))]
    Status {
        /// The receiver's host and port.
        host: String,
        /// The status that came.
        status: StatusCode,
    },
    /// Nothing can be signed for it.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        status if status.is_redirection() => {
            "; redirects are not followed: configure the address that it leads to"
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; is its secret the one in the file, and its clock right?"
        }
        _ => "",
    }
}

impl PostError {
    /// Whether the receiver answered, and may take the next event.
    pub(super) const fn is_answer(&self) -> bool {
        matches!(self, Self::Status { .. })
    }
}

/// Sends a message, and returns the status of an answer that takes it.
///
/// Each call opens a connection of its own: events are rare. Of the answer
/// nothing but the head is read.
pub(super) async fn post(
    hook: &Webhook,
    secrets: &Secrets,
    message: &Message,
    now: Time,
    timeout: Duration,
) -> Result<StatusCode, PostError> {
    let host = hook.url.authority().map_or("", |host| host.as_str());
    let exchange = tokio::time::timeout(timeout, exchange(hook, secrets, message, now)).await;
    let host = || host.to_owned();
    let status = exchange
        .map_err(|_| PostError::Slow {
            host: host(),
            timeout,
        })?
        .map_err(|why| PostError::Unreachable { host: host(), why })?;
    match status.is_success() {
        true => Ok(status),
        false => Err(PostError::Status {
            host: host(),
            status,
        }),
    }
}

async fn exchange(
    hook: &Webhook,
    secrets: &Secrets,
    message: &Message,
    now: Time,
) -> Result<StatusCode, String> {
    let connector = connector(&hook.url, &hook.trust, None).map_err(|e| causes(&e))?;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .http1_max_buf_size(MAX_HEAD)
        .build(connector);
    let timestamp = now.as_secs();
    let signature = secrets.sign(&message.id, timestamp, &message.body);
    let request = Request::post(&hook.url)
        .header(CONTENT_TYPE, "application/json")
        .header(
            USER_AGENT,
            concat!("sealkeeper/", env!("CARGO_PKG_VERSION")),
        )
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(Full::from(message.body.clone()))
        .expect("a checked address and headers of letters and digits make a request");
    let answer = client.request(request).await.map_err(|e| causes(&e))?;
    Ok(answer.status())
}
