//! Verification: of each signature before it is released, and of tokens as a
//! resource server would see them.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use serde_json::value::RawValue;

use super::algorithm::{Algorithm, KeyType};
use super::json::{self, JsonError};
use super::jwk::{Jwk, JwkSet};
use super::jws::{CompactJws, InvalidJws};
use super::key::{PublicKey, RawKey};
use crate::time::{Span, Time};

/// The longest token that [`verify_token`] reads, in bytes.
pub const MAX_TOKEN_BYTES: usize = 1 << 20;

/// A public key, made ready once to verify many signatures with one
/// algorithm. Cheap to clone; usable from many threads at once.
#[derive(Clone)]
pub struct Verifier(Arc<Ready>);

struct Ready {
    algorithm: Algorithm,
    key_type: KeyType,
    key: ParsedPublicKey,
}

/// Why a key cannot verify with an algorithm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKey {
    /// The algorithm takes other keys.
    #[error("expected a key for {algorithm}, got one of type {key}")]
    WrongType {
        /// The algorithm.
        algorithm: Algorithm,
        /// The key's type.
        key: KeyType,
    },
    /// The verifying library does not take this key, although our own checks
    /// did.
    #[error("the verifying library refuses this {key} key")]
    Rejected {
        /// The key's type.
        key: KeyType,
    },
}

/// The signature is not one of this input by this key. Which of the two is
/// wrong cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// Not the one length that this key's signatures have: DER instead of
    /// `r || s`, for one (RFC 7518 section 3.4).
    #[error("expected a signature of {expected} bytes, got {got}")]
    Length {
        /// How long each signature of this key is.
        expected: usize,
        /// How long this one is.
        got: usize,
    },
    /// It does not verify.
    #[error("the signature does not verify")]
    Mismatch,
}

impl Verifier {
    /// Makes `key` ready to verify with `algorithm`.
    ///
    /// # Errors
    /// [`UnusableKey`] if the two do not go together.
    pub fn new(algorithm: Algorithm, key: &PublicKey) -> Result<Self, UnusableKey> {
        let key_type = key.key_type();
        if !algorithm.accepts(key_type) {
            return Err(UnusableKey::WrongType {
                algorithm,
                key: key_type,
            });
        }
        let parsed = match key.raw() {
            RawKey::Rsa { n, e } => rsa_parameters(algorithm).and_then(|alg| {
                RsaPublicKeyComponents { n, e }
                    .to_parsed_public_key(alg)
                    .ok()
            }),
            RawKey::Ec { x, y } => {
                let sec1 = [&[4], &x[..], &y[..]].concat();
                match algorithm {
                    Algorithm::Es256 => {
                        ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, sec1).ok()
                    }
                    Algorithm::Es384 => {
                        ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, sec1).ok()
                    }
                    Algorithm::Es512 => {
                        ParsedPublicKey::new(&signature::ECDSA_P521_SHA512_FIXED, sec1).ok()
                    }
                    _ => None,
                }
            }
            RawKey::Ed25519 { x } => ParsedPublicKey::new(&signature::ED25519, x).ok(),
        };
        let key = parsed.ok_or(UnusableKey::Rejected { key: key_type })?;
        Ok(Self(Arc::new(Ready {
            algorithm,
            key_type,
            key,
        })))
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// Whether `signature`, in JOSE form, is one of `signing_input` by this
    /// key. RSA-PSS salts must be as long as the hash (RFC 7518 section 3.5).
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let expected = self.0.key_type.signature_len();
        if signature.len() != expected {
            return Err(BadSignature::Length {
                expected,
                got: signature.len(),
            });
        }
        self.0
            .key
            .verify_sig(signing_input, signature)
            .map_err(|_| BadSignature::Mismatch)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("algorithm", &self.0.algorithm)
            .field("key_type", &self.0.key_type)
            .finish_non_exhaustive()
    }
}

/// The library's name for an RSA algorithm. Its PSS salts are as long as the
/// hash.
const fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

/// A token that verified. `Debug` shows no claims.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedToken {
    /// The key that it verified under.
    pub kid: String,
    /// The `alg`.
    pub algorithm: Algorithm,
    /// The header's `typ`.
    pub typ: Option<String>,
    /// The claims, verbatim: one JSON object without duplicate members.
    pub claims: Vec<u8>,
    /// The `exp`, if there is one.
    pub expires: Option<Time>,
    /// The `nbf`, if there is one.
    pub not_before: Option<Time>,
}

impl fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedToken")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("typ", &self.typ)
            .field("claims", &format_args!("{} bytes", self.claims.len()))
            .field("expires", &self.expires)
            .field("not_before", &self.not_before)
            .finish()
    }
}

