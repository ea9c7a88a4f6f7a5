//! The PIN marker: a wrong PIN is tried once, across restarts and processes.
//!
//! A token counts wrong PINs and locks itself, sometimes for ever. A daemon
//! that restarts in a loop with a wrong PIN uses the tries up in seconds. So a
//! file is made durable before each login and removed after a login that went
//! well; while it stands, nobody logs in until an operator has looked.
//!
//! Beside the marker lives `MARKER.lock`, locked (`flock`) for as long as a
//! login runs: it tells a login that is under way from one that was cut off,
//! and makes logins to one device take turns. The lock ends with its process.
//!
//! A token counts for all devices that name it, so `token-MODEL-SERIAL.login`
//! lies there as well, one for each token. It is locked while any of them logs
//! in: a login rewrites the file of a SoftHSM token, and who reads meanwhile
//! gets an error that does not say whether a try was counted. And it names the
//! marker of the latest login, so that a PIN which one device was refused is
//! not tried by the next.
//!
//! None of the files holds the PIN or anything derived from it. *Whoever can write
//! to the marker's directory can clear it, and so spend the token's tries.*

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::message::TokenIdentity;
use crate::time::Time;

/// How long one login waits for another one to the same device.
const TURN: Duration = Duration::from_secs(10);

/// How a device's marker is called, after the device.
pub const SUFFIX: &str = ".pin-tried";

/// What is said of a token that has locked its PIN, and of one whose PIN the
/// next wrong one locks. A reason holds it, for whoever gives advice.
pub const NO_TRY_LEFT: &str = "says that no try is left";
/// See [`NO_TRY_LEFT`].
pub const ONE_TRY_LEFT: &str = "says that one try is left";

/// How long to wait for somebody who only looks at the marker.
const GLANCE: Duration = Duration::from_millis(200);

/// Whether somebody may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing speaks against it.
    Clear,
    /// A login is under way in some process.
    LoggingIn,
    /// A login failed, or was cut off; nobody may try until it is unlocked.
    Standing {
        /// What is known about that login, one line.
        reason: String,
        /// When it was, by the file's own time.
        since: Option<Time>,
    },
}

/// Why the marker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// A login failed or was cut off before.
    #[error("{reason}{}", since.map(|at| format!(", on {at}")).unwrap_or_default())]
    Standing {
        /// What is known about that login.
        reason: String,
        /// When it was.
        since: Option<Time>,
    },
    /// The PIN was refused at another device on the same token, which counts
    /// for both.
    #[error("the token is device {device}'s too, and there {reason}")]
    Shared {
        /// The other device.
        device: String,
        /// What is known about its login.
        reason: String,
    },
    /// Another login to this device or token is under way and does not end.
    #[error("another login to this device or token is under way; it holds {}", lock.display())]
    Busy {
        /// The lock file.
        lock: PathBuf,
    },
    /// The file system is at fault. Without a durable marker nobody logs in.
    #[error("PIN marker {}: {source}{}", path.display(), hint(source))]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// Whether somebody may log in to the device with this marker.
pub fn status(marker: &Path) -> Result<Status, MarkerError> {
    let io = |source| MarkerError::Io {
        path: marker.to_owned(),
        source,
    };
    let Some((reason, since)) = read(marker).map_err(io)? else {
        return Ok(Status::Clear);
    };
    // A lock file that does not exist is held by nobody.
    match OpenOptions::new().read(true).open(lock_path(marker)) {
        Ok(lock) if try_lock(&lock).map_err(io)? => Ok(Status::Standing { reason, since }),
        Ok(_) => Ok(Status::LoggingIn),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Status::Standing { reason, since }),
        Err(e) => Err(io(e)),
    }
}

