//! What else stands beside the JWKS: what browsers ask for, health, and the
//! documents about issuers.

use sealkeeper::serve::http::{Discovery, Document, IssuerUrl};
use serde_json::{Value, json};

use super::fake::{health, published};
use super::http::{Answer, Web};
use super::*;

const JWKS: &str = "/main/jwks.json";

fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_browser_may_fetch_from_any_origin_and_send_no_credentials() {
    let web = Web::start(Limits::default()).await;
    let page = "origin: https://app.example";
    let answer = web.fetch("GET", JWKS, &[page]).await;
    let plain = web.fetch("GET", JWKS, &[]).await;
    assert_eq!(answer, plain, "one copy serves every origin");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("etag"));
    assert_eq!(answer.header("vary"), None);

    let asks = [
        page,
        "access-control-request-method: GET",
        "access-control-request-headers: if-none-match",
    ];
    let preflight = web.fetch("OPTIONS", JWKS, &asks).await;
    assert_eq!((preflight.status, preflight.body.as_str()), (200, ""));
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(
        preflight.header("access-control-allow-methods"),
        Some("GET,HEAD")
    );
    assert_eq!(preflight.header("access-control-allow-headers"), Some("*"));
    assert_eq!(preflight.header("access-control-max-age"), Some("86400"));
    for answer in [answer, preflight] {
        let credentials = answer.header("access-control-allow-credentials");
        assert_eq!(credentials, None);
    }
    // Scripts of other origins learn nothing of the agent's health.
    let health = web.fetch("GET", "/readyz", &[page]).await;
    assert_eq!(health.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn alive_ready_and_signing_are_three_questions() {
    let web = Web::start(Limits::default()).await;
    let gone = Some("DEVICE_UNAVAILABLE");
    let new = Some("NOT_INITIALIZED");
    let table = [
        (vec![], 200, 200),
        (vec![health("a", None, None)], 200, 200),
        (vec![health("a", None, gone)], 200, 503),
        (
            vec![health("a", None, None), health("b", None, gone)],
            200,
            503,
        ),
        (
            vec![health("a", None, None), health("b", new, new)],
            503,
            503,
        ),
    ];
    for (sets, ready, signing) in table {
        web.signer.health.lock().unwrap().clone_from(&sets);
        for (path, expected) in [
            ("/healthz", 200),
            ("/readyz", ready),
            ("/readyz/signing", signing),
        ] {
            let answer = web.fetch("GET", path, &[]).await;
            assert_eq!(answer.status, expected, "{path} {sets:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let head = web.fetch("HEAD", path, &[]).await;
            assert_eq!((head.status, head.headers), (expected, answer.headers));
            assert_eq!(web.fetch("POST", path, &[]).await.status, 405);
        }
    }
}

#[tokio::test]
async fn readiness_says_why_and_to_strangers_in_codes_alone() {
    let web = Web::start(Limits::default()).await;
    *web.signer.health.lock().unwrap() = vec![health("main", None, Some("PIN_BLOCKED"))];
    for (path, ready) in [("/readyz", true), ("/readyz/signing", false)] {
        let answer = web.fetch("GET", path, &[]).await;
        let blocked = json!({ "ready": false, "reason": "PIN_BLOCKED" });
        let expected = json!({
            "ready": ready,
            "key_sets": { "main": {
                "jwks": { "ready": true },
                "signing": blocked,
                "tracks": { "ES256": blocked },
            }},
        });
        assert_eq!(parsed(&answer), expected);
    }
}

fn discovery(issuer: &str) -> Discovery {
    let members = json!({ "token_endpoint": "https://login.example/token" });
    Discovery {
        key_set: "main".to_owned(),
        issuer: IssuerUrl::parse(issuer).unwrap(),
        jwks_uri: "https://login.example/main/jwks.json".to_owned(),
        documents: [Document::OpenId, Document::OAuth].into(),
        members: members.as_object().unwrap().clone(),
    }
}

#[tokio::test]
async fn an_issuers_documents_say_what_is_published() {
    let issuer = "https://login.example/tenant";
    let web = Web::with(Limits::default(), vec![discovery(issuer)]).await;
    let jwks = r#"{"keys":[{"alg":"ES256"},{"alg":"RS256"},{"alg":"ES256"}]}"#;
    *web.signer.jwks.lock().unwrap() = published(jwks, "\"v1\"");
    let places = [
        "/tenant/.well-known/openid-configuration",
        "/.well-known/openid-configuration/tenant",
        "/.well-known/oauth-authorization-server/tenant",
    ];
    let mut answers = Vec::new();
    for place in places {
        let answer = web.fetch("GET", place, &[]).await;
        assert_eq!(answer.status, 200, "{place}");
        let expected = json!({
            "issuer": issuer,
            "jwks_uri": "https://login.example/main/jwks.json",
            "id_token_signing_alg_values_supported": ["ES256", "RS256"],
            "token_endpoint": "https://login.example/token",
        });
        assert_eq!(parsed(&answer), expected);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let held = format!("if-none-match: {}", answer.header("etag").unwrap());
        assert_eq!(web.fetch("GET", place, &[&held]).await.status, 304);
        let head = web.fetch("HEAD", place, &[]).await;
        assert_eq!(head.headers, answer.headers);
        answers.push((held, answer));
    }
    for nowhere in [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/tenant/.well-known/oauth-authorization-server",
    ] {
        assert_eq!(web.fetch("GET", nowhere, &[]).await.status, 404);
    }

    // Another set is another document, at once.
    *web.signer.jwks.lock().unwrap() = published(r#"{"keys":[{"alg":"Ed25519"}]}"#, "\"v2\"");
    for (held, before) in answers {
        let answer = web.fetch("GET", places[0], &[&held]).await;
        assert_eq!(answer.status, 200);
        assert_ne!(answer.header("etag"), before.header("etag"));
        let algorithms = &parsed(&answer)["id_token_signing_alg_values_supported"];
        assert_eq!(*algorithms, json!(["Ed25519"]));
    }
}

#[tokio::test]
async fn issuers_that_differ_in_their_host_are_told_apart() {
    let both = vec![
        discovery("https://a.example"),
        discovery("https://b.example/"),
    ];
    let web = Web::with(Limits::default(), both).await;
    let place = "/.well-known/openid-configuration";
    for (host, issuer) in [
        ("a.example", "https://a.example"),
        ("B.example", "https://b.example/"),
    ] {
        let answer = web.fetch("GET", place, &[&format!("host: {host}")]).await;
        assert_eq!(parsed(&answer)["issuer"], issuer);
    }
    assert_eq!(web.fetch("GET", place, &[]).await.status, 404);
    // One alone is found under any name: a proxy may have rewritten it.
    let alone = Web::with(Limits::default(), vec![discovery("https://a.example")]).await;
    assert_eq!(alone.fetch("GET", place, &[]).await.status, 200);
}
