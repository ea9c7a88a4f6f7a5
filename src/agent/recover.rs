//! A record that is lost or too old: what each witness says of it, and the
//! record made again. So is a good one whose keys are all lost with their
//! token, where the operator says that they are: it is one of the witnesses
//! then, and none of its keys signs on. And so is one that looks good beside
//! its log, where the token and the origins prove both of them old.
//!
//! Nothing is changed unless [`Wish::write`] says so; then the record goes into
//! the store in one write, and the log learns of it as of any other change. A
//! crash between the two leaves events in the record, which the agent logs
//! when it starts.

mod put;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::context::random_id;
use super::outdated::{holding, known, outdated, stands};
use super::record::{Record, from_log};
use super::writer::Writer;
use super::{Context, Wanted};
use crate::audit::{self, AuditError, KeyEvent};
use crate::durable::{DurableError, OsDisk};
use crate::hsm::{Listed, Pairs};
use crate::jose::ServedSet;
use crate::keyring::{
    self, Finding, Genesis, Half, Holding, KeyId, KeySet, Mandate, Outdated, Phase, PublishedKey,
    RecoverError, Recovery, Told, Vouched, Witnesses,
};
use crate::observe;
use crate::store::{StoreError, Version};
use crate::time::Time;
use put::put;

/// How long an origin may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the operator wants.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Put the record into the store.
    pub write: bool,
    /// Go on though the device does not answer.
    pub without_device: bool,
    /// Where no key signs on, the next one does so as soon as there is one,
    /// whoever does not hold it yet.
    pub activate_early: bool,
    /// The record is right, whatever the token holds beside its keys.
    pub record_is_right: bool,
    /// What they vouch for.
    pub vouched: Vouched,
    /// Who they are, and what they note.
    pub mandate: Mandate,
}

/// What was found, and made of it.
#[derive(Debug)]
pub struct Recovered {
    /// The key set.
    pub set: KeySet,
    /// Of each key, what the witnesses say.
    pub findings: Vec<Finding>,
    /// Keys in devices that cannot be any of the set's.
    pub strange: Vec<Strange>,
    /// Keys of which a device has the private half that the configuration does
    /// not name, each by its `kid` and that device: nobody asked there.
    pub not_asked: Vec<(String, String)>,
    /// Each witness, and how much it says, or why it says nothing.
    pub witnesses: Vec<(String, Result<String, String>)>,
    /// Whether the agent will ask for the time to be confirmed: nothing is
    /// dated within the time that it takes for downtime.
    pub confirms_clock: bool,
    /// How it shows that the whole folder is old.
    pub outdated: Option<Outdated>,
    /// Keys in devices that an operator said to be another agent's: each by its
    /// device and its id there.
    pub others: Vec<(String, KeyId)>,
    /// Whether it is in the store.
    pub written: bool,
}

/// A private key that is not under an id of ours, or must not be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strange {
    /// The device.
    pub device: String,
    /// `CKA_ID`, in hexadecimal.
    pub id: String,
    /// `CKA_LABEL`.
    pub label: String,
    /// What is wrong with it; none where it is only not ours.
    pub why: Option<String>,
}

/// Why no record was made.
#[derive(Debug, thiserror::Error)]
pub enum RecoverFailure {
    /// The record is good.
    #[error("the key set {0:?} has a good record: there is nothing to recover")]
    Good(String),
    /// The record is good, and so is a key that signs or is next.
    #[error("the key set {key_set:?} has a good record, and its key {kid} is not lost")]
    NotLost {
        /// The key set.
        key_set: String,
        /// A key that its device holds, or that no device was asked about.
        kid: String,
    },
    /// The record is good, and nobody can say whether this key is lost.
    #[error(
        "the key {kid} of the key set {key_set:?} is on the device {device:?}, which the configuration does not name: nobody asked there whether it is lost"
    )]
    NotAsked {
        /// The key set.
        key_set: String,
        /// The key.
        kid: String,
        /// Where its private half is.
        device: String,
    },
    /// It never began.
    #[error("the `init` of the key set {0:?} was not finished, and no verifier holds a key of it")]
    Unfinished(String),
    /// The store cannot take a record.
    #[error(transparent)]
    Store(StoreError),
    /// A newer agent wrote the record, or the log.
    #[error("{0}")]
    Newer(String),
    /// A revocation on disk cannot be read: it may be of any key.
    #[error(transparent)]
    Tombstone(DurableError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] AuditError),
    /// The device does not answer.
    #[error("the device {device:?} does not say what it holds: {why}")]
    Device {
        /// The device.
        device: String,
        /// What it says.
        why: String,
    },
    /// A key that signs before its time takes two people, and here is one.
    #[error("to have a key of {0:?} sign before its time takes two people")]
    TwoPeople(String),
    /// So does what lets a record sign that looks old, and here is one.
    #[error("to say that the record of {0:?} is right, though it looks old, takes two people")]
    Word(String),
    /// There is none of which that could be said.
    #[error("the key set {0:?} has no record that is as new as the log")]
    NoGood(String),
    /// An origin says that the record is not right.
    #[error("the record of the key set {0:?} is not right: {1}")]
    NotRight(String, Outdated),
    /// The witnesses do not suffice.
    #[error(transparent)]
    Keyring(#[from] RecoverError),
}

