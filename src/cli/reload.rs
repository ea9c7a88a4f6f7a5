//! SIGHUP, `config reload` and `config diff`: the configuration is read again,
//! and what can change without a restart does.
//!
//! **Invariant:** a file that makes no sense, or with which a key set would
//! stop signing, changes nothing: an agent that signs goes on.

mod consequences;
mod price;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::block_in_place;
use toml::Table;

use super::keys::hex;
use super::simulate::origins;
use super::systemd::Manager;
use super::{compose, differs};
use crate::agent::callers::Callers;
use crate::agent::{self, Agent, Wanted};
use crate::api::{timestamp, v1};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, Difference, KeySet, differences};
use crate::keyring;
use crate::observe::Origin;
use crate::serve::grpc::{Reload, ReloadError, Reloaded, Reloads};
use crate::serve::tls::Keeper;
use crate::store::{Sqlite, Store};
use crate::time::Time;
use consequences::Consequence;

/// The part of the agent that follows the configuration.
pub(super) struct Reloading {
    /// The file.
    pub(super) path: PathBuf,
    /// What is in force.
    pub(super) running: Arc<Config>,
    /// The same as it was written.
    pub(super) written: Arc<Table>,
    pub(super) agent: Arc<Agent>,
    pub(super) callers: Arc<Callers>,
    /// Each key set's JWKS on our own listener.
    pub(super) own: BTreeMap<String, Origin>,
    pub(super) keepers: Vec<Keeper>,
}

/// How orders reach [`Reloading::follow`].
#[derive(Clone)]
pub(super) struct Desk(mpsc::Sender<Asked>);

/// An order, and where the answer goes.
pub(super) struct Asked {
    order: Reload,
    reply: oneshot::Sender<Result<v1::ConfigurationChange, ReloadError>>,
}

/// A desk, and what arrives there.
pub(super) fn desk() -> (Desk, mpsc::Receiver<Asked>) {
    // One after the other: who orders waits.
    let (desk, orders) = mpsc::channel(1);
    (Desk(desk), orders)
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

impl Reloads for Desk {
    fn reload(&self, order: Reload) -> Reloaded<'_> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let stopping = || ReloadError::Failed {
                why: "the agent is stopping".to_owned(),
            };
            let sent = self.0.send(Asked { order, reply }).await;
            sent.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())?
        })
    }
}

/// A file that was read again, beside what is in force.
struct Compared {
    config: Arc<Config>,
    written: Table,
    change: v1::ConfigurationChange,
    /// The key sets that follow without a restart.
    follow: Vec<String>,
    /// Those of them that would sign no more.
    outages: Vec<String>,
}

impl Reloading {
    /// Answers each hangup and each order. Never ends.
    pub(super) async fn follow(
        mut self,
        mut hangups: Signal,
        mut orders: mpsc::Receiver<Asked>,
        manager: &Manager,
    ) {
        loop {
            tokio::select! {
                Some(()) = hangups.recv() => {
                    manager.reloading();
                    let any = Reload::Take { even_if_signing_stops: false, expected: None };
                    let done = self.carry_out(any).await;
                    tell(&done);
                    manager.ready();
                }
                Some(Asked { order, reply }) = orders.recv() => {
                    let looks = order == Reload::Diff;
                    let done = self.carry_out(order).await;
                    if !looks {
                        tell(&done);
                    }
                    // Whoever ordered may be gone; it is done all the same.
                    let _ = reply.send(done);
                }
                // No more can come: as good as none.
                else => return std::future::pending().await,
            }
        }
    }

    async fn carry_out(&mut self, order: Reload) -> Result<v1::ConfigurationChange, ReloadError> {
        let Reload::Take {
            even_if_signing_stops,
            expected,
        } = order
        else {
            return Ok(self.compare().await?.change);
        };
        // They are good or bad by themselves, whatever the configuration is.
        for keeper in &self.keepers {
            keeper.reloaded().await;
            if let Some(why) = keeper.state().error {
                let certificate = keeper.files().certificate.display();
                tracing::error!(%certificate, "the TLS files make no set: {why}");
            }
        }
        let compared = self.compare().await?;
        if let Some(expected) = expected.filter(|digest| *digest != compared.change.digest) {
            let found = compared.change.digest;
            return Err(ReloadError::Changed { expected, found });
        }
        if !even_if_signing_stops && !compared.outages.is_empty() {
            let why = compared.outages.join("; ");
            return Err(ReloadError::SigningWouldStop { why });
        }
        self.take(compared).await
    }

