//! The rules that claims are held to, whoever assembled them.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::preset::{Preset, Shape};
use super::rules::OWN_CLAIMS;
use super::{CheckError, Reason, Refusal, Rule, Rules};
use crate::jose::json::{self, JsonError};
use crate::time::{Span, Time};

/// Integers that every JSON parser reads exactly (RFC 7493 section 2.2).
const MAX_INTEGER: i64 = (1 << 53) - 1;

/// How much of a member's name a message shows.
const SHOWN: usize = 64;

/// One JSON object without duplicates, verbatim.
pub(super) struct Claims<'a> {
    /// From its `{` to its `}`.
    text: &'a [u8],
    members: Vec<(String, &'a RawValue)>,
}

/// What the agent vouches for, as the caller gave it.
pub(super) struct Own {
    /// Whether `iss` was given; it is the right one then.
    pub(super) iss: bool,
    /// In seconds; not yet held against `exp`.
    pub(super) iat: Option<i64>,
    /// In seconds; not yet held against the clock.
    pub(super) exp: Option<i64>,
    /// In seconds; not yet held against `exp`.
    pub(super) nbf: Option<i64>,
}

impl<'a> Claims<'a> {
    pub(super) fn parse(rules: &Rules, rule: &Rule, payload: &'a [u8]) -> Result<Self, Refusal> {
        check_size(rules, rule, payload.len())?;
        let members = json::members(payload).map_err(|error| malformed(rules, &error))?;
        Ok(Self {
            text: payload.trim_ascii(),
            members,
        })
    }

