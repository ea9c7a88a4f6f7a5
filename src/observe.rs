//! Observers: what verifiers really get from an origin of the JWKS.

use std::collections::BTreeSet;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CACHE_CONTROL};
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::jose::jwk::ServedSet;

/// The largest set that is read. Real ones have a few kilobytes; whoever
/// answers with more is not our origin.
const LARGEST: usize = 256 * 1024;

/// An address at which the public fetches the JWKS.
///
/// It is *not* trusted: whoever answers there can at most keep a new key from
/// becoming active, or let it become active as early as if it were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its name in the record.
    pub name: String,
    url: Uri,
}

/// Not an address that can be observed. The configuration is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an http:// address of a JWKS, got {url:?}: {why}")]
pub struct InvalidOrigin {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub why: String,
}

/// Why an origin told nothing. None of these breaks a run of sightings: only
/// an answer without the key does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObserveError {
    /// No whole answer in time.
    #[error("no whole answer within {0:?}")]
    Late(Duration),
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// Not a set at all.
    #[error("expected 200 OK, got {0}")]
    Status(u16),
    /// More than any set.
    #[error("expected at most {LARGEST} bytes")]
    TooLarge,
    /// Something else than a set.
    #[error("not a JWKS: {0}")]
    NotASet(String),
}

impl Origin {
    /// An origin by its address.
    pub fn new(name: &str, url: &str) -> Result<Self, InvalidOrigin> {
        let invalid = |why: String| InvalidOrigin { url: url.to_owned(), why };
        let parsed: Uri = url.parse().map_err(|e| invalid(format!("{e}")))?;
        if parsed.scheme_str() != Some("http") || parsed.host().is_none() {
            return Err(invalid("only cleartext HTTP is observed so far".to_owned()));
        }
        Ok(Self { name: name.to_owned(), url: parsed })
    }
}

/// Fetches an origin's set as a verifier with an empty cache does, on a new
/// connection, and returns the `kid`s in it.
pub async fn fetch(origin: &Origin, patience: Duration) -> Result<BTreeSet<String>, ObserveError> {
    let late = |_| ObserveError::Late(patience);
    tokio::time::timeout(patience, fetch_whole(&origin.url)).await.map_err(late)?
}

async fn fetch_whole(url: &Uri) -> Result<BTreeSet<String>, ObserveError> {
    let unreachable = |e: &dyn std::fmt::Display| ObserveError::Unreachable(e.to_string());
    // No pool: an idle connection would go to the same place for ever.
    let client: Client<_, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let request = Request::get(url.clone())
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(CACHE_CONTROL, "no-cache")
        .body(Empty::new())
        .map_err(|e| unreachable(&e))?;
    let answer = client.request(request).await.map_err(|e| unreachable(&e))?;
    if answer.status() != StatusCode::OK {
        return Err(ObserveError::Status(answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let bytes = body.map_err(|e| {
        if e.is::<http_body_util::LengthLimitError>() {
            ObserveError::TooLarge
        } else {
            ObserveError::Unreachable(e.to_string())
        }
    })?;
    let served = ServedSet::read(&bytes.to_bytes())
        .map_err(|e| ObserveError::NotASet(e.to_string()))?;
    // A key that we cannot read, verifiers cannot either: it was not seen.
    Ok(served.set.keys.into_iter().map(|jwk| jwk.kid).collect())
}
