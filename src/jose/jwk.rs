//! Public keys as verifiers fetch them: JWK and JWK Set (RFC 7517, RFC 7518
//! section 6, RFC 8037 section 2).

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::algorithm::{Algorithm, KeyType, UnknownAlgorithm};
use super::json::{self, JsonError};
use super::key::{InvalidKey, PublicKey, RawKey};
use super::{base64url, thumbprint};

/// A public signing key with its name and the one algorithm that it is used
/// with.
///
/// Its serde form is the JSON object, in this order of members: `kty`, `crv`,
/// `x`, `y` or `n`, `e`, then `kid`, `alg` and `use: "sig"`. Reading refuses
/// private members, whatever they hold, and passes over members that it does
/// not know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawJwk", into = "RawJwk")]
pub struct Jwk {
    /// The key's name, opaque and verbatim.
    pub kid: String,
    /// The `alg`; one that accepts the key's type.
    pub algorithm: Algorithm,
    /// The key.
    pub key: PublicKey,
}

/// Why an object is not a public signing key that can be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwk {
    /// The text is not one JSON object with unambiguous members.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Somebody let a private or symmetric key out: it must be considered
    /// compromised.
    #[error(
        "expected a public key, got one with the private member {name:?}: consider it compromised"
    )]
    PrivateMember {
        /// The member's name.
        name: &'static str,
    },
    /// A member that a key of this kind must have is not there.
    #[error("expected a member {name:?}, got none")]
    Missing {
        /// The member's name.
        name: &'static str,
    },
    /// A member is no string.
    #[error("{why}")]
    Shape {
        /// What was expected instead.
        why: String,
    },
    /// A number or point is not unpadded, canonical base64url.
    #[error("expected unpadded, canonical base64url in {name:?}, got something else")]
    Encoding {
        /// The member's name.
        name: &'static str,
    },
    /// The key is of a kind that is not used here.
    #[error("expected an RSA, EC (P-256, P-384, P-521) or OKP (Ed25519) key, got {kty:?} {crv:?}")]
    UnknownKind {
        /// Its `kty`.
        kty: String,
        /// Its `crv`, empty if it has none.
        crv: String,
    },
    /// The key is not for signatures.
    #[error("expected \"use\": \"sig\", got {got:?}")]
    Use {
        /// What it is for.
        got: String,
    },
    /// The `alg` is not one that is used here.
    #[error(transparent)]
    UnknownAlgorithm(#[from] UnknownAlgorithm),
    /// The `alg` does not go with this kind of key.
    #[error("expected an algorithm for a key of type {key}, got {algorithm}")]
    WrongAlgorithm {
        /// The `alg`.
        algorithm: Algorithm,
        /// The kind of key.
        key: KeyType,
    },
    /// The numbers are not those of a usable key.
    #[error(transparent)]
    Key(#[from] InvalidKey),
}

impl Jwk {
    /// A key under `kid`.
    ///
    /// # Errors
    /// [`InvalidJwk::WrongAlgorithm`] if `algorithm` does not go with `key`.
    pub fn new(
        kid: impl Into<String>,
        algorithm: Algorithm,
        key: PublicKey,
    ) -> Result<Self, InvalidJwk> {
        if !algorithm.accepts(key.key_type()) {
            return Err(InvalidJwk::WrongAlgorithm {
                algorithm,
                key: key.key_type(),
            });
        }
        Ok(Self {
            kid: kid.into(),
            algorithm,
            key,
        })
    }

    /// A key under its own thumbprint, as keys that are made here are named.
    ///
    /// # Errors
    /// [`InvalidJwk::WrongAlgorithm`] if `algorithm` does not go with `key`.
    pub fn named_by_thumbprint(algorithm: Algorithm, key: PublicKey) -> Result<Self, InvalidJwk> {
        Self::new(thumbprint(&key), algorithm, key)
    }

    /// Reads one JWK.
    ///
    /// # Errors
    /// [`InvalidJwk`]; besides what serde's form refuses, members that stand
    /// twice, at any depth.
    pub fn from_json(text: &[u8]) -> Result<Self, InvalidJwk> {
        json::members(text)?;
        let raw: RawJwk =
            serde_json::from_slice(text).map_err(|e| InvalidJwk::Shape { why: e.to_string() })?;
        raw.try_into()
    }
}

/// The public keys of a key set, in the order in which verifiers see them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JwkSet {
    /// The keys.
    pub keys: Vec<Jwk>,
}

impl JwkSet {
    /// The JSON text: the same bytes for the same keys, no white space, order
    /// kept. Media type `application/jwk-set+json`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and arrays always have a JSON form")
    }

    /// The first key of that name.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<&Jwk> {
        self.keys.iter().find(|jwk| jwk.kid == kid)
    }
}

/// A JWK Set as some origin serves it: ours, or one that is being taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedSet {
    /// What can be used here, in the order of the text.
    pub set: JwkSet,
    /// What cannot, in the order of the text.
    pub others: Vec<OtherKey>,
}

/// An entry of a served set that is not a public signing key of a known kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherKey {
    /// Its `kid`, if it has one.
    pub kid: Option<String>,
    /// Why it is of no use here.
    pub why: InvalidJwk,
}

/// Why a text is not a JWK Set at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwkSet {
    /// The text is not one JSON object with unambiguous members: verifiers
    /// may read different keys in it.
    #[error("not a JWK Set: {0}")]
    Json(#[from] JsonError),
    /// There is no member `keys`, or it is no array.
    #[error("not a JWK Set: expected an array \"keys\"")]
    NoKeys,
}

