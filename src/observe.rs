//! Fetches a JWKS from a public address, as a verifier would, to see which
//! keys are really there.
//!
//! An answer is *not trusted*: whoever answers can delay a rotation or, by
//! showing keys that verifiers are not served, hasten it. That is why the
//! address should be the one that verifiers use. What a key is, our own record
//! says; an answer is only compared with it.

mod address;
mod addresses;
mod trust;

pub use trust::check_roots;
pub(crate) use trust::connector;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri, body::Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::jose::Offer;
use crate::keyring::Shown;

/// The longest body that is read, in bytes. A set of a hundred RSA-4096 keys
/// has less than half of that.
const MAX_BODY: usize = 256 << 10;

/// A place where a JWKS is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    name: String,
    url: Uri,
    spelling: String,
    trust: Trust,
}

/// Whose certificates an `https` origin may show. What is in files is read at
/// each fetch: a change counts without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// One for the address's host that leads to a root of the system's.
    #[default]
    System,
    /// One for the address's host that leads to a root in this file, PEM.
    Roots(PathBuf),
    /// The first certificate in this file, PEM, under whatever name. For an
    /// origin that has its certificate from the same file.
    Exactly(PathBuf),
}

/// Why an address cannot be observed. The configuration's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot observe {name:?} at {url:?}: {why}")]
pub struct InvalidOrigin {
    /// The origin's name.
    pub name: String,
    /// The address as it was given; without what stands before an `@`.
    pub url: String,
    /// What is wrong with it, and what to do.
    pub why: String,
}

impl Origin {
    /// An origin by a name for logs and the address of its JWKS, such as
    /// `https://login.example/main/jwks.json`.
    ///
    /// # Errors
    /// [`InvalidOrigin`] for what is not an absolute `http` or `https` address
    /// that every verifier reads alike.
    pub fn new(name: &str, url: &str) -> Result<Self, InvalidOrigin> {
        let invalid = |why: &str| InvalidOrigin {
            name: name.to_owned(),
            url: without_user(url),
            why: why.to_owned(),
        };
        let (parsed, spelling) =
            address::check(url, &address::JWKS).map_err(|why| invalid(&why))?;
        Ok(Self {
            name: name.to_owned(),
            url: parsed,
            spelling,
            trust: Trust::System,
        })
    }

    /// The same, with other certificates trusted.
    #[must_use]
    pub fn trusting(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// For logs and messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// Its address in the one spelling of those that lead to the same place.
    #[must_use]
    pub fn spelling(&self) -> &str {
        &self.spelling
    }

    /// Whose certificates it may show.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }
}

/// An address to which something is sent: as strict as that of an origin.
///
/// # Errors
/// What is wrong with it. Says nothing of its path, which may be secret.
pub(crate) fn receiver(url: &str) -> Result<Uri, String> {
    Ok(address::check(url, &address::RECEIVER)?.0)
}

/// A password in an address must not reach a log.
fn without_user(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://{}", &url[..scheme], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}

/// Why it is not known which keys an origin serves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// No answer, or it broke off.
    #[error("cannot fetch {url}: {why}")]
    Unreachable {
        /// The address.
        url: Uri,
        /// What the network said.
        why: String,
    },
    /// No whole answer in time.
    #[error("cannot fetch {url}: expected an answer within {timeout:?}")]
    Slow {
        /// The address.
        url: Uri,
        /// How long it had.
        timeout: Duration,
    },
    /// An answer that a verifier would not take. Redirects are among them:
    /// not every verifier follows them.
    #[error("cannot use {url}: expected status 200, got {status}{}", redirect(*status))]
    Status {
        /// The address.
        url: Uri,
        /// The status that came.
        status: StatusCode,
    },
    /// The answer says that it is something else, such as an error page.
    #[error("cannot use {url}: expected application/json or the like, got {got:?}")]
    MediaType {
        /// The address.
        url: Uri,
        /// The `Content-Type` that came; empty where there was none.
        got: String,
    },
    /// More than anybody's JWKS.
    #[error("cannot use {url}: expected at most {MAX_BODY} bytes, got more")]
    TooLarge {
        /// The address.
        url: Uri,
    },
    /// The body is not a JWKS (RFC 7517 section 5).
    #[error("cannot use {url}: expected a JWKS: {why}")]
    Malformed {
        /// The address.
        url: Uri,
        /// What is wrong with it.
        why: String,
    },
}

fn redirect(status: StatusCode) -> &'static str {
    if status.is_redirection() {
        "; configure the address that it leads to"
    } else {
        ""
    }
}

