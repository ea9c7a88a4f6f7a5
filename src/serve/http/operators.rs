//! For whoever runs the agent: figures, and health with its reasons.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{health, jwks};
use crate::agent::{Measured, Watched};
use crate::metrics;
use crate::serve::connection::{self, Guest, Limits, Protocol};
use crate::serve::listener::Listener;

/// Serves `/metrics` and health until `shutdown` ends.
///
/// Trust: whoever may connect learns which key sets and devices there are,
/// how they are, and how much is signed; never a claim, a token, or for whom.
pub async fn serve_operators<L: Listener, A: Watched + Measured>(
    listener: L,
    agent: Arc<A>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let router = Router::new()
        .route("/metrics", get(figures::<A>))
        .with_state(Arc::clone(&agent))
        .merge(health::router(agent, health::Detail::Sentences))
        .fallback(jwks::nothing_here);
    let enter = |peer, _| Guest::staying(peer);
    connection::serve(listener, router, Protocol::Http1, limits, enter, shutdown).await;
}

async fn figures<A: Measured>(State(agent): State<Arc<A>>) -> Response {
    let headers = [
        (CONTENT_TYPE, metrics::CONTENT_TYPE),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, agent.figures()).into_response()
}
