//! Is the process alive, and does it do its work?
//!
//! - `/healthz`: 200 while the process answers at all. A restart is the cure
//!   for nothing that leaves it answering.
//! - `/readyz`: 200 while the JWKS of *every* key set can be served, else 503.
//!   It stays 200 with the device gone: whoever takes this listener out of
//!   rotation then takes the JWKS from every verifier.
//! - `/readyz/signing`: 200 while *every* key set can sign with its default
//!   track, else 503. For what routes signing requests, and for alarms.
//!
//! Both of the last two have the same body, which says for each key set what
//! is ready and, where it is not, why.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};

use crate::agent::{Readiness, Trouble, Watched};

/// How much is said of what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// To everybody: key sets and tracks, which the JWKS shows anyway, and
    /// codes.
    Codes,
    /// To operators: also the sentence, which may name devices and paths.
    Sentences,
}

struct Probe<W> {
    watched: Arc<W>,
    detail: Detail,
}

// Derived, it would ask `W` to be `Clone`.
impl<W> Clone for Probe<W> {
    fn clone(&self) -> Self {
        Self {
            watched: Arc::clone(&self.watched),
            detail: self.detail,
        }
    }
}

pub(super) fn router<W: Watched>(watched: Arc<W>, detail: Detail) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(jwks::<W>))
        .route("/readyz/signing", get(signing::<W>))
        .with_state(Probe { watched, detail })
}

async fn alive() -> Response {
    answer(true, &json!({ "alive": true }))
}

async fn jwks<W: Watched>(State(probe): State<Probe<W>>) -> Response {
    probe.report(|health| health.jwks.is_ok())
}

async fn signing<W: Watched>(State(probe): State<Probe<W>>) -> Response {
    probe.report(|health| health.signing.is_ok())
}

impl<W: Watched> Probe<W> {
    fn report(&self, is_ready: impl Fn(&Readiness) -> bool) -> Response {
        let all = self.watched.readiness();
        let ready = all.iter().all(is_ready);
        let sets: Map<String, Value> = all
            .iter()
            .map(|health| (health.key_set.clone(), self.key_set(health)))
            .collect();
        answer(ready, &json!({ "ready": ready, "key_sets": sets }))
    }

    fn key_set(&self, health: &Readiness) -> Value {
        let tracks: Map<String, Value> = health
            .tracks
            .iter()
            .map(|(algorithm, state)| (algorithm.to_string(), self.state(state)))
            .collect();
        json!({
            "jwks": self.state(&health.jwks),
            "signing": self.state(&health.signing),
            "tracks": tracks,
        })
    }

    fn state(&self, state: &Result<(), Trouble>) -> Value {
        match (state, self.detail) {
            (Ok(()), _) => json!({ "ready": true }),
            (Err(trouble), Detail::Codes) => json!({ "ready": false, "reason": trouble.reason }),
            (Err(trouble), Detail::Sentences) => {
                json!({ "ready": false, "reason": trouble.reason, "why": trouble.why })
            }
        }
    }
}

fn answer(ready: bool, body: &Value) -> Response {
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let headers = [
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
    ];
    (status, headers, Body::from(format!("{body}\n"))).into_response()
}
