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
            Audience::Prefix(text) if leaves_host_open(text) => {
                return problem(format!(
                    "expected a prefix that ends with or after the / that ends its host, got {text:?}"
                ));
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

/// Whether what begins so may go on with the name of any host: an absolute
/// URL whose authority nothing has ended yet (RFC 3986 section 3.2).
fn leaves_host_open(prefix: &str) -> bool {
    /// `SCHEME:` alone may be the beginning of such a URL; a `urn:` is not.
    const OF_HOSTS: [&str; 6] = ["http", "https", "ws", "wss", "ftp", "spiffe"];
    let Some((scheme, rest)) = prefix.split_once(':') else {
        return false;
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && (scheme.chars()).all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme {
        return false;
    }
    match rest.strip_prefix("//") {
        // Nothing before the first of them is no host, and some readers take
        // what follows for one.
        Some(after) => !after.contains(['/', '?', '#']) || after.starts_with(['/', '?', '#']),
        None if rest.is_empty() => OF_HOSTS.iter().any(|it| scheme.eq_ignore_ascii_case(it)),
        None => rest == "/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_a_url_ends_its_host() {
        let sound = |prefix: &str| check_audiences(Some(&[Audience::Prefix(prefix.into())]));
        for open in [
            "https:",
            "HTTPS:",
            "https:/",
            "https://",
            "https:///",
            "https://api.example",
            // What stands before an @ is a user and a password.
            "https://api.example:",
            "https://api.example:443:",
            "app+v1://host:",
            "app:/",
        ] {
            let (_, problem) = sound(open).expect_err(open);
            assert!(problem.contains("the / that ends its host"), "{problem}");
        }
        for closed in [
            "https://api.example/",
            "https://api.example:443/",
            "https://api.example/v1:",
            "https://api.example?tenant:",
            "urn:",
            "urn:example:",
            "api:",
            "api/",
            "app:host/",
            "https-apis:",
        ] {
            assert_eq!(sound(closed), Ok(()), "{closed}");
        }
    }
}
