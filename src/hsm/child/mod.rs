//! The process that holds a device: the module, the sessions, the login.
//!
//! Its standard input is a Unix socket to the daemon. Threads block; there is
//! no async runtime here. The main thread reads, and leaves at once when the
//! daemon is gone: a child that is stuck in vendor code must not outlive the
//! daemon and keep the token's login.
//!
//! *Trust: the child believes the daemon, which started it, or which connected
//! to a service manager's socket as root or as the child's own user. The daemon
//! believes nothing but the shape of what the child says: each signature is
//! verified before it is released.*

mod control;
mod outbox;
mod queue;

use std::fs;
use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic;
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::FileType;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use super::frame;
use super::message::{Call, Cure, Fault, FaultKind, HELLO, Reply, Request};
use control::Control;
use outbox::Outbox;
use queue::Queue;

/// The hidden first argument with which the daemon starts its children.
pub const MODE: &str = "device-child";

/// How long a child whose daemon is gone waits for a login under way. To
/// leave in the middle of it would leave the PIN marker standing.
pub(crate) const LOGIN_GRACE: Duration = Duration::from_secs(10);

/// Serves the device until the daemon closes the socket on standard input.
/// Returns only where there is no such socket: somebody started it by hand.
pub fn run() -> ExitCode {
    let socket = match standard_input().and_then(of_our_own) {
        Ok(socket) => socket,
        Err(e) => {
            let _ = writeln!(
                io::stderr(),
                "{MODE} is started by the daemon or a socket unit, with a connection as its standard input: {e}"
            );
            return ExitCode::from(2);
        }
    };
    if let Err(e) = no_core_dumps() {
        complain(&format!("cannot switch core dumps off: {e}"));
        leave(1)
    }
    if let Err(e) = no_standard_output() {
        complain(&format!("cannot close standard output: {e}"));
        leave(1)
    }
    leave_on_panic();
    serve(socket)
}

fn serve(socket: UnixStream) -> ! {
    let mut reader = match socket.try_clone() {
        Ok(reader) => reader,
        Err(e) => {
            complain(&format!("cannot share the socket: {e}"));
            leave(1)
        }
    };
    let queue = Arc::new(Queue::default());
    let gate = Arc::new(LoginGate::default());
    let (controls, jobs) = mpsc::channel();
    let outbox = Arc::new(Outbox::new(socket));
    let control = Control::new(Arc::clone(&outbox), Arc::clone(&queue), Arc::clone(&gate));
    thread::spawn(move || control.run(&jobs));

    if let Some(refusal) = greet(&mut reader) {
        outbox.send(Reply {
            id: 0,
            result: Err(refusal),
        });
        leave(0)
    }
    // The next frame holds the PIN: it must not pass through a buffer that
    // is not wiped.
    let first = frame::read(&mut reader);
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let mut next: io::Result<Option<Vec<Request>>> = first;
    loop {
        match next {
            Ok(Some(batch)) => {
                let controls_of = queue.push(batch);
                if controls_of
                    .into_iter()
                    .any(|call| controls.send(call).is_err())
                {
                    break;
                }
            }
            Ok(None) => break,
            // It left replies unread: just as gone.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => break,
            Err(e) => {
                complain(&format!("the daemon's stream is broken: {e}"));
                break;
            }
        }
        next = frame::read(&mut reader);
    }
    gate.wait(LOGIN_GRACE);
    leave(0)
}

/// Hears who speaks. One of another release is told so: nothing else that it
/// says could be understood for certain.
fn greet(reader: &mut UnixStream) -> Option<Fault> {
    let hello: String = match frame::read(reader) {
        Ok(Some(hello)) => hello,
        // It went away before it said anything.
        Ok(None) | Err(_) => leave(0),
    };
    if hello == HELLO {
        return None;
    }
    let why = format!(
        "its process is {HELLO:?}, and the agent {hello:?}: they were upgraded one without the other; restart the agent"
    );
    Some(Fault::new(FaultKind::Unavailable, Cure::Reopen, why))
}

