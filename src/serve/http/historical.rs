//! The keys that left a key set, in a signed document (OpenID Federation 1.0,
//! section 8.7).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::jwks::{answer_as, not_found};
use crate::agent::Signing;

const MEDIA: HeaderValue = HeaderValue::from_static("application/jwk-set+jwt");

/// `GET` and `HEAD`, from memory.
pub(super) fn router<S: Signing>(signing: Arc<S>) -> Router {
    Router::new()
        .route("/{key_set}/historical-keys.jwt", get(of_key_set::<S>))
        .with_state(signing)
}

async fn of_key_set<S: Signing>(
    State(signing): State<Arc<S>>,
    Path(key_set): Path<String>,
    headers: HeaderMap,
) -> Response {
    match signing.historical_keys(&key_set) {
        None => not_found("no historical keys are served under this name\n"),
        Some(Ok(published)) => answer_as(MEDIA, published, &headers),
        // The code alone: the sentence is for operators, and in the log.
        Some(Err(lacks)) => {
            let headers = [(CACHE_CONTROL, "no-store"), (RETRY_AFTER, "10")];
            let text = format!("{}\n", lacks.reason);
            (StatusCode::SERVICE_UNAVAILABLE, headers, text).into_response()
        }
    }
}
