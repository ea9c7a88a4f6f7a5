//! Peers that want all there is, at the whole program.

use std::fs;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tonic::Code;

use super::lab::{CALM, Daemon, Lab, fetch, sign, wait_until};
use crate::edges::unfinished::{Unfinished, message};

/// In KiB.
pub(crate) fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("the agent");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.expect("its memory").split_whitespace().nth(1);
    number.and_then(|n| n.parse().ok()).expect("a number")
}

/// Found by review: 1,000 requests of which 200 KiB had come made the agent
/// three times as large. No rule is looked at until a request is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_do_not_end_do_not_grow_the_agent() {
    const CALLS: usize = 2000;
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let before = resident(&daemon);
    let refused = Arc::new(AtomicUsize::new(0));
    let mut begun = Vec::new();
    let sent = message(150 * 1024);
    for _ in 0..CALLS / 250 {
        let connection = Unfinished::connect(&lab.path("sign.sock")).await;
        for _ in 0..250 {
            let (more, answer) = connection.begin(sent.clone());
            let refused = Arc::clone(&refused);
            begun.push((
                more,
                tokio::spawn(async move {
                    if answer.await == Some(Code::ResourceExhausted as i32) {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }),
            ));
        }
    }
    // Half of 16 MiB holds 54 of them.
    wait_until(async || refused.load(Ordering::Relaxed) >= CALLS - 60).await;
    let grown = resident(&daemon).saturating_sub(before);
    eprintln!("{before} KiB, {grown} more");
    assert!(grown < 64 * 1024, "{before} and {grown} KiB");
    let (mut signer, _) = daemon.clients().await.expect("an agent");
    drop(begun);
    sign(&mut signer, "ES256", r#"{"sub":"a"}"#)
        .await
        .expect("a signature");
}

/// Found by review: one address took every connection, and no verifier and no
/// probe came through.
#[tokio::test]
async fn one_address_leaves_connections_to_others() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.amend("[serve]", "[serve]\nconnections = 40");
    lab.init();
    let daemon = lab.serve().await;
    let address = daemon.origin().replace("http://", "");
    let mut crowd = Vec::new();
    let mut n = 0;
    // Sooner than the agent loses patience with the silent ones.
    let soon = async |work: &mut (dyn Future<Output = std::io::Result<usize>> + Unpin)| {
        let ended = tokio::time::timeout(Duration::from_secs(15), work).await;
        ended.expect("an end at once")
    };
    // They say nothing, and the agent waits for their first request.
    while n < 60 {
        n += 1;
        crowd.push(TcpStream::connect(&address).await.expect("a connection"));
    }
    // The last ones were closed at once.
    let last = crowd.last_mut().expect("many");
    let mut byte = [0];
    let refused = soon(&mut pin!(last.read(&mut byte))).await;
    assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");
    // Somebody else, by another address of this machine.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    let elsewhere = "127.0.0.2:0".parse().expect("an address");
    socket.bind(elsewhere).expect("a loopback address");
    let to = address.parse().expect("an address");
    let mut other = socket.connect(to).await.expect("a connection");
    tokio::io::AsyncWriteExt::write_all(
        &mut other,
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await
    .expect("a request");
    let mut answer = String::new();
    soon(&mut pin!(other.read_to_string(&mut answer)))
        .await
        .expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(crowd);
    wait_until(async || fetch(&daemon.origin(), "/healthz").await.is_ok()).await;
}