/// What was in the store.
pub(super) struct Stored {
    pub(super) record: Option<Record>,
    pub(super) version: Option<Version>,
    /// Whether the record is as the log has it.
    pub(super) good: bool,
    said: Result<String, String>,
}

/// Asks every witness, and makes the record again. The caller keeps the agent
/// from the folder `state`.
///
/// # Errors
/// [`RecoverFailure`]; nothing was changed.
pub async fn recover(
    context: Context,
    wanted: Wanted,
    state: &Path,
    wish: &Wish,
) -> Result<Recovered, RecoverFailure> {
    let name = wanted.name.clone();
    if wish.record_is_right && wanted.approvals.is_some() {
        return Err(RecoverFailure::Word(name));
    }
    // The rebuild itself waits for nobody, like whatever blocks or unpublishes.
    if wish.activate_early && wanted.approvals.is_some() {
        return Err(RecoverFailure::TwoPeople(name));
    }
    let context = Arc::new(context);
    let events: Vec<KeyEvent> = (context.audit.key_events().into_iter())
        .map(|recorded| recorded.what)
        .collect();
    let (mine, others): (Vec<_>, Vec<_>) =
        (events.into_iter()).partition(|event| event.key_set == name);
    let log = mine.iter().filter_map(|event| from_log(event).transpose());
    let log: Result<Vec<Told>, String> = log.collect();
    let log = log.map_err(RecoverFailure::Newer)?;
    let logged = mine.iter().map(|event| event.number).max().unwrap_or(0);
    let mut stored = stored(&context, &name, logged).await?;
    let mut said = vec![
        ("log".to_owned(), Ok(format!("{logged} key events"))),
        ("store".to_owned(), stored.said.clone()),
    ];

    let mut witnesses = Witnesses {
        log,
        record: (stored.record.as_ref()).map(|record| (record.set.clone(), record.events)),
        ..Witnesses::default()
    };
    let foreign = others.iter().map(|event| event.key.clone());
    let foreign: BTreeSet<String> = foreign.collect();
    let (strange, holdings) = devices(&context, &foreign, wish, &mut witnesses, &mut said).await?;
    sets(&context, &wanted, &mut witnesses, &mut said).await;
    let outdated = (stored.record.as_ref().filter(|_| stored.good))
        .and_then(|record| outdated(&record.set, &holdings, &witnesses.origins));
    let origins = wanted.origins.iter();
    witnesses.all_answered = !wanted.origins.is_empty()
        && (origins.clone()).all(|origin| witnesses.origins.contains_key(origin.name()));
    tombstones(&context, &name, &mut witnesses, &mut said)?;
    witnesses.seen = seen(&witnesses, state)?;

    let mut writer = Writer::alone(Arc::clone(&context), &wanted);
    if wish.record_is_right {
        return stands(&mut writer, stored, &holdings, outdated, said, wish).await;
    }
    if let Some(proof) = &outdated {
        witnesses.outdated = true;
        stored.good = false;
        let number = stored.record.as_ref().map_or(0, |record| record.events);
        said[1].1 = Ok(format!("an old copy, with {number} key events: {proof}"));
    }
    if stored.good && !wish.vouched.keys_are_lost {
        return Err(RecoverFailure::Good(name));
    }
    let tick = writer.tick_for(context.clock.read().wall);
    let mut made = keyring::recover(
        &name,
        &witnesses,
        wish.vouched,
        &wish.mandate,
        &writer.plan,
        &tick,
        &mut random_id,
    )?;
    let not_asked = not_asked(&made.set, &context);
    if stored.good {
        all_lost(&name, &made, &not_asked)?;
    }
    if wish.activate_early {
        made.activate_early(&wish.mandate, tick.now);
    }
    if wish.write {
        put(&mut writer, &made, stored, logged).await?;
    }
    Ok(Recovered {
        confirms_clock: tick.now > made.set.high_water + writer.plan.timing.max_gap,
        set: made.set,
        findings: made.findings,
        strange,
        not_asked,
        witnesses: said,
        outdated,
        others: Vec::new(),
        written: wish.write,
    })
}

