//! File descriptors: the listeners that strangers reach must leave enough of
//! them for signing, administration, the store and the devices.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Serve;
use crate::serve::Limits;

/// What the agent itself needs: listeners, the store, the log, pipes to
/// devices, requests to origins.
const OWN: u64 = 256;

/// What each listener may hold, with as many descriptors as the system gives.
///
/// The system's first limit is 1024 for the sake of programs that use
/// select(2); whoever does not may raise it up to the second (getrlimit(2)).
pub(super) fn limits(serve: &Serve) -> Limits {
    let listeners =
        3 + u64::from(serve.signing_tls.is_some()) + u64::from(serve.metrics_listen.is_some());
    let wanted = OWN + listeners * serve.connections as u64;
    let had = getrlimit(Resource::Nofile);
    if had.current.is_some_and(|soft| soft < wanted) {
        let more = had.maximum.map_or(wanted, |hard| wanted.min(hard));
        let raised = Rlimit {
            current: Some(more),
            maximum: had.maximum,
        };
        if let Err(e) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!("the limit of open files stays as it is: {e}");
        }
    }
    let given = getrlimit(Resource::Nofile).current;
    let connections = given.map_or(serve.connections, |given| {
        fitting(given, listeners, serve.connections)
    });
    if connections < serve.connections {
        tracing::warn!(
            connections,
            open_files = given,
            "each listener takes {connections} connections at most, and not {}: the system allows no more open files; raise `ulimit -n` to {wanted}",
            serve.connections
        );
    }
    Limits {
        connections,
        connections_per_peer: serve.connections_per_peer.min(connections),
        ..Limits::default()
    }
}

/// How many connections each of so many listeners may hold with `given`
/// descriptors.
fn fitting(given: u64, listeners: u64, wanted: usize) -> usize {
    let each = given.saturating_sub(OWN) / listeners.max(1);
    let each = usize::try_from(each).unwrap_or(usize::MAX);
    // One at least: an agent that takes none is of no use to anybody.
    wanted.min(each.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_leave_descriptors_for_the_agent() {
        for (given, listeners, wanted, each) in [
            (8192, 5, 1024, 1024),
            (1024, 5, 1024, 153),
            (1024, 3, 1024, 256),
            (1024, 3, 100, 100),
            (256, 3, 1024, 1),
            (0, 3, 1024, 1),
        ] {
            assert_eq!(fitting(given, listeners, wanted), each, "{given}");
        }
    }
}
