//! Key events in the operator's words.

use super::record::moved;
use crate::jose::Algorithm;
use crate::keyring::{Event, What};

/// What an event is before it is stored, and `once` what: a restriction holds
/// already, and is none of these.
pub(super) fn to_come(event: &Event, once: &str) -> Option<String> {
    let algorithm = event.algorithm;
    match (&event.what, &event.kid) {
        (What::Activated, Some(kid)) => {
            Some(format!("the {algorithm} key {kid} signs once {once}"))
        }
        (What::RevocationNoted { .. }, _) => Some(format!(
            "the reason and the note are in the log of key events once {once}"
        )),
        (What::SuccessorForced, _) => Some(format!(
            "the next {algorithm} key signs as soon as it is in the set, once {once}"
        )),
        _ => None,
    }
}

/// An event as a sentence.
pub(super) fn sentence(event: &Event) -> String {
    let key = match &event.kid {
        Some(kid) => format!("the {} key {kid}", event.algorithm),
        None => format!("a new {} key", event.algorithm),
    };
    let at = event.at;
    match &event.what {
        What::ActivationScheduled { activates } | What::RollbackScheduled { activates } => {
            format!("{key} will be active at {activates}")
        }
        What::ActivationForced { activates } if *activates <= at => {
            format!("{key} signs before every verifier can hold it")
        }
        What::ActivationForced { activates } => {
            format!("{key} will be active at {activates}, before every verifier can hold it")
        }
        What::ActivationCancelled => format!("the activation of {key} was cancelled"),
        What::Published => format!("{key} is in the set since {at}"),
        What::Activated => format!("{key} is active since {at}"),
        What::Retiring => format!("{key} is retiring since {at}"),
        What::Revoked { reason } => {
            format!("{key} was revoked ({}) and has left the set", reason.name())
        }
        What::RevocationNoted { reason } => format!(
            "the log of key events has more on the revocation of {key} (reason {})",
            reason.name()
        ),
        What::RotationRequested => format!("{key} is to be replaced as soon as that is safe"),
        What::SuccessorForced => {
            format!("the next key signs in place of {key} as soon as it is in the set")
        }
        What::DestructionBegun { device } => {
            format!("the private half of {key} is being destroyed on {device}")
        }
        What::Lost { device } => {
            format!("the token of {device} lacks the private half of {key}")
        }
        What::DestructionStopped { device } => {
            format!("the private half of {key} is kept on {device}: it is held")
        }
        What::ApprovalRequested {
            request,
            wish,
            expires,
        } => {
            let about = event.kid.as_deref().unwrap_or("an origin");
            let about = match *wish {
                "activate" => in_place_of(event.algorithm, about),
                _ => about.to_owned(),
            };
            format!("request {request} is on record: {wish} {about}, until {expires}")
        }
        What::Approved { request, .. } => format!("request {request} has its second person"),
        What::RequestWithdrawn { request } => format!("request {request} is withdrawn"),
        What::OriginWaived { origin, until } => {
            format!("no activation waits for the origin {origin} before {until}")
        }
        What::OriginRestored { origin } => {
            format!("activations wait for the origin {origin} again")
        }
        What::ClockConfirmed { reading, expected } => format!(
            "the time {reading} is confirmed: {expected} was expected, {}",
            moved(*reading, *expected)
        ),
        What::WaiverEnded { origin } => {
            format!("the waiver of the origin {origin} is over: activations wait for it again")
        }
        other => format!("{key}: {}", other.name()),
    }
}

/// What `activate` asks for: not the key whose id it names.
pub(super) fn in_place_of(algorithm: Algorithm, kid: &str) -> String {
    format!("the next {algorithm} key in place of {kid} (revoked)")
}