/// Clears the marker: the operator has looked, and the PIN is right now. Says
/// whether there was one. Refuses while a login is under way.
pub fn unlock(marker: &Path) -> Result<bool, MarkerError> {
    let io = |source| MarkerError::Io {
        path: marker.to_owned(),
        source,
    };
    let _turn = take_turn(lock_path(marker), GLANCE)?;
    match fs::remove_file(marker) {
        Ok(()) => sync_directory(marker).map_err(io).map(|()| true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(io(e)),
    }
}

/// A login under way: the marker stands, and the locks are ours.
#[derive(Debug)]
pub(crate) struct Login {
    marker: PathBuf,
    file: File,
    _turns: [File; 2],
}

impl Login {
    /// Waits for its turn, then makes the marker durable. A crash from here
    /// on leaves the marker standing: the token may have counted a try.
    pub(crate) fn begin(marker: &Path, token: &TokenIdentity) -> Result<Self, MarkerError> {
        // The token's first: it is the one that devices share.
        let latest = token_path(marker, token);
        let mut shared = take_turn(latest.clone(), TURN)?;
        let turn = take_turn(lock_path(marker), TURN)?;
        let io = |source| MarkerError::Io {
            path: marker.to_owned(),
            source,
        };
        if let Some((reason, since)) = read(marker).map_err(io)? {
            return Err(MarkerError::Standing { reason, since });
        }
        let token_io = |source| MarkerError::Io {
            path: latest.clone(),
            source,
        };
        if let Some(other) = named(&latest, marker).map_err(token_io)? {
            return Err(other);
        }
        // Before the marker: a crash between them names one that does not stand.
        let name = marker.file_name().unwrap_or_default().to_string_lossy();
        write_reason(&mut shared, &name).map_err(token_io)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(marker)
            .map_err(io)?;
        let durable = write_reason(
            &mut file,
            "a login was started, and how it ended is not known",
        )
        .and_then(|()| sync_directory(marker));
        if let Err(e) = durable {
            // Nobody has tried anything yet. One that stayed, for want of room
            // on the disk, would ask for an operator after there is room.
            let _ = fs::remove_file(marker);
            return Err(io(e));
        }
        Ok(Self {
            marker: marker.to_owned(),
            file,
            _turns: [shared, turn],
        })
    }

    /// The token took the PIN, or surely did not look at it.
    pub(crate) fn clear(self) -> Result<(), MarkerError> {
        fs::remove_file(&self.marker)
            .and_then(|()| sync_directory(&self.marker))
            .map_err(|source| MarkerError::Io {
                path: self.marker.clone(),
                source,
            })
    }

    /// The token may have counted a try: the marker stays, with the reason.
    /// That the reason cannot be written changes nothing: it stands.
    pub(crate) fn stand(mut self, reason: &str) {
        if let Err(e) = write_reason(&mut self.file, reason) {
            // The child has no log; its standard error is the daemon's.
            let _ = writeln!(io::stderr(), "PIN marker {}: {e}", self.marker.display());
        }
    }
}

/// What the operator can do about it.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room, and it is tried again"
        }
        _ => "",
    }
}

fn write_reason(file: &mut File, reason: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{reason}")?;
    file.sync_all()
}

fn read(marker: &Path) -> io::Result<Option<(String, Option<Time>)>> {
    let text = match fs::read(marker) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    // Empty: the machine went down between creating and writing it.
    let reason = match String::from_utf8_lossy(&text).trim() {
        "" => "a login was started, and how it ended is not known".to_owned(),
        reason => reason.to_owned(),
    };
    let since = fs::metadata(marker)
        .and_then(|meta| meta.modified())
        .ok()
        .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .map(Time::from_secs);
    Ok(Some((reason, since)))
}

fn lock_path(marker: &Path) -> PathBuf {
    let mut name = OsString::from(marker);
    name.push(".lock");
    name.into()
}

/// Where the devices of a token meet: beside their markers.
fn token_path(marker: &Path, token: &TokenIdentity) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name = format!("{}-{}", token.model, token.serial);
    let name: String = name.chars().map(plain).collect();
    marker.with_file_name(format!("token-{name}.login"))
}

/// The latest login to a token, where it was another device's and its marker
/// stands.
fn named(latest: &Path, mine: &Path) -> io::Result<Option<MarkerError>> {
    let Some((name, _)) = read(latest)? else {
        return Ok(None);
    };
    let marker = mine.with_file_name(&name);
    if marker == mine {
        return Ok(None);
    }
    let standing = read(&marker)?;
    Ok(standing.map(|(reason, _)| MarkerError::Shared {
        device: name.strip_suffix(SUFFIX).unwrap_or(&name).to_owned(),
        reason,
    }))
}

