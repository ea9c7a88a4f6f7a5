//! What the end of a key means, on the wire.

use super::desk::timestamp;
use crate::agent::impact::{Foreseen, Fresh, Impact, Tokens, UNBOUNDED};
use crate::api::v1;
use crate::time::Time;

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
        trusted_until: Some(timestamp(impact.trusted_until)),
        fresh_expected: match impact.fresh {
            Fresh::Expected(at) => Some(timestamp(at)),
            Fresh::Signs | Fresh::Unplanned => None,
        },
        fresh_active: impact.fresh == Fresh::Signs,
        unbounded_verifiers: UNBOUNDED.map(str::to_owned).into(),
    }
}

fn caller((caller, tokens, latest_exp): (String, u64, Option<Time>)) -> v1::CallerTokens {
    v1::CallerTokens {
        caller,
        tokens,
        latest_exp: latest_exp.map(timestamp),
    }
}
