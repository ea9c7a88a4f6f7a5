//! `keys history`: the keys that left a key set, whether they are served or
//! not. Reads what is on disk, with the agent and without it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::compose;
use super::output::{Failure, say, table};
use crate::agent::{self, KeptHistory};
use crate::audit::{self, KeyEvent, Recorded};
use crate::config::Config;
use crate::durable::{LastGood, OsDisk, Tombstones};
use crate::keyring::{History, KeySet};
use crate::store::{Sqlite, Store};

/// What is on disk of all key sets.
pub(super) struct Witnesses {
    log: Vec<Recorded<KeyEvent>>,
    tombstones: Tombstones,
    documents: LastGood,
}

impl Witnesses {
    pub(super) fn open(config: &Config) -> Result<Self, String> {
        let (disk, state) = (Arc::new(OsDisk), &config.state_dir);
        let log = audit::key_events(&*disk, &state.join("audit")).map_err(|e| e.to_string())?;
        Ok(Self {
            log,
            tombstones: Tombstones::beside(disk.clone(), state.join("tombstones")),
            documents: LastGood::beside(disk, state.join("jwks")),
        })
    }

    pub(super) fn past(&self, record: &KeySet) -> Result<History, String> {
        let stones = self.tombstones.all().map_err(|e| e.to_string())?;
        agent::past(record, &self.log, stones)
    }

    /// The document that was signed last; none where none is on disk.
    pub(super) fn document(&self, key_set: &str) -> Result<Option<KeptHistory>, String> {
        let token = self.documents.load_history(key_set);
        let token = token.map_err(|e| e.to_string())?;
        token
            .map(|token| agent::kept(key_set, &token, &self.log))
            .transpose()
    }
}

/// Lists them.
pub(super) fn run(path: &Path, key_set: Option<String>, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(path)?;
    if let Some(name) = &key_set {
        compose::key_set(&config, Some(name.clone()))?;
    }
    let failed = |why: String| {
        Failure::failed(why).hint("run this as the agent's user; `sealkeeper doctor` says more")
    };
    let witnesses = Witnesses::open(&config).map_err(failed)?;
    let names = config.key_sets.keys();
    let wanted = names.filter(|name| key_set.as_ref().is_none_or(|it| it == *name));
    let mut all = BTreeMap::new();
    for name in wanted {
        let record = compose::block_on(record(&config, name))?.map_err(failed)?;
        if let Some(record) = record {
            let past = witnesses.past(&record).map_err(failed)?;
            let vouched = agent::confirmations(name, &witnesses.log);
            all.insert(name, (past, vouched.collect::<Vec<_>>()));
        }
    }
    if as_json {
        let sets = all.iter();
        let sets = sets.map(|(name, (history, vouched))| json_of(name, history, vouched));
        return say(json!({ "key_sets": sets.collect::<Vec<_>>() }));
    }
    for (name, (history, vouched)) in &all {
        say(text_of(name, history, vouched))?;
    }
    Ok(())
}

async fn record(config: &Config, name: &str) -> Result<Option<KeySet>, String> {
    let store = Sqlite::open_read_only(config.state_dir.join("keys.sqlite"));
    let store = store.map_err(|e| e.to_string())?;
    let stored = store.load(name).await.map_err(|e| e.to_string())?;
    // Whether it is an old one is not asked here.
    let record = stored.map(|stored| agent::inspect(&stored.bytes, 0));
    record.transpose().map_err(|e| e.to_string())
}

fn text_of(name: &str, history: &History, vouched: &[&KeyEvent]) -> String {
    let rows = history.keys.iter().map(|past| {
        vec![
            past.algorithm.to_string(),
            past.kid.clone(),
            past.made
                .map_or_else(|| "-".to_owned(), |at| at.to_string()),
            past.ended.to_string(),
            past.revoked
                .map_or_else(|| "-".to_owned(), |it| it.name().to_owned()),
        ]
    });
    let head = ["ALG", "KID", "GENERATED", "ENDED", "REVOKED"];
    let mut text = format!("key set {name}\n{}\n", table(&head, rows));
    for kid in &history.unknown {
        text.push_str(&format!(
            "{kid} was revoked too; its public half is nowhere on record\n"
        ));
    }
    for event in vouched {
        text.push_str(&format!(
            "clock confirmed by {}: {}\n",
            event.by.as_deref().unwrap_or("-"),
            event.note.as_deref().unwrap_or("-")
        ));
    }
    text
}

fn json_of(name: &str, history: &History, vouched: &[&KeyEvent]) -> Value {
    let keys = history.keys.iter().map(|past| {
        json!({
            "kid": past.kid,
            "alg": past.algorithm.to_string(),
            "generated": past.made.map(|at| at.to_string()),
            "ended": past.ended.to_string(),
            "revoked": past.revoked.map(|reason| reason.name()),
        })
    });
    let vouched = vouched.iter().map(|event| {
        json!({ "at": event.at.to_string(), "by": event.by, "note": event.note, "remark": event.remark })
    });
    json!({
        "name": name,
        "keys": keys.collect::<Vec<_>>(),
        "revoked_and_unknown": history.unknown,
        "clock_confirmed": vouched.collect::<Vec<_>>(),
    })
}