/// Polls, because a lock that is waited for cannot be given up again.
fn take_turn(path: PathBuf, patience: Duration) -> Result<File, MarkerError> {
    let io = |source| MarkerError::Io {
        path: path.clone(),
        source,
    };
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    let give_up = Instant::now() + patience;
    while !try_lock(&lock).map_err(io)? {
        if Instant::now() >= give_up {
            return Err(MarkerError::Busy { lock: path });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(lock)
}

fn try_lock(lock: &File) -> io::Result<bool> {
    match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn sync_directory(of: &Path) -> io::Result<()> {
    let parent = match of.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn marker() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hsm.pin-marker");
        (dir, path)
    }

    fn token(serial: &str) -> TokenIdentity {
        TokenIdentity {
            label: "jwt".into(),
            serial: serial.into(),
            manufacturer: "m".into(),
            model: "../v2".into(),
        }
    }

    fn begin(marker: &Path) -> Result<Login, MarkerError> {
        Login::begin(marker, &token("1"))
    }

    #[test]
    fn a_pin_that_one_device_was_refused_is_tried_by_no_other_of_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(format!("{name}{SUFFIX}")));
        begin(&b).unwrap().clear().unwrap();
        begin(&a).unwrap().stand("the token said: wrong");
        let refused = begin(&b).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the token is device a's too, and there the token said: wrong"
        );
        // Another token counts for itself.
        Login::begin(&b, &token("2")).unwrap().clear().unwrap();
        assert!(unlock(&a).unwrap());
        begin(&b).unwrap().clear().unwrap();
        // As when a process dies in the middle.
        drop(begin(&b));
        assert!(matches!(begin(&a), Err(MarkerError::Shared { .. })));
    }

    #[test]
    fn a_login_that_went_well_leaves_no_marker() {
        let (_dir, path) = marker();
        assert_eq!(status(&path).unwrap(), Status::Clear);
        let login = begin(&path).unwrap();
        assert_eq!(status(&path).unwrap(), Status::LoggingIn);
        login.clear().unwrap();
        assert_eq!(status(&path).unwrap(), Status::Clear);
        begin(&path).unwrap().clear().unwrap();
    }

    #[test]
    fn a_failed_login_stands_until_it_is_unlocked() {
        let (_dir, path) = marker();
        begin(&path).unwrap().stand("the token says: wrong");
        let Status::Standing { reason, since } = status(&path).unwrap() else {
            panic!("expected a standing marker");
        };
        assert_eq!(reason, "the token says: wrong");
        assert!(since.is_some());
        assert!(matches!(begin(&path), Err(MarkerError::Standing { .. })));
        assert!(unlock(&path).unwrap());
        assert!(!unlock(&path).unwrap());
        begin(&path).unwrap().clear().unwrap();
    }

    #[test]
    fn a_login_that_was_cut_off_stands() {
        let (_dir, path) = marker();
        // As when the process dies: neither cleared nor given a reason.
        drop(begin(&path).unwrap());
        assert!(matches!(status(&path).unwrap(), Status::Standing { .. }));
        assert!(matches!(begin(&path), Err(MarkerError::Standing { .. })));
    }

    #[test]
    fn an_empty_marker_stands() {
        let (_dir, path) = marker();
        File::create(&path).unwrap();
        assert!(matches!(status(&path).unwrap(), Status::Standing { .. }));
    }

    #[test]
    fn nobody_unlocks_under_a_running_login() {
        let (_dir, path) = marker();
        let login = begin(&path).unwrap();
        assert!(matches!(unlock(&path), Err(MarkerError::Busy { .. })));
        login.clear().unwrap();
    }

    #[test]
    fn logins_take_turns() {
        let (_dir, path) = marker();
        let first = begin(&path).unwrap();
        let second = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| begin(&path));
            first.clear().unwrap();
            waiting.join().unwrap()
        });
        second.unwrap().clear().unwrap();
    }

    #[test]
    fn without_a_directory_nobody_logs_in() {
        let (dir, _) = marker();
        let path = dir.path().join("missing").join("marker");
        assert!(matches!(begin(&path), Err(MarkerError::Io { .. })));
    }
}
