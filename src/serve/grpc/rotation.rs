//! What a rotation means, on the wire.

use super::desk::timestamp;
use super::impact::caller;
use super::status::Fault;
use crate::agent::forced::{Early, Rotation};
use crate::api::v1;
use crate::jose::Algorithm;
use crate::keyring::WayBack;

/// The track that is asked for; the default track where it is empty.
pub(super) fn track(alg: &str) -> Result<Option<Algorithm>, Fault> {
    if alg.is_empty() {
        return Ok(None);
    }
    let parsed = alg.parse::<Algorithm>();
    let parsed =
        parsed.map_err(|error| Fault::field("alg", error.to_string(), "use a registered name"));
    parsed.map(Some)
}

pub(super) fn preview(rotation: Rotation) -> v1::PreviewRotationResponse {
    let tokens = rotation.tokens;
    v1::PreviewRotationResponse {
        alg: rotation.algorithm.name().to_owned(),
        signs: rotation.signs.unwrap_or_default(),
        tokens: tokens.alive,
        callers: tokens.callers.into_iter().map(caller).collect(),
        tokens_of_others: tokens.others,
        log_gaps: tokens.gaps,
        next_kid: rotation.next.unwrap_or_default(),
        safe_at: rotation.safe_at.map(timestamp),
        waits_for: rotation.waits_for.unwrap_or_default(),
        forced: rotation.forced.map(forced),
        notes: rotation.notes,
        instead_of: rotation.instead_of.unwrap_or_default(),
        decided_at: rotation.decided.map(timestamp),
    }
}

fn forced(early: Early) -> v1::ForcedActivation {
    let told = v1::ForcedActivation {
        at: Some(timestamp(early.at)),
        refused_until: early.refused_until.map(timestamp),
        lacking_origins: early.lacking,
        ..v1::ForcedActivation::default()
    };
    match early.back {
        None => told,
        Some(WayBack::Open { from, until }) => v1::ForcedActivation {
            back_from: Some(timestamp(from)),
            back_until: Some(timestamp(until)),
            ..told
        },
        Some(WayBack::Unseen { origins, until }) => v1::ForcedActivation {
            back_until: Some(timestamp(until)),
            back_waits_for: origins,
            ..told
        },
        Some(no) => v1::ForcedActivation {
            no_way_back: no.to_string(),
            ..told
        },
    }
}
