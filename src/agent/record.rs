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
use crate::keyring::{Event, KeyId, KeySet, Mandate, Reason, Told, What};
use crate::store::REBUILD;
use crate::time::{Span, Time};

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
        "the record has {record} key events and the log has {log}: an old copy of the store is in place; {REBUILD}"
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
        What::Unobserved { origin, since } => Some(format!("origin {origin} since {since}")),
        What::OriginWaived { origin, until } => Some(format!("origin {origin} until {until}")),
        What::ActivationScheduled { activates }
        | What::ActivationForced { activates }
        | What::RollbackScheduled { activates } => Some(format!("activates {activates}")),
        What::ClockConfirmed { reading, expected } => Some(format!(
            "reading {reading}, expected {expected}: {}",
            moved(*reading, *expected)
        )),
        What::Imported { until } => Some(format!("until {until}")),
        What::RecordVouched { objects } => {
            let ids: Vec<String> = objects.iter().map(KeyId::to_string).collect();
            Some(format!("not of this key set: {}", ids.join(", ")))
        }
        What::Adopted { device, id, label } => {
            Some(format!("device {device}, id {id:?}, label {label}"))
        }
        What::GenerationBegun {
            device: Some(device),
        }
        | What::DestructionBegun { device }
        | What::Destroyed { device }
        | What::DestructionStopped { device }
        | What::Lost { device } => Some(format!("device {device}")),
        What::Revoked { reason } | What::RevocationNoted { reason } => {
            Some(format!("reason {}", reason.name()))
        }
        What::ApprovalRequested {
            request,
            wish,
            expires,
        } => {
            let what = match *wish {
                "activate" => "activate the next key in place of this revoked one",
                "force" => "activate this key before its time",
                wish => wish,
            };
            Some(format!("request {request}: {what}, until {expires}"))
        }
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

/// An event of the log as the keyring reads it: the reverse of what was
/// written.
///
/// # Errors
/// What is wrong with the line. A newer agent may have written an event that
/// restricts, so none is passed over.
pub(super) fn from_log(event: &KeyEvent) -> Result<Option<Told>, String> {
    if OF_NO_KEY.contains(&event.event.as_str()) {
        return Ok(None);
    }
    let line = |why: &str| format!("key event {} of {}: {why}", event.number, event.key_set);
    let note = event.note.as_deref().unwrap_or_default();
    let after = |word: &str| {
        let rest = note.strip_prefix(word).map(str::to_owned);
        rest.ok_or_else(|| line(&format!("expected a note {word:?}, got {note:?}")))
    };
    let time = |word: &str| {
        let at = humantime::parse_rfc3339(&after(word)?).map_err(|e| line(&e.to_string()))?;
        let since = at.duration_since(std::time::UNIX_EPOCH);
        let ms = since.map_err(|e| line(&e.to_string()))?.as_millis();
        i64::try_from(ms)
            .map(Time::from_millis)
            .map_err(|e| line(&e.to_string()))
    };
    let reason = || {
        let said = after("reason ")?;
        let all = [Reason::Unspecified, Reason::Compromised, Reason::Superseded];
        let found = all.into_iter().find(|reason| reason.name() == said);
        found.ok_or_else(|| line(&format!("no reason {said:?} is known")))
    };
    let what = match event.event.as_str() {
        "generation-begun" => What::GenerationBegun {
            device: match note {
                "" => None,
                _ => Some(after("device ")?),
            },
        },
        "generation-abandoned" => What::GenerationAbandoned,
        "published" => What::Published,
        "placeholder-made" => What::PlaceholderMade,
        "observed-everywhere" => What::ObservedEverywhere,
        "regressed" => What::Regressed {
            origin: after("origin ")?,
        },
        "activation-scheduled" => What::ActivationScheduled {
            activates: time("activates ")?,
        },
        "activation-cancelled" => What::ActivationCancelled,
        "activation-forced" => What::ActivationForced {
            activates: time("activates ")?,
        },
        "activated" => What::Activated,
        "retiring" => What::Retiring,
        "destruction-begun" => What::DestructionBegun {
            device: after("device ")?,
        },
        "destroyed" => What::Destroyed {
            device: after("device ")?,
        },
        "destruction-stopped" => What::DestructionStopped {
            device: after("device ")?,
        },
        "lost" => What::Lost {
            device: after("device ")?,
        },
        "removed" => What::Removed,
        "revoked" => What::Revoked { reason: reason()? },
        "revocation-noted" => What::RevocationNoted { reason: reason()? },
        "held" => What::Held,
        "released" => What::Released,
        "rotation-requested" => What::RotationRequested,
        "successor-forced" => What::SuccessorForced,
        "rollback-scheduled" => What::RollbackScheduled {
            activates: time("activates ")?,
        },
        "imported" => What::Imported {
            until: time("until ")?,
        },
        "adoption-begun" => What::AdoptionBegun,
        "adopted" => {
            let said = after("device ")?;
            let parts = said.split_once(", id \"").and_then(|(device, rest)| {
                let (id, label) = rest.split_once("\", label ")?;
                Some((device.to_owned(), id.to_owned(), label.to_owned()))
            });
            let (device, id, label) = parts.ok_or_else(|| line("it names no former id"))?;
            What::Adopted { device, id, label }
        }
        "recovered" => What::Recovered,
        other => {
            return Err(line(&format!(
                "no event {other:?} is known: use the program that wrote it"
            )));
        }
    };
    let public = match (&event.kid, &event.jwk) {
        (Some(_), Some(jwk)) => {
            let jwk =
                Jwk::from_json(jwk.to_string().as_bytes()).map_err(|e| line(&e.to_string()))?;
            Some((jwk.kid, jwk.algorithm, jwk.key))
        }
        _ => None,
    };
    Ok(Some(Told {
        number: event.number,
        at: event.at,
        key: KeyId::try_from(event.key.clone()).map_err(|e| line(&e.to_string()))?,
        public,
        what,
        mandate: Mandate {
            by: event.by.clone().unwrap_or_default(),
            note: event.remark.clone().unwrap_or_default(),
        },
    }))
}

