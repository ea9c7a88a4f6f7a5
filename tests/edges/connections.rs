//! Bounds and farewells: connections, requests in flight, shutdown.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sealkeeper::api::client;
use sealkeeper::api::v1::signer_client::SignerClient;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tonic::Code;

use super::fake::Signer;
use super::grpc::{connect, jws, jwt};
use super::*;

#[tokio::test]
async fn more_requests_than_the_bound_are_refused_at_once() {
    let signer = Arc::new(Signer::shut());
    let limits = Limits {
        // Half for one alone.
        in_flight: 4,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let client = connect(&server).await;
    let begun: Vec<_> = (0..2)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.sign_jwt(jwt()).await })
        })
        .collect();
    until(|| signer.seen().len() == 2).await;

    let status = within(client.clone().sign_jws(jws())).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let told = Told::of(&status);
    assert_eq!(told.reason, "OVERLOADED");
    assert_eq!(told.metadata("fault"), Some("service"));
    assert!(told.retry_after().is_some());

    // The places are given back.
    signer.open();
    for request in begun {
        within(request).await.unwrap().unwrap();
    }
    client.clone().sign_jws(jws()).await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_their_turn() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut first = connect(&server).await;
    first.sign_jwt(jwt()).await.unwrap();

    // The kernel takes the connection; nobody answers on it.
    let path = server.path().to_owned();
    let second = tokio::spawn(async move {
        let mut second = SignerClient::new(client::connect(&path).await.unwrap());
        second.sign_jwt(jwt()).await
    });
    for _ in 0..20 {
        first.sign_jwt(jwt()).await.unwrap();
    }
    assert!(!second.is_finished());
    assert_eq!(signer.seen().len(), 21);
    drop(first);
    within(second).await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_finishes_what_has_begun_and_takes_nothing_more() {
    let signer = Arc::new(Signer::shut());
    let mut server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let begun = tokio::spawn(async move { client.sign_jwt(jwt()).await });
    until(|| signer.seen().len() == 1).await;

    server.stop();
    let path = server.path().to_owned();
    until(|| !path.exists()).await;
    let refused = client::connect(&path).await.unwrap_err();
    assert!(refused.to_string().contains("No such file"), "{refused}");

    signer.open();
    within(begun).await.unwrap().unwrap();
    server.ended().await;
    assert_eq!(signer.dropped.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let signer = Arc::new(Signer::shut());
    let limits = Limits {
        drain: Duration::from_millis(50),
        // Nothing but the drain ends the request.
        deadline: Duration::from_secs(3600),
        ..Limits::default()
    };
    let mut server = Server::signer(&signer, limits);
    let mut client = connect(&server).await;
    let begun = tokio::spawn(async move { client.sign_jwt(jwt()).await });
    until(|| signer.seen().len() == 1).await;
    server.stop();
    server.ended().await;
    within(begun).await.unwrap().unwrap_err();
    until(|| signer.dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn who_connects_and_says_nothing_is_asked_to_leave() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        patience: Duration::from_millis(50),
        drain: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut silent = UnixStream::connect(server.path()).await.unwrap();
    let mut said = Vec::new();
    within(silent.read_to_end(&mut said)).await.unwrap();
}

#[tokio::test]
async fn an_old_connection_ends_and_its_requests_do_not() {
    let signer = Arc::new(Signer::shut());
    let limits = Limits {
        age: Duration::from_millis(50),
        connections: 1,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let first = connect(&server).await;
    let mut client = first.clone();
    let begun = tokio::spawn(async move { client.sign_jwt(jwt()).await });
    until(|| signer.seen().len() == 1).await;
    // There is one place, so a second one is served only when the first has
    // left; and it leaves only when its request is answered.
    let mut second = connect(&server).await;
    let second = tokio::spawn(async move { second.sign_jwt(jwt()).await });
    signer.open();
    within(begun).await.unwrap().unwrap();
    within(second).await.unwrap().unwrap();
    drop(first);
}
