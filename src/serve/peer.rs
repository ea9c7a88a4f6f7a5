//! Who is at the other end of a Unix socket, as the kernel tells.
//!
//! The user and group of the peer come with the socket (`SO_PEERCRED`). Its
//! supplementary groups stand in `/proc`, under an id that another process may
//! bear by the time that we look. So they count only where it is certain whose
//! they are, and otherwise there are none.
//!
//! Why not `SO_PEERGROUPS`, which has no such gap: it cannot be asked for
//! without `unsafe`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;
use tracing::debug;

use crate::policy::Caller;

/// The peer of a connection. To be asked when it comes, and kept: the process
/// id could be somebody else's later.
pub(super) fn caller(stream: &UnixStream) -> io::Result<Caller> {
    let peer = stream.peer_cred()?;
    let (uid, gid, pid) = (peer.uid(), peer.gid(), peer.pid());
    let groups = pid.and_then(|pid| groups(stream, pid, uid, gid));
    if groups.is_none() {
        debug!(uid, "the supplementary groups of a peer cannot be learned");
    }
    Ok(Caller::Unix {
        uid,
        gid,
        groups: groups.unwrap_or_default(),
        pid,
    })
}

fn groups(stream: &UnixStream, pid: i32, uid: u32, gid: u32) -> Option<BTreeSet<u32>> {
    let witness = Witness::of(stream, pid)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = Ids::parse(&status)?;
    // Last: only now is it certain whose status that was.
    witness.vouches(stream, pid).then_some(())?;
    // A process that became another user since it connected has the groups of
    // that user.
    (ids.uid == uid && ids.gid == gid).then_some(ids.groups)
}

/// What tells whether a process id has meant the same process all along.
enum Witness {
    /// The kernel's own reference to the process that connected (Linux 6.5).
    /// Its id is not used again before it has ended.
    Pidfd(OwnedFd),
    /// When the process of that id began, in ticks since the machine did. An
    /// id that was used again *before* this was read is noticed only by the
    /// connection's end, and by another user or group.
    Began(u64),
}

impl Witness {
    fn of(stream: &UnixStream, pid: i32) -> Option<Self> {
        match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(pidfd) => Some(Self::Pidfd(pidfd)),
            Err(Errno::ENOPROTOOPT) => began(pid).map(Self::Began),
            // It has ended.
            Err(_) => None,
        }
    }

    fn vouches(&self, stream: &UnixStream, pid: i32) -> bool {
        match self {
            Self::Pidfd(pidfd) => !has(pidfd, PollFlags::POLLIN),
            Self::Began(before) => began(pid) == Some(*before) && !has(stream, PollFlags::POLLHUP),
        }
    }
}

/// Whether one of these events stands on a descriptor, or cannot be asked for.
fn has(fd: &impl AsFd, events: PollFlags) -> bool {
    let mut polled = [PollFd::new(fd.as_fd(), events)];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(0) => false,
        Ok(_) => polled[0]
            .revents()
            .is_none_or(|found| found.intersects(events)),
        Err(_) => true,
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)). The second field is a name
/// in parentheses that may hold anything.
fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// What `/proc/PID/status` says of a process (proc_pid_status(5)).
#[derive(Debug, PartialEq, Eq)]
struct Ids {
    uid: u32,
    gid: u32,
    groups: BTreeSet<u32>,
}

