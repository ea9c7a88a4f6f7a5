//! The signing path, as its callers see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use tokio::sync::watch;

use super::history::NoHistory;
use crate::jose::{Algorithm, base64url};
use crate::metrics::Operation;
use crate::policy::{Caller, JwsRequest, JwtRequest, Refusal};
use crate::time::Time;

/// What the edges ask of the agent. It is a trait so that an edge is tested
/// without a device.
pub trait Signing: Send + Sync + 'static {
    /// Claims in, token out. `deadline` is when the caller stops waiting.
    fn sign_jwt(
        &self,
        caller: &Caller,
        request: JwtRequest,
        deadline: Instant,
    ) -> impl Future<Output = Result<Signed, SignError>> + Send;

    /// A signing input in, a signature out.
    fn sign_jws(
        &self,
        caller: &Caller,
        request: JwsRequest,
        deadline: Instant,
    ) -> impl Future<Output = Result<Signed, SignError>> + Send;

    /// The JWKS of a key set, from memory; `None` for a name that is not
    /// configured.
    fn published(&self, key_set: &str) -> Option<Published>;

    /// The key set that `/.well-known/jwks.json` shows.
    fn well_known(&self) -> Option<Published>;

    /// The signed document of the keys that left a key set, or why there is
    /// none; `None` for a key set that serves none.
    fn historical_keys(&self, _key_set: &str) -> Option<Result<Published, NoHistory>> {
        None
    }

    /// Whether such a key set is configured, or, for the empty name, one that
    /// `/.well-known/jwks.json` shows. It may have nothing published yet.
    fn knows(&self, key_set: &str) -> bool;

    /// Changes whenever [`Self::published`] or [`Watched::readiness`] may have
    /// another answer. What time alone brings about is to be looked for now
    /// and then.
    ///
    /// [`Watched::readiness`]: super::Watched::readiness
    fn changes(&self) -> watch::Receiver<()>;

    /// An edge gave a caller an answer that only the edge knows of: for the
    /// figures. What found no place at the device is among it, since an edge
    /// may wait and ask again instead: so a request is counted once, by how it
    /// ended.
    fn turned_away(&self, _key_set: &str, _operation: Operation, _why: TurnedAway<'_>) {}
}

/// Why an edge answered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway<'a> {
    /// It has as many requests as it takes, or the device has.
    Overloaded,
    /// The request was not even one that policy could look at.
    Refused(&'a Refusal),
}

/// A signature that was verified, recorded and allowed.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// The signing input: `b64url(header) "." b64url(payload)`.
    pub signing_input: Vec<u8>,
    /// The raw signature in JOSE form, not yet base64url.
    pub signature: Vec<u8>,
    /// The `kid` of the key that signed.
    pub kid: String,
    /// Its `alg`.
    pub algorithm: Algorithm,
    /// The token's `exp`.
    pub expires: Time,
}

/// A JWKS as verifiers get it.
#[derive(Clone, Debug)]
pub struct Published {
    /// The JSON text.
    pub body: Arc<[u8]>,
    /// A strong entity tag with its quotes (RFC 9110 section 8.8.3).
    pub etag: Arc<str>,
    /// For `Cache-Control`: never reaches past the next planned removal that lies
    /// ahead.
    pub max_age: Duration,
}

impl Published {
    /// A JSON text, with the entity tag of its bytes.
    #[must_use]
    pub fn new(body: Vec<u8>, max_age: Duration) -> Self {
        Self::of(body.into(), max_age)
    }

    pub(super) fn of(body: Arc<[u8]>, max_age: Duration) -> Self {
        Self {
            etag: entity_tag(&body),
            body,
            max_age,
        }
    }
}

/// The same for the same bytes, on every agent.
pub(super) fn entity_tag(body: &[u8]) -> Arc<str> {
    let hash = digest::digest(&digest::SHA256, body);
    format!("\"{}\"", base64url::encode(&hash.as_ref()[..16])).into()
}

/// Why there is no signature, by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The request is at fault: it will never succeed as it is.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Something behind the agent is at fault; trying again may help.
    #[error("{why}")]
    Unavailable {
        /// A stable code, such as `DEVICE_ABSENT`.
        reason: &'static str,
        /// What is wrong, for the caller's log. Never a claim or a token.
        why: String,
        /// When it makes sense to try again.
        retry_after: Option<Duration>,
    },
    /// More work than the device can do; the request was not started.
    #[error("{device} has {queued} requests waiting")]
    Overloaded {
        /// The device's name.
        device: String,
        /// How many requests wait for it.
        queued: usize,
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// The caller's deadline passed. Whether a signature was made is on
    /// record; none was released.
    #[error("the deadline passed after {waited:?}")]
    Deadline {
        /// How long the request was with the agent.
        waited: Duration,
    },
    /// A defect of the agent or of the device. It is in the log.
    #[error("{why}")]
    Internal {
        /// A stable code, such as `WRONG_SIGNATURE`.
        reason: &'static str,
        /// What went wrong. Never a claim or a token.
        why: String,
    },
}

impl SignError {
    /// The stable code, as in the record.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason.code(),
            Self::Unavailable { reason, .. } | Self::Internal { reason, .. } => reason,
            Self::Overloaded { .. } => "OVERLOADED",
            Self::Deadline { .. } => "DEADLINE",
        }
    }
}
