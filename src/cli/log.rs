//! The service's log, which nobody waits for.

use std::io::IsTerminal;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

use super::output::Failure;
use crate::metrics::Metrics;

/// Lines that wait to be written. A reader that is slow for a moment misses
/// nothing; one that has stopped costs a few megabytes.
const WAITING: usize = 4096;

/// How often to look whether lines were lost.
const LOOK: Duration = Duration::from_secs(1);

/// The log as it is being written. What waits is written when it is dropped,
/// if anybody reads it.
#[must_use]
pub(super) struct Log {
    lost: ErrorCounter,
    _writer: WorkerGuard,
}

/// The log: for people on a terminal, JSON otherwise; on standard error, its
/// times in UTC. `SEALKEEPER_LOG` says how much.
///
/// A thread of its own writes it. Whoever reads standard error may stop to: a
/// pipe takes 64 KiB, and then every write waits for ever. Lines are lost
/// then, and counted; signing goes on. What must not be lost is not here but
/// in the record of signatures.
pub(super) fn start() -> Result<Log, Failure> {
    let wanted = std::env::var("SEALKEEPER_LOG").unwrap_or_default();
    let filter = match wanted.trim() {
        "" => tracing_subscriber::EnvFilter::new("info"),
        wanted => tracing_subscriber::EnvFilter::try_new(wanted).map_err(|e| {
            Failure::usage(format!("SEALKEEPER_LOG: {e}"))
                .hint("error, warn, info, debug or trace, or parts: info,sealkeeper::agent=debug")
        })?,
    };
    let (lines, writer) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING)
        .thread_name("log")
        .finish(std::io::stderr());
    let lost = lines.error_counter();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines);
    if std::io::stderr().is_terminal() {
        log.init();
    } else {
        log.json().init();
    }
    Ok(Log {
        lost,
        _writer: writer,
    })
}

impl Log {
    /// Counts what is lost, and says so. Never ends.
    pub(super) async fn watch(&self, metrics: &Metrics) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = 0;
        loop {
            ticks.tick().await;
            let lost = self.lost.dropped_lines();
            if lost > known {
                metrics.log_lines_lost((lost - known) as u64);
                known = lost;
                // Lost itself while nobody reads; then it is said again.
                tracing::warn!(
                    event = "log_lines_lost",
                    since_start = lost,
                    "lines of this log were lost: nobody read it"
                );
            }
        }
    }
}
