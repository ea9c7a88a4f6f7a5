//! Tells receivers over HTTP what happened to keys, signed as Standard Webhooks
//! has it (standardwebhooks.com).
//!
//! **The log is the queue.** A webhook follows the log of key events, which is
//! durable before anybody is told, and keeps the number of the last event that
//! its receiver took. So whoever writes to the log never waits for a receiver
//! and holds nothing for one; what was not delivered is known after a restart;
//! and what `revoke --offline` or `recover` did is told when the agent is back.
//!
//! Each event is delivered at least once, as long as the receiver answers within
//! days: a crash between an answer and the note of it tells again, under the
//! same `webhook-id`.
//!
//! A receiver is *not trusted*: it learns that a key changed, and not who
//! ordered it, what they noted, who called or what was signed. Redirects are
//! not followed, and of an answer the status alone counts.

mod message;
mod post;
mod progress;
mod secret;
mod teller;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::{StatusCode, Uri};
use tokio::task::JoinSet;

use crate::audit::Audit;
use crate::clock::Clock;
use crate::durable::{Disk, DurableError};
use crate::metrics::Metrics;
use crate::observe::{self, Trust};
use crate::time::Time;
use message::Message;
use teller::Teller;

pub use post::PostError;
pub use progress::{Progress, ProgressBook};
pub use secret::{SecretError, SecretSource, Secrets};

/// The events that a receiver is told of where nobody says which: those after
/// which somebody fetches the JWKS, looks at a verifier, or comes as a second
/// person.
pub const DEFAULT_EVENTS: [&str; 11] = [
    "published",
    "activation-forced",
    "activation-cancelled",
    "activated",
    "successor-forced",
    "regressed",
    "revoked",
    "removed",
    "placeholder-made",
    "approval-requested",
    "recovered",
];

/// How long a receiver may take for one event.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A receiver, as it is configured.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its name in the configuration, in logs and figures.
    pub name: String,
    /// Where it listens. May hold a secret in its path: shown to nobody.
    pub url: Uri,
    /// Where its secrets are.
    pub secret: SecretSource,
    /// The names of the events that it is told of.
    pub events: BTreeSet<String>,
    /// Whose certificates it may show.
    pub trust: Trust,
}

/// Without the address.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("name", &self.name)
            .field("secret", &self.secret)
            .field("events", &self.events)
            .field("trust", &self.trust)
            .finish_non_exhaustive()
    }
}

/// An address that makes no receiver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAddress(String);

impl Webhook {
    /// The address of a receiver: `https`, or `http` on this machine alone.
    ///
    /// # Errors
    /// [`InvalidAddress`] says what is wrong, and nothing of its path.
    pub fn address(url: &str) -> Result<Uri, InvalidAddress> {
        let uri = observe::receiver(url).map_err(InvalidAddress)?;
        if uri.scheme_str() == Some("http") && !is_loopback(uri.host().unwrap_or_default()) {
            let why = "expected https://, or http:// to 127.0.0.1, [::1] or localhost";
            return Err(InvalidAddress(why.to_owned()));
        }
        Ok(uri)
    }

    /// Tells it of something that did not happen, signed like what does, and
    /// returns what it answered.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn test(&self, now: Time) -> Result<StatusCode, PostError> {
        let message = Message::test(now);
        let source = self.secret.clone();
        let secrets = tokio::task::spawn_blocking(move || Secrets::read(&source)).await;
        let secrets = secrets.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
        post::post(self, &secrets, &message, now, PATIENCE).await
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address: Result<std::net::IpAddr, _> = bare.parse();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |at| {
        at.is_loopback()
    })
}

/// What webhooks work with.
pub struct Ports {
    /// The log that they follow.
    pub audit: Arc<Audit>,
    /// Where they keep how far they are.
    pub book: ProgressBook,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Metrics,
    /// The issuer of each key set.
    pub issuers: BTreeMap<String, String>,
}

/// Webhooks at work, each on a task of its own; they end when this is dropped.
#[derive(Debug)]
pub struct Webhooks {
    _tellers: JoinSet<()>,
}

impl Webhooks {
    /// Starts them. A webhook that was not there before is told of what happens
    /// from now on.
    pub fn start(hooks: impl IntoIterator<Item = Webhook>, ports: Ports) -> Self {
        let ports = Arc::new(ports);
        let mut tellers = JoinSet::new();
        for hook in hooks {
            tellers.spawn(Teller::new(hook, Arc::clone(&ports)).run());
        }
        Self { _tellers: tellers }
    }
}

impl ProgressBook {
    /// Opens the folder, and makes it where there is none. For the one process
    /// that writes to it.
    ///
    /// # Errors
    /// [`DurableError::Io`].
    pub fn open(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Result<Self, DurableError> {
        let book = Self::reading(disk, dir);
        book.make()?;
        Ok(book)
    }
}

#[cfg(test)]
mod tests;
