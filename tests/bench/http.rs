//! The least that a caller over HTTP/1.1 can be: the same request again and
//! again on one connection. One for every server, so that what it costs is the
//! same for all.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::load::{Figure, drive};

/// A connection that stays open.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            address,
            stream,
            input: Vec::with_capacity(16 << 10),
        })
    }

    /// Sends a request and reads the whole answer: its status and its body.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> std::io::Result<(u16, &[u8])> {
        self.input.clear();
        self.stream.write_all(request).await?;
        let (head, body) = loop {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = self.input.windows(4).position(|w| w == b"\r\n\r\n") {
                break (end, end + 4);
            }
        };
        let text = String::from_utf8_lossy(&self.input[..head]).to_ascii_lowercase();
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = match (length, status) {
            (Some(length), _) => length.trim().parse().unwrap(),
            (None, 204) => 0,
            (None, _) => panic!("no length in:\n{text}"),
        };
        let closes = text.contains("connection: close");
        while self.input.len() < body + length {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        if closes {
            self.stream = TcpStream::connect(self.address).await?;
            self.stream.set_nodelay(true)?;
        }
        Ok((status, &self.input[body..body + length]))
    }
}

/// The text of a request.
pub(crate) fn request(method: &str, path: &str, header: &str, body: &str) -> Vec<u8> {
    let length = match body.len() {
        0 => String::new(),
        n => format!("content-length: {n}\r\n"),
    };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{header}{length}\r\n{body}")
        .into_bytes()
}

/// The same request on so many connections.
pub(crate) async fn load(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    span: Duration,
    processes: &[Vec<u32>],
) -> Figure {
    let mut callers = Vec::new();
    for _ in 0..connections {
        let mut connection = Connection::open(address).await.unwrap();
        let request = request.to_owned();
        callers.push(async move || {
            let (status, _) = connection.ask(&request).await.unwrap();
            assert_eq!(status, 200);
        });
    }
    drive(span, 1, processes, callers).await
}

/// An address where nobody listens now.
pub(crate) fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap()
}