/// The keys that `origin` serves now. `timeout` bounds the whole
/// exchange.
///
/// Each call opens a connection of its own: one that is kept open would see
/// one server behind a balancer, and never the others. Proxies are not used,
/// and caches on the way are not told to step aside, for verifiers get what
/// they hold.
///
/// # Errors
/// [`ObserveError`]. None of them says that a key is absent.
pub async fn fetch(origin: &Origin, timeout: Duration) -> Result<BTreeSet<Offer>, ObserveError> {
    let body = fetch_set(origin, timeout).await?;
    Offer::all(&body).map_err(|why| ObserveError::Malformed {
        url: origin.url.clone(),
        why,
    })
}

/// What verifiers get, whichever of the origin's addresses they are sent to:
/// its name is looked up, and each address asked at the same time. An address
/// of a kind that this machine has no way to, such as IPv6 on a machine
/// without, is passed over as long as another answers. At most 16 are asked.
///
/// # Errors
/// [`ObserveError`], if one of them does not answer as it should: nobody knows
/// then what its verifiers get.
pub async fn look(origin: &Origin, timeout: Duration) -> Result<Shown, ObserveError> {
    let slow = |_| ObserveError::Slow {
        url: origin.url.clone(),
        timeout,
    };
    tokio::time::timeout(timeout, addresses::look(origin))
        .await
        .map_err(slow)?
}

/// The set itself as `origin` serves it now, unread, at most 256 KiB. As
/// [`fetch`] otherwise.
///
/// # Errors
/// [`ObserveError`].
pub async fn fetch_set(origin: &Origin, timeout: Duration) -> Result<Bytes, ObserveError> {
    let slow = |_| ObserveError::Slow {
        url: origin.url.clone(),
        timeout,
    };
    tokio::time::timeout(timeout, exchange(origin, None))
        .await
        .map_err(slow)?
}

/// At one address, or at any that the name leads to.
async fn exchange(origin: &Origin, at: Option<IpAddr>) -> Result<Bytes, ObserveError> {
    let url = &origin.url;
    let unreachable = |e: &dyn std::error::Error| ObserveError::Unreachable {
        url: url.clone(),
        why: match at {
            Some(at) => format!("at {at}: {}", causes(e)),
            None => causes(e),
        },
    };
    let connector = connector(url, &origin.trust, at).map_err(|e| unreachable(&e))?;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector);
    let request = Request::get(url)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(
            USER_AGENT,
            concat!("sealkeeper/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::new())
        .expect("a checked address and constant headers make a request");
    let response = client.request(request).await.map_err(|e| unreachable(&e))?;
    check_head(url, &response)?;
    match Limited::new(response.into_body(), MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => Err(ObserveError::TooLarge { url: url.clone() }),
        Err(e) => Err(unreachable(&*e)),
    }
}

fn check_head(url: &Uri, response: &Response<Incoming>) -> Result<(), ObserveError> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(ObserveError::Status {
            url: url.clone(),
            status,
        });
    }
    let content_type = (response.headers().get(CONTENT_TYPE))
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .unwrap_or_default();
    if is_json(&content_type) {
        return Ok(());
    }
    Err(ObserveError::MediaType {
        url: url.clone(),
        got: content_type.chars().take(100).collect(),
    })
}

/// `application/json`, or a type with the suffix `+json` (RFC 6839), such as
/// `application/jwk-set+json` (RFC 7517 section 8.5.1).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// An error with what led to it: the client's own says only that it failed.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