    /// Reads the file, and compares it with what is in force.
    async fn compare(&self) -> Result<Compared, ReloadError> {
        let (path, running) = (self.path.clone(), Arc::clone(&self.running));
        let before = Arc::clone(&self.written);
        // A file, which may be on a disk that hangs, and tens of thousands of
        // rules in it: whoever signs is not to wait for either.
        let looked = tokio::task::spawn_blocking(move || look(&path, &running, &before)).await;
        let mut compared = looked.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
        for name in compared.follow.clone() {
            self.foresee(&name, &mut compared).await;
        }
        let prices = price::of(&self.running.key_sets, &compared.config.key_sets);
        compared.change.warnings.extend(prices);
        Ok(compared)
    }

    /// What comes of a key set, from its record.
    async fn foresee(&self, name: &str, compared: &mut Compared) {
        let Compared {
            config,
            change,
            outages,
            ..
        } = compared;
        let (before, after) = (&self.running.key_sets[name], &config.key_sets[name]);
        let record = match record(&self.running.state_dir, name).await {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(why) => {
                let warning = format!("key set {name}: what comes of it is not known: {why}");
                change.warnings.push(warning);
                return;
            }
        };
        let of_it = |warning: String| format!("key set {name}: {warning}");
        // Devices are as they were at the start.
        let as_started = Config {
            state_dir: config.state_dir.clone(),
            serve: config.serve.clone(),
            devices: self.running.devices.clone(),
            key_sets: BTreeMap::new(),
            webhooks: BTreeMap::new(),
        };
        let outage = differs::outage(&record, after, &as_started);
        outages.extend(outage.map(of_it));
        let warnings = differs::warnings_of(&record, after, &as_started);
        change.warnings.extend(warnings.map(of_it));
        let now = SystemClock::new().read().wall;
        let longer = longer_bounds(&record, after, now);
        change.warnings.extend(longer.into_iter().map(of_it));
        let plan = |set: &KeySet| set.plan(origins(set));
        let (before, after) = (plan(before), plan(after));
        let coming =
            tokio::task::spawn_blocking(move || consequences::of(&record, &before, &after, now));
        let coming = coming
            .await
            .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        let coming = coming.into_iter().map(|coming| {
            let Consequence {
                what,
                at,
                instead_of,
            } = coming;
            v1::Consequence {
                key_set: name.to_owned(),
                what,
                at: Some(timestamp(at)),
                instead_of: instead_of.map(timestamp),
            }
        });
        change.consequences.extend(coming);
    }

    /// Takes it into use, one key set after the other.
    async fn take(&mut self, compared: Compared) -> Result<v1::ConfigurationChange, ReloadError> {
        let Compared {
            config,
            written,
            mut change,
            follow,
            ..
        } = compared;
        for name in follow {
            // So many rules are not copied where somebody waits to sign.
            let wanted = block_in_place(|| wanted(&config, &name, &self.own))?;
            let followed = self.agent.follow(wanted).await;
            followed.map_err(|e| ReloadError::Failed { why: e.to_string() })?;
            block_in_place(|| {
                let running = &mut Arc::make_mut(&mut self.running).key_sets;
                running.insert(name.clone(), config.key_sets[&name].clone());
                put(Arc::make_mut(&mut self.written), &written, &name);
            });
        }
        block_in_place(|| {
            let known = Arc::make_mut(&mut self.written);
            match written.get("person") {
                Some(people) => known.insert("person".to_owned(), people.clone()),
                None => known.remove("person"),
            };
            let rules = self.running.key_sets.values().map(|set| set.rules.clone());
            self.callers.follow(rules.collect());
            drop((config, written));
        });
        change.reloaded = true;
        Ok(change)
    }
}

/// Reads a file, and compares it with what is in force.
fn look(path: &Path, running: &Config, before: &Table) -> Result<Compared, ReloadError> {
    let (config, text) = Config::read(path).map_err(|e| match e {
        ConfigError::Invalid(invalid) => ReloadError::Invalid {
            why: invalid.to_string(),
            hint: invalid.hints(),
        },
        e @ ConfigError::Read { .. } => ReloadError::Invalid {
            why: e.to_string(),
            hint: "put the file back; the agent goes on without it until it is restarted"
                .to_owned(),
        },
    })?;
    // It has just been read as one.
    let written: Table = text.parse().unwrap_or_default();
    let changed = |name: &&String| config.key_sets.get(*name) != running.key_sets.get(*name);
    let follow: Vec<String> = (config.key_sets.keys().filter(changed))
        .filter(|name| follows(name, running, &config))
        .cloned()
        .collect();
    let all = differences(before, &written).into_iter();
    let change = v1::ConfigurationChange {
        file: path.display().to_string(),
        digest: hex(digest(&SHA256, text.as_bytes()).as_ref()),
        differences: all.map(|difference| to_api(difference, &follow)).collect(),
        ..Default::default()
    };
    Ok(Compared {
        config: Arc::new(config),
        written,
        change,
        follow,
        outages: Vec::new(),
    })
}

