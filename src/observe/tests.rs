#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::header::LOCATION;
use axum::routing::get;
use tokio::net::TcpListener;

use super::*;

const SECONDS: Duration = Duration::from_secs(20);

/// Serves `answer` at every path; returns its address.
async fn serve<F, Fut>(answer: F) -> Origin
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = axum::http::Response<Body>> + Send,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/{*path}", get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Origin::new("test", &format!("http://{address}/main/jwks.json?x=1")).unwrap()
}

fn answer(status: u16, content_type: &str, body: impl Into<Body>) -> axum::http::Response<Body> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header(LOCATION, "/elsewhere")
        .body(body.into())
        .unwrap()
}

async fn fetched(
    status: u16,
    content_type: &'static str,
    body: &str,
) -> Result<Vec<String>, ObserveError> {
    let body = body.to_owned();
    let origin =
        serve(move || std::future::ready(answer(status, content_type, body.clone()))).await;
    let ids = fetch(&origin, SECONDS).await?;
    Ok(ids.into_iter().filter_map(|offer| offer.kid).collect())
}

#[tokio::test]
async fn the_ids_of_a_set_are_seen() {
    let set = r#"{"keys":[{"kid":"b","kty":"RSA"},{"kid":"a"}],"more":1}"#;
    for media_type in [
        "application/json",
        "application/jwk-set+json; charset=utf-8",
        "Application/JSON",
    ] {
        assert_eq!(fetched(200, media_type, set).await.unwrap(), ["a", "b"]);
    }
}

#[tokio::test]
async fn keys_that_are_not_understood_are_passed_over() {
    let set = r#"{"keys":[7,null,{"kid":8},{"kty":"X"},{"kid":"a","kty":"new"},{"kid":"a"}]}"#;
    assert_eq!(fetched(200, "application/json", set).await.unwrap(), ["a"]);
    let empty = fetched(200, "application/json", r#"{"keys":[]}"#).await;
    assert!(empty.unwrap().is_empty());
}

#[tokio::test]
async fn only_a_plain_success_counts() {
    for status in [201, 204, 301, 302, 304, 307, 308, 404, 500, 503] {
        let error = fetched(status, "application/json", "").await.unwrap_err();
        assert!(
            matches!(&error, ObserveError::Status { status: got, .. } if got.as_u16() == status),
            "{error}"
        );
        let leads = error.to_string().contains("the address that it leads to");
        assert_eq!(leads, (300..400).contains(&status), "{error}");
    }
}

#[tokio::test]
async fn an_error_page_is_no_set() {
    let set = r#"{"keys":[{"kid":"a"}]}"#;
    for media_type in ["text/html", "application/jsonp", "text/plain; x=+json", ""] {
        let error = fetched(200, media_type, set).await.unwrap_err();
        assert!(matches!(error, ObserveError::MediaType { .. }), "{error}");
    }
    for body in [
        "",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        "<html>",
        r#"{"keys":[{"kid":"a"}]"#,
    ] {
        let error = fetched(200, "application/json", body).await.unwrap_err();
        assert!(matches!(error, ObserveError::Malformed { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound() {
    let padded = |len: usize| {
        let set = r#"{"keys":[{"kid":"a"}]}"#;
        format!("{set}{}", " ".repeat(len - set.len()))
    };
    let longest = fetched(200, "application/json", &padded(MAX_BODY)).await;
    assert_eq!(longest.unwrap(), ["a"]);
    let error = (fetched(200, "application/json", &padded(MAX_BODY + 1)).await).unwrap_err();
    assert!(matches!(error, ObserveError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn an_endless_body_ends_at_the_bound() {
    let origin = serve(|| async {
        let spaces = std::iter::repeat_with(|| Ok::<_, std::io::Error>(" ".repeat(4096)));
        let spaces = tokio_stream::iter(spaces);
        answer(200, "application/json", Body::from_stream(spaces))
    })
    .await;
    let error = fetch(&origin, SECONDS).await.unwrap_err();
    assert!(matches!(error, ObserveError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn silence_is_bounded_before_the_answer_and_within_it() {
    let mute = serve(std::future::pending).await;
    let stalling = serve(|| async {
        let nothing = tokio_stream::pending::<Result<String, std::io::Error>>();
        answer(200, "application/json", Body::from_stream(nothing))
    })
    .await;
    let started = Instant::now();
    for origin in [mute, stalling] {
        let error = (fetch(&origin, Duration::from_millis(50)).await).unwrap_err();
        assert!(matches!(error, ObserveError::Slow { .. }), "{error}");
    }
    assert!(started.elapsed() < SECONDS);
}

#[tokio::test]
async fn nobody_there_is_told_with_its_cause() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let origin = Origin::new("test", &url).unwrap();
    let error = fetch(&origin, SECONDS).await.unwrap_err();
    assert!(matches!(error, ObserveError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn only_http_and_https_can_be_observed() {
    Origin::new("a", "http://login.example/main/jwks.json").unwrap();
    Origin::new("a", "http://[::1]:8080/jwks.json").unwrap();
    for (url, why) in [
        ("login.example/jwks.json", "begins with https:// or http://"),
        ("/jwks.json", "begins with https:// or http://"),
        ("ftp://login.example/", "begins with https:// or http://"),
        ("http://user:pass@login.example/", "no user or password"),
        ("http:///jwks.json", ""),
        ("http://a b/", ""),
        ("", ""),
    ] {
        let error = Origin::new("a", url).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.to_string().contains("pass@"), "{error}");
    }
}
