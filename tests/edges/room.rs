//! What callers take up of the signing edge: each leaves as much to others.

use std::sync::Arc;

use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::api::v1::{
    SignItem, SignStreamRequest, WatchJwksRequest, WatchJwksResponse, sign_item,
};
use sealkeeper::metrics::Operation;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::authority::{Authority, TlsServer};
use super::fake::Signer;
use super::grpc::{connect, jwt};
use super::log::Log;
use super::tls::Place;
use super::unfinished::{Unfinished, message};
use super::*;

const FULL: Option<i32> = Some(Code::ResourceExhausted as i32);

async fn clients(place: &Place) -> [SignerClient<Channel>; 2] {
    let mut clients = Vec::new();
    for name in ["a.example", "b.example"] {
        let identity = place.authority.client(&[], &[name]);
        clients.push(client(&place.server, &place.authority, &identity).await);
    }
    clients.try_into().unwrap()
}

async fn client(
    server: &TlsServer,
    authority: &Authority,
    identity: &super::authority::Identity,
) -> SignerClient<Channel> {
    server.connect(authority, Some(identity)).await.unwrap()
}

async fn watch(client: &mut SignerClient<Channel>) -> Result<Streaming<WatchJwksResponse>, Code> {
    let watch = client.watch_jwks(WatchJwksRequest::default()).await;
    watch
        .map(tonic::Response::into_inner)
        .map_err(|status| status.code())
}

/// Found by review: one certificate took every place there was.
#[tokio::test]
async fn a_caller_leaves_as_many_streams_as_it_has() {
    let (log, _guard) = Log::listen();
    let place = Place::new(Limits {
        long_lived: 12,
        ..Limits::default()
    })
    .await;
    let [mut greedy, mut other] = clients(&place).await;
    let mut open = Vec::new();
    let code = loop {
        match watch(&mut greedy).await {
            Ok(stream) => open.push(stream),
            Err(code) => break code,
        }
    };
    assert_eq!((open.len(), code), (6, Code::ResourceExhausted));
    for n in 1..=3 {
        open.push(
            watch(&mut other)
                .await
                .unwrap_or_else(|code| panic!("{n}: {code}")),
        );
    }
    // The operator sees who it is: in the list, and in the log.
    let all = place.server.callers.list();
    let of = |id: &str| all.iter().find(|caller| caller.id == id).unwrap().open;
    assert_eq!((of("dns:a.example"), of("dns:b.example")), (6, 3));
    let lines = log.lines("caller_turned_away");
    assert!(
        lines[0].contains("a.example") && lines[0].contains("\"own\":6"),
        "{lines:?}"
    );
}

/// Health and reflection go on for as long as their caller likes, too.
#[tokio::test]
async fn every_watch_takes_a_place() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        long_lived: 8,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let channel = sealkeeper::api::client::connect(server.path())
        .await
        .unwrap();
    let mut health = HealthClient::new(channel.clone());
    let mut open: Vec<Streaming<HealthCheckResponse>> = Vec::new();
    let full = loop {
        let request = HealthCheckRequest::default();
        match health.watch(request).await {
            Ok(watch) => open.push(watch.into_inner()),
            Err(status) => break status,
        }
    };
    assert_eq!((open.len(), full.code()), (4, Code::ResourceExhausted));
    assert_eq!(Told::of(&full).reason, "OVERLOADED");
    let mut reflection =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel);
    let nothing = tokio_stream::pending();
    let full = reflection.server_reflection_info(nothing).await;
    assert_eq!(full.unwrap_err().code(), Code::ResourceExhausted);
    // One question is no watch.
    health.check(HealthCheckRequest::default()).await.unwrap();
}

/// Found by review: what had come of a request was held before anybody looked
/// whether there was room for it.
#[tokio::test]
async fn a_call_takes_a_place_before_it_is_read() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        in_flight: 10,
        ..Limits::default()
    };
    let callers = callers();
    let server = Server::signer_for(&callers, &signer, limits);
    let unfinished = Unfinished::connect(server.path()).await;
    let begun: Vec<_> = (0..5)
        .map(|_| {
            let (more, answer) = unfinished.begin(message(10));
            (more, tokio::spawn(answer))
        })
        .collect();
    until(|| callers.list().iter().any(|caller| caller.open == 5)).await;
    let (_more, sixth) = unfinished.begin(message(10));
    assert_eq!(within(sixth).await, FULL);
    let status = connect(&server).await.sign_jwt(jwt()).await.unwrap_err();
    assert_eq!(Told::of(&status).reason, "OVERLOADED");
    let counted = signer.turned_away.lock().unwrap().clone();
    let unread = (Operation::SignJwt, String::new(), "OVERLOADED");
    assert_eq!(counted, [unread.clone(), unread]);
    drop(begun);
    let mut client = connect(&server).await;
    within(async { while client.sign_jwt(jwt()).await.is_err() {} }).await;
}

#[tokio::test]
async fn the_bytes_of_a_request_take_up_room_as_they_come() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        bytes: 400 * 1024,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let unfinished = Unfinished::connect(server.path()).await;
    let (_first, waits) = unfinished.begin(message(150 * 1024));
    let waits = tokio::spawn(waits);
    // Of 400 KiB, 200 are for others.
    let (_second, refused) = unfinished.begin(message(150 * 1024));
    let refused = tokio::spawn(refused);
    let (first, second) = (within_either(waits), within_either(refused));
    let ended = tokio::select! {
        ended = first => ended,
        ended = second => ended,
    };
    assert_eq!(ended, FULL);
    // What fits is signed meanwhile.
    connect(&server).await.sign_jwt(jwt()).await.unwrap();
}

async fn within_either(answer: tokio::task::JoinHandle<Option<i32>>) -> Option<i32> {
    within(answer).await.unwrap()
}

/// What was answered takes up nothing: a stream may go on for ever.
#[tokio::test]
async fn a_stream_gives_back_what_its_items_took() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        // Less than all items together.
        bytes: 1024 * 1024,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut client = connect(&server).await;
    let (items, stream) = mpsc::channel(4);
    let answers = client.sign_stream(ReceiverStream::new(stream)).await;
    let mut answers = answers.unwrap().into_inner();
    let mut request = jwt();
    request.claims = vec![b' '; 8 * 1024];
    let feed = async {
        for id in 0..200 {
            let request = Some(sign_item::Request::Jwt(request.clone()));
            let item = SignStreamRequest {
                id,
                item: Some(SignItem { request }),
                timeout: None,
            };
            items.send(item).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..200 {
            within(answers.message()).await.unwrap().unwrap();
        }
    };
    tokio::join!(feed, read);
}
