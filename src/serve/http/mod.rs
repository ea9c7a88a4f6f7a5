//! HTTP: the JWKS for verifiers, from memory, whatever the device does.

mod conditional;
mod discovery;
mod health;
mod historical;
mod jwks;
mod operators;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Method;
use axum::http::header::ETAG;
use tower_http::cors::{Any, CorsLayer};

use super::connection::{self, Guest, Limits, Protocol};
use super::listener::Listener;
use crate::agent::{Signing, Watched};
use crate::metrics::Metrics;

pub use discovery::{Discovery, Document, IssuerUrl, OURS};
pub use operators::serve_operators;

/// What is served to the public.
pub struct Site<S> {
    /// Whose JWKS.
    pub signing: Arc<S>,
    /// What is said about issuers.
    pub discovery: Vec<Discovery>,
    /// The configured key sets, whose requests are counted apart.
    pub key_sets: Vec<String>,
    /// The one that `/.well-known/jwks.json` shows.
    pub well_known: Option<String>,
    /// Where they are counted.
    pub metrics: Metrics,
}

/// Serves `/{key_set}/jwks.json`, `/.well-known/jwks.json`,
/// `/{key_set}/historical-keys.jwt`, the documents about issuers, and health, until `shutdown` ends and what has begun is
/// answered. What carries the connections, TCP or TLS on top of it, is the
/// listener's affair.
///
/// HTTP/1.1 only: every verifier and every proxy speaks it, and cleartext
/// HTTP/2 would add a parser that strangers reach.
pub async fn serve<L: Listener, S: Signing + Watched>(
    listener: L,
    site: Site<S>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let router = router(site);
    let enter = |peer, _| Guest::staying(peer);
    connection::serve(listener, router, Protocol::Http1, limits, enter, shutdown).await;
}

fn router<S: Signing + Watched>(site: Site<S>) -> Router {
    let Site {
        signing,
        discovery,
        key_sets,
        well_known,
        metrics,
    } = site;
    let counts = Arc::new(jwks::Counts::new(&metrics, &key_sets, well_known));
    jwks::router(Arc::clone(&signing), counts)
        .merge(historical::router(Arc::clone(&signing)))
        .merge(discovery::router(&signing, discovery))
        .layer(for_browsers())
        .merge(health::router(signing, health::Detail::Codes))
        .fallback(jwks::nothing_here)
}

/// Public keys are for everybody: scripts of every origin may fetch them, and
/// see the entity tag. None may send credentials along: nothing here is for
/// one reader alone.
fn for_browsers() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers(Any)
        .expose_headers([ETAG])
        // Browsers keep it for a day at most, and less where they see fit.
        .max_age(Duration::from_secs(24 * 3600))
        // The same for every origin: a cache in front keeps one copy, not one
        // for each page that asks.
        .vary([])
}
