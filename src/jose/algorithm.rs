//! The algorithms that the agent signs with (RFC 7518 section 3.1, RFC 8037,
//! RFC 9864) and the keys that each of them takes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A JWS `alg`. A key is used with exactly one (RFC 8725 section 3.1), and a
/// live key never changes its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each name is the registered one")]
pub enum Algorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "RS384")]
    Rs384,
    #[serde(rename = "RS512")]
    Rs512,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "PS384")]
    Ps384,
    #[serde(rename = "PS512")]
    Ps512,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    #[serde(rename = "ES512")]
    Es512,
    /// The fully specified name of RFC 9864.
    Ed25519,
    /// The name of RFC 8037, deprecated by RFC 9864: for verifiers that know
    /// no other. Here it always means Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// All of them, in the order in which tables show them.
    pub const ALL: [Self; 11] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Ed25519,
        Self::EdDsa,
    ];

    /// The registered name, as in a header's `alg`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Ed25519 => "Ed25519",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The kind of key that a configuration means when it names only the
    /// algorithm.
    #[must_use]
    pub const fn default_key_type(self) -> KeyType {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => {
                KeyType::Rsa2048
            }
            Self::Es256 => KeyType::P256,
            Self::Es384 => KeyType::P384,
            Self::Es512 => KeyType::P521,
            Self::Ed25519 | Self::EdDsa => KeyType::Ed25519,
        }
    }

    /// Whether a key of this type can be used with this algorithm.
    #[must_use]
    pub const fn accepts(self, key: KeyType) -> bool {
        match self.default_key_type() {
            KeyType::Rsa2048 => {
                matches!(key, KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096)
            }
            KeyType::P256 => matches!(key, KeyType::P256),
            KeyType::P384 => matches!(key, KeyType::P384),
            KeyType::P521 => matches!(key, KeyType::P521),
            KeyType::Ed25519 => matches!(key, KeyType::Ed25519),
            KeyType::Rsa3072 | KeyType::Rsa4096 => false,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is not one of [`Algorithm::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {known}, got {name:?}", known = Algorithm::ALL.map(Algorithm::name).join(", "))]
pub struct UnknownAlgorithm {
    /// What was given.
    pub name: String,
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;
    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|alg| alg.name() == name)
            .ok_or_else(|| UnknownAlgorithm {
                name: name.to_owned(),
            })
    }
}

/// What a device is asked to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each name says the kind of key and its size")]
pub enum KeyType {
    Rsa2048,
    Rsa3072,
    Rsa4096,
    P256,
    P384,
    P521,
    Ed25519,
}

impl KeyType {
    /// The length in bytes of every signature that this key makes, in JOSE
    /// form: the modulus' length, or `2 * nLen` (RFC 7518 section 3.4), or 64
    /// (RFC 8032 section 5.1.6).
    #[must_use]
    pub const fn signature_len(self) -> usize {
        match self {
            Self::Rsa2048 => 256,
            Self::Rsa3072 => 384,
            Self::Rsa4096 => 512,
            Self::P256 | Self::Ed25519 => 64,
            Self::P384 => 96,
            Self::P521 => 132,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa3072 => "RSA-3072",
            Self::Rsa4096 => "RSA-4096",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Ed25519 => "Ed25519",
        })
    }
}
