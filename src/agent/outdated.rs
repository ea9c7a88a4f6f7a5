//! Whether the record is as new as what stands outside the state folder: the
//! token, and the public origins. They are asked once, when a process begins;
//! what they prove, [`crate::keyring::Outdated`] says.
//!
//! No lock is held meanwhile, and a start waits for nobody. Signatures that are
//! made in the first moments wait for the device's listing before they leave
//! ([`Gate`]): a device that signs also lists. They do not wait for origins,
//! one of which may be dead. Until an origin has answered, a key signs that
//! the right token holds and the record has as active; had it been revoked
//! after the record's time, its half would have been destroyed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::Context;
use super::news::News;
use super::reader::Dark;
use super::record::Record;
use super::recover::{RecoverFailure, Recovered, Stored, Wish};
use super::writer::{Held, Writer};
use crate::audit::KeyEvent;
use crate::hsm::{Device, DeviceError, Listed, MOST_LISTED, ObjectId, Pairs, State};
use crate::jose::Offer;
use crate::keyring::{Genesis, Holding, KeyId, KeySet, Outdated, PublishedKey};
use crate::store::Store;

/// How often a device that is up is asked before nobody can say what it holds,
/// and how long it rests between.
const TRIES: u32 = 3;
const REST: Duration = Duration::from_secs(1);

/// What is too long for a device to say what it holds.
const LONG: Duration = Duration::from_secs(2);

/// How often whoever waits for a device looks whether anybody still wants to
/// know.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Every id that the log, or a record of the store, knows: of whatever key
/// set. What cannot be read of the store, the log knows but for the last few
/// events of a record.
pub async fn known(store: &dyn Store, log: impl Iterator<Item = KeyEvent>) -> BTreeSet<KeyId> {
    let mut known: BTreeSet<KeyId> = log.filter_map(|it| it.key.try_into().ok()).collect();
    for (name, _) in store.list().await.unwrap_or_default() {
        let Ok(Some(stored)) = store.load(&name).await else {
            continue;
        };
        let Ok(record) = Record::from_bytes(&stored.bytes) else {
            continue;
        };
        let intents = record.set.intents.values();
        known.extend(intents.map(|intent| intent.task.key()));
        known.extend(record.set.keys.into_keys());
        let untold = record.outbox.into_iter();
        known.extend(untold.filter_map(|event| KeyId::try_from(event.key).ok()));
    }
    known
}

/// What a device said, less what is `known`.
#[must_use]
pub fn holding(device: &Device, listed: &[Listed], known: &BTreeSet<KeyId>) -> Holding {
    let of_ours = |it: &Listed| <[u8; 16]>::try_from(it.id.as_slice()).ok();
    let strange = listed.iter().filter_map(|it| {
        let id = of_ours(it)?;
        let ours = it.label == ObjectId(id).label() && !known.contains(&KeyId(id));
        let pair = it.pair.as_ref().ok().filter(|_| ours)?;
        Some((KeyId(id), pair.public.clone()))
    });
    Holding {
        token: device.token().map(|token| token.serial.clone()),
        whole: listed.len() < MOST_LISTED,
        ids: listed.iter().filter_map(of_ours).map(KeyId).collect(),
        strange: strange.collect(),
    }
}

/// What to do about an old record.
#[must_use]
pub fn cure(proof: &Outdated) -> String {
    let recover = "Its state folder was put back by a backup or a snapshot: stop the agent, run `sealkeeper recover`, and start it again";
    match proof.may_be_a_loss() {
        false => recover.to_owned(),
        true => format!(
            "{recover}. Only if another agent's store shares that token, and the key was lost: `sealkeeper recover --record-is-right`"
        ),
    }
}

