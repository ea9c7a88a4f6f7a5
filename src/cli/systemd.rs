//! What the service manager is told: readiness, how it goes, and that the
//! daemon is alive (sd_notify(3)).
//!
//! Written here and not taken from a crate: the protocol is one datagram, and
//! the crates that speak it know no abstract sockets, or bring more.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::agent::{Measured, Readiness, Watched};
use crate::clock::monotonic;

/// The socket of the service manager, if there is one.
#[derive(Debug)]
pub(super) struct Manager {
    socket: Option<UnixDatagram>,
    /// Within this time it wants to hear of us, again and again.
    watchdog: Option<Duration>,
}

impl Manager {
    /// Finds the service manager by what it put into the environment.
    pub(super) fn from_env() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            connect(&name)
                .inspect_err(|e| tracing::warn!("the service manager cannot be told: {e}"))
                .ok()
        });
        let watchdog = watchdog(
            env::var("WATCHDOG_USEC").ok().as_deref(),
            env::var("WATCHDOG_PID").ok().as_deref(),
        );
        Self {
            watchdog: watchdog.filter(|_| socket.is_some()),
            socket,
        }
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        // Whoever does not read has no claim on our time: what is lost here is
        // said again, or was not wanted.
        if let Err(e) = socket.send(message.as_bytes()) {
            tracing::debug!("the service manager did not take {message:?}: {e}");
        }
    }

    /// It serves, or serves on.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// It reads again what can change without a restart; [`Manager::ready`]
    /// ends that. The date tells this reload from one before it.
    pub(super) fn reloading(&self) {
        let now = monotonic().as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// It takes no more connections.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing what has begun");
    }

    /// It would stop, and what it has in memory alone would be lost.
    pub(super) fn waiting_for_disk(&self, longest: Duration) {
        // Beyond what the unit gives: a device still has to be closed.
        let extra = (longest * 2).as_micros();
        self.tell(&format!(
            "EXTEND_TIMEOUT_USEC={extra}\nSTATUS=waiting for room on disk: a revocation is in memory alone"
        ));
    }

    /// Says how the agent does whenever that changes, and feeds the watchdog
    /// for as long as the pulses and the writers come round. Never ends.
    pub(super) async fn accompany<A: Watched + Measured>(&self, agent: &A, pulses: &[Pulse]) {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        let every = self
            .watchdog
            .map_or(LOOK, |watchdog| (watchdog / 4).min(LOOK));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = String::new();
        let mut stuck = false;
        loop {
            ticks.tick().await;
            let idle = pulses.iter().map(Pulse::age).max().unwrap_or_default();
            let patience = self.patience();
            let alive = is_alive(idle, agent.slowest_writer(), patience);
            let status = match alive {
                true => status(&agent.readiness()),
                false => format!("stuck for more than {patience:?}"),
            };
            if !alive && !stuck {
                tracing::error!("a loop is stuck; the service manager's watchdog is no longer fed");
            }
            stuck = !alive;
            if status != said {
                self.tell(&format!("STATUS={status}"));
                said = status;
            }
            if alive && self.watchdog.is_some() {
                self.tell("WATCHDOG=1");
            }
        }
    }

    /// How long a loop may not come round before it counts as stuck: half of
    /// what the watchdog allows, the other half being the manager's; and no
    /// less than several of a writer's rounds.
    fn patience(&self) -> Duration {
        self.watchdog.unwrap_or_default().div_f64(2.0).max(SHORTEST)
    }
}

const LOOK: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_secs(10);

fn is_alive(acceptors: Duration, writers: Duration, patience: Duration) -> bool {
    acceptors.max(writers) <= patience
}

