//! What verifiers find in a JWKS that somebody serves, taken as leniently as
//! the most lenient of them takes it: for whoever asks whether a key is there.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::algorithm::{Algorithm, KeyType};
use super::key::{PublicKey, RawKey};
use super::{base64url, json};

/// One entry of a served JWKS (RFC 7517 section 5).
///
/// It is *not trusted*: whoever serves it may write anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offer {
    /// Its `kid`, if it has one that is a string.
    pub kid: Option<String>,
    /// Its numbers, where they are those of a key of a kind that is used here.
    pub key: Option<PublicKey>,
    /// Its `alg`. Verifiers hold a token's `alg` against it where it is there.
    pub algorithm: Option<String>,
    /// Why no verifier checks signatures with it, whatever its numbers are.
    pub unfit: Option<Unfit>,
}

/// Why an entry of a JWKS is of no use to verifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Its `use` or `key_ops` say that it is for something else.
    Use,
    /// It has members of a private key.
    Private,
    /// Members stand twice in it: verifiers read different ones.
    Ambiguous,
    /// Its numbers are padded, or begin with zeros: some verifiers refuse that
    /// (RFC 7518 section 2).
    Encoding,
    /// Its `kid` stands on more than one entry: some verifiers take the first,
    /// others none.
    Twice,
}

/// How an entry differs from a key under whose `kid` it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// It is another public key.
    Key,
    /// Its numbers cannot be read, or are of a kind that is not used here.
    Unreadable,
    /// It is the key, for another algorithm.
    Algorithm(String),
    /// It is the key, and no verifier uses it.
    Unfit(Unfit),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key => f.write_str("another public key"),
            Self::Unreadable => f.write_str("no public key that can be read"),
            Self::Algorithm(other) => write!(f, "the key for another algorithm, {other:?}"),
            Self::Unfit(Unfit::Use) => f.write_str("the key, and not for signatures"),
            Self::Unfit(Unfit::Private) => f.write_str("members of a private key"),
            Self::Unfit(Unfit::Encoding) => {
                f.write_str("the key, with numbers that not every verifier reads")
            }
            Self::Unfit(Unfit::Ambiguous) => f.write_str("members that stand twice"),
            Self::Unfit(Unfit::Twice) => f.write_str("more than one entry"),
        }
    }
}

impl Offer {
    /// Every entry of a JWKS. As a verifier must (RFC 7517 section 5), this
    /// passes over what is no object.
    ///
    /// # Errors
    /// What is wrong, where this is no JWKS.
    pub fn all(jwks: &[u8]) -> Result<BTreeSet<Self>, String> {
        #[derive(Deserialize)]
        struct Jwks<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let jwks: Jwks<'_> = serde_json::from_slice(jwks).map_err(|e| e.to_string())?;
        let mut all: Vec<Self> = (jwks.keys.into_iter()).filter_map(Self::read).collect();
        let mut standing: BTreeMap<String, usize> = BTreeMap::new();
        for kid in all.iter().filter_map(|offer| offer.kid.clone()) {
            *standing.entry(kid).or_default() += 1;
        }
        for offer in &mut all {
            let times = offer.kid.as_ref().and_then(|kid| standing.get(kid));
            if times.is_some_and(|times| *times > 1) {
                offer.unfit = offer.unfit.or(Some(Unfit::Twice));
            }
        }
        Ok(all.into_iter().collect())
    }

    fn read(entry: &RawValue) -> Option<Self> {
        let members: BTreeMap<String, Value> = serde_json::from_str(entry.get()).ok()?;
        let text = |name: &str| members.get(name)?.as_str().map(str::to_owned);
        let ambiguous = json::members(entry.get().as_bytes()).is_err();
        let private = PRIVATE.iter().any(|name| members.contains_key(*name));
        let key = key(&members);
        let unfit = [
            (ambiguous, Unfit::Ambiguous),
            (private, Unfit::Private),
            (!is_for_signatures(&members), Unfit::Use),
            (!is_canonical(&members, key.as_ref()), Unfit::Encoding),
        ];
        Some(Self {
            kid: text("kid"),
            key,
            // What is no string equals no algorithm.
            algorithm: (members.get("alg"))
                .map(|alg| alg.as_str().map_or_else(|| alg.to_string(), str::to_owned)),
            unfit: unfit
                .into_iter()
                .find_map(|(is, unfit)| is.then_some(unfit)),
        })
    }

    /// How a verifier that looks for this key, to check a signature of this
    /// algorithm, is misled by the entry; `None` where it finds the key.
    ///
    /// `alg`, `use` and `key_ops` may be absent (RFC 7517 section 4), and
    /// nobody minds; where they are there, verifiers mind.
    #[must_use]
    pub fn differs_from(&self, algorithm: Algorithm, key: &PublicKey) -> Option<Difference> {
        match &self.key {
            None => return Some(Difference::Unreadable),
            Some(other) if other != key => return Some(Difference::Key),
            Some(_) => {}
        }
        if let Some(unfit) = self.unfit {
            return Some(Difference::Unfit(unfit));
        }
        let other = (self.algorithm.as_ref()).filter(|alg| **alg != algorithm.name());
        other.map(|alg| Difference::Algorithm(alg.chars().take(40).collect()))
    }
}

/// RFC 7518 sections 6.2.2, 6.3.2 and 6.4, RFC 9964 for `priv`.
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// RFC 7517 sections 4.2 and 4.3.
fn is_for_signatures(members: &BTreeMap<String, Value>) -> bool {
    let usage = members.get("use").is_none_or(|usage| usage == "sig");
    let operations = members.get("key_ops").is_none_or(|operations| {
        let mut all = operations.as_array().into_iter().flatten();
        all.any(|operation| operation == "verify")
    });
    usage && operations
}

/// The numbers, whatever else the entry says. Zeros in front and padding, which
/// some verifiers take, do not hide a key.
fn key(members: &BTreeMap<String, Value>) -> Option<PublicKey> {
    let text = |name: &str| members.get(name)?.as_str();
    let number = |name: &str| base64url::decode(text(name)?.trim_end_matches('=')).ok();
    let point = |curve: KeyType| {
        let point = [vec![4], number("x")?, number("y")?].concat();
        PublicKey::ec_point(curve, &point).ok()
    };
    match (text("kty")?, text("crv")) {
        ("RSA", _) => PublicKey::rsa(&number("n")?, &number("e")?).ok(),
        ("EC", Some("P-256")) => point(KeyType::P256),
        ("EC", Some("P-384")) => point(KeyType::P384),
        ("EC", Some("P-521")) => point(KeyType::P521),
        ("OKP", Some("Ed25519")) => PublicKey::ed25519(&number("x")?).ok(),
        _ => None,
    }
}

/// Whether the numbers of a key stand there as it would be written here.
fn is_canonical(members: &BTreeMap<String, Value>, key: Option<&PublicKey>) -> bool {
    let stands = |name: &str, number: &[u8]| {
        members.get(name).and_then(Value::as_str) == Some(&base64url::encode(number))
    };
    key.is_none_or(|key| match key.raw() {
        RawKey::Rsa { n, e } => stands("n", n) && stands("e", e),
        RawKey::Ec { x, y } => stands("x", x) && stands("y", y),
        RawKey::Ed25519 { x } => stands("x", x),
    })
}

#[cfg(test)]
mod tests;