    /// The object with our members after the caller's, which stay as they
    /// are, byte for byte.
    pub(super) fn with(&self, added: &[(&str, String)]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() + 64 * added.len());
        // Invariant: `parse` saw an object, so its last byte is the brace.
        let (open, close) = self.text.split_at(self.text.len() - 1);
        out.extend_from_slice(open);
        let mut first = self.members.is_empty();
        for (name, value) in added {
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(format!("\"{name}\":{value}").as_bytes());
        }
        out.extend_from_slice(close);
        out
    }

    fn find(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.members.iter().find(|(member, _)| member == name);
        found.map(|(_, value)| *value)
    }

    /// Holds the claims to everything but `exp` against the clock.
    pub(super) fn examine(&self, rules: &Rules, rule: &Rule, now: Time) -> Result<Own, Refusal> {
        self.check_names(rules, rule)?;
        let iss = self.check_issuer(rules)?;
        let iat = self.date(rules, "iat")?;
        if let Some(iat) = iat {
            check_issued(rules, iat, now)?;
        }
        let nbf = self.date(rules, "nbf")?;
        let exp = self.date(rules, "exp")?;
        for name in ["sub", "jti"] {
            self.check_string(rules, name)?;
        }
        self.check_audience(rules, rule)?;
        if let Some(preset) = rule.preset {
            self.check_preset(rules, rule, preset)?;
        }
        Ok(Own { iss, iat, exp, nbf })
    }

    /// What a kind of token demands beyond what every token is held to.
    fn check_preset(&self, rules: &Rules, rule: &Rule, preset: Preset) -> Result<(), Refusal> {
        let refuse = |message| {
            let hint = format!("{} demands it", preset.source());
            rules.refuse(
                Reason::ClaimNotAllowed,
                rule.path(rules, "preset"),
                message,
                hint,
            )
        };
        let missing = preset.required().iter().find(|name| self.lacks(name));
        if let Some(name) = missing {
            return Err(refuse(format!("expected a claim {name:?}, got none")));
        }
        for (name, shape) in preset.shapes() {
            if let Some(value) = self.find(name)
                && !fits(value, *shape)
            {
                return Err(refuse(format!(
                    "expected {name} to be {}, got {}",
                    shape.name(),
                    kind(value)
                )));
            }
        }
        Ok(())
    }

    /// Whether a claim is missing that the agent does not vouch for: what it
    /// does is there, or is added, or its absence is refused in its own words.
    fn lacks(&self, name: &str) -> bool {
        let there = self.find(name).is_some_and(|value| value.get() != "null");
        !there && !OWN_CLAIMS.contains(&name)
    }

    fn check_names(&self, rules: &Rules, rule: &Rule) -> Result<(), Refusal> {
        let forbidden = self
            .members
            .iter()
            .find(|(n, _)| rule.forbidden.contains(n));
        if let Some((name, _)) = forbidden {
            return Err(rules.refuse(
                Reason::ClaimNotAllowed,
                rule.path(rules, "forbidden"),
                format!("expected no claim {}", shown(name)),
                "leave the claim out",
            ));
        }
        for name in &rule.required {
            if self.lacks(name) {
                return Err(rules.refuse(
                    Reason::ClaimNotAllowed,
                    rule.path(rules, "required"),
                    format!("expected a claim {}, got none", shown(name)),
                    "add the claim",
                ));
            }
        }
        Ok(())
    }

    /// Whether `iss` is there; refused unless it is ours.
    fn check_issuer(&self, rules: &Rules) -> Result<bool, Refusal> {
        let Some(value) = self.find("iss") else {
            return Ok(false);
        };
        if json::string(value).as_deref() == Some(rules.issuer()) {
            return Ok(true);
        }
        Err(rules.refuse(
            Reason::ClaimNotAllowed,
            rules.path("issuer"),
            format!("expected iss {:?}, got something else", rules.issuer()),
            "leave iss out, or use the key set of that issuer",
        ))
    }

    /// A `NumericDate`, as a JSON integer. RFC 7519 section 2 allows fractions
    /// and exponents; verifiers disagree about them.
    fn date(&self, rules: &Rules, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.find(name) else {
            return Ok(None);
        };
        let Some(date) = integer(value.get()) else {
            return Err(rules.refuse(
                Reason::ClaimNotAllowed,
                "builtin.integer_dates".into(),
                format!(
                    "expected {name} to be a JSON integer, in seconds, got {}",
                    kind(value)
                ),
                "give the date as whole seconds since 1970, without quotes, fraction or exponent",
            ));
        };
        if name == "nbf" && date.unsigned_abs() > MAX_INTEGER.unsigned_abs() {
            return Err(rules.refuse(
                Reason::ClaimNotAllowed,
                "builtin.integer_dates".into(),
                format!("expected nbf of at most {MAX_INTEGER} either side of 1970, got more"),
                "give the date in seconds",
            ));
        }
        Ok(Some(date))
    }

    /// RFC 7519 sections 4.1.2 and 4.1.7: libraries refuse others.
    fn check_string(&self, rules: &Rules, name: &str) -> Result<(), Refusal> {
        match self.find(name) {
            Some(value) if json::string(value).is_none() => Err(rules.refuse(
                Reason::ClaimNotAllowed,
                "builtin.registered_claims".into(),
                format!("expected {name} to be a string, got {}", kind(value)),
                "put the value in quotes",
            )),
            _ => Ok(()),
        }
    }

    /// RFC 7519 section 4.1.3, and the rule's audiences.
    fn check_audience(&self, rules: &Rules, rule: &Rule) -> Result<(), Refusal> {
        let Some(value) = self.find("aud") else {
            if rule.audiences.is_none() {
                return Ok(());
            }
            return Err(rules.refuse(
                Reason::ClaimNotAllowed,
                rule.path(rules, "audiences"),
                "expected a claim \"aud\", got none".into(),
                "add an aud that the rule allows",
            ));
        };
        let audiences = match json::string(value) {
            Some(one) => vec![one],
            None => serde_json::from_str::<Vec<String>>(value.get()).unwrap_or_default(),
        };
        if audiences.is_empty() {
            let got = match (kind(value), is_empty_list(value)) {
                (_, true) => "an empty list",
                ("a list", _) => "a list with something else in it",
                (kind, _) => kind,
            };
            return Err(rules.refuse(
                Reason::ClaimNotAllowed,
                "builtin.registered_claims".into(),
                format!("expected aud to be a string or a list of strings, got {got}"),
                "name at least one audience",
            ));
        }
        let Some(allowed) = &rule.audiences else {
            return Ok(());
        };
        let stranger = audiences
            .iter()
            .position(|audience| !allowed.iter().any(|a| a.allows(audience)));
        match stranger {
            None => Ok(()),
            Some(at) => Err(rules.refuse(
                Reason::ClaimNotAllowed,
                rule.path(rules, "audiences"),
                format!("the rule does not allow the audience at index {at}"),
                "use an aud that the rule allows, or ask the operator for this one",
            )),
        }
    }
}

fn check_issued(rules: &Rules, iat: i64, now: Time) -> Result<(), Refusal> {
    let at = Time::from_secs(iat);
    if at.since(now) <= rules.skew() && now.since(at) <= rules.skew() {
        return Ok(());
    }
    Err(rules.refuse(
        Reason::ClaimNotAllowed,
        rules.path("skew"),
        format!("expected iat within {} of {now}, got {at}", rules.skew()),
        "leave iat out, or set the caller's clock",
    ))
}

