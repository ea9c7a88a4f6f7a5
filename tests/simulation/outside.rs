//! What the agent does not rule: the device, the origins, the store.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sealkeeper::jose::PublicKey;
use sealkeeper::jose::key::RawKey;
use sealkeeper::keyring::{KeyId, KeySet};
use sealkeeper::time::Time;

/// A device that holds objects by id. Its keys are numbers in the shape of
/// Ed25519 public keys: the keyring never verifies.
#[derive(Default)]
pub(crate) struct Device {
    pub(crate) objects: BTreeMap<KeyId, PublicKey>,
    pub(crate) away: bool,
    made: u64,
}

impl Device {
    /// Makes the pair, or finds that it was made.
    pub(crate) fn generate(&mut self, id: KeyId, salt: u64) -> PublicKey {
        if let Some(public) = self.objects.get(&id) {
            return public.clone();
        }
        loop {
            self.made += 1;
            let mut x = vec![0; 32];
            x[..8].copy_from_slice(&self.made.to_le_bytes());
            x[8..16].copy_from_slice(&salt.to_le_bytes());
            // Not every number is a point of the curve.
            if let Ok(public) = PublicKey::try_from(RawKey::Ed25519 { x }) {
                self.objects.insert(id, public.clone());
                return public;
            }
        }
    }
}

/// As unique as a thumbprint is.
pub(crate) fn kid_of(public: &PublicKey) -> String {
    match public.raw() {
        RawKey::Ed25519 { x } => x[..16].iter().map(|b| format!("{b:02x}")).collect(),
        other => unreachable!("the device makes no {other:?}"),
    }
}

/// A place that serves the set to verifiers.
pub(crate) struct Origin {
    pub(crate) name: String,
    pub(crate) serves: BTreeSet<String>,
    /// What it served once, and may serve again by mistake.
    pub(crate) history: Vec<BTreeSet<String>>,
    /// The replica from which it gets the set.
    pub(crate) source: usize,
    /// It answers nobody since then.
    pub(crate) dead: Option<Time>,
    /// It answers verifiers and no agent.
    pub(crate) mute: bool,
    /// It went back to a set without some key then, and no agent has seen it.
    pub(crate) astray: Option<Time>,
    /// That key, until one looks, though it may be shown again.
    pub(crate) lost: Option<String>,
}

impl Origin {
    /// Whether agents get an answer.
    pub(crate) fn answers(&self) -> bool {
        self.dead.is_none() && !self.mute
    }
}

/// One record, changed by compare-and-swap.
pub(crate) struct Store {
    pub(crate) record: Rc<KeySet>,
    pub(crate) version: u64,
    pub(crate) away: bool,
}

impl Store {
    /// Whether the swap took place.
    pub(crate) fn compare_and_swap(
        &mut self,
        version: u64,
        new: &Rc<KeySet>,
        as_json: bool,
    ) -> bool {
        if version != self.version {
            return false;
        }
        self.version += 1;
        self.record = Rc::clone(new);
        if as_json {
            let text = serde_json::to_string(&**new).expect("a record is plain data");
            let read: KeySet = serde_json::from_str(&text).expect("what was written reads back");
            assert_eq!(read, **new, "a record changed in the store");
        }
        true
    }
}
