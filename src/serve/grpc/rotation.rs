//! What a rotation means, on the wire.

use super::desk::timestamp;
use super::impact::caller;
use super::status::Fault;
use crate::agent::forced::{Early, Rotation};
use crate::api::v1;
use crate::jose::Algorithm;

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
    }
}

fn forced(early: Early) -> v1::ForcedActivation {
    v1::ForcedActivation {
        at: Some(timestamp(early.at)),
        refused_until: early.refused_until.map(timestamp),
        lacking_origins: early.lacking,
        back_from: early.back.map(|(from, _)| timestamp(from)),
        back_until: early.back.map(|(_, until)| timestamp(until)),
    }
}