/// Why a verifier refuses a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It is no compact JWS.
    #[error("not a token: {0}")]
    Malformed(#[from] InvalidJws),
    /// It demands what is not understood here (RFC 7515 section 4.1.11).
    #[error("expected a header without \"crit\", got one")]
    Critical,
    /// Its header names no key.
    #[error("expected a header with \"kid\", got none")]
    NoKid,
    /// The set has no key of that name: it was removed, or not yet fetched.
    #[error("no key {kid:?} in the set of {known}")]
    UnknownKid {
        /// The token's `kid`.
        kid: String,
        /// How many keys the set has.
        known: usize,
    },
    /// The key of that name is used with another algorithm.
    #[error("key {kid:?} is used with {expected}, the token says {got}")]
    WrongAlgorithm {
        /// The token's `kid`.
        kid: String,
        /// The key's `alg`.
        expected: Algorithm,
        /// The token's `alg`.
        got: Algorithm,
    },
    /// The key of that name cannot be used.
    #[error("key {kid:?}: {why}")]
    Key {
        /// The token's `kid`.
        kid: String,
        /// Why not.
        why: UnusableKey,
    },
    /// The signature is good, by another key of the set than the one that the
    /// header names: two keys have one name, or the signer mixed them up.
    #[error("signed by the key {signer:?}, but the header names {kid:?}")]
    WrongKey {
        /// The token's `kid`.
        kid: String,
        /// The `kid` of the key that signed it.
        signer: String,
    },
    /// The signature is not one of this key.
    #[error("key {kid:?}: {why}")]
    Signature {
        /// The token's `kid`.
        kid: String,
        /// What is wrong with it.
        why: BadSignature,
    },
    /// The payload is not one JSON object with unambiguous members.
    #[error("claims: {0}")]
    Claims(JsonError),
    /// A date is no number (RFC 7519 section 2).
    #[error("expected a number of seconds in {claim:?}, got something else")]
    Date {
        /// `exp` or `nbf`.
        claim: &'static str,
    },
    /// It was good, and is no longer.
    #[error("expired at {at}, {ago} ago")]
    Expired {
        /// The `exp`.
        at: Time,
        /// How long ago that is.
        ago: Span,
    },
    /// It is not good yet.
    #[error("not valid before {at}, in {wait}")]
    NotYetValid {
        /// The `nbf`.
        at: Time,
        /// How long until then.
        wait: Span,
    },
}

/// Verifies a compact JWT as a careful resource server would, with nothing but
/// a JWK Set, and says why not.
///
/// The first key with the token's `kid` must verify it, with the algorithm
/// that the set gives for that key. `leeway` is allowed on both dates; a token
/// is good *before* its `exp` (RFC 7519 section 4.1.4), and for ever without
/// one. `iss` and `aud` are the caller's to compare.
///
/// # Errors
/// [`TokenFault`], the first one in this order: form, key, signature, claims,
/// dates.
pub fn verify_token(
    token: &str,
    keys: &JwkSet,
    now: Time,
    leeway: Span,
) -> Result<VerifiedToken, TokenFault> {
    let jws = CompactJws::parse(token.as_bytes(), MAX_TOKEN_BYTES)?;
    if jws.header.others.iter().any(|name| name == "crit") {
        return Err(TokenFault::Critical);
    }
    let kid = jws.header.kid.clone().ok_or(TokenFault::NoKid)?;
    check_signature(&jws, &kid, keys)?;

    let claims = json::members(&jws.payload).map_err(TokenFault::Claims)?;
    let date = |claim| {
        let value = claims.iter().find(|(name, _)| name == claim);
        value.map(|(_, value)| numeric_date(value).ok_or(TokenFault::Date { claim }))
    };
    let expires = date("exp").transpose()?;
    let not_before = date("nbf").transpose()?;
    if let Some(at) = expires.filter(|at| now >= *at + leeway) {
        return Err(TokenFault::Expired {
            at,
            ago: now.since(at),
        });
    }
    if let Some(at) = not_before.filter(|at| now + leeway < *at) {
        return Err(TokenFault::NotYetValid {
            at,
            wait: at.since(now),
        });
    }
    Ok(VerifiedToken {
        kid,
        algorithm: jws.header.algorithm,
        typ: jws.header.typ,
        expires,
        not_before,
        claims: jws.payload,
    })
}

fn check_signature(jws: &CompactJws<'_>, kid: &str, keys: &JwkSet) -> Result<(), TokenFault> {
    let algorithm = jws.header.algorithm;
    let signed_by = |jwk: &Jwk| {
        Verifier::new(jwk.algorithm, &jwk.key)
            .map(|verifier| verifier.verify(jws.signing_input, &jws.signature))
    };
    let kid_owned = || kid.to_owned();
    let jwk = keys.find(kid).ok_or_else(|| TokenFault::UnknownKid {
        kid: kid_owned(),
        known: keys.keys.len(),
    })?;
    if jwk.algorithm != algorithm {
        return Err(TokenFault::WrongAlgorithm {
            kid: kid_owned(),
            expected: jwk.algorithm,
            got: algorithm,
        });
    }
    let why = match signed_by(jwk) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(why) => {
            return Err(TokenFault::Key {
                kid: kid_owned(),
                why,
            });
        }
    };
    // Refused in any case; whose signature it is tells the operator what to
    // look for.
    let signer = keys
        .keys
        .iter()
        .filter(|other| other.algorithm == algorithm)
        .find(|other| signed_by(other) == Ok(Ok(())));
    Err(match signer {
        Some(signer) => TokenFault::WrongKey {
            kid: kid_owned(),
            signer: signer.kid.clone(),
        },
        None => TokenFault::Signature {
            kid: kid_owned(),
            why,
        },
    })
}

/// A `NumericDate`: seconds, perhaps with a fraction, which is cut off at the
/// millisecond.
pub(super) fn numeric_date(value: &RawValue) -> Option<Time> {
    if let Ok(seconds) = serde_json::from_str::<i64>(value.get()) {
        return Some(Time::from_secs(seconds));
    }
    let seconds: f64 = serde_json::from_str(value.get()).ok()?;
    let ms = (seconds * 1000.0).floor();
    let far = Time::FAR_FUTURE.as_millis() as f64;
    Some(Time::from_millis(ms.clamp(-far, far) as i64))
}

#[cfg(test)]
mod tests;