impl ServedSet {
    /// Reads a JWK Set and keeps what it understands, as RFC 7517 section 5
    /// asks. `kid`s of keys that it does not understand are still shown.
    ///
    /// # Errors
    /// [`InvalidJwkSet`] only if this is no JWK Set: a bad entry is no reason.
    pub fn read(text: &[u8]) -> Result<Self, InvalidJwkSet> {
        let members = json::members(text)?;
        let entries: Vec<&RawValue> = members
            .iter()
            .find(|(name, _)| name == "keys")
            .and_then(|(_, keys)| serde_json::from_str(keys.get()).ok())
            .ok_or(InvalidJwkSet::NoKeys)?;
        let mut served = Self {
            set: JwkSet::default(),
            others: Vec::new(),
        };
        for entry in entries {
            let entry = entry.get().as_bytes();
            match Jwk::from_json(entry) {
                Ok(jwk) => served.set.keys.push(jwk),
                Err(why) => served.others.push(OtherKey {
                    kid: kid_of(entry),
                    why,
                }),
            }
        }
        Ok(served)
    }
}

fn kid_of(entry: &[u8]) -> Option<String> {
    let members = json::members(entry).ok()?;
    let (_, kid) = members.iter().find(|(name, _)| name == "kid")?;
    json::string(kid)
}

/// The members as they stand in JSON.
#[derive(Clone, Default, Serialize, Deserialize)]
struct RawJwk {
    kty: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    // What holds secrets (RFC 7518 sections 6.2.2, 6.3.2 and 6.4, RFC 9964 for
    // `priv`). The values are passed over, never kept.
    #[serde(default, skip_serializing)]
    d: There,
    #[serde(default, skip_serializing)]
    p: There,
    #[serde(default, skip_serializing)]
    q: There,
    #[serde(default, skip_serializing)]
    dp: There,
    #[serde(default, skip_serializing)]
    dq: There,
    #[serde(default, skip_serializing)]
    qi: There,
    #[serde(default, skip_serializing)]
    oth: There,
    #[serde(default, skip_serializing)]
    k: There,
    #[serde(default, skip_serializing)]
    r#priv: There,
}

impl RawJwk {
    fn private_member(&self) -> Option<&'static str> {
        [
            ("d", self.d),
            ("p", self.p),
            ("q", self.q),
            ("dp", self.dp),
            ("dq", self.dq),
            ("qi", self.qi),
            ("oth", self.oth),
            ("k", self.k),
            ("priv", self.r#priv),
        ]
        .into_iter()
        .find_map(|(name, there)| there.0.then_some(name))
    }
}

/// Whether a member stands in an object; even `null` counts.
#[derive(Clone, Copy, Default)]
struct There(bool);

impl<'de> Deserialize<'de> for There {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

impl TryFrom<RawJwk> for Jwk {
    type Error = InvalidJwk;
    fn try_from(raw: RawJwk) -> Result<Self, InvalidJwk> {
        if let Some(name) = raw.private_member() {
            return Err(InvalidJwk::PrivateMember { name });
        }
        let kty = raw.kty.ok_or(InvalidJwk::Missing { name: "kty" })?;
        let crv = raw.crv.unwrap_or_default();
        let key = match (kty.as_str(), crv.as_str()) {
            ("RSA", "") => RawKey::Rsa {
                n: number(raw.n, "n")?,
                e: number(raw.e, "e")?,
            },
            ("EC", "P-256" | "P-384" | "P-521") => RawKey::Ec {
                x: number(raw.x, "x")?,
                y: number(raw.y, "y")?,
            },
            ("OKP", "Ed25519") => RawKey::Ed25519 {
                x: number(raw.x, "x")?,
            },
            _ => return Err(InvalidJwk::UnknownKind { kty, crv }),
        };
        let key = PublicKey::try_from(key)?;
        if !crv.is_empty() && crv != key.key_type().to_string() {
            return Err(InvalidKey(format!(
                "expected a point of {crv}, got one of {}",
                key.key_type()
            ))
            .into());
        }
        if let Some(got) = raw.usage.filter(|usage| usage != "sig") {
            return Err(InvalidJwk::Use { got });
        }
        let kid = raw.kid.ok_or(InvalidJwk::Missing { name: "kid" })?;
        let alg = raw.alg.ok_or(InvalidJwk::Missing { name: "alg" })?;
        Self::new(kid, alg.parse()?, key)
    }
}

fn number(text: Option<String>, name: &'static str) -> Result<Vec<u8>, InvalidJwk> {
    let text = text.ok_or(InvalidJwk::Missing { name })?;
    base64url::decode(text).map_err(|_| InvalidJwk::Encoding { name })
}

impl From<Jwk> for RawJwk {
    fn from(jwk: Jwk) -> Self {
        let b64 = |number: &[u8]| Some(base64url::encode(number));
        let mut raw = Self {
            kid: Some(jwk.kid),
            alg: Some(jwk.algorithm.to_string()),
            usage: Some("sig".to_owned()),
            ..Self::default()
        };
        // A curve's name is its `crv`.
        let crv = Some(jwk.key.key_type().to_string());
        let kty = match jwk.key.raw() {
            RawKey::Rsa { n, e } => {
                (raw.n, raw.e) = (b64(n), b64(e));
                "RSA"
            }
            RawKey::Ec { x, y } => {
                (raw.crv, raw.x, raw.y) = (crv, b64(x), b64(y));
                "EC"
            }
            RawKey::Ed25519 { x } => {
                (raw.crv, raw.x) = (crv, b64(x));
                "OKP"
            }
        };
        raw.kty = Some(kty.to_owned());
        raw
    }
}

#[cfg(test)]
mod tests;
