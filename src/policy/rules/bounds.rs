//! Whether a rule's parts make sense together, and within its key set's.

use super::{Audience, Draft, Problem, Rule, list};
use crate::time::Span;

pub(super) fn check_preset(rule: &Rule) -> Result<(), Problem> {
    let Some(preset) = rule.preset else {
        return Ok(());
    };
    let allowed = preset.typ();
    if let Some(other) = rule.typ.iter().find(|typ| !allowed.contains(typ)) {
        return Err((
            "typ",
            format!(
                "expected {}, as the preset {preset} has it, got {other}",
                list(allowed.iter())
            ),
        ));
    }
    let demanded = preset.required().iter();
    match { demanded }.find(|name| rule.forbidden.contains(**name)) {
        Some(both) => Err((
            "forbidden",
            format!("the preset {preset} requires {both:?}"),
        )),
        None => Ok(()),
    }
}

/// A rule's own bounds lie within the key set's.
pub(super) fn check_bounds(draft: &Draft, rule: &Rule) -> Result<(), Problem> {
    let longest = draft.max_token_lifetime;
    if let Some(own) = rule.max_lifetime
        && !(Span::from_secs(1)..=longest).contains(&own)
    {
        return Err((
            "max_lifetime",
            format!("expected 1s to max_token_lifetime = {longest}, got {own}"),
        ));
    }
    let largest = draft.max_payload;
    if let Some(own) = rule.max_payload
        && !(1..=largest).contains(&own)
    {
        return Err((
            "max_payload",
            format!("expected 1 to the key set's {largest} bytes, got {own}"),
        ));
    }
    match rule.rate.and_then(|rate| rate.problem()) {
        Some(problem) => Err(("rate", problem)),
        None => Ok(()),
    }
}

pub(super) fn check_audiences(audiences: Option<&[Audience]>) -> Result<(), Problem> {
    let Some(audiences) = audiences else {
        return Ok(());
    };
    let problem = |problem: String| Err(("audiences", problem));
    if audiences.is_empty() {
        return problem("expected at least one, got none".into());
    }
    for audience in audiences {
        match audience {
            Audience::Exact(text) if text.is_empty() => {
                return problem("expected an audience, got nothing".into());
            }
            Audience::Prefix(text) if !text.ends_with(['/', ':']) => {
                return problem(format!(
                    "expected a prefix that ends in / or :, got {text:?}"
                ));
            }
            Audience::Exact(_) | Audience::Prefix(_) => {}
        }
    }
    Ok(())
}
