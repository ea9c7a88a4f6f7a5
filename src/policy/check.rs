//! Raw request in, checked request out, or a refusal.

use std::fmt;

use super::claims::{Claims, Own, check_expiry, check_size};
use super::{Caller, JwsRequest, JwtRequest, Operation, Reason, Refusal, Rules, Typ};
use crate::jose::json::JsonError;
use crate::jose::{Algorithm, InvalidJws, ParsedHeader, SigningInput};
use crate::time::Time;

/// The longest header of a signing input, in base64url characters. A `kid` of
/// 1024 bytes fits.
const MAX_HEADER: usize = 4096;

/// What policy must know of a key that may sign now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its `alg`.
    pub algorithm: Algorithm,
    /// Its `kid`.
    pub kid: String,
    /// It signs nothing whose `exp` lies beyond: the stored ceiling.
    pub exp_limit: Time,
}

/// A token that may be signed. `Debug` shows no claims.
#[derive(Clone, PartialEq, Eq)]
pub struct CheckedJwt {
    /// The header's `typ`, if it is to have one.
    pub typ: Option<String>,
    /// The caller's claims, verbatim, with ours after them.
    pub payload: Vec<u8>,
    /// The token's `exp`.
    pub exp: Time,
    /// The rule that allowed it.
    pub rule: String,
}

/// A signing input that may be signed as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedJws {
    /// The key that its header names.
    pub kid: String,
    /// That key's `alg`.
    pub algorithm: Algorithm,
    /// The header's `typ`, if it has one.
    pub typ: Option<String>,
    /// The token's `exp`.
    pub exp: Time,
    /// The rule that allowed it.
    pub rule: String,
}

/// Why a request is not signed now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The caller's fault: it will never be signed as it is.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The agent's: policy allows this `exp`, but the key's stored ceiling is
    /// not there yet. Cured by raising the ceiling.
    #[error("exp is {exp}, and the key signs up to {exp_limit}")]
    CeilingReached {
        /// What was asked for.
        exp: Time,
        /// What the key may sign up to.
        exp_limit: Time,
    },
}

/// Holds claims to the rules and adds `iss`, `iat` and `exp` where they are
/// missing. `key` is the key that would sign.
///
/// # Errors
/// [`CheckError::Refused`] with the rule's name, or
/// [`CheckError::CeilingReached`].
pub fn check_jwt(
    rules: &Rules,
    caller: &Caller,
    request: &JwtRequest,
    key: &KeyFacts,
    now: Time,
) -> Result<CheckedJwt, CheckError> {
    let asked = request.typ.clone().map(Typ::Is);
    let rule = rules.rule_for(caller, Operation::SignJwt, key.algorithm, asked.as_ref())?;
    if let Some(other) = request.algorithm.filter(|alg| *alg != key.algorithm) {
        return Err(CheckError::Refused(rules.refuse(
            Reason::UnknownAlgorithm,
            rules.path("track"),
            format!("expected {}, got {other}", key.algorithm),
            "use the algorithm of a track of this key set, or leave it out",
        )));
    }
    let claims = Claims::parse(rules, rule, &request.claims)?;
    let own = claims.examine(rules, rule, now)?;
    let (longest, _) = rule.lifetime(rules);
    let exp = own
        .exp
        .unwrap_or_else(|| (now + rules.default_lifetime().min(longest)).as_secs());
    let expires = check_expiry(rules, rule, &own, exp, key.exp_limit, now)?;

    let mut added = Vec::new();
    if !own.iss {
        added.push(("iss", serde_json::Value::from(rules.issuer()).to_string()));
    }
    if own.iat.is_none() {
        added.push(("iat", now.as_secs().to_string()));
    }
    if own.exp.is_none() {
        added.push(("exp", exp.to_string()));
    }
    let payload = claims.with(&added);
    check_size(rules, rule, payload.len())?;
    Ok(CheckedJwt {
        // Invariant: `Rules` holds no rule without a `typ`.
        typ: asked.as_ref().unwrap_or(&rule.typ[0]).name(),
        payload,
        exp: expires,
        rule: rule.name.clone(),
    })
}

/// Holds a signing input to the rules; nothing is added to it. `keys` are
/// those that may sign now, the current one of each track before the one that
/// it replaced.
///
/// # Errors
/// As [`check_jwt`]; [`Reason::KidNotActive`] names the current key.
pub fn check_jws(
    rules: &Rules,
    caller: &Caller,
    request: &JwsRequest,
    keys: &[KeyFacts],
    now: Time,
) -> Result<CheckedJws, CheckError> {
    let input = parse_input(rules, &request.signing_input)?;
    let SigningInput { header, payload } = input;
    let typ = header.typ.clone().map_or(Typ::Absent, Typ::Is);
    let rule = rules.rule_for(caller, Operation::SignJws, header.algorithm, Some(&typ))?;
    let key = named_key(rules, &header, keys)?;
    let claims = Claims::parse(rules, rule, &payload)?;
    let own = claims.examine(rules, rule, now)?;
    let exp = complete(rules, &own)?;
    let exp = check_expiry(rules, rule, &own, exp, key.exp_limit, now)?;
    Ok(CheckedJws {
        kid: key.kid.clone(),
        algorithm: key.algorithm,
        typ: typ.name(),
        exp,
        rule: rule.name.clone(),
    })
}