/// Holds the token's `exp`, given or filled in, against the clock, the claims'
/// `nbf` and the key's ceiling.
///
/// Why there are two limits: beyond the longest lifetime the caller asks for
/// too much. Beyond the ceiling the agent has not yet written down that the
/// key may sign so far ahead, which is no fault of the caller's.
pub(super) fn check_expiry(
    rules: &Rules,
    rule: &Rule,
    own: &Own,
    exp: i64,
    exp_limit: Time,
    now: Time,
) -> Result<Time, CheckError> {
    let at = Time::from_secs(exp);
    if at <= now {
        return Err(CheckError::Refused(rules.refuse(
            Reason::Expired,
            "builtin.not_expired".into(),
            format!("expected exp after {now}, got {at}"),
            "set a later exp, or leave it out; if it is right, set the caller's clock",
        )));
    }
    let (lifetime, setting) = rule.lifetime(rules);
    let longest = now + lifetime;
    if at > longest {
        return Err(CheckError::Refused(rules.refuse(
            Reason::ExpTooFar,
            setting,
            format!("expected exp at or before {longest}, got {at}"),
            format!(
                "set exp at most {} ahead, or leave it out",
                whole_seconds(lifetime)
            ),
        )));
    }
    check_order(rules, "nbf", own.nbf, exp)?;
    check_order(rules, "iat", own.iat, exp)?;
    if at > exp_limit {
        return Err(CheckError::CeilingReached { exp: at, exp_limit });
    }
    Ok(at)
}

/// A token is taken from its `nbf` on and before its `exp` (RFC 7519 sections
/// 4.1.4 and 4.1.5), and many verifiers take none that is not issued yet: one
/// with no instant between them verifies nowhere.
fn check_order(rules: &Rules, name: &str, date: Option<i64>, exp: i64) -> Result<(), Refusal> {
    let Some(date) = date.filter(|date| *date >= exp) else {
        return Ok(());
    };
    Err(rules.refuse(
        Reason::ClaimNotAllowed,
        format!("builtin.{name}_before_exp"),
        format!(
            "expected {name} before exp {}, got {}",
            Time::from_secs(exp),
            Time::from_secs(date)
        ),
        format!(
            "set an earlier {name} or a later exp, or leave {name} out: such a token is never valid"
        ),
    ))
}

/// Holds a payload of `len` bytes to the rule's bound.
pub(super) fn check_size(rules: &Rules, rule: &Rule, len: usize) -> Result<(), Refusal> {
    let (largest, setting) = rule.payload(rules);
    if len <= largest {
        return Ok(());
    }
    Err(rules.refuse(
        Reason::TooLarge,
        setting,
        format!("expected a payload of at most {largest} bytes, got {len}"),
        "put less into the token",
    ))
}

fn malformed(rules: &Rules, error: &JsonError) -> Refusal {
    let (reason, rule, hint) = match error {
        JsonError::Duplicate { .. } => (
            Reason::DuplicateMember,
            "builtin.no_duplicate_members",
            "keep one of the members",
        ),
        _ => (
            Reason::MalformedClaims,
            "builtin.one_json_object",
            "send one JSON object in UTF-8 (RFC 8259)",
        ),
    };
    rules.refuse(reason, rule.into(), format!("claims: {error}"), hint)
}

/// The integer that a JSON number is; saturates. `None` for fractions,
/// exponents, `-0` and whatever is no number.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || text == "-0" {
        return None;
    }
    let saturated = if digits.len() == text.len() {
        i64::MAX
    } else {
        i64::MIN
    };
    Some(text.parse().unwrap_or(saturated))
}

/// Whether a value is what a preset wants there.
fn fits(value: &RawValue, shape: Shape) -> bool {
    match shape {
        Shape::Text => json::string(value).is_some(),
        Shape::ShortAscii => {
            json::string(value).is_some_and(|text| text.len() <= 255 && text.is_ascii())
        }
        Shape::Texts => serde_json::from_str::<Vec<String>>(value.get()).is_ok(),
        Shape::Date => integer(value.get()).is_some(),
    }
}

/// What a value is, without the value.
fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "another number",
    }
}

fn is_empty_list(value: &RawValue) -> bool {
    serde_json::from_str::<Vec<IgnoredAny>>(value.get()).is_ok_and(|list| list.is_empty())
}

/// A member's name, escaped and cut.
fn shown(name: &str) -> String {
    let cut: String = name.chars().take(SHOWN).collect();
    format!("{cut:?}")
}

/// A `NumericDate` has no fraction, so neither has what the hint suggests.
fn whole_seconds(span: Span) -> Span {
    Span::from_secs(u32::try_from(span.as_secs()).unwrap_or(u32::MAX))
}
