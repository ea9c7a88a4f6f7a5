//! What happened to a key, for the record and for the operator.

use std::collections::BTreeSet;

use super::key::{Half, Key, KeyId, Mandate, Reason};
use super::rules::{self, Action};
use super::set::Plan;
use crate::jose::{Algorithm, PublicKey};
use crate::time::Time;

/// One thing that happened to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key; the id of no key where it is about an origin, or the clock.
    pub key: KeyId,
    /// Its `kid`, once it has one.
    pub kid: Option<String>,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its public half, once it has one: the log alone can rebuild the set.
    pub public: Option<PublicKey>,
    /// The instant from which it holds. An activation that a tick finds done
    /// carries the instant of the switch, not of the tick.
    pub at: Time,
    /// What happened.
    pub what: What,
    /// Whose order it was; none for what time or a device brought about.
    pub mandate: Option<Mandate>,
    /// What kind of action the order was.
    pub action: Option<Action>,
    /// Who agreed to it, where two were asked for.
    pub second: Option<String>,
}

impl Event {
    pub(super) fn of(key: &Key, at: Time, what: What) -> Self {
        Self {
            key: key.id,
            kid: key.kid.clone(),
            algorithm: key.algorithm,
            public: key.public.clone(),
            at,
            what,
            mandate: None,
            action: None,
            second: None,
        }
    }

    /// Of an origin or the clock, and so of no key. Its algorithm is the default
    /// track's.
    pub(super) fn of_no_key(plan: &Plan, at: Time, what: What) -> Self {
        let default = plan.tracks.first();
        Self {
            key: KeyId([0; 16]),
            kid: None,
            algorithm: default.map_or(Algorithm::Es256, |(algorithm, _)| *algorithm),
            public: None,
            at,
            what,
            mandate: None,
            action: None,
            second: None,
        }
    }

    /// As part of what a person ordered.
    pub(super) fn ordered(self, action: Action, mandate: &Mandate) -> Self {
        Self {
            mandate: Some(mandate.clone()),
            action: Some(action),
            ..self
        }
    }

    /// Whether one person did alone what waits for a second one where two are
    /// asked for: the log and the answer say it, and others may look at what
    /// was done.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.second.is_none() && self.action.is_some_and(rules::exception_second_person)
    }
}

/// The kinds of event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is the event")]
pub enum What {
    /// In a device: absent in logs of agents that did not say so.
    GenerationBegun {
        device: Option<String>,
    },
    GenerationAbandoned,
    Published,
    PlaceholderMade,
    /// Every origin shows it now.
    ObservedEverywhere,
    /// An origin that showed it no longer does.
    Regressed {
        origin: String,
    },
    /// Nobody looked at an origin that showed it, since then: whether it did all
    /// the while is not known, and its wait there begins anew.
    Unobserved {
        origin: String,
        since: Time,
    },
    ActivationScheduled {
        activates: Time,
    },
    ActivationCancelled,
    /// It will be active before every verifier can hold it.
    ActivationForced {
        activates: Time,
    },
    Activated,
    Retiring,
    DestructionBegun {
        device: String,
    },
    Destroyed {
        device: String,
    },
    /// The token lacks it, and nobody here asked for that.
    Lost {
        device: String,
    },
    /// A hold came before the device had destroyed it.
    DestructionStopped {
        device: String,
    },
    Removed,
    Revoked {
        reason: Reason,
    },
    /// Somebody gave the reason, or a note, of a revocation on record.
    RevocationNoted {
        reason: Reason,
    },
    Held,
    Released,
    RotationRequested,
    /// The next key signs before every verifier can hold it.
    SuccessorForced,
    RollbackScheduled {
        activates: Time,
    },
    /// A second person is asked for.
    ApprovalRequested {
        request: u64,
        wish: &'static str,
        expires: Time,
    },
    /// A second person agreed.
    Approved {
        request: u64,
        wish: &'static str,
    },
    RequestWithdrawn {
        request: u64,
    },
    /// Nobody agreed in time.
    RequestExpired {
        request: u64,
    },
    /// No activation waits for this origin before `until`.
    OriginWaived {
        origin: String,
        until: Time,
    },
    OriginRestored {
        origin: String,
    },
    /// A waiver is over by itself.
    WaiverEnded {
        origin: String,
    },
    /// Somebody vouched for the time.
    ClockConfirmed {
        reading: Time,
        /// What the clock should have said, as far as that was known.
        expected: Time,
    },
    /// It verifies what an older system signed.
    Imported {
        until: Time,
    },
    /// A key that another tool made is to be taken over.
    AdoptionBegun,
    /// It has an id of ours in the device now.
    Adopted {
        device: String,
        /// The `CKA_ID` that it had, in hexadecimal.
        id: String,
        /// Its `CKA_LABEL`.
        label: String,
    },
    /// Its record was lost, and made again from what others know.
    Recovered,
    /// Somebody vouched for a record that looks old: these objects, which look
    /// like an agent's, are another's.
    RecordVouched {
        objects: BTreeSet<KeyId>,
    },
}