/// Refuses to make a good record again, unless each key that signs or is next
/// is lost. Where one is there it signs on, or takes over by itself; made
/// again, it would wait once more.
fn all_lost(
    name: &str,
    made: &Recovery,
    not_asked: &[(String, String)],
) -> Result<(), RecoverFailure> {
    let mut live = made.set.keys.values().filter(|key| {
        let signs = matches!(key.phase, Phase::Published { .. } | Phase::Active { .. });
        signs && key.has_private_half()
    });
    if let Some(kid) = live.find_map(|key| key.kid.clone()) {
        let key_set = name.to_owned();
        let mut not_asked = not_asked.iter().filter(|(of, _)| *of == kid);
        return Err(match not_asked.next() {
            Some((_, device)) => RecoverFailure::NotAsked {
                key_set,
                device: device.clone(),
                kid,
            },
            None => RecoverFailure::NotLost { key_set, kid },
        });
    }
    match made.findings.iter().any(|finding| finding.missing) {
        true => Ok(()),
        false => Err(RecoverFailure::Good(name.to_owned())),
    }
}

/// The keys, and the devices that left the configuration, of which halves are
/// on record that are not destroyed.
fn not_asked(set: &KeySet, context: &Context) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for key in set.keys.values() {
        let Some(kid) = &key.kid else { continue };
        let there = key.placements.iter();
        let there = there.filter(|(device, half)| {
            **half != Half::Destroyed && !context.devices.contains_key(*device)
        });
        found.extend(there.map(|(device, _)| (kid.clone(), device.clone())));
    }
    found
}

/// An older record, where the store has one; or a good one of lost keys.
async fn stored(context: &Context, name: &str, logged: u64) -> Result<Stored, RecoverFailure> {
    let nothing = |why: String| Stored {
        record: None,
        version: None,
        good: false,
        said: Err(why),
    };
    let found = match context.store.load(name).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(nothing("it has no record".to_owned())),
        Err(e @ StoreError::Damaged { .. }) => return Ok(nothing(e.to_string())),
        Err(e) => return Err(RecoverFailure::Store(e)),
    };
    let version = Some(found.version);
    let record = match Record::from_bytes(&found.bytes) {
        Ok(record) => record,
        Err(e @ super::RecordError::Newer(_)) => return Err(RecoverFailure::Newer(e.to_string())),
        Err(e) => {
            return Ok(Stored {
                version,
                ..nothing(e.to_string())
            });
        }
    };
    let good = record.check_against_log(logged).is_ok();
    if good && matches!(record.set.genesis, Genesis::Pending { .. }) {
        return Err(RecoverFailure::Unfinished(name.to_owned()));
    }
    let which = if good { "a good record" } else { "an old copy" };
    let said = format!("{which}, with {} key events", record.events);
    Ok(Stored {
        record: Some(record),
        version,
        good,
        said: Ok(said),
    })
}

