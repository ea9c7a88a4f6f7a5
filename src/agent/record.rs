//! What is stored: a key set, and the key events that the log may not have
//! yet.
//!
//! Why an outbox: a key event must be on record exactly once, and a record
//! that is older than the last event in the log must be recognised as rolled
//! back. Log first, and a crash before the store makes a good record look
//! rolled back; store first, and a crash before the log loses the event. So
//! the events travel in the record until the log has them, each with a number
//! that never repeats.

use serde::{Deserialize, Serialize};

use crate::audit::KeyEvent;
use crate::jose::{Jwk, PublicKey};
use crate::keyring::{Event, KeySet, What};
use crate::store::WITHOUT_COPY;

/// The format of the record. A newer one is refused: it may know restrictions
/// that this agent does not.
const SCHEMA: u32 = 1;

/// A key set as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    schema: u32,
    /// How many events this key set has had.
    pub(super) events: u64,
    /// The last of them, which the log may not have yet.
    pub(super) outbox: Vec<KeyEvent>,
    /// The key set itself.
    pub(super) set: KeySet,
}

/// Why a record cannot be used. Nothing is signed from it, and nothing
/// replaces it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a record.
    #[error("the record does not read: {0}")]
    Malformed(String),
    /// Written by a newer agent.
    #[error(
        "expected a record of schema {SCHEMA} or older, got {0}: install the agent that wrote it"
    )]
    Newer(u32),
    /// An old backup, or a store that went back.
    #[error(
        "the record has {record} key events and the log has {log}: an old copy of the store is in place; stop the agent, put a newer copy in its place, and start the agent again; {WITHOUT_COPY}"
    )]
    RolledBack {
        /// Events that the record knows.
        record: u64,
        /// Events that the log knows.
        log: u64,
    },
}

impl Record {
    pub(super) fn new(set: KeySet) -> Self {
        Self {
            schema: SCHEMA,
            events: 0,
            outbox: Vec::new(),
            set,
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        let malformed = |e: serde_json::Error| RecordError::Malformed(e.to_string());
        let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
        if head.schema > SCHEMA {
            return Err(RecordError::Newer(head.schema));
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("every map in a record has keys that are text")
    }

    /// Numbers the events of a step and puts them in the outbox.
    pub(super) fn post(&mut self, events: Vec<Event>) {
        for event in events {
            self.events += 1;
            self.outbox
                .push(to_log(&self.set.name, self.events, &event));
        }
    }

    /// Refuses a record that the log has seen more of.
    pub(super) fn check_against_log(&self, log: u64) -> Result<(), RecordError> {
        if log > self.events {
            return Err(RecordError::RolledBack {
                record: self.events,
                log,
            });
        }
        Ok(())
    }
}

/// An event as the log keeps it.
fn to_log(key_set: &str, number: u64, event: &Event) -> KeyEvent {
    let jwk = |public: &PublicKey, kid: &String| {
        let jwk = Jwk::new(kid.clone(), event.algorithm, public.clone()).ok()?;
        serde_json::to_value(jwk).ok()
    };
    let note = match &event.what {
        What::Regressed { origin }
        | What::OriginRestored { origin }
        | What::WaiverEnded { origin } => Some(format!("origin {origin}")),
        What::OriginWaived { origin, until } => Some(format!("origin {origin} until {until}")),
        What::ActivationScheduled { activates } | What::RollbackScheduled { activates } => {
            Some(format!("activates {activates}"))
        }
        What::DestructionBegun { device } | What::Destroyed { device } => {
            Some(format!("device {device}"))
        }
        What::Revoked { reason } | What::RevocationNoted { reason } => {
            Some(format!("reason {}", reason.name()))
        }
        What::ApprovalRequested {
            request,
            wish,
            expires,
        } => Some(format!("request {request}: {wish}, until {expires}")),
        What::Approved { request, wish } => Some(format!("request {request}: {wish}")),
        What::RequestWithdrawn { request } | What::RequestExpired { request } => {
            Some(format!("request {request}"))
        }
        _ => None,
    };
    KeyEvent {
        at: event.at,
        key_set: key_set.to_owned(),
        number,
        event: event.what.name().to_owned(),
        key: event.key.to_string(),
        kid: event.kid.clone(),
        jwk: event
            .public
            .as_ref()
            .zip(event.kid.as_ref())
            .and_then(|(p, k)| jwk(p, k)),
        note,
        by: event.mandate.as_ref().map(|mandate| match &event.second {
            Some(second) => format!("{} with {second}", mandate.by),
            None => mandate.by.clone(),
        }),
        remark: (event.mandate.as_ref())
            .map(|mandate| mandate.note.clone())
            .filter(|note| !note.is_empty()),
        alone: event.is_alone(),
    }
}

/// Whether a line of the log ends a key for ever.
pub(super) fn is_revocation(event: &KeyEvent) -> bool {
    event.event == REVOKED
}

/// [`What::name`] of a revocation.
const REVOKED: &str = "revoked";