/// A path, or an abstract name after an `@`.
fn connect(name: &OsString) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let why =
                format!("expected NOTIFY_SOCKET to be a path or an abstract name, got {name:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// `WATCHDOG_USEC`, unless it is meant for another process.
fn watchdog(microseconds: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let ours = pid.is_none_or(|pid| pid == std::process::id().to_string());
    let microseconds = microseconds?.parse().ok().filter(|us| *us > 0)?;
    ours.then_some(Duration::from_micros(microseconds))
}

/// One line for `systemctl status`, which every user of the machine may read.
fn status(all: &[Readiness]) -> String {
    let sets = match all.len() {
        1 => "1 key set".to_owned(),
        n => format!("{n} key sets"),
    };
    let troubles = all.iter().filter_map(|health| {
        let trouble = health.signing.as_ref().err()?;
        let served = match &health.jwks {
            Ok(()) => "JWKS served",
            Err(_) => "no JWKS",
        };
        let why: String = trouble.why.chars().filter(|c| !c.is_control()).collect();
        Some(format!(
            "{} does not sign ({served}): {why}",
            health.key_set
        ))
    });
    let troubles: Vec<String> = troubles.collect();
    let line = match troubles.is_empty() {
        true => format!("{sets}, all signing"),
        false => format!("{sets}; {}", troubles.join("; ")),
    };
    line.chars().take(LONGEST).collect()
}

/// A terminal's few lines.
const LONGEST: usize = 400;

/// Whether a loop comes round.
#[derive(Clone, Debug)]
pub(super) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    /// A loop that came round just now.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn age(&self) -> Duration {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed()
    }

    /// Waits for `end`, and beats whenever the loop that waits comes round to
    /// ask. A server asks for its end beside each accept, so this tells whether
    /// the accept loop runs, without a connection that a flood of others would
    /// keep out.
    pub(super) async fn until(self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = &mut end => return,
                _ = ticks.tick() => self.beat(),
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test ends where it fails")]
mod tests {
    use super::*;
    use crate::agent::Trouble;

    #[test]
    fn the_watchdog_is_meant_for_one_process() {
        let own = std::process::id().to_string();
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(Some("1000000"), None), second);
        assert_eq!(watchdog(Some("1000000"), Some(&own)), second);
        assert_eq!(watchdog(Some("1000000"), Some("1")), None);
        for none in [None, Some("0"), Some("soon"), Some("-1")] {
            assert_eq!(watchdog(none, None), None);
        }
    }

    #[test]
    fn one_loop_that_is_stuck_is_enough() {
        let (ok, long) = (Duration::from_secs(2), Duration::from_secs(60));
        let manager = |watchdog| Manager {
            socket: None,
            watchdog,
        };
        let patience = manager(Some(long)).patience();
        assert_eq!(patience, Duration::from_secs(30));
        assert_eq!(manager(None).patience(), SHORTEST);
        assert!(is_alive(ok, ok, patience));
        assert!(!is_alive(long, ok, patience));
        assert!(!is_alive(ok, long, patience));
    }

    #[tokio::test]
    async fn a_pulse_beats_for_as_long_as_its_loop_asks() {
        let pulse = Pulse::new();
        *pulse.0.lock().unwrap() = Instant::now().checked_sub(SHORTEST).unwrap();
        let watched = pulse.clone();
        let running = tokio::spawn(watched.until(std::future::pending()));
        while pulse.age() >= SHORTEST {
            tokio::task::yield_now().await;
        }
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        // Nobody asks any more: it ages.
        let then = pulse.age();
        while pulse.age() <= then {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn the_status_is_one_line_that_helps() {
        let health = |name: &str, why: Option<&str>| Readiness {
            key_set: name.to_owned(),
            jwks: Ok(()),
            signing: why.map_or(Ok(()), |why| {
                Err(Trouble {
                    reason: "DEVICE_UNAVAILABLE",
                    why: why.to_owned(),
                })
            }),
            tracks: Vec::new(),
        };
        let fine = [health("a", None), health("b", None)];
        assert_eq!(status(&fine), "2 key sets, all signing");
        let down = [health("a", Some("device hsm is down:\nno token\nREADY=1"))];
        assert_eq!(
            status(&down),
            "1 key set; a does not sign (JWKS served): device hsm is down:no tokenREADY=1"
        );
        let endless = [health("a", Some(&"x".repeat(10_000)))];
        assert_eq!(status(&endless).len(), LONGEST);
    }
}
