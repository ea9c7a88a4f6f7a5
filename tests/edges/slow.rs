//! Peers that are slow, greedy or hostile, over real sockets and in frames of
//! their own making: what bounds each of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::fake::Signer;
use super::grpc::{connect, jwt};
use super::*;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// `REFUSED_STREAM`, `CANCEL` and `ENHANCE_YOUR_CALM` (RFC 9113 section 7).
const REFUSED: u32 = 0x7;
const CANCEL: u32 = 0x8;
const CALM: u32 = 0xb;

/// A client that sends what the test says (RFC 9113).
struct Raw(UnixStream);

/// A frame that came.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Raw {
    async fn connect(server: &Server) -> Self {
        let mut stream = UnixStream::connect(server.path()).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut raw = Self(stream);
        raw.send(SETTINGS, 0, 0, &[]).await.unwrap();
        raw
    }

    async fn send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await
    }

    /// Begins a call of `SignJwt`.
    async fn begin(&mut self, stream: u32) -> std::io::Result<()> {
        self.send(HEADERS, END_HEADERS, stream, &sign_jwt()).await
    }

    /// The next frame, or none once the server has gone.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        within(self.0.read_exact(&mut head)).await.ok()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; len as usize];
        within(self.0.read_exact(&mut payload)).await.ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// The error of the next frame of this kind, whatever comes before it.
    async fn error(&mut self, wanted: u8) -> Option<u32> {
        while let Some(frame) = self.next().await {
            if frame.kind == wanted {
                let error = frame.payload.last_chunk::<4>();
                let at = if wanted == GOAWAY {
                    frame.payload.get(4..8)
                } else {
                    None
                };
                let bytes = at.and_then(|b| b.first_chunk::<4>()).or(error);
                return bytes.map(|bytes| u32::from_be_bytes(*bytes));
            }
        }
        None
    }
}

/// The header of a call, without compression (RFC 7541 section 6.2.2).
fn sign_jwt() -> Vec<u8> {
    let literal = |name: &str, value: &str| {
        let mut field = vec![0];
        for text in [name, value] {
            field.push(u8::try_from(text.len()).unwrap());
            field.extend(text.as_bytes());
        }
        field
    };
    [
        literal(":method", "POST"),
        literal(":scheme", "http"),
        literal(":path", "/sealkeeper.v1.Signer/SignJwt"),
        literal(":authority", "x"),
        literal("content-type", "application/grpc"),
        literal("te", "trailers"),
    ]
    .concat()
}

/// A request that comes byte by byte is answered when its time is over, and
/// its stream ends.
#[tokio::test]
async fn a_body_that_dribbles_is_cut_off() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        deadline: Duration::from_millis(150),
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut raw = Raw::connect(&server).await;
    raw.begin(1).await.unwrap();
    // A message of 65,536 bytes is announced: at this pace it takes minutes.
    raw.send(DATA, 0, 1, &[0, 0, 1, 0, 0]).await.unwrap();
    let begun = std::time::Instant::now();
    let mut answered = false;
    let mut dribbled = 0;
    while !answered {
        assert!(begun.elapsed() < PATIENCE);
        let wait = tokio::time::timeout(Duration::from_millis(10), raw.next()).await;
        match wait {
            Ok(Some(frame)) => answered = frame.kind == HEADERS && frame.stream == 1,
            Ok(None) => panic!("the connection ended"),
            Err(_) => {
                raw.send(DATA, 0, 1, b"x").await.unwrap();
                dribbled += 1;
            }
        }
    }
    assert!(
        begun.elapsed() >= limits.deadline * 2,
        "{:?}",
        begun.elapsed()
    );
    assert!(dribbled > 1);
    assert_eq!(signer.seen().len(), 0);
    // The connection is as good as before.
    raw.begin(3).await.unwrap();
}

#[tokio::test]
async fn a_header_that_never_ends_ends_the_connection() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        patience: Duration::from_millis(100),
        drain: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut raw = Raw::connect(&server).await;
    let header = sign_jwt();
    raw.send(HEADERS, 0, 1, &header[..20]).await.unwrap();
    while raw.next().await.is_some() {}

    // One that goes on and on is cut off by its size.
    let limits = Limits::default();
    let server = Server::signer(&signer, limits);
    let mut raw = Raw::connect(&server).await;
    raw.send(HEADERS, 0, 1, &header).await.unwrap();
    let field = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
    let mut sent = 0;
    while raw.send(CONTINUATION, 0, 1, &field).await.is_ok() {
        sent += field.len();
        assert!(sent < 16 << 20, "the server takes a header without end");
    }
    assert_eq!(signer.seen().len(), 0);
}

