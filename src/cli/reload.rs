//! SIGHUP: what can change without a restart is read again, and what cannot is
//! named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tokio::signal::unix::Signal;

use super::systemd::Manager;
use crate::config::{Config, ConfigError};
use crate::serve::tls::Keeper;

/// Answers each hangup. Never ends.
pub(super) async fn follow(
    mut hangups: Signal,
    path: &Path,
    running: &Config,
    keepers: &[Keeper],
    manager: &Manager,
) {
    while hangups.recv().await.is_some() {
        manager.reloading();
        for keeper in keepers {
            keeper.reloaded().await;
            if let Some(why) = keeper.state().error {
                let certificate = keeper.files().certificate.display();
                tracing::error!(%certificate, "the TLS files make no set: {why}");
            }
        }
        let from = path.to_owned();
        // A file, which may be on a disk that hangs.
        match tokio::task::spawn_blocking(move || Config::load(&from)).await {
            Ok(found) => tell(found, running),
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
        manager.ready();
    }
    // No more can come: as good as none.
    std::future::pending().await
}

/// What the configuration has become, as far as the agent that runs goes.
fn tell(found: Result<Config, ConfigError>, running: &Config) {
    match found {
        Ok(found) => {
            let changed = changes(&found, running);
            if changed.is_empty() {
                tracing::info!(
                    event = "reloaded",
                    "TLS files, where there are any, are read again; the configuration has not changed"
                );
            } else {
                let changed = changed.join(", ");
                tracing::warn!(
                    event = "reloaded",
                    changed,
                    "TLS files, where there are any, are read again; the configuration has changed, and only a restart takes that into use"
                );
            }
        }
        Err(e) => {
            let why = match e {
                ConfigError::Invalid(invalid) => invalid.messages(),
                e @ ConfigError::Read { .. } => e.to_string(),
            };
            tracing::error!(
                event = "reloaded",
                why,
                "TLS files, where there are any, are read again; the configuration does not load any more: a restart would fail"
            );
        }
    }
}

/// The parts that are not as they were at the start.
fn changes(found: &Config, running: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    if found.state_dir != running.state_dir {
        changed.push("state_dir".to_owned());
    }
    if found.serve != running.serve {
        changed.push("serve".to_owned());
    }
    changed.extend(differing("device", &found.devices, &running.devices));
    changed.extend(differing("key_set", &found.key_sets, &running.key_sets));
    changed
}

fn differing<'a, T: PartialEq>(
    table: &'a str,
    found: &'a BTreeMap<String, T>,
    running: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = String> {
    let names: BTreeSet<&String> = found.keys().chain(running.keys()).collect();
    let differ = |name: &&String| found.get(*name) != running.get(*name);
    let names = names.into_iter().filter(differ);
    names.map(move |name| format!("{table}.{name}"))
}
