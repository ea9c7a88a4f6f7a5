//! What an issuer says of itself: `openid-configuration` (OpenID Connect
//! Discovery 1.0) and `oauth-authorization-server` (RFC 8414).
//!
//! The operator gives the members; `issuer`, `jwks_uri` and the algorithms
//! are ours. The algorithms are read from the very bytes of the JWKS that is
//! being served, so the two cannot differ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwks;
use crate::agent::{Published, Signing};

/// The members that are never the operator's.
pub const OURS: [&str; 3] = [
    "issuer",
    "jwks_uri",
    "id_token_signing_alg_values_supported",
];

/// What is served about one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The key set whose issuer it is.
    pub key_set: String,
    /// Its address.
    pub issuer: IssuerUrl,
    /// Where the public finds its JWKS.
    pub jwks_uri: String,
    /// Which documents there are.
    pub documents: BTreeSet<Document>,
    /// Everything else in them, as the operator gives it.
    pub members: Map<String, Value>,
}

/// A kind of document. Both have the same members: one registry names them
/// (RFC 8414 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Document {
    /// `openid-configuration`.
    OpenId,
    /// `oauth-authorization-server`.
    OAuth,
}

/// An issuer whose documents can be fetched: `https`, a host, and a path or
/// none; no query, no fragment (RFC 8414 section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerUrl {
    text: String,
    /// Where in `text` the path begins.
    path: usize,
}

const SCHEME: &str = "https://";

impl IssuerUrl {
    /// Reads an issuer.
    ///
    /// # Errors
    /// What was expected of it.
    pub fn parse(issuer: &str) -> Result<Self, &'static str> {
        let rest = issuer
            .strip_prefix(SCHEME)
            .ok_or("an address that begins with https://")?;
        let authority = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(authority);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let of_a_host = |c: char| plain(c) || ":[]".contains(c);
        if host.is_empty() || !host.chars().all(of_a_host) {
            return Err("a host name after https://");
        }
        if !path.chars().all(|c| plain(c) || c == '/') {
            return Err("a path of letters, digits, -, ., _ and ~, and no query");
        }
        if path.trim_end_matches('/').contains("//") {
            return Err("a path without empty segments");
        }
        Ok(Self {
            text: issuer.to_owned(),
            path: SCHEME.len() + authority,
        })
    }

    /// The issuer, letter for letter: verifiers compare it so.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme and authority, such as `https://login.example`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.text[..self.path]
    }

    fn authority(&self) -> &str {
        &self.origin()[SCHEME.len()..]
    }

    /// Empty, or what begins with a slash and ends without one: a final slash
    /// is taken off before anything is added (RFC 8414 section 3.1, OpenID
    /// Connect Discovery section 4.1).
    fn path(&self) -> &str {
        self.text[self.path..].trim_end_matches('/')
    }

    /// Where clients look for a document, the usual place first.
    #[must_use]
    pub fn paths(&self, document: Document) -> Vec<String> {
        let path = self.path();
        match (document, path) {
            (Document::OAuth, _) => vec![format!("/.well-known/oauth-authorization-server{path}")],
            (Document::OpenId, "") => vec!["/.well-known/openid-configuration".to_owned()],
            // OpenID Connect appends; RFC 8414 section 5 lets clients look
            // where it inserts as well.
            (Document::OpenId, path) => vec![
                format!("{path}/.well-known/openid-configuration"),
                format!("/.well-known/openid-configuration{path}"),
            ],
        }
    }
}

/// One issuer's document, made again whenever its JWKS has changed.
struct Kept<S> {
    discovery: Discovery,
    signing: Arc<S>,
    made: ArcSwapOption<Made>,
}

struct Made {
    /// The entity tag of the JWKS that it was made from.
    from: Arc<str>,
    document: Published,
}

/// `GET` and `HEAD` of every place where one of the documents is looked for.
///
/// Issuers that differ in their host alone share a path; then the `Host` of
/// the request decides, and an unknown one gets nothing.
pub(super) fn router<S: Signing>(signing: &Arc<S>, all: Vec<Discovery>) -> Router {
    let mut places: BTreeMap<String, Vec<Arc<Kept<S>>>> = BTreeMap::new();
    for discovery in all {
        let kept = Arc::new(Kept {
            discovery,
            signing: Arc::clone(signing),
            made: ArcSwapOption::empty(),
        });
        let Discovery {
            issuer, documents, ..
        } = &kept.discovery;
        for path in documents.iter().flat_map(|kind| issuer.paths(*kind)) {
            places.entry(path).or_default().push(Arc::clone(&kept));
        }
    }
    places
        .into_iter()
        .fold(Router::new(), |router, (path, kept)| {
            router.merge(
                Router::new()
                    .route(&path, get(document::<S>))
                    .with_state(Arc::from(kept)),
            )
        })
}