/// It does not answer pings either, and so is taken for gone.
#[tokio::test]
async fn a_peer_that_never_reads_is_cut_off() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        patience: Duration::from_millis(100),
        drain: Duration::from_millis(50),
        connections: 1,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut raw = Raw::connect(&server).await;
    for stream in (1..200).step_by(2) {
        raw.begin(stream).await.unwrap();
        raw.send(DATA, END_STREAM, stream, &[0, 0, 0, 0, 0])
            .await
            .unwrap();
    }
    until(|| signer.seen().len() == 100).await;
    // There is one place: somebody else gets it.
    let mut other = within(connect(&server)).await;
    within(other.sign_jwt(jwt())).await.unwrap();
    drop(raw);
}

#[tokio::test]
async fn more_streams_than_the_bound_are_refused() {
    let signer = Arc::new(Signer::shut());
    let limits = Limits {
        streams: 4,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut raw = Raw::connect(&server).await;
    for stream in [1, 3, 5, 7, 9] {
        raw.begin(stream).await.unwrap();
    }
    assert_eq!(raw.error(RST_STREAM).await, Some(REFUSED));
    // The first answer that is no refusal: nobody was cut off for it.
    raw.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())
        .await
        .unwrap();
    raw.begin(11).await.unwrap();
    raw.send(DATA, END_STREAM, 11, &[0, 0, 0, 0, 0])
        .await
        .unwrap();
    until(|| signer.seen().len() == 1).await;
}

#[tokio::test]
async fn a_message_beyond_the_bound_is_refused_unread() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        message: 1024,
        // Nothing but the bound ends it.
        deadline: Duration::from_secs(3600),
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut raw = Raw::connect(&server).await;
    raw.begin(1).await.unwrap();
    // 4 GiB are announced, and five bytes come.
    raw.send(DATA, 0, 1, &[0, 255, 255, 255, 255])
        .await
        .unwrap();
    loop {
        let frame = raw.next().await.expect("an answer");
        if frame.kind == HEADERS && frame.stream == 1 {
            assert_eq!(frame.flags & END_STREAM, END_STREAM);
            break;
        }
    }
    assert_eq!(signer.seen().len(), 0);
}

/// CVE-2023-44487: streams that are opened and reset at once cost the client
/// nothing. After some of them the connection ends.
#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let signer = Arc::new(Signer::shut());
    let server = Server::signer(&signer, Limits::default());
    let raw = Raw::connect(&server).await;
    let mut sent = 0_u32;
    // In one piece, so that the server sees each stream open and reset.
    let mut flood = Vec::new();
    for stream in (1..20_000_u32).step_by(2) {
        let header = sign_jwt();
        let len = u32::try_from(header.len()).unwrap().to_be_bytes();
        flood.extend([len[1], len[2], len[3], HEADERS, END_HEADERS]);
        flood.extend(stream.to_be_bytes());
        flood.extend(&header);
        flood.extend([0, 0, 4, RST_STREAM, 0]);
        flood.extend(stream.to_be_bytes());
        flood.extend(CANCEL.to_be_bytes());
        sent += 1;
    }
    let (mut reader, mut writer) = raw.0.into_split();
    let writing = tokio::spawn(async move { writer.write_all(&flood).await });
    let mut answer = Vec::new();
    let _ = within(reader.read_to_end(&mut answer)).await;
    within(writing).await.unwrap().unwrap_err();
    let calm = [&[0, 0, 0, 0][..], &CALM.to_be_bytes()].concat();
    assert!(answer.windows(8).any(|w| w[4..] == calm[4..]), "{answer:?}");
    assert_eq!(sent, 10_000);
    assert!(signer.seen().is_empty());
    // Another connection is served as ever.
    signer.open();
    connect(&server).await.sign_jwt(jwt()).await.unwrap();
    assert_eq!(signer.dropped.load(Ordering::SeqCst), 0);
}
