//! The JWKS over HTTP, as a verifier and as a nuisance fetches it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use sealkeeper::agent::NoHistory;
use sealkeeper::metrics::Metrics;
use sealkeeper::serve::http::{Discovery, Site};
use sealkeeper::serve::listener::Tcp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fake::{Signer, published};
use super::*;

/// The HTTP server on a port of its own, until it is dropped.
pub(super) struct Web {
    address: SocketAddr,
    pub(super) signer: Arc<Signer>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Web {
    pub(super) async fn start(limits: Limits) -> Self {
        Self::with(limits, Vec::new()).await
    }

    pub(super) async fn with(limits: Limits, discovery: Vec<Discovery>) -> Self {
        let signer = Arc::new(Signer::default());
        let listener = Tcp::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let site = Site {
            signing: Arc::clone(&signer),
            discovery,
            key_sets: vec!["main".to_owned()],
            well_known: Some("main".to_owned()),
            metrics: Metrics::new(),
        };
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            sealkeeper::serve::http::serve(listener, site, limits, stopped).await;
        });
        Self {
            address,
            signer,
            stop: Some(stop),
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `head` and reads until the server hangs up.
    async fn talk(&self, head: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    pub(super) async fn fetch(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        let host = match headers.contains("host: ") {
            true => "",
            false => "host: x\r\n",
        };
        let head = format!("{method} {path} HTTP/1.1\r\n{host}connection: close\r\n{headers}\r\n");
        Answer::parse(&self.talk(&head).await)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            status: status.parse().unwrap(),
            headers,
            body: body.to_owned(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

const PATHS: [&str; 2] = ["/main/jwks.json", "/.well-known/jwks.json"];

#[tokio::test]
async fn the_jwks_is_fetched_and_described() {
    let web = Web::start(Limits::default()).await;
    for path in PATHS {
        let answer = web.fetch("GET", path, &[]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, "{\"keys\":[]}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("content-length"), Some("11"));
        assert_eq!(answer.header("etag"), Some("\"v1\""));
        // 300.9 s, rounded down: no cache may keep it longer.
        assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));

        let head = web.fetch("HEAD", path, &[]).await;
        assert_eq!(head.status, 200);
        assert_eq!(head.headers, answer.headers);
        assert_eq!(head.body, "");
    }
}

#[tokio::test]
async fn who_holds_the_jwks_is_told_so() {
    let web = Web::start(Limits::default()).await;
    for held in ["\"v1\"", "W/\"v1\"", "*", "\"v0\", W/\"v1\""] {
        let held = format!("if-none-match: {held}");
        for method in ["GET", "HEAD"] {
            let answer = web.fetch(method, PATHS[0], &[&held]).await;
            assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{held}");
            assert_eq!(answer.header("etag"), Some("\"v1\""));
            assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            assert_eq!(answer.header("content-type"), None);
        }
    }
    for held in ["\"v0\"", "v1", "\"v1", "\"V1\""] {
        let held = format!("if-none-match: {held}");
        let answer = web.fetch("GET", PATHS[0], &[&held]).await;
        assert_eq!((answer.status, answer.body.len()), (200, 11), "{held}");
    }
    // Another set is another answer, at once.
    *web.signer.jwks.lock().unwrap() = published("{\"keys\":[{}]}", "\"v2\"");
    let answer = web.fetch("GET", PATHS[0], &["if-none-match: \"v1\""]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, "{\"keys\":[{}]}");
    assert_eq!(answer.header("etag"), Some("\"v2\""));
}

#[tokio::test]
async fn what_is_not_there_is_not_there_and_not_cached() {
    let web = Web::start(Limits::default()).await;
    for path in [
        "/other/jwks.json",
        "/Main/jwks.json",
        "/main%2Fx/jwks.json",
        "/main/jwks.json/",
        "/main/x/jwks.json",
        "/%ff/jwks.json",
        "/",
        "/healthz/",
        "/metrics",
        "/.well-known/openid-configuration",
    ] {
        for held in ["x: y", "if-none-match: *"] {
            let answer = web.fetch("GET", path, &[held]).await;
            assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
            let stored = answer.header("cache-control");
            assert!(answer.status == 400 || stored == Some("no-store"), "{path}");
            assert_eq!(answer.header("etag"), None);
        }
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = web.fetch(method, PATHS[0], &["content-length: 0"]).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    }
}

#[tokio::test]
async fn historical_keys_are_served_signed_or_not_at_all() {
    let web = Web::start(Limits::default()).await;
    let path = "/main/historical-keys.jwt";
    let answer = web.fetch("GET", path, &[]).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("cache-control"), Some("no-store"));

    let lacks = NoHistory {
        reason: "DEVICE_UNAVAILABLE",
        why: "a sentence that names /a/path".to_owned(),
    };
    *web.signer.history.lock().unwrap() = Some(Err(lacks));
    let answer = web.fetch("GET", path, &[]).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, "DEVICE_UNAVAILABLE\n");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("retry-after"), Some("10"));

    *web.signer.history.lock().unwrap() = Some(Ok(published("a.b.c", "\"h1\"")));
    let answer = web.fetch("GET", path, &[]).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "a.b.c"));
    let media = answer.header("content-type");
    assert_eq!(media, Some("application/jwk-set+jwt"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    let held = web.fetch("GET", path, &["if-none-match: \"h1\""]).await;
    assert_eq!((held.status, held.body.as_str()), (304, ""));
    let other = web.fetch("GET", "/other/historical-keys.jwt", &[]).await;
    assert_eq!(other.status, 404);
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let web = Web::start(Limits::default()).await;
    let mut stream = web.connect().await;
    let request = b"GET /main/jwks.json HTTP/1.1\r\nhost: x\r\n\r\n";
    let one = web.fetch("GET", PATHS[0], &[]).await;
    for _ in 0..100 {
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(one.body.as_bytes()) {
            within(stream.read_buf(&mut answer)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_peer_that_dawdles_over_its_header_is_cut_off() {
    let limits = Limits {
        patience: Duration::from_millis(50),
        drain: Duration::from_millis(50),
        ..Limits::default()
    };
    let web = Web::start(limits).await;
    for begun in ["", "GET", "GET /main/jwks.json HTTP/1.1\r\nhost: x\r\nx: "] {
        let answer = web.talk(begun).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    // Nor may it be idle for ever after an answer.
    let request = "GET /main/jwks.json HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = web.talk(request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_peer_that_never_reads_is_cut_off() {
    let limits = Limits {
        age: Duration::from_millis(200),
        drain: Duration::from_millis(50),
        connections: 1,
        ..Limits::default()
    };
    let web = Web::start(limits).await;
    *web.signer.jwks.lock().unwrap() = published(&"x".repeat(1 << 20), "\"big\"");
    let mut deaf = web.connect().await;
    let request = "GET /main/jwks.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(50);
    deaf.write_all(request.as_bytes()).await.unwrap();
    // It holds the only place, and has to give it up.
    let answer = web.fetch("HEAD", PATHS[0], &[]).await;
    assert_eq!(answer.status, 200);
    drop(deaf);
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let web = Web::start(Limits::default()).await;
    let long = format!("x: {}", "y".repeat(40_000));
    let mut stream = web.connect().await;
    let head = format!("GET /main/jwks.json HTTP/1.1\r\nhost: x\r\n{long}\r\n\r\n");
    // The server may hang up before it has read all of this.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 431") || answer.is_empty(),
        "{answer}"
    );

    let many: Vec<_> = (0..200).map(|n| format!("x{n}: y")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let answer = web.fetch("GET", PATHS[0], &many).await;
    assert_eq!(answer.status, 431);
    assert_eq!(web.fetch("GET", PATHS[0], &[]).await.status, 200);
}

#[tokio::test]
async fn http_2_is_not_spoken_here() {
    let web = Web::start(Limits::default()).await;
    let answer = web.talk("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
}

#[tokio::test]
async fn shutdown_frees_the_port() {
    let mut web = Web::start(Limits::default()).await;
    // An idle connection does not hold it up.
    let mut idle = web.connect().await;
    idle.write_all(b"GET /main/jwks.json HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0];
    within(idle.read_exact(&mut byte)).await.unwrap();
    let _ = web.stop.take().unwrap().send(());
    within(&mut web.task).await.unwrap();
    TcpStream::connect(web.address).await.unwrap_err();
}
