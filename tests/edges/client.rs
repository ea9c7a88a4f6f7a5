//! The client, against an edge that answers as the test says.

use sealkeeper::agent::SignError;
use sealkeeper::client::{Client, Fault, Item, Signed};
use sealkeeper::policy::{Reason, Refusal};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::Code;

use super::fake::{Signer, published, signed};
use super::*;

fn claims() -> serde_json::Value {
    serde_json::json!({"sub": "alice"})
}

fn item() -> Item {
    Item::jwt("main", &claims()).unwrap()
}

fn overloaded() -> SignError {
    SignError::Overloaded {
        device: "hsm1".into(),
        queued: 64,
        retry_after: Duration::from_millis(2),
    }
}

#[tokio::test]
async fn tokens_and_signatures_come_as_types() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let client = Client::unix(server.path());
    let token = client.sign_jwt("main", &claims()).await.unwrap();
    assert_eq!(token.token, "aGVhZGVy.cGF5bG9hZA.-__-");
    assert_eq!((token.kid.as_str(), token.alg.as_str()), ("key-1", "ES256"));
    assert!(!format!("{token:?}").contains("aGVhZGVy"), "{token:?}");
    let signature = client.sign_jws("main", *b"a.b").await.unwrap();
    assert_eq!(signature.signature, [0xfb, 0xff, 0xfe]);
    let item = item().with_alg("PS256").with_typ("at+jwt");
    client.sign(item).await.unwrap();
    let seen = signer.seen();
    assert_eq!(seen[0].bytes, br#"{"sub":"alice"}"#);
    assert_eq!(seen[1].bytes, b"a.b");
    assert_eq!(seen[2].typ.as_deref(), Some("at+jwt"));
    assert_eq!(seen[2].algorithm.unwrap().name(), "PS256");
    let jwks = client.jwks("").await.unwrap();
    assert_eq!(
        (&*jwks.body, &*jwks.etag),
        (&b"{\"keys\":[]}"[..], "\"v1\"")
    );
    assert_eq!(jwks.max_age, Duration::from_secs(300));
}

#[tokio::test]
async fn what_is_refused_is_not_tried_again_and_says_why() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let client = Client::unix(server.path());
    *signer.outcome.lock().unwrap() = Err(SignError::Refused(Refusal::new(
        Reason::ExpTooFar,
        "key_set.main.rule.api",
        "expected this, got that",
        "do the other",
    )));
    let alone = client.sign_jwt("main", &claims()).await.unwrap_err();
    let batch = client.sign_batch([item()]).await.unwrap().remove(0);
    let stream = client.stream().sign(item()).await.unwrap_err();
    for error in [alone, batch.unwrap_err(), stream] {
        assert_eq!(error.code, Code::InvalidArgument);
        assert_eq!(error.reason.as_deref(), Some("EXP_TOO_FAR"));
        assert_eq!(error.fault, Fault::Caller);
        assert_eq!(error.rule.as_deref(), Some("key_set.main.rule.api"));
        assert_eq!(error.hint.as_deref(), Some("do the other"));
        assert_eq!(
            error.to_string(),
            "EXP_TOO_FAR: expected this, got that; hint: do the other"
        );
    }
    assert_eq!(signer.seen().len(), 3);

    // Nor is what has no hint: an operator is needed.
    *signer.outcome.lock().unwrap() = Err(SignError::Unavailable {
        reason: "PIN_BLOCKED",
        why: "the PIN was refused".into(),
        retry_after: None,
    });
    let error = client.sign_jwt("main", &claims()).await.unwrap_err();
    assert_eq!(error.reason.as_deref(), Some("PIN_BLOCKED"));
    assert_eq!((error.fault, error.lasting), (Fault::Service, true));
    assert_eq!(signer.seen().len(), 4);
}

#[tokio::test]
async fn where_there_is_a_hint_it_is_tried_again_within_its_time() {
    let signer = Arc::new(Signer::default());
    *signer.outcome.lock().unwrap() = Err(overloaded());
    let server = Server::signer(&signer, Limits::default());
    let client = Client::unix(server.path());
    let hasty = client.clone().with_patience(Duration::from_millis(100));
    let error = hasty.sign_jwt("main", &claims()).await.unwrap_err();
    assert!(
        matches!(error.code, Code::ResourceExhausted | Code::DeadlineExceeded),
        "{error:?}"
    );
    assert!(signer.seen().len() > 1);
    assert!(!error.lasting);

    let before = signer.seen().len();
    let call = tokio::spawn(async move { client.sign_jwt("main", &claims()).await });
    until(|| signer.seen().len() > before + 3).await;
    *signer.outcome.lock().unwrap() = Ok(signed());
    within(call).await.unwrap().unwrap();
}

/// Nobody listens, then somebody does, then another one.
#[tokio::test]
async fn it_connects_when_it_can_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let client = Client::unix(&path).with_patience(PATIENCE);
    let stream = client.stream();
    let mut watch = client.watch_jwks("main");
    for round in 0..3 {
        let (early, streamed) = (client.clone(), stream.clone());
        let early = tokio::spawn(async move { early.sign_jwt("main", &claims()).await });
        let streamed = tokio::spawn(async move { streamed.sign(item()).await });
        let signer = Arc::new(Signer::default());
        let etag = format!("\"{round}\"");
        *signer.jwks.lock().unwrap() = published("{\"keys\":[]}", &etag);
        let listener = Unix::bind(&path, 0o600).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(sealkeeper::serve::grpc::serve_signer(
            listener,
            Arc::clone(&signer),
            callers(),
            Metrics::new().room("signing"),
            Limits::default(),
            async { drop(stopped.await) },
        ));
        within(early).await.unwrap().unwrap();
        let streamed = within(streamed).await.unwrap().unwrap();
        assert!(matches!(streamed, Signed::Jwt(_)));
        assert_eq!(within(watch.next()).await.unwrap().etag, etag);
        stop.send(()).unwrap();
        within(server).await.unwrap();
    }
    let hasty = client.with_patience(Duration::from_millis(50));
    let error = hasty.sign_jwt("main", &claims()).await.unwrap_err();
    assert_eq!(error.reason, None, "nobody said anything: {error:?}");
}

#[tokio::test]
async fn a_stream_serves_many_tasks_and_its_answers_find_them() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let stream = Client::unix(server.path()).stream();
    let mut tasks = JoinSet::new();
    for n in 0..500 {
        let stream = stream.clone();
        let item = match n % 2 {
            0 => item(),
            _ => Item::jws("main", *b"a.b"),
        };
        tasks.spawn(async move { (n, stream.sign(item).await.unwrap()) });
    }
    while let Some(done) = within(tasks.join_next()).await {
        let (n, signed) = done.unwrap();
        assert_eq!(matches!(signed, Signed::Jwt(_)), n % 2 == 0);
    }
    assert_eq!(signer.seen().len(), 500, "each once");
}

#[tokio::test]
async fn any_connector_will_do() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let path = server.path().to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move {
            let stream = UnixStream::connect(path).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let client = Client::with_connector(connector);
    client.sign_jwt("main", &claims()).await.unwrap();
}

#[tokio::test]
async fn a_watch_on_nothing_is_told_so() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut watch = Client::unix(server.path()).watch_jwks("elsewhere");
    let error = within(watch.next()).await.unwrap_err();
    assert_eq!(error.reason.as_deref(), Some("UNKNOWN_KEY_SET"));
}