/// Everything but signing goes to the control thread.
fn is_control(call: &Call) -> bool {
    !matches!(call, Call::Sign(_))
}

/// Says whether a login is under way.
#[derive(Debug, Default)]
struct LoginGate {
    busy: Mutex<bool>,
    free: Condvar,
}

impl LoginGate {
    /// Runs `login` such that the process does not leave in the middle of it.
    fn during<T>(&self, login: impl FnOnce() -> T) -> T {
        *self.lock() = true;
        let result = login();
        *self.lock() = false;
        self.free.notify_all();
        result
    }

    fn wait(&self, patience: Duration) {
        let busy = self.lock();
        drop(self.free.wait_timeout_while(busy, patience, |busy| *busy));
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn standard_input() -> io::Result<UnixStream> {
    let stdin = rustix::stdio::stdin();
    let mode = rustix::fs::fstat(stdin)?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::Socket {
        return Err(io::Error::other("it is no socket"));
    }
    Ok(UnixStream::from(stdin.as_fd().try_clone_to_owned()?))
}

/// Where a service manager accepts connections for this process, the mode of
/// its socket says who may connect; this is the second lock. Root may do
/// anything anyway.
fn of_our_own(socket: UnixStream) -> io::Result<UnixStream> {
    let peer = rustix::net::sockopt::socket_peercred(&socket)?.uid;
    if peer.is_root() || peer == rustix::process::geteuid() {
        return Ok(socket);
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "the other side is user {}, another than ours",
            peer.as_raw()
        ),
    ))
}

/// The login and, for an instant, the PIN are in this memory.
fn no_core_dumps() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// A service manager may have made it the connection itself, and modules print.
fn no_standard_output() -> io::Result<()> {
    let nowhere = fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(nowhere)?;
    Ok(())
}

/// A thread that died silently would leave its callers waiting. The message
/// of a panic is left out: it may quote what it choked on.
fn leave_on_panic() {
    panic::set_hook(Box::new(|info| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        complain(&format!("panicked at {at}"));
        leave(101)
    }));
}

/// The child has no log; its standard error is the daemon's.
fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "{MODE}: {what}");
}

/// Leaves without running exit handlers: vendor code registers some, and they
/// crash while its threads run.
fn leave(code: i32) -> ! {
    signal_hook::low_level::exit(code)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn leaving_waits_for_a_login_under_way() {
        let gate = LoginGate::default();
        let (begun, beginning) = mpsc::channel();
        let (end, ending) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let gate = &gate;
            scope.spawn(move || {
                gate.during(|| {
                    begun.send(()).ok();
                    ending.recv().ok();
                });
            });
            beginning.recv().ok();
            // It does not end: patience does.
            let started = Instant::now();
            gate.wait(Duration::from_millis(20));
            assert!(started.elapsed() >= Duration::from_millis(20));
            // It ends: no patience is needed.
            let leaving = scope.spawn(|| {
                gate.wait(Duration::from_secs(600));
            });
            end.send(()).ok();
            assert!(leaving.join().is_ok());
        });
        assert!(!*gate.lock());
    }

    #[test]
    fn an_agent_of_another_release_is_told_so() {
        let (mut agent, mut child) = UnixStream::pair().expect("two sockets");
        let mut say = |hello: &str| {
            let mut bytes = Vec::new();
            frame::encode(hello, &mut bytes).expect("a short frame");
            agent.write_all(&bytes).expect("room for it");
            greet(&mut child)
        };
        assert!(say(HELLO).is_none());
        let fault = say("sealkeeper 0.0.9").expect("another release");
        assert_eq!(fault.cure, Cure::Reopen);
        assert!(fault.why.contains("\"sealkeeper 0.0.9\""), "{fault:?}");
    }

    #[test]
    fn leaving_without_a_login_takes_no_time() {
        let started = Instant::now();
        LoginGate::default().wait(Duration::from_secs(600));
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}