async fn document<S: Signing>(
    State(here): State<Arc<[Arc<Kept<S>>]>>,
    headers: HeaderMap,
) -> Response {
    let kept = match &*here {
        [only] => Some(only),
        several => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            several.iter().find(|kept| {
                let ours = kept.discovery.issuer.authority();
                host.is_some_and(|host| host.eq_ignore_ascii_case(ours))
            })
        }
    };
    jwks::answer(kept.and_then(|kept| kept.document()), &headers)
}

impl<S: Signing> Kept<S> {
    /// The document for the JWKS of now; kept for as long as the JWKS.
    fn document(&self) -> Option<Published> {
        let jwks = self.signing.published(&self.discovery.key_set)?;
        if let Some(made) = &*self.made.load()
            && made.from == jwks.etag
        {
            return Some(Published {
                max_age: jwks.max_age,
                ..made.document.clone()
            });
        }
        let document = Published::new(self.discovery.text(&jwks.body)?, jwks.max_age);
        self.made.store(Some(Arc::new(Made {
            from: jwks.etag,
            document: document.clone(),
        })));
        Some(document)
    }
}

impl Discovery {
    /// The document beside this JWKS; `None` for what is no JWKS.
    fn text(&self, jwks: &[u8]) -> Option<Vec<u8>> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Key>,
        }
        #[derive(Deserialize)]
        struct Key {
            alg: Option<String>,
        }
        let set: Set = serde_json::from_slice(jwks).ok()?;
        let mut algorithms: Vec<String> = Vec::new();
        for alg in set.keys.into_iter().filter_map(|key| key.alg) {
            if !algorithms.contains(&alg) {
                algorithms.push(alg);
            }
        }
        let mut members = self.members.clone();
        let ours = [
            Value::from(self.issuer.as_str()),
            Value::from(self.jwks_uri.as_str()),
            Value::from(algorithms),
        ];
        members.extend(OURS.iter().map(|name| (*name).to_owned()).zip(ours));
        serde_json::to_vec(&members).ok()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;

    #[test]
    fn documents_stand_where_the_specifications_look() {
        let at = |issuer: &str, document| IssuerUrl::parse(issuer).unwrap().paths(document);
        // RFC 8414 section 3.1 and OpenID Connect Discovery section 4.1.
        for issuer in ["https://example.com", "https://example.com/"] {
            assert_eq!(
                at(issuer, Document::OAuth),
                ["/.well-known/oauth-authorization-server"]
            );
            assert_eq!(
                at(issuer, Document::OpenId),
                ["/.well-known/openid-configuration"]
            );
        }
        for issuer in [
            "https://example.com/issuer1",
            "https://example.com/issuer1/",
        ] {
            assert_eq!(
                at(issuer, Document::OAuth),
                ["/.well-known/oauth-authorization-server/issuer1"]
            );
            assert_eq!(
                at(issuer, Document::OpenId),
                [
                    "/issuer1/.well-known/openid-configuration",
                    "/.well-known/openid-configuration/issuer1"
                ]
            );
        }
    }

    #[test]
    fn an_issuer_without_documents_is_none() {
        for issuer in [
            "http://example.com",
            "login",
            "https://",
            "https:///x",
            "https://user@example.com",
            "https://example.com?x",
            "https://example.com#x",
            "https://example.com/a?b",
            "https://example.com/a#b",
            "https://example.com/{a}",
            "https://example.com/a//b",
            "https://example.com/a%2fb",
        ] {
            IssuerUrl::parse(issuer).unwrap_err();
        }
        let issuer = IssuerUrl::parse("https://[::1]:8443/a/b/").unwrap();
        assert_eq!(issuer.as_str(), "https://[::1]:8443/a/b/");
        assert_eq!(issuer.origin(), "https://[::1]:8443");
        assert_eq!(issuer.authority(), "[::1]:8443");
    }
}
