//! Batches, streams and watches at the signing edge.

use std::sync::atomic::Ordering;

use sealkeeper::agent::SignError;
use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::api::v1::{
    GetJwksRequest, SignBatchRequest, SignItem, SignJwtRequest, SignOutcome, SignStreamRequest,
    SignStreamResponse, WatchJwksRequest, sign_item, sign_outcome,
};
use sealkeeper::metrics::Operation;
use sealkeeper::policy::{Reason, Refusal};
use sealkeeper::time::Span;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use super::fake::{Signer, published, signed};
use super::grpc::{connect, jws, jwt};
use super::*;

fn jwt_item() -> SignItem {
    SignItem {
        request: Some(sign_item::Request::Jwt(jwt())),
    }
}

fn jws_item() -> SignItem {
    SignItem {
        request: Some(sign_item::Request::Jws(jws())),
    }
}

/// What an outcome says if it is an error: its gRPC code and its reason.
fn error(outcome: &SignOutcome) -> Option<(Code, String)> {
    let Some(sign_outcome::Outcome::Error(error)) = &outcome.outcome else {
        return None;
    };
    use tonic_types::RpcStatusExt as _;
    let info = error.get_details_error_info().expect("its reason");
    assert_eq!(info.domain, "sealkeeper");
    assert!(!error.message.is_empty());
    Some((Code::from(error.code), info.reason))
}

fn is_jwt(outcome: &SignOutcome) -> bool {
    matches!(&outcome.outcome, Some(sign_outcome::Outcome::Jwt(jwt)) if jwt.token.ends_with(".-__-"))
}

fn overloaded() -> SignError {
    SignError::Overloaded {
        device: "hsm1".into(),
        queued: 64,
        retry_after: Duration::from_millis(1),
    }
}

#[tokio::test]
async fn each_item_of_a_batch_has_an_outcome_of_its_own() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let mut unknown = jwt();
    unknown.alg = Some("HS256".into());
    let items = vec![
        jwt_item(),
        SignItem { request: None },
        jws_item(),
        SignItem {
            request: Some(sign_item::Request::Jwt(unknown)),
        },
    ];
    let reply = client.sign_batch(SignBatchRequest { items }).await;
    let outcomes = reply.unwrap().into_inner().outcomes;
    assert_eq!(outcomes.len(), 4);
    assert!(is_jwt(&outcomes[0]));
    let missing = (Code::InvalidArgument, "INVALID_FIELD".to_owned());
    assert_eq!(error(&outcomes[1]), Some(missing));
    let Some(sign_outcome::Outcome::Jws(jws)) = &outcomes[2].outcome else {
        panic!("{:?}", outcomes[2]);
    };
    assert_eq!(jws.signature, [0xfb, 0xff, 0xfe]);
    let unknown = (Code::InvalidArgument, "UNKNOWN_ALGORITHM".to_owned());
    assert_eq!(error(&outcomes[3]), Some(unknown));

    let empty = client.sign_batch(SignBatchRequest { items: vec![] }).await;
    assert_eq!(empty.unwrap().into_inner().outcomes, []);
}

#[tokio::test]
async fn a_batch_of_too_many_items_is_refused_whole() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        batch: 3,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut client = connect(&server).await;
    for (n, fits) in [(3, true), (4, false)] {
        let items = vec![jwt_item(); n];
        let reply = client.sign_batch(SignBatchRequest { items }).await;
        assert_eq!(reply.is_ok(), fits);
        if let Err(status) = reply {
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(Told::of(&status).field(), Some("items"));
        }
    }
    assert_eq!(signer.seen().len(), 3);
}