/// The keys of a device; says so where that takes long: signatures wait.
async fn listed(device: &Device) -> Result<Vec<Listed>, DeviceError> {
    let began = Instant::now();
    let mut list = std::pin::pin!(device.list(Pairs::Ours));
    if let Ok(listed) = tokio::time::timeout(LONG, &mut list).await {
        return listed;
    }
    let device = device.name();
    tracing::warn!(
        device,
        "the device is asked what it holds, as at each start, and takes long: no signature leaves before it has said so. How many keys are on its token?"
    );
    let listed = list.await;
    let after = began.elapsed();
    tracing::info!(device, ?after, "the device has answered what it holds");
    listed
}

/// Asks a device once, as soon as it is up, and tells every writer.
pub(super) async fn ask(context: Arc<Context>, device: Device, rooms: Vec<Weak<News>>) {
    let mut state = device.state();
    let mut tries = 0;
    let held = loop {
        if rooms.iter().all(|room| room.strong_count() == 0) {
            return;
        }
        let up = state.wait_for(|it| matches!(it, State::Up { .. } | State::Closed));
        match tokio::time::timeout(LOOK_AGAIN, up).await {
            Ok(Ok(state)) if *state != State::Closed => {}
            Ok(_) => return, // It was shut down.
            Err(_) => continue,
        }
        tries += 1;
        match listed(&device).await {
            Ok(listed) => {
                // After the listing: what was made before it is on record by now.
                let log = context.audit.key_events().into_iter();
                let known = known(&*context.store, log.map(|event| event.what)).await;
                break holding(&device, &listed, &known);
            }
            Err(e) if tries >= TRIES => {
                tracing::warn!(
                    device = device.name(),
                    "what the device holds is not known, nor whether a record is older than that: {e}"
                );
                break Holding::default();
            }
            Err(_) => tokio::time::sleep(REST).await,
        }
    };
    for room in rooms.iter().filter_map(Weak::upgrade) {
        room.holds(device.name(), held.clone());
    }
}

/// Keeps signatures from leaving, and devices from being asked to make or
/// destroy a key, before each has said what it holds.
#[derive(Default)]
pub(super) struct Gate {
    unasked: ArcSwap<BTreeSet<String>>,
    opened: Notify,
}

impl Gate {
    /// Waits for these devices from now on.
    pub(super) fn wait_for(&self, devices: BTreeSet<String>) {
        self.unasked.store(Arc::new(devices));
    }

    /// The device was asked.
    pub(super) fn open(&self, device: &str) {
        self.unasked.rcu(|unasked| {
            let mut unasked = BTreeSet::clone(unasked);
            unasked.remove(device);
            unasked
        });
        self.opened.notify_waiters();
    }

    /// Whether the device was asked, or none is waited for.
    pub(super) fn is_open(&self, device: &str) -> bool {
        !self.unasked.load().contains(device)
    }

    /// Waits until the device was asked; not if that takes too long.
    pub(super) async fn passes(&self, device: &str, deadline: Instant) -> bool {
        if self.is_open(device) {
            return true;
        }
        let open = async {
            loop {
                let mut opened = std::pin::pin!(self.opened.notified());
                opened.as_mut().enable();
                if self.is_open(device) {
                    return;
                }
                opened.await;
            }
        };
        tokio::time::timeout_at(deadline.into(), open).await.is_ok()
    }
}

/// What a writer was told by those who stand outside the folder.
#[derive(Default)]
pub(super) struct Outside {
    /// The record as this process found it.
    began: Option<KeySet>,
    holdings: BTreeMap<String, Holding>,
    /// The first answer of each origin.
    origins: BTreeMap<String, BTreeSet<Offer>>,
    /// For the life of this process: what makes a record new again is done
    /// while no agent runs.
    proof: Option<Outdated>,
}

impl Outside {
    fn judge(&mut self, set: &KeySet) -> Option<Outdated> {
        if let (None, Genesis::Done { .. }) = (&self.proof, &set.genesis) {
            let began = self.began.get_or_insert_with(|| set.clone());
            self.proof = set.outdated(began, &self.holdings, &self.origins);
        }
        self.proof.clone()
    }
}

