//! HTTP: the JWKS for verifiers, from memory, whatever the device does.

mod conditional;
mod jwks;

use std::sync::Arc;

use super::connection::{self, Limits, Protocol};
use super::listener::Tcp;
use crate::agent::Signing;

/// Serves `/{key_set}/jwks.json` and `/.well-known/jwks.json` until
/// `shutdown` ends and what has begun is answered.
///
/// HTTP/1.1 only: every verifier and every proxy speaks it, and cleartext
/// HTTP/2 would add a parser that strangers reach.
pub async fn serve<S: Signing>(
    listener: Tcp,
    signing: Arc<S>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let router = jwks::router(signing);
    connection::serve(listener, router, Protocol::Http1, limits, shutdown).await;
}