fn parse_input(rules: &Rules, text: &[u8]) -> Result<SigningInput, Refusal> {
    let longest = MAX_HEADER + 1 + rules.max_payload().saturating_mul(4).div_ceil(3);
    let input = SigningInput::parse(text, longest).map_err(|error| malformed(rules, &error))?;
    if input.header.others.is_empty() {
        return Ok(input);
    }
    Err(rules.refuse(
        Reason::HeaderNotAllowed,
        "builtin.header_members".into(),
        format!(
            "expected a header of alg, kid and typ, got {} other members",
            input.header.others.len()
        ),
        "leave the other header members out",
    ))
}

/// The key that the header names, if it may sign now and the header's `alg`
/// is its own (RFC 8725 section 3.1).
fn named_key<'a>(
    rules: &Rules,
    header: &ParsedHeader,
    keys: &'a [KeyFacts],
) -> Result<&'a KeyFacts, Refusal> {
    let named = keys
        .iter()
        .find(|key| header.kid.as_ref() == Some(&key.kid));
    let Some(key) = named else {
        let current = keys
            .iter()
            .find(|key| key.algorithm == header.algorithm)
            .or(keys.first());
        let hint = current.map_or_else(
            || "no key of this key set may sign now".into(),
            |key| format!("use kid {:?} with alg {}", key.kid, key.algorithm),
        );
        let got = match header.kid {
            Some(_) => "another key's",
            None => "none",
        };
        let refusal = rules.refuse(
            Reason::KidNotActive,
            "builtin.kid_is_active".into(),
            format!("expected the kid of a key that may sign now, got {got}"),
            hint,
        );
        return Err(Refusal {
            current_kid: current.map(|key| key.kid.clone()),
            ..refusal
        });
    };
    if key.algorithm != header.algorithm {
        return Err(rules.refuse(
            Reason::HeaderNotAllowed,
            "builtin.alg_is_the_keys".into(),
            format!(
                "expected alg {}, which is the key's, got {}",
                key.algorithm, header.algorithm
            ),
            format!("use alg {}", key.algorithm),
        ));
    }
    Ok(key)
}

/// The `exp` of claims that lack nothing, since nothing can be added to them.
fn complete(rules: &Rules, own: &Own) -> Result<i64, Refusal> {
    let missing = |name: &str| {
        rules.refuse(
            Reason::ClaimNotAllowed,
            "builtin.complete_claims".into(),
            format!("expected a claim \"{name}\", got none"),
            "add the claim: nothing is added to a signing input",
        )
    };
    if !own.iss {
        return Err(missing("iss"));
    }
    if own.iat.is_none() {
        return Err(missing("iat"));
    }
    own.exp.ok_or_else(|| missing("exp"))
}

fn malformed(rules: &Rules, error: &InvalidJws) -> Refusal {
    let (reason, rule, hint) = match error {
        InvalidJws::TooLong { .. } => (
            Reason::TooLarge,
            rules.path("max_payload"),
            "put less into the token",
        ),
        InvalidJws::HeaderJson(JsonError::Duplicate { .. }) => (
            Reason::DuplicateMember,
            "builtin.no_duplicate_members".into(),
            "keep one of the members",
        ),
        InvalidJws::Parts { .. }
        | InvalidJws::NotAscii
        | InvalidJws::Encoding { .. }
        | InvalidJws::HeaderJson(_) => (
            Reason::MalformedSigningInput,
            "builtin.signing_input".into(),
            "send b64url(header) \".\" b64url(payload), unpadded (RFC 7515 section 5.1)",
        ),
        InvalidJws::NoAlgorithm
        | InvalidJws::HeaderMember { .. }
        | InvalidJws::UnknownAlgorithm(_) => (
            Reason::HeaderNotAllowed,
            "builtin.header_members".into(),
            "name the key's alg and kid, each a string",
        ),
    };
    let message = match error {
        // The name is the caller's own text, of any length.
        InvalidJws::UnknownAlgorithm(_) => {
            "expected the alg of a key of this key set, got an unknown one".into()
        }
        other => format!("signing input: {other}"),
    };
    rules.refuse(reason, rule, message, hint)
}

impl fmt::Debug for CheckedJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedJwt")
            .field("typ", &self.typ)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("exp", &self.exp)
            .field("rule", &self.rule)
            .finish()
    }
}

#[cfg(test)]
mod tests;
