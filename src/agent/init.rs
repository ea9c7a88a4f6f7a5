//! Genesis: the explicit `init` of a key set, in a process of its own.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use super::context::random_id;
use super::effects::{self, Errand};
use super::record::Record;
use super::unnamed::unnamed;
use super::writer::{Clock, Held, StepError, Writer};
use super::{Context, Wanted};
use crate::hsm::DeviceError;
use crate::jose::Algorithm;
use crate::keyring::{Genesis, GenesisError, KeySet, Phase, Task, UnexpectedOutcome};
use crate::store::StoreError;

/// What `init` is doing, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A device is asked for a key; RSA takes a while.
    Generating {
        /// The key's algorithm.
        algorithm: Algorithm,
        /// The device.
        device: String,
    },
    /// The key exists.
    Generated {
        /// Its `kid`.
        kid: String,
        /// Whether it is the placeholder, whose private half goes at once.
        placeholder: bool,
    },
    /// A key that nobody wants any more cannot be destroyed now: its device is
    /// one that the configuration has no use for. It stays on record.
    Left {
        /// The key's id, as the device knows it.
        key: String,
        /// The device.
        device: String,
        /// What it says.
        error: DeviceError,
    },
}

/// Why a key set could not begin. Running `init` again goes on where it
/// stopped.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// It has begun: there is nothing to do.
    #[error("the key set {0:?} has begun already")]
    Done(String),
    /// The record that is there cannot be used.
    #[error("{0}")]
    BadRecord(String),
    /// The store does not take the record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A device does not make the key.
    #[error("the device {device:?}: {error}")]
    Device {
        /// Its name.
        device: String,
        /// What it says.
        error: DeviceError,
    },
    /// A device made something unexpected.
    #[error(transparent)]
    Unexpected(#[from] UnexpectedOutcome),
    /// The log says that this key set was there before.
    #[error(
        "the log knows {0} key events of this key set, but the store has no record: it was lost, and `init` would orphan every key that verifiers hold"
    )]
    Lost(u64),
    /// It may be one of before, under another name.
    #[error(
        "{key_set:?} has no record, and there is one of {} that no configuration names: if it is the same key set under another name, verifiers hold the keys of that one, and refuse what `init` would sign with", .left.join(", ")
    )]
    Renamed {
        /// The key set that was to begin.
        key_set: String,
        /// Those on record that the configuration does not name.
        left: Vec<String>,
    },
}

/// Begins a key set, or goes on with a beginning that was cut short, by the
/// configuration of now.
///
/// With it the operator asserts that no verifier holds an older set for this
/// issuer: the first keys become active unobserved. `configured` are all key
/// sets that the configuration names; none where the operator asserts that no
/// other one on record is this one. Returns their `kid`s.
pub async fn init(
    context: Context,
    wanted: Wanted,
    configured: Option<&BTreeSet<String>>,
    mut progress: impl FnMut(Progress),
) -> Result<Vec<String>, InitError> {
    let name = wanted.name.clone();
    let context = Arc::new(context);
    let mut writer = Writer::alone(Arc::clone(&context), &wanted);
    writer.begin(&name, configured).await?;
    let mut left = BTreeSet::new();
    loop {
        let held = writer.held.clone().ok_or_else(|| vanished(&name))?;
        let mut intents = held.record.set.intents.iter();
        let Some((&id, intent)) = intents.find(|(id, _)| !left.contains(*id)) else {
            break;
        };
        let key = held.record.set.keys.get(&intent.task.key());
        if let (Task::Generate { device, .. }, Some(key)) = (&intent.task, key) {
            progress(Progress::Generating {
                algorithm: key.algorithm,
                device: device.clone(),
            });
        }
        let placeholder = held.record.set.placeholder == Some(intent.task.key());
        let device = intent.task.device().to_owned();
        let errand = Errand::of(&held.record.set, &intent.task);
        let outcome = match effects::perform(&context, &errand).await {
            Ok(outcome) => outcome,
            Err(error) if device != writer.plan.device => {
                let key = intent.task.key().to_string();
                left.insert(id);
                progress(Progress::Left { key, device, error });
                continue;
            }
            Err(error) => return Err(InitError::Device { device, error }),
        };
        let kid = match &outcome {
            crate::keyring::Outcome::Generated { kid, .. } => Some(kid.clone()),
            crate::keyring::Outcome::Destroyed | crate::keyring::Outcome::Kept => None,
        };
        let step = writer.step(Clock::Any, |set, _, tick| {
            set.complete(id, outcome.clone(), tick)
                .map(|events| ((), events))
        });
        match step.await {
            Ok(()) => {}
            Err(StepError::Keyring(e)) => return Err(e.into()),
            Err(e) => return Err(other(e)),
        }
        if let Some(kid) = kid {
            progress(Progress::Generated { kid, placeholder });
        }
    }
    let step = writer.step(Clock::Any, |set, plan, tick| {
        set.finish_genesis(plan, tick.now)
            .map(|events| ((), events))
    });
    match step.await {
        Ok(()) => {}
        Err(StepError::Keyring(GenesisError::Done(name))) => return Err(InitError::Done(name)),
        Err(e) => return Err(other(e)),
    }
    let held = writer.held.ok_or_else(|| vanished(&name))?;
    let keys = held.record.set.keys.values();
    let active = keys.filter(|key| matches!(key.phase, Phase::Active { .. }));
    Ok(active.filter_map(|key| key.kid.clone()).collect())
}

impl Writer {
    /// Loads a beginning that was cut short, or writes a new one.
    async fn begin(
        &mut self,
        name: &str,
        configured: Option<&BTreeSet<String>>,
    ) -> Result<(), InitError> {
        self.load().await;
        if let Some(held) = &self.held {
            if let Genesis::Done { .. } = held.record.set.genesis {
                return Err(InitError::Done(name.to_owned()));
            }
            // By the configuration of now, which may be another.
            let step = self.step(Clock::Any, |set, plan, tick| {
                let events = set.resume_genesis(plan, tick, &mut random_id);
                Ok::<_, Infallible>(((), events))
            });
            return step.await.map_err(other);
        }
        // Not loaded: make sure that it is because there is none.
        if self.context.store.load(name).await?.is_some() {
            let why = self
                .reader
                .load()
                .signers
                .as_ref()
                .err()
                .map(ToString::to_string);
            return Err(InitError::BadRecord(why.unwrap_or_default()));
        }
        let known = self.context.key_log(name).events;
        if known > 0 {
            return Err(InitError::Lost(known));
        }
        if let Some(configured) = configured {
            let logged = self.context.logged();
            let left = unnamed(self.context.store.as_ref(), logged, configured).await?;
            if !left.is_empty() {
                let key_set = name.to_owned();
                return Err(InitError::Renamed { key_set, left });
            }
        }
        let tick = self.tick_for(self.context.clock.read().wall);
        let (set, events) = KeySet::genesis(name, &self.plan, &tick, &mut random_id);
        let mut record = Record::new(set);
        record.post(events);
        self.held = Some(Held {
            record: record.clone(),
            version: None,
        });
        self.store(record).await.inspect_err(|_| self.held = None)?;
        Ok(())
    }
}

fn vanished(name: &str) -> InitError {
    InitError::BadRecord(format!("the record of {name:?} vanished during init"))
}

fn other<E: std::fmt::Display>(error: StepError<E>) -> InitError {
    match error {
        StepError::Store(e) => InitError::Store(e),
        e => InitError::BadRecord(e.to_string()),
    }
}
