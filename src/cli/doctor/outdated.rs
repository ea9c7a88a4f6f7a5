//! Whether the records are as new as what the token and the origins show: what
//! an agent asks when it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::state::Records;
use super::{Report, counted};
use crate::agent;
use crate::audit;
use crate::cli::compose;
use crate::config::Config;
use crate::durable::OsDisk;
use crate::hsm::{Device, Pairs};
use crate::jose::Offer;
use crate::keyring::{Holding, KeyId};
use crate::observe;
use crate::store::Sqlite;

/// How long an origin may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks a device that was opened here.
pub(super) async fn look(config: &Config, device: &Device, records: &Records, report: &mut Report) {
    let Ok(store) = Sqlite::open_read_only(config.state_dir.join("keys.sqlite")) else {
        return; // The store says so.
    };
    let Ok(log) = audit::key_events(&OsDisk, &config.state_dir.join("audit")) else {
        return;
    };
    let Ok(listed) = device.list(Pairs::Ours).await else {
        return; // It knows nothing: so it is for the agent.
    };
    let known = agent::known(&store, log.into_iter().map(|event| event.what)).await;
    let holding = agent::holding(device, &listed, &known);
    let strange = !holding.strange.is_empty();
    let holdings = BTreeMap::from([(device.name().to_owned(), holding)]);
    let mut good = true;
    for (name, set) in records {
        let shown = match strange {
            true => shown(config, name).await,
            false => BTreeMap::new(),
        };
        if let Some(proof) = set.outdated(set, &holdings, &shown) {
            good = false;
            let found = format!("its record is older than what others know: {proof}");
            report.fail("store", name, found, agent::cure_of_outdated(&proof));
        }
    }
    if good {
        others(device.name(), &holdings, records, report);
    }
}

/// What each origin of a key set shows, where it answers.
async fn shown(config: &Config, key_set: &str) -> BTreeMap<String, BTreeSet<Offer>> {
    let mut shown = BTreeMap::new();
    let Ok(wanted) = compose::wanted(config, key_set) else {
        return shown;
    };
    for origin in &wanted.origins {
        if let Ok(offers) = observe::fetch(origin, PATIENCE).await {
            shown.insert(origin.name().to_owned(), offers);
        }
    }
    shown
}

/// Keys that look like an agent's, and that no record knows: by themselves they
/// prove nothing.
fn others(
    device: &str,
    holdings: &BTreeMap<String, Holding>,
    records: &Records,
    report: &mut Report,
) {
    let strange = holdings.values().flat_map(|holding| holding.strange.keys());
    let told = |id: &&KeyId| records.values().any(|set| set.left_alone.contains(*id));
    let strange: Vec<String> = strange
        .filter(|id| !told(id))
        .map(KeyId::to_string)
        .collect();
    if strange.is_empty() || records.is_empty() {
        return;
    }
    let found = format!(
        "{} that an agent made and no record here knows: object id {}",
        counted(strange.len(), "private key"),
        strange.join(", ")
    );
    let hint = "is the token shared with another agent? If it is not, is this state folder an old copy? Where the newest keys are not in `sealkeeper keys list`, stop the agent: `sealkeeper recover` shows what the token and the origins know";
    report.warn("token", device, found, hint);
}