/// What devices hold, less what the log knows as another key set's.
async fn devices(
    context: &Context,
    foreign: &BTreeSet<String>,
    wish: &Wish,
    witnesses: &mut Witnesses,
    said: &mut Vec<(String, Result<String, String>)>,
) -> Result<(Vec<Strange>, BTreeMap<String, Holding>), RecoverFailure> {
    let (mut strange, mut holdings) = (Vec::new(), BTreeMap::new());
    let log = context.audit.key_events().into_iter();
    let known = known(&*context.store, log.map(|event| event.what)).await;
    for (name, device) in &context.devices {
        let listed = match device.list(Pairs::All).await {
            Ok(listed) => listed,
            Err(e) if wish.without_device => {
                said.push((format!("device {name}"), Err(e.to_string())));
                continue;
            }
            Err(e) => {
                return Err(RecoverFailure::Device {
                    device: name.clone(),
                    why: e.to_string(),
                });
            }
        };
        let holding = holding(device, &listed, &known);
        witnesses.labelled.extend(holding.strange.keys());
        holdings.insert(name.clone(), holding);
        let mut held = BTreeMap::new();
        let all = listed.len();
        for Listed { id, label, pair } in listed {
            let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            if foreign.contains(&hex) {
                continue;
            }
            match (<[u8; 16]>::try_from(id), pair) {
                (Ok(id), Ok(pair)) => drop(held.insert(KeyId(id), pair.public)),
                (_, pair) => strange.push(Strange {
                    device: name.clone(),
                    id: hex,
                    label,
                    why: pair.err(),
                }),
            }
        }
        let token = device.token().map(|token| token.serial.clone());
        let of = token
            .as_ref()
            .map(|serial| format!(" in the token with serial {serial}"));
        let of = of.unwrap_or_default();
        said.push((
            format!("device {name}"),
            Ok(format!("{all} private keys{of}")),
        ));
        (witnesses.tokens).extend(token.map(|token| (name.clone(), token)));
        witnesses.devices.insert(name.clone(), held);
    }
    Ok((strange, holdings))
}

/// What is shown, on disk and at origins.
async fn sets(
    context: &Context,
    wanted: &Wanted,
    witnesses: &mut Witnesses,
    said: &mut Vec<(String, Result<String, String>)>,
) {
    let name = &wanted.name;
    let on_disk = context.read_last_good(name);
    let shown = on_disk.as_deref().map(shown).transpose();
    said.push((
        "last JWKS".to_owned(),
        match &shown {
            Ok(Some(keys)) => Ok(format!("{} keys", keys.len())),
            Ok(None) => Err("there is none".to_owned()),
            Err(e) => Err(e.clone()),
        },
    ));
    witnesses.last_good = shown.ok().flatten().unwrap_or_default();
    let placeholder = context.read_placeholder(name);
    let placeholder = placeholder.and_then(|bytes| self::shown(&bytes).ok());
    witnesses.placeholder = placeholder.unwrap_or_default();
    for origin in &wanted.origins {
        let answer = observe::fetch_set(origin, PATIENCE).await;
        let keys = match answer {
            Ok(bytes) => self::shown(&bytes),
            Err(e) => Err(e.to_string()),
        };
        let of = origin.name().to_owned();
        said.push((
            format!("origin {of}"),
            match &keys {
                Ok(keys) => Ok(format!("{} keys", keys.len())),
                Err(e) => Err(e.clone()),
            },
        ));
        if let Ok(keys) = keys {
            witnesses.origins.insert(of, keys);
        }
    }
    // A set that a broken run left there may hold the placeholder alone.
    let is_placeholder = |key: &PublishedKey| witnesses.placeholder.contains(key);
    witnesses.last_good.retain(|key| !is_placeholder(key));
    for keys in witnesses.origins.values_mut() {
        keys.retain(|key| !witnesses.placeholder.contains(key));
    }
}

/// The keys of a JWKS.
fn shown(bytes: &[u8]) -> Result<Vec<PublishedKey>, String> {
    let set = ServedSet::read(bytes).map_err(|e| e.to_string())?;
    let keys = set.set.keys.into_iter().map(|jwk| PublishedKey {
        kid: jwk.kid,
        algorithm: jwk.algorithm,
        public: jwk.key,
    });
    Ok(keys.collect())
}

fn tombstones(
    context: &Context,
    name: &str,
    witnesses: &mut Witnesses,
    said: &mut Vec<(String, Result<String, String>)>,
) -> Result<(), RecoverFailure> {
    witnesses.tombstones = context.buried(name).map_err(RecoverFailure::Tombstone)?;
    let number = witnesses.tombstones.len();
    said.push(("tombstones".to_owned(), Ok(number.to_string())));
    Ok(())
}

/// The latest date of anything on disk: when the agent last surely ran.
fn seen(witnesses: &Witnesses, state: &Path) -> Result<Option<Time>, RecoverFailure> {
    let log = witnesses.log.iter().map(|told| told.at);
    let stones = witnesses.tombstones.values().map(|stone| stone.at);
    let record = witnesses.record.iter().map(|(set, _)| set.high_water);
    let signed = audit::last_written(&OsDisk, &state.join("audit"))?;
    Ok(log.chain(stones).chain(record).chain(signed).max())
}