/// How far the time moved that everything is dated by.
pub(super) fn moved(reading: Time, expected: Time) -> String {
    match (reading.since(expected), expected.since(reading)) {
        (Span::ZERO, Span::ZERO) => "not moved".to_owned(),
        (Span::ZERO, back) => format!("moved back by {back}"),
        (forward, _) => format!("moved forward by {forward}"),
    }
}

/// Events of what people and origins did, from which no key's state follows:
/// what waits for a second person, and for whom nobody waits, is asked for
/// again after a recovery, and all origins are.
const OF_NO_KEY: [&str; 10] = [
    "unobserved",
    "approval-requested",
    "approved",
    "request-withdrawn",
    "request-expired",
    "origin-waived",
    "origin-restored",
    "waiver-ended",
    "record-vouched",
    CONFIRMED,
];

/// [`What::name`] of a confirmation of the time.
pub(super) const CONFIRMED: &str = "clock-confirmed";

/// Whether a line of the log ends a key for ever.
pub(super) fn is_revocation(event: &KeyEvent) -> bool {
    event.event == REVOKED
}

/// [`What::name`] of a revocation.
const REVOKED: &str = "revoked";

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::audit;
    use crate::durable::OsDisk;
    use crate::jose::Algorithm;
    use crate::keyring::rules::Action;

    /// What the log keeps of an event is what `recover` reads from it.
    #[test]
    fn the_log_gives_back_what_was_told() {
        let (origin, device) = ("cdn".to_owned(), "hsm".to_owned());
        let activates = Time::from_millis(1_700_000_000_123);
        let reason = Reason::Superseded;
        let all = [
            What::GenerationBegun { device: None },
            What::GenerationBegun {
                device: Some(device.clone()),
            },
            What::GenerationAbandoned,
            What::Published,
            What::PlaceholderMade,
            What::ObservedEverywhere,
            What::Regressed { origin },
            What::ActivationScheduled { activates },
            What::ActivationCancelled,
            What::ActivationForced { activates },
            What::Activated,
            What::Retiring,
            What::DestructionBegun {
                device: device.clone(),
            },
            What::Destroyed {
                device: device.clone(),
            },
            What::DestructionStopped {
                device: device.clone(),
            },
            What::Lost {
                device: device.clone(),
            },
            What::Removed,
            What::Revoked { reason },
            What::RevocationNoted { reason },
            What::Held,
            What::Released,
            What::RotationRequested,
            What::SuccessorForced,
            What::RollbackScheduled { activates },
            What::Imported { until: activates },
            What::AdoptionBegun,
            What::Adopted {
                device,
                id: "0a".to_owned(),
                label: "an, id \"odd\", label one".to_owned(),
            },
            What::Recovered,
        ];
        let x = *b"\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b\xfe\xd3\xc9\x64\x07\x3a\x0e\xe1\x72\xf3\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07\x51\x1a";
        let public = PublicKey::try_from(crate::jose::key::RawKey::Ed25519 { x: x.to_vec() });
        for (number, what) in (1..).zip(all) {
            let event = Event {
                key: KeyId([7; 16]),
                kid: Some("a key".to_owned()),
                algorithm: Algorithm::Ed25519,
                public: Some(public.clone().unwrap()),
                at: Time::from_millis(1_700_000_000_000),
                what,
                mandate: Some(Mandate {
                    by: "unix:7".to_owned(),
                    note: "ticket".to_owned(),
                }),
                action: Some(Action::Block),
                second: None,
            };
            let read = from_log(&to_log("main", number, &event)).unwrap();
            assert_eq!(read, Some(Told::of(number, &event)));
        }
    }

    #[test]
    fn the_first_log_is_read_and_an_unknown_event_is_not_passed_over() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/first");
        let log = audit::key_events(&OsDisk, std::path::Path::new(dir)).unwrap();
        assert_eq!(log.len(), 26);
        for line in &log {
            from_log(&line.what).unwrap();
        }
        let mut newer = log[3].what.clone();
        newer.event = "frozen".to_owned();
        let said = from_log(&newer).unwrap_err();
        assert!(said.contains("no event \"frozen\" is known"), "{said}");
    }
}
