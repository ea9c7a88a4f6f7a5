//! A device that works, is away, is late or panics, as it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::agent::context::Hands;
use crate::agent::reader::Reader;
use crate::hsm::DeviceError;
use crate::jose::key::RawKey;
use crate::jose::{PublicKey, thumbprint};
use crate::keyring::{KeyId, Outcome, Task};

/// What the device does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Works,
    Away,
    /// Answers when it has another mood.
    Late,
    /// The code that asks it has a defect.
    Panics,
}

/// Clones are the same device.
#[derive(Clone)]
pub(super) struct Device(Arc<State>);

struct State {
    mood: watch::Sender<Mood>,
    asked: Mutex<Vec<Task>>,
    made: Mutex<BTreeMap<KeyId, u8>>,
    destroyed: Mutex<BTreeSet<KeyId>>,
    watched: Mutex<Option<Arc<Reader>>>,
    seen: Mutex<Vec<Vec<String>>>,
}

impl Device {
    pub(super) fn new() -> Self {
        Self(Arc::new(State {
            mood: watch::Sender::new(Mood::Works),
            asked: Mutex::default(),
            made: Mutex::default(),
            destroyed: Mutex::default(),
            watched: Mutex::default(),
            seen: Mutex::default(),
        }))
    }

    pub(super) fn be(&self, mood: Mood) {
        self.0.mood.send_replace(mood);
    }

    /// What it was asked so far, in order.
    pub(super) fn asked(&self) -> Vec<Task> {
        self.0.asked.lock().unwrap().clone()
    }

    /// From now on it looks at the set that verifiers get whenever it is asked
    /// for something.
    pub(super) fn watch(&self, reader: &Arc<Reader>) {
        *self.0.watched.lock().unwrap() = Some(Arc::clone(reader));
    }

    /// What it saw.
    pub(super) fn seen(&self) -> Vec<Vec<String>> {
        self.0.seen.lock().unwrap().clone()
    }

    pub(super) fn hands(&self) -> Hands {
        let device = self.clone();
        Arc::new(move |task, looks| {
            let device = device.clone();
            Box::pin(async move { device.perform(task, looks).await })
        })
    }

    async fn perform(&self, task: Task, looks: bool) -> Result<Outcome, DeviceError> {
        self.0.asked.lock().unwrap().push(task.clone());
        if let Some(reader) = &*self.0.watched.lock().unwrap() {
            self.0.seen.lock().unwrap().push(super::shown(reader));
        }
        let mut mood = self.0.mood.subscribe();
        let mood = *mood.wait_for(|mood| *mood != Mood::Late).await.unwrap();
        match mood {
            Mood::Away => Err(DeviceError::Unavailable {
                device: task.device().to_owned(),
                why: "the test wants it away".to_owned(),
                retry_after: std::time::Duration::ZERO,
            }),
            Mood::Panics => panic!("the test asked for it"),
            Mood::Works | Mood::Late => Ok(self.done(&task, looks)),
        }
    }

    fn done(&self, task: &Task, looks: bool) -> Outcome {
        let mut made = self.0.made.lock().unwrap();
        let next = u8::try_from(made.len()).unwrap() + 1;
        match task {
            Task::Generate { key, .. } => {
                let public = public(*made.entry(*key).or_insert(next));
                let kid = thumbprint(&public);
                Outcome::Generated {
                    public,
                    kid,
                    token: None,
                }
            }
            Task::Destroy { key, .. } => {
                let mut destroyed = self.0.destroyed.lock().unwrap();
                if looks && !destroyed.contains(key) {
                    return Outcome::Kept;
                }
                destroyed.insert(*key);
                Outcome::Destroyed
            }
        }
    }
}

/// The `n`th public key.
fn public(n: u8) -> PublicKey {
    let public = (0..).find_map(|salt| {
        let mut x = vec![salt; 32];
        x[0] = n;
        // Not every number is a point of the curve.
        PublicKey::try_from(RawKey::Ed25519 { x }).ok()
    });
    public.unwrap()
}
