//! What the end of a key means, on the wire.

use super::admin::{after_revocation, checked_kid};
use super::desk::timestamp;
use super::status::Fault;
use crate::agent::impact::{Foreseen, Fresh, Impact, Thought, Tokens, UNBOUNDED};
use crate::api::v1;
use crate::time::Time;

/// The key set, and what somebody thinks of.
pub(super) fn thought(request: v1::PreviewRevocationRequest) -> Result<(String, Thought), Fault> {
    let v1::PreviewRevocationRequest {
        key_set,
        kid,
        then,
        along,
    } = request;
    let along: Result<Vec<String>, Fault> = along.into_iter().map(checked_kid).collect();
    let thought = Thought {
        kid: checked_kid(kid)?,
        then: after_revocation(then)?.map(Into::into),
        along: along?,
    };
    Ok((key_set, thought))
}

/// A revocation that is thought of.
#[must_use]
pub fn preview(foreseen: Foreseen) -> v1::PreviewRevocationResponse {
    v1::PreviewRevocationResponse {
        impact: Some(of(foreseen.impact)),
        notes: foreseen.notes,
    }
}

pub(super) fn of(impact: Impact) -> v1::RevocationImpact {
    let Tokens {
        alive,
        latest_exp,
        from_log,
        callers,
        others,
        gaps,
        ..
    } = impact.tokens;
    let (next_kid, next_at) = impact
        .next
        .map_or((None, None), |(kid, at)| (kid, Some(at)));
    v1::RevocationImpact {
        kid: impact.kid,
        tokens: alive,
        latest_exp: latest_exp.map(timestamp),
        latest_exp_from_log: from_log,
        callers: callers.into_iter().map(caller).collect(),
        tokens_of_others: others,
        log_gaps: gaps,
        signs: impact.signs.unwrap_or_default(),
        next_kid: next_kid.unwrap_or_default(),
        next_at: next_at.map(timestamp),
        jwks: impact.jwks,
        placeholder: impact.placeholder,
        fresh_enters: impact.fresh_enters,
        trusted_until: Some(timestamp(impact.trusted_until)),
        fresh_expected: match impact.fresh {
            Fresh::Expected(at) => Some(timestamp(at)),
            Fresh::Signs | Fresh::Undated => None,
        },
        fresh_active: impact.fresh == Fresh::Signs,
        unbounded_verifiers: UNBOUNDED.map(str::to_owned).into(),
        waits_for: impact.waits_for,
    }
}

pub(super) fn caller(
    (caller, tokens, latest_exp): (String, u64, Option<Time>),
) -> v1::CallerTokens {
    v1::CallerTokens {
        caller,
        tokens,
        latest_exp: latest_exp.map(timestamp),
    }
}