impl Writer {
    /// Why nothing is signed from this record, where others know more.
    pub(super) fn is_outdated(&mut self, record: &Record) -> Option<Dark> {
        let key_set = self.reader.name.clone();
        let proof = self.outside.judge(&record.set)?;
        Some(Dark::Outdated { key_set, proof })
    }

    /// A device said what it holds.
    pub(super) async fn device_holds(&mut self, device: String, holding: Holding) {
        self.outside.holdings.insert(device.clone(), holding);
        self.look_outside().await;
        if let (None, Some(held)) = (&self.dark, &self.held) {
            let strange = held.record.set.strange_in(&self.outside.holdings).count();
            if strange > 0 {
                tracing::warn!(
                    key_set = self.reader.name,
                    device,
                    strange,
                    "the token holds keys that an agent made, and nobody here knows them: another agent may share it"
                );
            }
        }
        // Last: what waited there asks whether it may go.
        self.reader.gate.open(&device);
    }

    /// An origin answered. Its first answer counts alone: whoever alters a later
    /// one must not end the signing of an agent that runs.
    pub(super) async fn origin_shows(&mut self, origin: &str, offers: &BTreeSet<Offer>) {
        // The agent's own listener knows what the record knows.
        if self.plan.origins.contains(origin) && !self.outside.origins.contains_key(origin) {
            let shown = offers.clone();
            self.outside.origins.insert(origin.to_owned(), shown);
            self.look_outside().await;
        }
    }

    async fn look_outside(&mut self) {
        if let Some(held) = self.held.clone()
            && self.is_outdated(&held.record).is_some()
        {
            self.load().await;
        }
    }
}

/// The same of what `recover` asked.
pub(super) fn outdated(
    set: &KeySet,
    holdings: &BTreeMap<String, Holding>,
    origins: &BTreeMap<String, Vec<PublishedKey>>,
) -> Option<Outdated> {
    let offer = |shown: &PublishedKey| Offer {
        key: Some(shown.public.clone()),
        ..Offer::default()
    };
    let origins = origins.iter();
    let origins = origins.map(|(name, shown)| (name.clone(), shown.iter().map(offer).collect()));
    set.outdated(set, holdings, &origins.collect())
}

/// An operator says that the record is right, and what looks like an agent's on
/// the token is another's: that is put on record, and nothing else changes.
///
/// Why one person does not suffice where two are asked for: on an old record a
/// revoked key may sign. To make the record again takes one.
pub(super) async fn stands(
    writer: &mut Writer,
    stored: Stored,
    holdings: &BTreeMap<String, Holding>,
    proof: Option<Outdated>,
    witnesses: Vec<(String, Result<String, String>)>,
    wish: &Wish,
) -> Result<Recovered, RecoverFailure> {
    let name = writer.reader.name.clone();
    let Some(mut record) = stored.record.filter(|_| stored.good) else {
        return Err(RecoverFailure::NoGood(name));
    };
    if let Some(proof) = proof.as_ref().filter(|proof| !proof.may_be_a_loss()) {
        return Err(RecoverFailure::NotRight(name, proof.clone()));
    }
    let strange = record.set.strange_in(holdings);
    let others: Vec<(String, KeyId)> = strange.map(|(on, id, _)| (on.clone(), id)).collect();
    if others.is_empty() {
        return Err(RecoverFailure::Good(name));
    }
    writer.held = Some(Held {
        record: record.clone(),
        version: stored.version,
    });
    let tick = writer.tick_for(writer.context.clock.read().wall);
    let ids = others.iter().map(|(_, id)| *id).collect();
    let events = (record.set).leave_to_others(&ids, &wish.mandate, &writer.plan, &tick);
    let set = record.set.clone();
    if wish.write {
        record.post(events);
        writer.store(record).await.map_err(RecoverFailure::Store)?;
    }
    Ok(Recovered {
        set,
        findings: Vec::new(),
        strange: Vec::new(),
        not_asked: Vec::new(),
        witnesses,
        confirms_clock: false,
        outdated: proof,
        others,
        written: wish.write,
    })
}
