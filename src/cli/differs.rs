//! Where the configuration differs from the record in a way that stops
//! signing: found before a restart, and not by the callers after it.

use std::collections::BTreeSet;

use crate::agent;
use crate::config::{Config, KeySet};
use crate::jose::Algorithm;
use crate::keyring::{self, Genesis, Half, Key, Phase, Task};
use crate::store::{Sqlite, Store};

/// What of each key set would not go on. Nothing where the store
/// cannot be read: that is for `doctor` to say.
pub(super) async fn look(config: &Config) -> Vec<String> {
    let Ok(store) = Sqlite::open_read_only(config.state_dir.join("keys.sqlite")) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    let configured = config.key_sets.keys().cloned().collect();
    let left = agent::unnamed(&store, [], &configured).await;
    warnings.extend(left.unwrap_or_default().iter().map(|name| left_out(name)));
    for (name, wanted) in &config.key_sets {
        let Ok(Some(stored)) = store.load(name).await else {
            continue;
        };
        // Whether the record is an old one is not asked here.
        let Ok(record) = agent::inspect(&stored.bytes, 0) else {
            continue;
        };
        let told = warnings_of(&record, wanted, config);
        warnings.extend(told.map(|warning| format!("key set {name}: {warning}")));
    }
    warnings
}

/// What it means that the configuration does not name a key set on record.
pub(super) fn left_out(name: &str) -> String {
    format!(
        "key set {name}: it is on record, and the configuration does not name it: its JWKS is not served, and verifiers refuse its tokens once they fetch; nothing is signed with its keys, nor are they destroyed. If it was renamed, give it its name back; `init` under another name would begin with keys that no verifier holds. If it is to end: keep it until its last token is dead"
    )
}

/// What keeps a key set from signing, or from rotating, once this
/// configuration is in force.
pub(super) fn warnings_of(
    record: &keyring::KeySet,
    wanted: &KeySet,
    config: &Config,
) -> impl Iterator<Item = String> {
    let begun = !matches!(record.genesis, Genesis::Pending { .. });
    let known: BTreeSet<&str> = config.devices.keys().map(String::as_str).collect();
    let told = [
        outage(record, wanted, config),
        unreachable_standby(record, &known),
        unreachable_halves(record, &known),
    ];
    told.into_iter().flatten().filter(move |_| begun)
}

/// Why nothing at all is signed once this configuration is in force, where
/// something is now.
pub(super) fn outage(record: &keyring::KeySet, wanted: &KeySet, config: &Config) -> Option<String> {
    let known: BTreeSet<&str> = config.devices.keys().map(String::as_str).collect();
    let devices = &known;
    let active: Vec<&Key> = (record.keys.values())
        .filter(|key| matches!(key.phase, Phase::Active { .. }))
        .collect();
    let wants = |key: &&&Key| {
        let mut tracks = wanted.tracks.iter();
        tracks.any(|(algorithm, _)| *algorithm == key.algorithm)
    };
    let kept: Vec<&Key> = active.iter().filter(wants).copied().collect();
    if kept.is_empty() && !active.is_empty() {
        return Some(format!(
            "with this configuration nothing is signed for at least {}: its tracks are {}, and the active keys are {}; a first key signs once every verifier can hold it (rule 1). Keep the old track below the new one until the new one signs",
            wanted.timing.pre_publish(),
            names(wanted.tracks.iter().map(|(algorithm, _)| *algorithm)),
            names(active.iter().map(|key| key.algorithm)),
        ));
    }
    if kept.is_empty() || kept.iter().any(|key| is_reachable(key, devices)) {
        return None;
    }
    Some(format!(
        "with this configuration nothing is signed: its active keys are on {}, which is not configured. Keep [device.NAME] under the name that it had",
        homes(kept.iter().copied()),
    ))
}

/// A standby that cannot sign when its time comes.
fn unreachable_standby(record: &keyring::KeySet, devices: &BTreeSet<&str>) -> Option<String> {
    let next: Vec<&Key> = (record.keys.values())
        .filter(|key| matches!(key.phase, Phase::Published { .. }) && key.has_private_half())
        .filter(|key| !is_reachable(key, devices))
        .collect();
    let first = next.first()?;
    let kid = first.kid.as_deref().unwrap_or_default();
    Some(format!(
        "the next {} key, {kid}, is on {}, which is not configured: once it is active nothing is signed. Keep [device.NAME] under the name that it had, or end that key, so that another is made: sealkeeper keys revoke {kid}",
        first.algorithm,
        homes(next.iter().copied()),
    ))
}

/// Private halves that nobody can destroy.
fn unreachable_halves(record: &keyring::KeySet, devices: &BTreeSet<&str>) -> Option<String> {
    let tasks = record.intents.values().map(|intent| &intent.task);
    let stuck: Vec<&str> = tasks
        .map(Task::device)
        .filter(|device| !devices.contains(device))
        .collect();
    let names: BTreeSet<&str> = stuck.iter().copied().collect();
    let what = match stuck.len() {
        0 => return None,
        1 => "a private key is".to_owned(),
        n => format!("{n} private keys are"),
    };
    Some(format!(
        "{what} to be destroyed on {}, which is not configured: it stays there. Keep [device.NAME] until it is gone",
        names.into_iter().collect::<Vec<_>>().join(", "),
    ))
}

fn is_reachable(key: &Key, devices: &BTreeSet<&str>) -> bool {
    let mut halves = key.placements.iter();
    halves.any(|(device, half)| *half == Half::Present && devices.contains(device.as_str()))
}

fn homes<'a>(keys: impl Iterator<Item = &'a Key>) -> String {
    let homes = keys.flat_map(|key| key.placements.keys());
    let homes: BTreeSet<&str> = homes.map(String::as_str).collect();
    homes.into_iter().collect::<Vec<_>>().join(", ")
}

fn names(algorithms: impl Iterator<Item = Algorithm>) -> String {
    let names: Vec<&str> = algorithms.map(Algorithm::name).collect();
    names.join(", ")
}
