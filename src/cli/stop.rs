//! The end of the agent: the signals that ask for it, and what it must not
//! take with it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::output::Failure;
use super::systemd::Manager;
use crate::agent::{Agent, Unwritten};

/// How long a stop waits for the disk to take what is in memory alone. The
/// unit gives 30 s in all: what has begun is answered before, and devices are
/// closed after.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often to look. The writers try once in two seconds.
const LOOK: Duration = Duration::from_millis(100);

/// How often the agent was asked to stop.
#[derive(Clone)]
pub(super) struct Stop(watch::Receiver<u32>);

impl Stop {
    /// Counts SIGTERM and SIGINT from now on.
    pub(super) fn signals() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|e| Failure::failed(format!("signals: {e}")));
        let mut term = listen(SignalKind::terminate())?;
        let mut int = listen(SignalKind::interrupt())?;
        let (tell, told) = watch::channel(0);
        tokio::spawn(async move {
            while !tell.is_closed() {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                tell.send_modify(|asked| *asked += 1);
                match *tell.borrow() {
                    1 => tracing::info!("stopping"),
                    _ => tracing::info!("asked to stop again: waiting for nothing any more"),
                }
            }
        });
        Ok(Self(told))
    }

    /// Until it is asked to stop.
    pub(super) async fn asked(self) {
        self.times(1).await;
    }

    async fn times(mut self, wanted: u32) {
        // An error means that nobody can ask any more: as good as asked.
        let _ = self.0.wait_for(|asked| *asked >= wanted).await;
    }

    /// Gives the disk some time to take the revocations that are in memory
    /// alone, and fails with their names where it did not: the next start
    /// would sign with these keys. Asked to stop again, it waits no longer.
    pub(super) async fn last_chance(self, agent: &Agent, manager: &Manager) -> Result<(), Failure> {
        let mut unwritten = agent.unwritten();
        if unwritten.is_empty() {
            return Ok(());
        }
        tracing::error!(
            reason = "REVOKED_IN_MEMORY",
            "the stop waits for {PATIENCE:?}: {}; make room on the file system of state_dir",
            told(&unwritten)
        );
        manager.waiting_for_disk(PATIENCE);
        let by = Instant::now() + PATIENCE;
        let again = self.times(2);
        tokio::pin!(again);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !unwritten.is_empty() {
            tokio::select! {
                () = &mut again => break,
                () = tokio::time::sleep_until(by) => break,
                _ = looks.tick() => unwritten = agent.unwritten(),
            }
        }
        match unwritten.is_empty() {
            true => Ok(()),
            false => Err(lost(&unwritten)),
        }
    }
}

/// For whoever reads the log after the last line.
fn lost(unwritten: &BTreeMap<String, Unwritten>) -> Failure {
    let why = told(unwritten);
    let each = unwritten.iter().flat_map(|(name, kids)| {
        let order = move |kid| format!("`sealkeeper keys revoke {kid} --key-set {name} --offline`");
        kids.keys().map(order)
    });
    let orders: Vec<String> = each.collect();
    let hint = format!(
        "make room, and before the agent starts again: {}",
        orders.join(", ")
    );
    tracing::error!(
        reason = "REVOKED_IN_MEMORY",
        "this stop forgets a revocation, and the next start signs again: {why}; {hint}"
    );
    Failure::failed(format!("stopped, and the next start signs again: {why}")).hint(hint)
}

fn told(unwritten: &BTreeMap<String, Unwritten>) -> String {
    let sets = unwritten.iter();
    let all = sets.flat_map(|(name, kids)| {
        let one = move |kid| format!("the revocation of {kid} of {name} is in memory alone");
        kids.keys().map(one)
    });
    all.collect::<Vec<_>>().join(", ")
}