impl What {
    /// Every name that [`Self::name`] gives.
    pub const NAMES: [&str; 37] = [
        "generation-begun",
        "generation-abandoned",
        "published",
        "placeholder-made",
        "observed-everywhere",
        "regressed",
        "unobserved",
        "activation-scheduled",
        "activation-cancelled",
        "activation-forced",
        "activated",
        "retiring",
        "destruction-begun",
        "destroyed",
        "lost",
        "destruction-stopped",
        "removed",
        "revoked",
        "revocation-noted",
        "held",
        "released",
        "rotation-requested",
        "successor-forced",
        "rollback-scheduled",
        "approval-requested",
        "approved",
        "request-withdrawn",
        "request-expired",
        "origin-waived",
        "origin-restored",
        "waiver-ended",
        "clock-confirmed",
        "imported",
        "adoption-begun",
        "adopted",
        "recovered",
        "record-vouched",
    ];

    /// A stable name for the log.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::GenerationBegun { .. } => "generation-begun",
            Self::GenerationAbandoned => "generation-abandoned",
            Self::Published => "published",
            Self::PlaceholderMade => "placeholder-made",
            Self::ObservedEverywhere => "observed-everywhere",
            Self::Regressed { .. } => "regressed",
            Self::Unobserved { .. } => "unobserved",
            Self::ActivationScheduled { .. } => "activation-scheduled",
            Self::ActivationCancelled => "activation-cancelled",
            Self::ActivationForced { .. } => "activation-forced",
            Self::Activated => "activated",
            Self::Retiring => "retiring",
            Self::DestructionBegun { .. } => "destruction-begun",
            Self::Destroyed { .. } => "destroyed",
            Self::Lost { .. } => "lost",
            Self::DestructionStopped { .. } => "destruction-stopped",
            Self::Removed => "removed",
            Self::Revoked { .. } => "revoked",
            Self::RevocationNoted { .. } => "revocation-noted",
            Self::Held => "held",
            Self::Released => "released",
            Self::RotationRequested => "rotation-requested",
            Self::SuccessorForced => "successor-forced",
            Self::RollbackScheduled { .. } => "rollback-scheduled",
            Self::ApprovalRequested { .. } => "approval-requested",
            Self::Approved { .. } => "approved",
            Self::RequestWithdrawn { .. } => "request-withdrawn",
            Self::RequestExpired { .. } => "request-expired",
            Self::OriginWaived { .. } => "origin-waived",
            Self::OriginRestored { .. } => "origin-restored",
            Self::WaiverEnded { .. } => "waiver-ended",
            Self::ClockConfirmed { .. } => "clock-confirmed",
            Self::Imported { .. } => "imported",
            Self::AdoptionBegun => "adoption-begun",
            Self::Adopted { .. } => "adopted",
            Self::Recovered => "recovered",
            Self::RecordVouched { .. } => "record-vouched",
        }
    }
}

impl Half {
    /// The state in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
            Self::Lost => "lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::What;

    #[test]
    fn each_name_is_among_the_names() {
        // Each arm of `name`, as it stands above.
        let arms = include_str!("event.rs").lines().filter_map(|line| {
            let (arm, name) = line.split_once(" => \"")?;
            arm.trim()
                .starts_with("Self::")
                .then(|| name.trim_end_matches("\","))
        });
        let halves = ["present", "destroying", "destroyed", "lost"];
        let mut arms: Vec<_> = arms.collect();
        arms.truncate(arms.len() - halves.len());
        assert_eq!(arms, What::NAMES);
    }
}