#[tokio::test]
async fn a_batch_is_worked_on_a_window_at_a_time_and_dropped_with_its_caller() {
    let signer = Arc::new(Signer::shut());
    let limits = Limits {
        window: 5,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut client = connect(&server).await;
    let items = vec![jwt_item(); 40];
    let mut other = client.clone();
    let call = tokio::spawn(async move { other.sign_batch(SignBatchRequest { items }).await });
    until(|| signer.seen().len() == 5).await;
    client.get_jwks(GetJwksRequest::default()).await.unwrap();
    assert_eq!(signer.seen().len(), 5);
    call.abort();
    until(|| signer.dropped.load(Ordering::SeqCst) == 5).await;
    assert_eq!(signer.seen().len(), 5);
}

#[tokio::test]
async fn an_item_waits_for_room_as_long_as_its_caller_does() {
    let signer = Arc::new(Signer::default());
    *signer.outcome.lock().unwrap() = Err(overloaded());
    let limits = Limits {
        deadline: Duration::from_millis(100),
        ..Limits::default()
    };
    let impatient = Server::signer(&signer, limits);
    let request = SignBatchRequest {
        items: vec![jwt_item(); 3],
    };
    let outcomes = connect(&impatient).await.sign_batch(request).await;
    let outcomes = outcomes.unwrap().into_inner();
    for outcome in outcomes.outcomes {
        let room = (Code::ResourceExhausted, "OVERLOADED".to_owned());
        assert_eq!(error(&outcome), Some(room));
    }
    assert!(signer.seen().len() > 3, "each was tried again");
    let once = (Operation::SignJwt, "main".to_owned(), "OVERLOADED");
    let counted = signer.turned_away.lock().unwrap().clone();
    assert!((1..=3).contains(&counted.len()), "{counted:?}");
    assert!(counted.iter().all(|one| *one == once), "{counted:?}");

    let server = Server::signer(&signer, Limits::default());
    let client = connect(&server).await;
    let items = vec![jwt_item(); 3];
    let mut other = client.clone();
    let call = tokio::spawn(async move { other.sign_batch(SignBatchRequest { items }).await });
    let before = signer.seen().len();
    until(|| signer.seen().len() > before + 10).await;
    *signer.outcome.lock().unwrap() = Ok(signed());
    let outcomes = within(call).await.unwrap().unwrap().into_inner().outcomes;
    assert!(outcomes.iter().all(is_jwt), "{outcomes:?}");
}

/// What is counted is how requests ended, so that one that waits for room
/// counts once; and a rate is not room.
#[tokio::test]
async fn items_beyond_a_rate_or_of_unknown_algorithms_are_refused_at_once() {
    let signer = Arc::new(Signer::default());
    let refusal = Refusal::new(Reason::RateLimited, "key_set.main.rule.a", "m", "h");
    let refusal = Refusal {
        retry_after: Some(Span::from_millis(1)),
        ..refusal
    };
    *signer.outcome.lock().unwrap() = Err(SignError::Refused(refusal));
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let mut unknown = jwt_item();
    let Some(sign_item::Request::Jwt(jwt)) = &mut unknown.request else {
        panic!("not a jwt");
    };
    jwt.alg = Some("none".into());
    let items = vec![jwt_item(), jwt_item(), unknown];
    let outcomes = client.sign_batch(SignBatchRequest { items }).await;
    let outcomes = outcomes.unwrap().into_inner().outcomes;
    let limited = (Code::ResourceExhausted, "RATE_LIMITED".to_owned());
    let unknown = (Code::InvalidArgument, "UNKNOWN_ALGORITHM".to_owned());
    let expected = [&limited, &limited, &unknown].map(|one| Some(one.clone()));
    assert_eq!(outcomes.iter().map(error).collect::<Vec<_>>(), expected);
    assert_eq!(signer.seen().len(), 2);
    // The agent has counted what it refused itself.
    let unknown = (Operation::SignJwt, "main".to_owned(), "UNKNOWN_ALGORITHM");
    assert_eq!(*signer.turned_away.lock().unwrap(), [unknown]);
}

struct Stream {
    items: Option<mpsc::Sender<SignStreamRequest>>,
    replies: Streaming<SignStreamResponse>,
}

impl Stream {
    async fn open(client: &mut SignerClient<Channel>) -> Self {
        let (items, stream) = mpsc::channel(1000);
        let replies = client.sign_stream(ReceiverStream::new(stream)).await;
        Self {
            items: Some(items),
            replies: replies.unwrap().into_inner(),
        }
    }

    async fn send(&self, id: u64, item: SignItem) {
        let request = SignStreamRequest {
            id,
            item: Some(item),
            timeout: None,
        };
        self.items.as_ref().unwrap().send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<(u64, SignOutcome)>, Status> {
        let reply = within(self.replies.message()).await?;
        Ok(reply.map(|reply| (reply.id, reply.outcome.unwrap())))
    }
}

#[tokio::test]
async fn a_stream_answers_by_id_and_ends_when_the_caller_has_no_more() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut stream = Stream::open(&mut connect(&server).await).await;
    stream.send(7, jwt_item()).await;
    let (id, outcome) = stream.next().await.unwrap().unwrap();
    assert_eq!(id, 7);
    assert!(is_jwt(&outcome));
    let mut wanted: Vec<u64> = (100..300).collect();
    for id in &wanted {
        stream.send(*id, jws_item()).await;
    }
    stream.items = None;
    while let Some((id, outcome)) = stream.next().await.unwrap() {
        assert!(error(&outcome).is_none());
        wanted.retain(|wanted| *wanted != id);
    }
    assert!(wanted.is_empty(), "{wanted:?}");
}

#[tokio::test]
async fn a_stream_slows_its_caller_down_and_refuses_nothing() {
    let signer = Arc::new(Signer::shut());
    let limits = Limits {
        window: 4,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut client = connect(&server).await;
    let mut stream = Stream::open(&mut client).await;
    for id in 0..500 {
        stream.send(id, jwt_item()).await;
    }
    stream.items = None;
    until(|| signer.seen().len() == 4).await;
    client.get_jwks(GetJwksRequest::default()).await.unwrap();
    assert_eq!(signer.seen().len(), 4);
    signer.open();
    let mut answered = 0;
    while let Some((_, outcome)) = stream.next().await.unwrap() {
        assert!(is_jwt(&outcome));
        answered += 1;
    }
    assert_eq!(answered, 500);
}

#[tokio::test]
async fn a_stream_that_is_cancelled_drops_its_work() {
    let signer = Arc::new(Signer::shut());
    let server = Server::signer(&signer, Limits::default());
    let stream = Stream::open(&mut connect(&server).await).await;
    for id in 0..6 {
        stream.send(id, jwt_item()).await;
    }
    until(|| signer.seen().len() == 6).await;
    drop(stream);
    until(|| signer.dropped.load(Ordering::SeqCst) == 6).await;
}

#[tokio::test]
async fn a_caller_that_is_blocked_loses_its_streams_and_counts_each_item() {
    let signer = Arc::new(Signer::shut());
    let callers = callers();
    let server = Server::signer_for(&callers, &signer, Limits::default());
    let mut client = connect(&server).await;
    let mut stream = Stream::open(&mut client).await;
    let watch = client.watch_jwks(WatchJwksRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    within(watch.message()).await.unwrap();
    for id in 0..6 {
        stream.send(id, jwt_item()).await;
    }
    until(|| signer.seen().len() == 6).await;
    let us = callers.list().remove(0);
    assert_eq!((us.requests, us.refusals), (8, 0), "two calls, six items");
    let by = signer.seen()[0].caller.clone();
    callers.block(by.id(), &by, String::new()).await;
    assert!(stream.next().await.is_err());
    assert!(within(watch.message()).await.is_err());
    until(|| signer.dropped.load(Ordering::SeqCst) == 6).await;
    let told = client.sign_batch(SignBatchRequest::default()).await;
    assert_eq!(told.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_item_of_a_stream_has_its_own_time() {
    let signer = Arc::new(Signer::shut());
    let server = Server::signer(&signer, Limits::default());
    let mut stream = Stream::open(&mut connect(&server).await).await;
    for (id, timeout) in [(1, 50_000_000), (2, -1)] {
        let request = SignStreamRequest {
            id,
            item: Some(jwt_item()),
            timeout: Some(prost_types::Duration {
                seconds: 0,
                nanos: timeout,
            }),
        };
        let items = stream.items.as_ref().unwrap();
        items.send(request).await.unwrap();
    }
    let mut told: Vec<_> = Vec::new();
    for _ in 0..2 {
        let (id, outcome) = stream.next().await.unwrap().unwrap();
        told.push((id, error(&outcome).unwrap().1));
    }
    told.sort();
    assert_eq!(
        told,
        [(1, "DEADLINE".to_owned()), (2, "INVALID_FIELD".to_owned())]
    );
    until(|| signer.dropped.load(Ordering::SeqCst) == 1).await;
}

/// A server that stops reads no more, answers what it has, and says so.
#[tokio::test]
async fn a_stream_and_a_watch_end_in_good_order_when_the_server_stops() {
    let signer = Arc::new(Signer::shut());
    let mut server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let mut stream = Stream::open(&mut client).await;
    let watch = client.watch_jwks(WatchJwksRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    within(watch.message()).await.unwrap().unwrap();
    stream.send(1, jwt_item()).await;
    until(|| signer.seen().len() == 1).await;
    server.stop();
    let status = within(watch.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(Told::of(&status).reason, "GOING_AWAY");
    signer.open();
    let (id, outcome) = stream.next().await.unwrap().unwrap();
    assert!(id == 1 && is_jwt(&outcome));
    let status = stream.next().await.unwrap_err();
    assert_eq!(Told::of(&status).reason, "GOING_AWAY");
    assert_eq!(Told::of(&status).metadata("fault"), Some("service"));
    server.ended().await;
}

#[tokio::test]
async fn a_watch_shows_the_set_at_once_and_each_change() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    for key_set in ["", "main"] {
        *signer.jwks.lock().unwrap() = published("{\"keys\":[]}", "\"v1\"");
        let request = WatchJwksRequest {
            key_set: key_set.into(),
        };
        let mut watch = client.watch_jwks(request).await.unwrap().into_inner();
        let first = within(watch.message()).await.unwrap().unwrap();
        assert_eq!(first.jwks.unwrap().jwks, b"{\"keys\":[]}");
        // Something changed, but not the set.
        signer.changes.send_replace(());
        *signer.jwks.lock().unwrap() = published("{\"keys\":[1]}", "\"v2\"");
        signer.changes.send_replace(());
        let next = within(watch.message()).await.unwrap().unwrap();
        let next = next.jwks.unwrap();
        assert_eq!(
            (next.etag.as_str(), &*next.jwks),
            ("\"v2\"", &b"{\"keys\":[1]}"[..])
        );
    }
    let request = WatchJwksRequest {
        key_set: "elsewhere".into(),
    };
    let status = client.watch_jwks(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(Told::of(&status).reason, "UNKNOWN_KEY_SET");
}

/// Sets as large as what a connection buffers: most of them are never sent.
#[tokio::test]
async fn a_slow_watcher_gets_the_newest() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let watch = client.watch_jwks(WatchJwksRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    for n in 0..200 {
        let body = format!("{{\"keys\":[\"{}\"]}}", "x".repeat(50_000));
        *signer.jwks.lock().unwrap() = published(&body, &format!("\"{n}\""));
        signer.changes.send_replace(());
        client.get_jwks(GetJwksRequest::default()).await.unwrap();
    }
    let mut read = 0;
    loop {
        let message = within(watch.message()).await.unwrap().unwrap();
        read += 1;
        if message.jwks.unwrap().etag == "\"199\"" {
            break;
        }
    }
    assert!(read < 100, "{read}");
}

#[tokio::test]
async fn what_goes_on_for_long_is_bounded() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        // Half for one alone.
        long_lived: 4,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut client = connect(&server).await;
    let watch = client.watch_jwks(WatchJwksRequest::default()).await;
    let stream = Stream::open(&mut client).await;
    let full = client.watch_jwks(WatchJwksRequest::default()).await;
    let status = full.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_some());
    drop((watch, stream));
    // Their places are free once the server has noticed.
    within(async {
        while client
            .watch_jwks(WatchJwksRequest::default())
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Found by review: it had none of our details, and a client could not tell
/// that trying again does not help.
pub(super) fn too_large(status: &tonic::Status, limit: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let told = Told::of(status);
    assert_eq!(told.reason, "MESSAGE_TOO_LARGE");
    assert_eq!(told.metadata("fault"), Some("caller"));
    let hint = told.metadata("hint").unwrap();
    assert!(hint.contains(limit), "{hint}");
    assert_eq!(told.retry_after(), None);
}

#[tokio::test]
async fn a_message_of_300_kib_is_refused_with_the_limit() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let large = || SignJwtRequest {
        claims: vec![b' '; 300 * 1024],
        ..jwt()
    };
    let item = || SignItem {
        request: Some(sign_item::Request::Jwt(large())),
    };
    too_large(&client.sign_jwt(large()).await.unwrap_err(), "262144");
    let batch = SignBatchRequest {
        items: vec![item()],
    };
    too_large(&client.sign_batch(batch).await.unwrap_err(), "262144");
    let streamed = SignStreamRequest {
        item: Some(item()),
        ..Default::default()
    };
    let mut stream = client
        .sign_stream(tokio_stream::iter([streamed]))
        .await
        .unwrap()
        .into_inner();
    too_large(&within(stream.message()).await.unwrap_err(), "262144");
    assert_eq!(signer.seen().len(), 0);
}
