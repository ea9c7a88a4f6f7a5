//! What is wrong with a token, all of it, for whoever has to find out why a
//! resource server refuses it.

use std::fmt;

use super::algorithm::Algorithm;
use super::json;
use super::jwk::ServedSet;
use super::jws::{CompactJws, InvalidJws};
use super::verify::{MAX_TOKEN_BYTES, Verifier, numeric_date};
use crate::time::{Span, Time};

/// What a token is held to.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// The time.
    pub now: Time,
    /// How far dates may be off, either way.
    pub leeway: Span,
    /// The `iss`; any where absent.
    pub issuer: Option<&'a str>,
    /// What `aud` must be or contain; anything where absent.
    pub audience: Option<&'a str>,
    /// Whether the set was fetched a moment ago. Otherwise an unknown key may
    /// be one that is newer than the copy.
    pub fresh: bool,
}

/// What there is to say of a token. `Debug` shows no claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// The header's `alg`, as far as the token could be read.
    pub algorithm: Option<Algorithm>,
    /// The header's `kid`.
    pub kid: Option<String>,
    /// The header's `typ`.
    pub typ: Option<String>,
    /// The `iss`, where it is a string.
    pub issuer: Option<String>,
    /// The `iat`.
    pub issued: Option<Time>,
    /// The `nbf`.
    pub not_before: Option<Time>,
    /// The `exp`.
    pub expires: Option<Time>,
    /// Everything that a careful verifier would refuse it for; none for a
    /// good token.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// For programs.
    pub code: Code,
    /// What, with values.
    pub problem: String,
    /// What it means, and what to do.
    pub hint: String,
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum Code {
    Malformed,
    CriticalHeader,
    NoKid,
    UnknownKid,
    UnusableKey,
    WrongAlgorithm,
    WrongKey,
    BadSignature,
    MalformedClaims,
    BadDate,
    Expired,
    NotYetValid,
    IssuedInFuture,
    WrongIssuer,
    WrongAudience,
}

impl Code {
    /// As programs see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "MALFORMED",
            Self::CriticalHeader => "CRITICAL_HEADER",
            Self::NoKid => "NO_KID",
            Self::UnknownKid => "UNKNOWN_KID",
            Self::UnusableKey => "UNUSABLE_KEY",
            Self::WrongAlgorithm => "WRONG_ALGORITHM",
            Self::WrongKey => "WRONG_KEY",
            Self::BadSignature => "BAD_SIGNATURE",
            Self::MalformedClaims => "MALFORMED_CLAIMS",
            Self::BadDate => "BAD_DATE",
            Self::Expired => "EXPIRED",
            Self::NotYetValid => "NOT_YET_VALID",
            Self::IssuedInFuture => "ISSUED_IN_FUTURE",
            Self::WrongIssuer => "WRONG_ISSUER",
            Self::WrongAudience => "WRONG_AUDIENCE",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Looks at a compact JWT with a set in hand. Unlike
/// [`verify_token`](super::verify_token), which stops at the first fault, this
/// goes on as far as the token can be read.
#[must_use]
pub fn diagnose(token: &str, keys: &ServedSet, expected: &Expected<'_>) -> Diagnosis {
    let mut found = Diagnosis::default();
    let jws = match CompactJws::parse(token.as_bytes(), MAX_TOKEN_BYTES) {
        Ok(jws) => jws,
        Err(why) => {
            found.say(Code::Malformed, why.to_string(), malformed(token, &why));
            return found;
        }
    };
    found.algorithm = Some(jws.header.algorithm);
    found.kid.clone_from(&jws.header.kid);
    found.typ.clone_from(&jws.header.typ);
    if jws.header.others.iter().any(|name| name == "crit") {
        found.say(
            Code::CriticalHeader,
            "expected a header without \"crit\", got one".into(),
            "the signer demands what few verifiers understand (RFC 7515 section 4.1.11)",
        );
    }
    found.signature(&jws, keys, expected.fresh);
    found.claims(&jws.payload, expected);
    found
}

impl Diagnosis {
    /// Whether a careful verifier accepts it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    fn say(&mut self, code: Code, problem: String, hint: impl Into<String>) {
        self.findings.push(Finding {
            code,
            problem,
            hint: hint.into(),
        });
    }

