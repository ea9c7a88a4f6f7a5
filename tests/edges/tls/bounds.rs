//! Handshakes that take their time, and peers that want more than their share.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn a_slow_handshake_ends_and_bounds_hold_for_each_peer() {
    let (log, _guard) = Log::listen();
    let limits = Limits {
        handshake: Duration::from_millis(300),
        handshakes_per_peer: 2,
        connections_per_peer: 3,
        ..Limits::default()
    };
    let place = Place::new(limits).await;
    let refusals = || log.reasons("connection_refused");
    // Two say nothing or next to nothing; a third has no place.
    let mut silent = TcpStream::connect(place.server.address).await.unwrap();
    let mut slow = TcpStream::connect(place.server.address).await.unwrap();
    slow.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    let mut third = TcpStream::connect(place.server.address).await.unwrap();
    let mut rest = Vec::new();
    let _ = within(third.read_to_end(&mut rest)).await;
    assert_eq!(refusals(), ["TOO_MANY_HANDSHAKES"]);
    for stream in [&mut silent, &mut slow] {
        let _ = within(stream.read_to_end(&mut rest)).await;
    }
    until(|| refusals().len() == 3).await;
    assert_eq!(refusals()[1..], ["HANDSHAKE_TIMEOUT", "HANDSHAKE_TIMEOUT"]);

    // Places come back; of connections there are three.
    let client = place.authority.client(&[], &["login.example"]);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut one = place
            .server
            .connect(&place.authority, Some(&client))
            .await
            .unwrap();
        one.sign_jwt(jwt()).await.unwrap();
        open.push(one);
    }
    place.sign(Some(&client)).await.unwrap_err();
    assert_eq!(refusals()[3..], ["TOO_MANY_CONNECTIONS"]);
    open.pop();
    let signs_again = async || place.sign(Some(&client)).await.is_ok();
    within(async { while !signs_again().await {} }).await;
}

#[tokio::test]
async fn handshakes_beyond_the_bound_wait_their_turn() {
    let limits = Limits {
        handshakes: 1,
        handshake: Duration::from_millis(300),
        ..Limits::default()
    };
    let place = Place::new(limits).await;
    let silent = TcpStream::connect(place.server.address).await.unwrap();
    let client = place.authority.client(&[], &["login.example"]);
    let begun = std::time::Instant::now();
    place.sign(Some(&client)).await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_millis(200),
        "{:?}",
        begun.elapsed()
    );
    drop(silent);
}