impl Ids {
    fn parse(status: &str) -> Option<Self> {
        // Real, effective, saved, file system.
        let effective = |name| field(status, name)?.nth(1)?.parse().ok();
        let groups = field(status, "Groups:")?.map(|group| group.parse().ok());
        Some(Self {
            uid: effective("Uid:")?,
            gid: effective("Gid:")?,
            groups: groups.collect::<Option<_>>()?,
        })
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<impl Iterator<Item = &'a str>> {
    let mut values = status.lines().filter_map(|line| line.strip_prefix(name));
    Some(values.next()?.split_ascii_whitespace())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn own_groups() -> BTreeSet<u32> {
        let groups = rustix::process::getgroups().unwrap();
        groups
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect()
    }

    #[test]
    fn ids_are_read_as_the_manual_says() {
        let status = "Name:\tGroups: 1\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        let ids = Ids {
            uid: 2,
            gid: 6,
            groups: BTreeSet::from([9, 10]),
        };
        assert_eq!(Ids::parse(status), Some(ids));
        let none = status.replace("9 10", "");
        assert_eq!(Ids::parse(&none).unwrap().groups, BTreeSet::new());
        for lame in [
            status.replace("Groups:\t9", "Groups:\tx"),
            status.replace("Uid:", "Xid:"),
            status.replace("\nGroups:", "\nXroups:"),
            status.replace("Gid:\t5\t6\t7\t8", "Gid:\t5"),
            String::new(),
        ] {
            assert_eq!(Ids::parse(&lame), None, "{lame}");
        }
    }

    /// A process with groups of its own, where we may give it any, that
    /// connects to `socket`, says its groups as id(1) sees them, and stays.
    fn client(socket: &std::path::Path) -> (Child, BTreeSet<u32>) {
        let script = format!(
            "import os, socket, subprocess, sys\n\
             s = socket.socket(socket.AF_UNIX)\n\
             s.connect({socket:?})\n\
             print(*os.getgroups(), flush=True)\n\
             sys.stdin.read()\n",
            socket = socket.to_str().unwrap()
        );
        let mut command = if rustix::process::getuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid",
                "4242",
                "--regid",
                "4343",
                "--groups",
                "70,71",
                "/usr/bin/python3",
            ]);
            command
        } else {
            Command::new("/usr/bin/python3")
        };
        let mut child = command
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv and python3, which scripts/test installs");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(!line.is_empty(), "the client did not connect");
        let groups = line.split_whitespace().map(|group| group.parse().unwrap());
        let groups = groups.collect();
        (child, groups)
    }

    #[tokio::test]
    async fn groups_are_the_peers_and_end_with_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let (mut child, expected) = client(&path);
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = UnixStream::from_std(stream).unwrap();
        let Caller::Unix {
            uid,
            gid,
            groups: found,
            pid,
        } = caller(&stream).unwrap()
        else {
            panic!("expected a process")
        };
        if rustix::process::getuid().is_root() {
            assert_eq!((uid, gid), (4242, 4343));
            assert_eq!(found, BTreeSet::from([70, 71]));
        }
        assert_eq!(found, expected);
        let pid = pid.unwrap();
        assert_eq!(pid, i32::try_from(child.id()).unwrap());

        // The other witness, which older kernels leave us with.
        let witness = Witness::Began(began(pid).unwrap());
        assert!(witness.vouches(&stream, pid));
        let another = Witness::Began(began(pid).unwrap() + 1);
        assert!(!another.vouches(&stream, pid));

        // Groups are those of the user who connected.
        assert_eq!(super::groups(&stream, pid, uid, gid), Some(expected));
        assert_eq!(super::groups(&stream, pid, uid + 1, gid), None);
        assert_eq!(super::groups(&stream, pid, uid, gid + 1), None);

        // It has ended, and its id is not free yet.
        let pidfd = Witness::of(&stream, pid).unwrap();
        child.kill().unwrap();
        while pidfd.vouches(&stream, pid) {
            std::thread::yield_now();
        }
        assert!(!witness.vouches(&stream, pid));
        assert_eq!(super::groups(&stream, pid, uid, gid), None);
        child.wait().unwrap();
        assert_eq!(super::groups(&stream, pid, uid, gid), None);
        // Whoever has the id now is not the peer.
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(super::groups(&stream, own, uid, gid), None);
    }

    #[tokio::test]
    async fn our_own_groups_are_known() {
        let (one, _other) = UnixStream::pair().unwrap();
        let Caller::Unix { groups, .. } = caller(&one).unwrap() else {
            panic!("expected a process")
        };
        assert_eq!(groups, own_groups());
    }
}