    /// Finds the key that the header names, and who really signed.
    fn signature(&mut self, jws: &CompactJws<'_>, keys: &ServedSet, fresh: bool) {
        let Some(kid) = &jws.header.kid else {
            let signer = match signer(jws, keys) {
                Some(kid) => format!("the key {kid:?} of the set signed it"),
                None => "no key of the set signed it".to_owned(),
            };
            let hint = format!("{signer}; verifiers want to be told which");
            return self.say(
                Code::NoKid,
                "expected a header with \"kid\", got none".into(),
                hint,
            );
        };
        let Some(jwk) = keys.set.find(kid) else {
            return self.unknown_kid(kid, jws, keys, fresh);
        };
        let algorithm = jws.header.algorithm;
        if jwk.algorithm != algorithm {
            return self.say(
                Code::WrongAlgorithm,
                format!(
                    "key {kid:?} is used with {}, the token says {algorithm}",
                    jwk.algorithm
                ),
                "a key has one algorithm (RFC 8725 section 3.1): whoever signed it used another one",
            );
        }
        let verifier = match Verifier::new(algorithm, &jwk.key) {
            Ok(verifier) => verifier,
            Err(why) => {
                let hint = "the set is at fault, not the token";
                return self.say(Code::UnusableKey, format!("key {kid:?}: {why}"), hint);
            }
        };
        let Err(why) = verifier.verify(jws.signing_input, &jws.signature) else {
            return;
        };
        match signer(jws, keys) {
            Some(signer) => self.say(
                Code::WrongKey,
                format!("the header names the key {kid:?}, but {signer:?} of the set signed it"),
                "the signer mixed two keys up, or two keys have one name",
            ),
            None => self.say(
                Code::BadSignature,
                format!("key {kid:?}: {why}"),
                "the token was changed on its way, or this is not the key that its signer calls so: compare the set with the issuer's own",
            ),
        }
    }

    fn unknown_kid(&mut self, kid: &str, jws: &CompactJws<'_>, keys: &ServedSet, fresh: bool) {
        let unusable = keys
            .others
            .iter()
            .find(|other| other.kid.as_deref() == Some(kid));
        if let Some(other) = unusable {
            let problem = format!(
                "key {kid:?} is in the set and cannot be used: {}",
                other.why
            );
            let hint = "the set is at fault, not the token";
            return self.say(Code::UnusableKey, problem, hint);
        }
        let known: Vec<&str> = keys.set.keys.iter().map(|jwk| &*jwk.kid).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        let mut hint = if fresh {
            "the set was fetched just now, so fetching again helps only where a cache stands between; otherwise the key was removed or revoked, or another issuer signed it".to_owned()
        } else {
            "fetch the set again: this copy may be older than the key".to_owned()
        };
        if let Some(signer) = signer(jws, keys) {
            hint = format!("the key {signer:?} of the set signed it, under a wrong name; {hint}");
        }
        self.say(
            Code::UnknownKid,
            format!("no key {kid:?} in the set; there are: {known}"),
            hint,
        );
    }

