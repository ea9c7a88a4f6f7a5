//! Where the configuration differs from the record in a way that stops
//! signing: found before a restart, and not by the callers after it.

use std::collections::BTreeSet;

use crate::agent;
use crate::config::{Config, KeySet};
use crate::jose::Algorithm;
use crate::keyring::{self, Genesis, Half, Key, Phase};
use crate::store::{Sqlite, Store};

/// One warning for each key set that would not sign. Nothing where the store
/// cannot be read: that is for `doctor` to say.
pub(super) async fn look(config: &Config) -> Vec<String> {
    let Ok(store) = Sqlite::open_read_only(config.state_dir.join("keys.sqlite")) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    for (name, wanted) in &config.key_sets {
        let Ok(Some(stored)) = store.load(name).await else {
            continue;
        };
        // Whether the record is an old one is not asked here.
        let Ok(record) = agent::inspect(&stored.bytes, 0) else {
            continue;
        };
        let known: BTreeSet<&str> = config.devices.keys().map(String::as_str).collect();
        if let Some(warning) = warning(&record, wanted, &known) {
            warnings.push(format!("key set {name}: {warning}"));
        }
    }
    warnings
}

/// What keeps each track from signing once this configuration is in force.
fn warning(record: &keyring::KeySet, wanted: &KeySet, devices: &BTreeSet<&str>) -> Option<String> {
    if matches!(record.genesis, Genesis::Pending { .. }) {
        return None;
    }
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
            "after a restart with this configuration nothing is signed for at least {}: its tracks are {}, and the active keys are {}; a first key signs once every verifier can hold it (rule 1). Keep the old track below the new one until the new one signs",
            wanted.timing.pre_publish(),
            names(wanted.tracks.iter().map(|(algorithm, _)| *algorithm)),
            names(active.iter().map(|key| key.algorithm)),
        ));
    }
    let held = |key: &Key| {
        let mut halves = key.placements.iter();
        halves.any(|(device, half)| *half == Half::Present && devices.contains(device.as_str()))
    };
    if kept.is_empty() || kept.iter().any(|key| held(key)) {
        return None;
    }
    let missing = kept.iter().flat_map(|key| key.placements.keys());
    let missing: BTreeSet<&str> = missing.map(String::as_str).collect();
    Some(format!(
        "after a restart with this configuration nothing is signed: its active keys are on {}, which is not configured. Keep [device.NAME] under the name that it had",
        missing.into_iter().collect::<Vec<_>>().join(", "),
    ))
}

fn names(algorithms: impl Iterator<Item = Algorithm>) -> String {
    let names: Vec<&str> = algorithms.map(Algorithm::name).collect();
    names.join(", ")
}
