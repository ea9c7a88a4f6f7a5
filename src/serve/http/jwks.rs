//! The JWKS of each key set.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::conditional;
use crate::agent::{Published, Signing};
use crate::metrics::{JwksRequests, Metrics};

/// Why not the registered `application/jwk-set+json` (RFC 7517 section 8.5.1):
/// `application/json` is what nearly every issuer sends, so it is what every
/// verifier and every cache in front of one was tried with, and those that
/// look at the type at all take it.
const JWKS_TYPE: HeaderValue = HeaderValue::from_static("application/json");

/// `GET` and, with the same headers and no body, `HEAD`.
pub(super) fn router<S: Signing>(signing: Arc<S>, counted: Arc<Counts>) -> Router {
    Router::new()
        .route("/.well-known/jwks.json", get(well_known::<S>))
        .route("/{key_set}/jwks.json", get(of_key_set::<S>))
        .with_state(Jwks { signing, counted })
}

struct Jwks<S> {
    signing: Arc<S>,
    counted: Arc<Counts>,
}

// Derived, it would ask `S` to be `Clone`.
impl<S> Clone for Jwks<S> {
    fn clone(&self) -> Self {
        Self {
            signing: Arc::clone(&self.signing),
            counted: Arc::clone(&self.counted),
        }
    }
}

/// The answers of each configured key set, and of all other names together.
pub(super) struct Counts {
    by_key_set: BTreeMap<String, JwksRequests>,
    strangers: JwksRequests,
    well_known: Option<String>,
}

impl Counts {
    pub(super) fn new(metrics: &Metrics, names: &[String], well_known: Option<String>) -> Self {
        let requests = |name: &String| (name.clone(), metrics.jwks_requests(name));
        Self {
            by_key_set: names.iter().map(requests).collect(),
            strangers: metrics.jwks_requests(""),
            well_known,
        }
    }

    fn count(&self, key_set: Option<&str>, answer: &Response) {
        let known = key_set.and_then(|name| self.by_key_set.get(name));
        let requests = known.unwrap_or(&self.strangers);
        requests.answered(answer.status().as_u16());
    }
}

async fn well_known<S: Signing>(State(jwks): State<Jwks<S>>, headers: HeaderMap) -> Response {
    let answer = answer(jwks.signing.well_known(), &headers);
    jwks.counted
        .count(jwks.counted.well_known.as_deref(), &answer);
    answer
}

async fn of_key_set<S: Signing>(
    State(jwks): State<Jwks<S>>,
    Path(key_set): Path<String>,
    headers: HeaderMap,
) -> Response {
    let answer = answer(jwks.signing.published(&key_set), &headers);
    jwks.counted.count(Some(&key_set), &answer);
    answer
}

/// For every other path.
pub(super) async fn nothing_here() -> Response {
    not_found("nothing is served here\n")
}

/// The bytes, or that whoever asks holds them already.
pub(super) fn answer(published: Option<Published>, headers: &HeaderMap) -> Response {
    match published {
        Some(published) => answer_as(JWKS_TYPE, published, headers),
        None => not_found("no such key set\n"),
    }
}

/// The same, of another media type.
pub(super) fn answer_as(media: HeaderValue, published: Published, headers: &HeaderMap) -> Response {
    let Ok(etag) = HeaderValue::from_str(&published.etag) else {
        // Invariant: an entity tag is visible ASCII. Without it, caches still
        // work by age.
        return fresh(media, published, None);
    };
    if conditional::is_held(headers, &published.etag) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        describe(&mut response, &published, Some(etag));
        // That of the 200 (RFC 9110 section 8.6); a HEAD would be given 0.
        let length = HeaderValue::from(published.body.len());
        response.headers_mut().insert(CONTENT_LENGTH, length);
        return response;
    }
    fresh(media, published, Some(etag))
}

fn fresh(media: HeaderValue, published: Published, etag: Option<HeaderValue>) -> Response {
    let body = Body::from(Bytes::from_owner(Arc::clone(&published.body)));
    let mut response = Response::new(body);
    describe(&mut response, &published, etag);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What a 304 says as well (RFC 9110 section 15.4.5).
fn describe(response: &mut Response, published: &Published, etag: Option<HeaderValue>) {
    let headers = response.headers_mut();
    let cache = format!("public, max-age={}", published.max_age.as_secs());
    let cache = HeaderValue::from_str(&cache).expect("digits and ASCII make a header");
    headers.insert(CACHE_CONTROL, cache);
    if let Some(etag) = etag {
        headers.insert(ETAG, etag);
    }
}

/// Not stored: a key set that is configured later must not stay unknown.
pub(super) fn not_found(text: &'static str) -> Response {
    let no_store = [(CACHE_CONTROL, "no-store")];
    (StatusCode::NOT_FOUND, no_store, text).into_response()
}
