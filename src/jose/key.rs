//! Public keys, checked: a value of [`PublicKey`] is one that verifiers will
//! take.

use serde::{Deserialize, Serialize};

use super::KeyType;

/// The numbers of a public key, big-endian.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RawKey {
    /// RFC 8017 section 3.1; both without leading zero bytes.
    Rsa {
        /// The modulus: 2048, 3072 or 4096 bits.
        n: Vec<u8>,
        /// The public exponent.
        e: Vec<u8>,
    },
    /// A point of P-256, P-384 or P-521, each coordinate padded to the field's
    /// length (RFC 7518 section 6.2.1.2): 32, 48 or 66 bytes.
    Ec {
        /// The affine x coordinate.
        x: Vec<u8>,
        /// The affine y coordinate.
        y: Vec<u8>,
    },
    /// RFC 8032 section 5.1.5: 32 bytes.
    Ed25519 {
        /// The encoded point.
        x: Vec<u8>,
    },
}

/// A public key whose type, length and, on curves, membership were checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawKey", into = "RawKey")]
pub struct PublicKey {
    key_type: KeyType,
    raw: RawKey,
}

/// Why a public key is not one that verifiers will take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKey(pub String);

impl PublicKey {
    /// What kind of key this is.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Its numbers.
    #[must_use]
    pub const fn raw(&self) -> &RawKey {
        &self.raw
    }
}

impl TryFrom<RawKey> for PublicKey {
    type Error = InvalidKey;
    fn try_from(raw: RawKey) -> Result<Self, InvalidKey> {
        let key_type = match &raw {
            RawKey::Rsa { n, .. } if n.len() == 256 => KeyType::Rsa2048,
            RawKey::Rsa { n, .. } if n.len() == 384 => KeyType::Rsa3072,
            RawKey::Rsa { n, .. } if n.len() == 512 => KeyType::Rsa4096,
            RawKey::Ec { x, .. } if x.len() == 32 => KeyType::P256,
            RawKey::Ec { x, .. } if x.len() == 48 => KeyType::P384,
            RawKey::Ec { x, .. } if x.len() == 66 => KeyType::P521,
            RawKey::Ed25519 { x } if x.len() == 32 => KeyType::Ed25519,
            _ => return Err(InvalidKey("unknown shape".into())),
        };
        Ok(Self { key_type, raw })
    }
}

impl From<PublicKey> for RawKey {
    fn from(key: PublicKey) -> Self {
        key.raw
    }
}
