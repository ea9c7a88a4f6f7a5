#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path)
        .unwrap()
        .permissions()
        .mode()
        & 0o777
}

/// Everything in a directory, so that a test sees what was left behind.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_socket_has_its_mode_and_goes_with_the_listener() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sign.sock");
    for bits in [0o600, 0o660, 0o666] {
        let listener = Unix::bind(&path, bits).unwrap();
        assert_eq!(mode(&path), bits);
        assert_eq!(names(dir.path()), ["sign.sock"]);
        drop(listener);
        assert_eq!(names(dir.path()), [""; 0]);
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sign.sock");
    // A file whose listener is gone, as after kill -9.
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Unix::bind(&path, 0o600).unwrap();
    let client = UnixStream::connect(&path).await.unwrap();
    let caller = listener.accept().await.unwrap().greet().await.unwrap().peer;
    let own = client.peer_cred().unwrap();
    let Caller::Unix { uid, gid, pid, .. } = caller else {
        panic!("expected a process")
    };
    assert_eq!((uid, gid), (own.uid(), own.gid()));
    assert_eq!(pid, Some(i32::try_from(std::process::id()).unwrap()));
}

#[tokio::test]
async fn a_socket_that_answers_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sign.sock");
    let first = Unix::bind(&path, 0o600).unwrap();
    let refused = Unix::bind(&path, 0o600).unwrap_err();
    assert!(matches!(refused, BindError::InUse { .. }), "{refused}");
    let _client = UnixStream::connect(&path).await.unwrap();
    // The first connection was the one that asked whether somebody is there.
    first.accept().await.unwrap();
    first.accept().await.unwrap();
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sign.sock");
    std::fs::write(&path, "precious").unwrap();
    let refused = Unix::bind(&path, 0o600).unwrap_err();
    assert!(matches!(refused, BindError::NotASocket { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");

    // A link is no socket either, whatever it leads to.
    let link = dir.path().join("link.sock");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
    let refused = Unix::bind(&link, 0o600).unwrap_err();
    assert!(matches!(refused, BindError::NotASocket { .. }), "{refused}");
}

#[tokio::test]
async fn a_file_that_took_the_sockets_place_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sign.sock");
    let ours = Unix::bind(&path, 0o600).unwrap();
    std::fs::remove_file(&path).unwrap();
    let theirs = Unix::bind(&path, 0o600).unwrap();
    drop(ours);
    assert!(path.exists());
    drop(theirs);
    assert!(!path.exists());
}

#[tokio::test]
async fn an_unusable_path_says_which_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing/sign.sock");
    let refused = Unix::bind(&path, 0o600).unwrap_err().to_string();
    assert!(refused.contains("missing/sign.sock"), "{refused}");
    assert!(refused.contains("No such file"), "{refused}");
    let long = dir.path().join("x".repeat(100));
    assert!(Unix::bind(&long, 0o600).is_err());
    assert_eq!(names(dir.path()), [""; 0]);
}

/// A listener with errors to hand out before each connection.
struct Scripted {
    errors: Mutex<Vec<io::Error>>,
    accepts: AtomicUsize,
}

impl Listener for Scripted {
    type Arrival = Nobody;

    async fn accept(&self) -> io::Result<Nobody> {
        self.accepts.fetch_add(1, Ordering::Relaxed);
        match self.errors.lock().unwrap().pop() {
            Some(error) => Err(error),
            None => Ok(Nobody),
        }
    }

    fn name(&self) -> String {
        "scripted".into()
    }
}

struct Nobody;

impl Arrival for Nobody {
    type Stream = tokio::io::DuplexStream;
    type Peer = ();

    const SHAKES_HANDS: bool = false;

    fn source(&self) -> Option<Source> {
        None
    }

    fn address(&self) -> Option<SocketAddr> {
        None
    }

    async fn greet(self) -> Result<Greeted<Self::Stream, ()>, Refused> {
        Ok(Greeted {
            stream: tokio::io::duplex(1).0,
            peer: (),
            standing: Standing::lasting(),
        })
    }
}

impl Scripted {
    fn new(errors: Vec<io::Error>) -> Self {
        Self {
            errors: Mutex::new(errors),
            accepts: AtomicUsize::new(0),
        }
    }
}

/// With no descriptor left, the loop waits between its attempts; for a peer
/// that is gone already it does not.
#[tokio::test]
async fn without_descriptors_accepting_backs_off() {
    const EMFILE: i32 = 24;
    const ECONNABORTED: i32 = 103;
    let errors = |code, n| (0..n).map(|_| io::Error::from_raw_os_error(code)).collect();

    let exhausted = Scripted::new(errors(EMFILE, 3));
    let begun = std::time::Instant::now();
    next(&exhausted, |_| ()).await;
    assert!(begun.elapsed() >= BACK_OFF * 3, "{:?}", begun.elapsed());
    assert_eq!(exhausted.accepts.load(Ordering::Relaxed), 4);

    let gone = Scripted::new(errors(ECONNABORTED, 1000));
    let begun = std::time::Instant::now();
    next(&gone, |_| ()).await;
    assert!(begun.elapsed() < BACK_OFF * 1000, "{:?}", begun.elapsed());
    assert_eq!(gone.accepts.load(Ordering::Relaxed), 1001);
}

#[test]
fn connections_are_counted_by_who_can_make_more_of_them() {
    let of = |text: &str| Source::of(text.parse().unwrap());
    assert_eq!(of("192.0.2.1"), of("192.0.2.1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::"));
    assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    // As a socket that takes both sees IPv4.
    assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    assert_ne!(of("::ffff:192.0.2.1"), of("::ffff:192.0.2.2"));
}