    fn claims(&mut self, payload: &[u8], expected: &Expected<'_>) {
        let claims = match json::members(payload) {
            Ok(claims) => claims,
            Err(why) => {
                return self.say(
                    Code::MalformedClaims,
                    format!("claims: {why}"),
                    "verifiers may read different claims in it, or none",
                );
            }
        };
        let find = |name: &str| {
            let found = claims.iter().find(|(member, _)| member == name);
            found.map(|(_, value)| *value)
        };
        let mut date = |claim: &str| {
            let value = find(claim)?;
            let date = numeric_date(value);
            if date.is_none() {
                self.say(
                    Code::BadDate,
                    format!("expected a number of seconds in {claim:?}, got something else"),
                    "dates are seconds since 1970, without quotes (RFC 7519 section 2)",
                );
            }
            date
        };
        let (issued, not_before, expires) = (date("iat"), date("nbf"), date("exp"));
        (self.issued, self.not_before, self.expires) = (issued, not_before, expires);
        self.dates(expected);

        self.issuer = find("iss").and_then(json::string);
        if let Some(wanted) = expected.issuer
            && self.issuer.as_deref() != Some(wanted)
        {
            let got = match &self.issuer {
                Some(issuer) => format!("{issuer:?}"),
                None => "none".to_owned(),
            };
            self.say(
                Code::WrongIssuer,
                format!("expected iss {wanted:?}, got {got}"),
                "the comparison is exact, to the last slash (RFC 8414 section 3.3)",
            );
        }
        if let Some(wanted) = expected.audience {
            let audiences = find("aud").map_or_else(Vec::new, |value| match json::string(value) {
                Some(one) => vec![one],
                None => serde_json::from_str(value.get()).unwrap_or_default(),
            });
            if !audiences.iter().any(|audience| audience == wanted) {
                self.say(
                    Code::WrongAudience,
                    format!("expected aud {wanted:?}, got {audiences:?}"),
                    "the token is for somebody else",
                );
            }
        }
    }

    fn dates(&mut self, expected: &Expected<'_>) {
        let Expected { now, leeway, .. } = *expected;
        let exact = "; the comparison allows for no leeway";
        let allowed = if leeway == Span::ZERO { exact } else { "" };
        if let Some(at) = self.expires
            && now >= at + leeway
        {
            let ago = now.since(at);
            self.say(
                Code::Expired,
                format!("expired at {at}, {ago} ago"),
                format!("get a new token{allowed}"),
            );
        }
        if let Some(at) = self.not_before
            && now + leeway < at
        {
            let wait = at.since(now);
            self.say(
                Code::NotYetValid,
                format!("not valid before {at}, in {wait}"),
                format!("wait, or compare the clocks of the issuer and of the verifier{allowed}"),
            );
        }
        if let Some(at) = self.issued
            && now + leeway < at
        {
            let ahead = at.since(now);
            self.say(
                Code::IssuedInFuture,
                format!("issued at {at}, {ahead} from now"),
                format!(
                    "the issuer's clock is {ahead} ahead of this one, or this one is behind{allowed}"
                ),
            );
        }
    }
}

/// The key of the set that made the signature, whatever the header says.
fn signer(jws: &CompactJws<'_>, keys: &ServedSet) -> Option<String> {
    let algorithm = jws.header.algorithm;
    let signed = keys.set.keys.iter().find(|jwk| {
        Verifier::new(algorithm, &jwk.key)
            .is_ok_and(|verifier| verifier.verify(jws.signing_input, &jws.signature).is_ok())
    });
    signed.map(|jwk| jwk.kid.clone())
}

fn malformed(token: &str, why: &InvalidJws) -> &'static str {
    match why {
        InvalidJws::Parts { got: 5, .. } => {
            "five parts are an encrypted token (JWE, RFC 7516): its recipient alone can read it"
        }
        InvalidJws::Parts { got: 1, .. } => {
            "this is no JWT; opaque tokens are looked up at their issuer (RFC 7662)"
        }
        _ if token.to_ascii_lowercase().starts_with("bearer ") => "leave out the word before it",
        InvalidJws::Parts { got: 2, .. } => "its signature is missing: was it cut off?",
        InvalidJws::UnknownAlgorithm(_) => {
            "a verifier of public keys takes no other; `none` and HMAC are attacks here (RFC 8725 section 2.1)"
        }
        InvalidJws::NotAscii => "was it copied with white space or quotes?",
        InvalidJws::Encoding { .. } => {
            "was it cut off, or copied with something around it? base64url has no +, / and ="
        }
        _ => "its signer did not make a JWT that verifiers read (RFC 7519 section 7.2)",
    }
}

#[cfg(test)]
mod tests;