/// Whether a key set can follow without a restart: it was there at the
/// start, and so were its device and its documents.
fn follows(name: &str, running: &Config, config: &Config) -> bool {
    let (Some(found), Some(before)) = (config.key_sets.get(name), running.key_sets.get(name))
    else {
        return false;
    };
    let KeySet {
        device,
        timing,
        tracks,
        rules,
        observe,
        approvals,
        ..
    } = found.clone();
    let followed = KeySet {
        device,
        timing,
        tracks,
        rules,
        observe,
        approvals,
        ..before.clone()
    };
    followed == *found && running.devices.contains_key(&found.device)
}

/// A key set for the agent. Where nobody said where verifiers are, it is
/// observed as one would see our own listener.
pub(super) fn wanted(
    config: &Config,
    name: &str,
    own: &BTreeMap<String, Origin>,
) -> Result<Wanted, ReloadError> {
    let mut wanted = compose::wanted(config, name).map_err(|_| ReloadError::Failed {
        why: format!("no key set {name:?} is configured"),
    })?;
    let own = own.get(name).cloned();
    match wanted.origins.is_empty() {
        true => wanted.origins.extend(own),
        false => wanted.own = own,
    }
    Ok(wanted)
}

/// The record of a key set, as the store has it now.
async fn record(
    state_dir: &Path,
    name: &str,
) -> Result<Option<keyring::KeySet>, Box<dyn std::error::Error + Send + Sync>> {
    let store = Sqlite::open_read_only(state_dir.join("keys.sqlite"))?;
    let Some(stored) = store.load(name).await? else {
        return Ok(None);
    };
    // Whether it is an old one is not asked here.
    Ok(Some(agent::inspect(&stored.bytes, 0)?))
}

/// What verifiers have fetched they keep for as long as they were told then.
fn longer_bounds(record: &keyring::KeySet, after: &KeySet, now: Time) -> Vec<String> {
    let plan = after.plan(BTreeSet::new());
    let (Some(lowered), is) = (record.lowered_by(&plan, now), &after.timing) else {
        return Vec::new();
    };
    let (until, was) = (lowered.until, lowered.bounds);
    let bounds = [
        ("verifier_cache", was.verifier_cache, is.verifier_cache),
        ("propagation", was.propagation, is.propagation),
        ("skew", was.skew, is.skew),
    ];
    let longer = bounds.into_iter().filter(|(_, was, is)| was > is);
    longer
        .map(|(name, was, is)| {
            format!(
                "{name} is {is}, and was {was}: what verifiers fetched before, they keep for as long as they were told then, so activations and the answer to a revocation count with {was} until {until}"
            )
        })
        .collect()
}

/// The key set's table, as it is written now.
fn put(written: &mut Table, now: &Table, name: &str) {
    let table = |all: &Table| all.get("key_set")?.get(name).cloned();
    let sets = written.entry("key_set").or_insert(Table::new().into());
    if let (Some(sets), Some(set)) = (sets.as_table_mut(), table(now)) {
        sets.insert(name.to_owned(), set);
    }
}

fn to_api(difference: Difference, follow: &[String]) -> v1::Difference {
    let Difference {
        setting,
        before,
        after,
    } = difference;
    let mut places = setting.split('.');
    let follows = match places.next() {
        Some("key_set") => places
            .next()
            .is_some_and(|name| follow.iter().any(|it| it == name)),
        // Key sets know who is who.
        Some("person") => true,
        _ => false,
    };
    v1::Difference {
        needs_restart: !follows,
        setting,
        before,
        after,
    }
}

/// Says in the log what became of it.
fn tell(done: &Result<v1::ConfigurationChange, ReloadError>) {
    let change = match done {
        Ok(change) => change,
        Err(e) => {
            let why = e.to_string();
            tracing::error!(
                event = "reloaded",
                why,
                "TLS files, where there are any, are read again; the configuration stays as it was"
            );
            return;
        }
    };
    let names = |restart: bool| {
        let all = change.differences.iter();
        let all = all.filter(|difference| difference.needs_restart == restart);
        let all: Vec<&str> = all.map(|difference| difference.setting.as_str()).collect();
        all.join(", ")
    };
    let (in_force, left) = (names(false), names(true));
    for warning in &change.warnings {
        tracing::warn!("{warning}");
    }
    for coming in &change.consequences {
        let (key_set, what) = (&coming.key_set, &coming.what);
        let at = super::keys::rfc3339(coming.at.as_ref());
        tracing::info!(key_set, at, "{what}");
    }
    match (in_force.is_empty(), left.is_empty()) {
        (true, true) => tracing::info!(
            event = "reloaded",
            "TLS files, where there are any, are read again; the configuration has not changed"
        ),
        (false, true) => tracing::info!(
            event = "reloaded",
            changed = in_force,
            "the configuration is in force"
        ),
        (_, false) => tracing::warn!(
            event = "reloaded",
            changed = in_force,
            left,
            "a part of the configuration waits for a restart"
        ),
    }
}
