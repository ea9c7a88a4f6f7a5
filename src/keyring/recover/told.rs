//! What the log says of a key, one event at a time.

use crate::jose::{Algorithm, PublicKey};
use crate::keyring::event::{Event, What};
use crate::keyring::key::{KeyId, Mandate};
use crate::time::Time;

/// An event as the log has it: of a key that was not made yet it names no
/// algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its number in the key set, from 1.
    pub number: u64,
    /// From when on it holds.
    pub at: Time,
    /// The key.
    pub key: KeyId,
    /// Its `kid` and public half, once it has them.
    pub public: Option<(String, Algorithm, PublicKey)>,
    /// What happened.
    pub what: What,
    /// Whose order it was; empty where it was nobody's.
    pub mandate: Mandate,
}

impl Told {
    /// What the log has of an event.
    #[must_use]
    pub fn of(number: u64, event: &Event) -> Self {
        let public = (event.kid.clone()).zip(event.public.clone());
        Self {
            number,
            at: event.at,
            key: event.key,
            public: public.map(|(kid, public)| (kid, event.algorithm, public)),
            what: event.what.clone(),
            mandate: event.mandate.clone().unwrap_or_default(),
        }
    }
}
