//! Public keys, checked: a value of [`PublicKey`] is one that verifiers will
//! take.
//!
//! What is not checked, because it cannot be seen from outside or no verifier
//! asks for it: that an RSA modulus is the product of two good primes, and
//! that an Ed25519 point lies in the subgroup of prime order (points of small
//! order are refused). P-256, P-384 and P-521 have no other subgroup.

use rsa::BigUint;
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
    /// An RSA key from its big-endian modulus and public exponent. Leading
    /// zero bytes, which some devices put there, are dropped.
    ///
    /// # Errors
    /// [`InvalidKey`] unless the modulus has exactly 2048, 3072 or 4096 bits
    /// and is odd, and the exponent is odd and from 65537 to 2^33 - 1.
    pub fn rsa(n: &[u8], e: &[u8]) -> Result<Self, InvalidKey> {
        Self::try_from(RawKey::Rsa {
            n: without_leading_zeros(n).to_vec(),
            e: without_leading_zeros(e).to_vec(),
        })
    }

    /// A point of a curve in its uncompressed form, `04 || x || y` (SEC 1
    /// section 2.3.3): 65, 97 or 133 bytes.
    ///
    /// # Errors
    /// [`InvalidKey`] if `curve` is not P-256, P-384 or P-521, or this is no
    /// point of it.
    pub fn ec_point(curve: KeyType, sec1_uncompressed: &[u8]) -> Result<Self, InvalidKey> {
        let len = coordinate_len(curve)
            .ok_or_else(|| invalid(format!("expected P-256, P-384 or P-521, got {curve}")))?;
        match sec1_uncompressed {
            [4, point @ ..] if point.len() == 2 * len => {
                let (x, y) = point.split_at(len);
                Self::try_from(RawKey::Ec {
                    x: x.to_vec(),
                    y: y.to_vec(),
                })
            }
            other => Err(invalid(format!(
                "expected an uncompressed point of {curve} (04 and {} bytes), got {} bytes that start with {:02x?}",
                2 * len,
                other.len(),
                other.first(),
            ))),
        }
    }

    /// An Ed25519 key from the 32 bytes of RFC 8032 section 5.1.5.
    ///
    /// # Errors
    /// [`InvalidKey`] if this is no point of the curve, is one of small order,
    /// or has a second encoding.
    pub fn ed25519(point: &[u8]) -> Result<Self, InvalidKey> {
        Self::try_from(RawKey::Ed25519 { x: point.to_vec() })
    }

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
            RawKey::Rsa { n, e } => checked_rsa(n, e)?,
            RawKey::Ec { x, y } => checked_point(x, y)?,
            RawKey::Ed25519 { x } => checked_ed25519(x)?,
        };
        Ok(Self { key_type, raw })
    }
}

impl From<PublicKey> for RawKey {
    fn from(key: PublicKey) -> Self {
        key.raw
    }
}

fn checked_rsa(n: &[u8], e: &[u8]) -> Result<KeyType, InvalidKey> {
    for (name, number) in [("modulus", n), ("exponent", e)] {
        if number.first().is_none_or(|byte| *byte == 0) {
            return Err(invalid(format!(
                "expected an RSA {name} without leading zero bytes, got one that is empty or has them"
            )));
        }
    }
    let n = BigUint::from_bytes_be(n);
    let key_type = match n.bits() {
        2048 => KeyType::Rsa2048,
        3072 => KeyType::Rsa3072,
        4096 => KeyType::Rsa4096,
        bits => {
            return Err(invalid(format!(
                "expected an RSA modulus of 2048, 3072 or 4096 bits, got {bits}"
            )));
        }
    };
    let e = BigUint::from_bytes_be(e);
    if e < BigUint::from(65537u32) {
        return Err(invalid(format!(
            "expected an RSA exponent of at least 65537, got {e}"
        )));
    }
    rsa::RsaPublicKey::new(n, e)
        .map_err(|e| invalid(format!("not an RSA key that verifiers take: {e}")))?;
    Ok(key_type)
}

fn checked_point(x: &[u8], y: &[u8]) -> Result<KeyType, InvalidKey> {
    let curve = match (x.len(), y.len()) {
        (32, 32) => KeyType::P256,
        (48, 48) => KeyType::P384,
        (66, 66) => KeyType::P521,
        (x, y) => {
            return Err(invalid(format!(
                "expected two coordinates of 32, 48 or 66 bytes, got {x} and {y}"
            )));
        }
    };
    let sec1 = [&[4], x, y].concat();
    // Each of these refuses what is not on the curve, a coordinate that is not
    // below the prime, and the point at infinity.
    let on_curve = match curve {
        KeyType::P256 => p256::PublicKey::from_sec1_bytes(&sec1).is_ok(),
        KeyType::P384 => p384::PublicKey::from_sec1_bytes(&sec1).is_ok(),
        _ => p521::PublicKey::from_sec1_bytes(&sec1).is_ok(),
    };
    if !on_curve {
        return Err(invalid(format!(
            "expected a point of {curve}, got one that is not on the curve"
        )));
    }
    Ok(curve)
}

fn checked_ed25519(point: &[u8]) -> Result<KeyType, InvalidKey> {
    let bytes: &[u8; 32] = point.try_into().map_err(|_| {
        invalid(format!(
            "expected an Ed25519 point of 32 bytes, got {}",
            point.len()
        ))
    })?;
    // RFC 8032 section 5.1.3: y is little-endian below the sign bit, and
    // smaller than 2^255 - 19.
    let [low, middle @ .., high] = bytes;
    let canonical = *low < 0xed || high & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff);
    let key = ed25519_dalek::VerifyingKey::from_bytes(bytes)
        .ok()
        .filter(|_| canonical)
        .ok_or_else(|| {
            invalid("expected a point of Ed25519, got one that is not on the curve".into())
        })?;
    if key.is_weak() {
        return Err(invalid(
            "expected a point of Ed25519 of large order, got one of small order".into(),
        ));
    }
    Ok(KeyType::Ed25519)
}

const fn coordinate_len(curve: KeyType) -> Option<usize> {
    match curve {
        KeyType::P256 => Some(32),
        KeyType::P384 => Some(48),
        KeyType::P521 => Some(66),
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 | KeyType::Ed25519 => None,
    }
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

const fn invalid(why: String) -> InvalidKey {
    InvalidKey(why)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;

    const E: [u8; 3] = [1, 0, 1];

    /// An odd number of exactly `bits` bits; whether it is a product of primes
    /// is not looked at.
    fn modulus(bits: usize) -> Vec<u8> {
        let mut n = vec![0xa5; bits.div_ceil(8)];
        n[0] = 1 << ((bits - 1) % 8);
        n
    }

    /// The generators: SEC 2 sections 2.4.2, 2.5.1 and 2.6.1.
    fn generators() -> [(KeyType, Vec<u8>); 3] {
        use p256::elliptic_curve::sec1::ToEncodedPoint;
        let sec1 = |bytes: &[u8]| bytes.to_vec();
        [
            (
                KeyType::P256,
                sec1(
                    p256::AffinePoint::GENERATOR
                        .to_encoded_point(false)
                        .as_bytes(),
                ),
            ),
            (
                KeyType::P384,
                sec1(
                    p384::AffinePoint::GENERATOR
                        .to_encoded_point(false)
                        .as_bytes(),
                ),
            ),
            (
                KeyType::P521,
                sec1(
                    p521::AffinePoint::GENERATOR
                        .to_encoded_point(false)
                        .as_bytes(),
                ),
            ),
        ]
    }

    #[test]
    fn an_rsa_modulus_has_exactly_one_of_three_lengths() {
        for (bits, key_type) in [
            (2048, KeyType::Rsa2048),
            (3072, KeyType::Rsa3072),
            (4096, KeyType::Rsa4096),
        ] {
            let key = PublicKey::rsa(&modulus(bits), &E).unwrap();
            assert_eq!(key.key_type(), key_type);
            assert!(PublicKey::rsa(&modulus(bits - 1), &E).is_err());
            assert!(PublicKey::rsa(&modulus(bits + 1), &E).is_err());
        }
        for bits in [512, 1024, 2047, 2056, 3080, 8192] {
            assert!(PublicKey::rsa(&modulus(bits), &E).is_err(), "{bits}");
        }
        assert!(PublicKey::rsa(&[], &E).is_err());
        let even = [&modulus(2048)[..255], &[2]].concat();
        assert!(PublicKey::rsa(&even, &E).is_err());
    }

    #[test]
    fn an_rsa_exponent_is_odd_and_from_65537_to_33_bits() {
        let n = modulus(2048);
        for e in [&E[..], &[1, 0, 3], &[0xff; 4], &[1, 0xff, 0xff, 0xff, 0xff]] {
            PublicKey::rsa(&n, e).unwrap();
        }
        for e in [
            &[][..],
            &[1],
            &[3],
            &[0xff, 0xff],
            &[1, 0, 0],
            &[1, 0, 2],
            &[2, 0, 0, 0, 1],
            &[1, 0, 0, 0, 0, 0, 0, 0, 1],
        ] {
            assert!(PublicKey::rsa(&n, e).is_err(), "{e:?}");
        }
    }

    #[test]
    fn leading_zeros_are_dropped_from_a_device_and_refused_in_a_record() {
        let (n, e) = (modulus(2048), E.to_vec());
        let padded_n = [&[0, 0], &n[..]].concat();
        let padded_e = [&[0], &e[..]].concat();
        assert_eq!(PublicKey::rsa(&padded_n, &padded_e), PublicKey::rsa(&n, &e));
        for (n, e) in [(padded_n, e), (n, padded_e)] {
            assert!(PublicKey::try_from(RawKey::Rsa { n, e }).is_err());
        }
    }

    #[test]
    fn a_point_is_on_the_curve_that_its_length_says() {
        for (curve, sec1) in generators() {
            let key = PublicKey::ec_point(curve, &sec1).unwrap();
            assert_eq!(key.key_type(), curve);
            let len = (sec1.len() - 1) / 2;

            let mut off = sec1.clone();
            off[2 * len] ^= 1;
            assert!(PublicKey::ec_point(curve, &off).is_err());

            let zero = [&[4][..], &vec![0; 2 * len]].concat();
            assert!(PublicKey::ec_point(curve, &zero).is_err());
            // The point at infinity, a compressed point, a hybrid one, one
            // without its tag, one byte too many or too few.
            assert!(PublicKey::ec_point(curve, &[0]).is_err());
            assert!(PublicKey::ec_point(curve, &[&[2], &sec1[1..=len]].concat()).is_err());
            assert!(PublicKey::ec_point(curve, &[&[6], &sec1[1..]].concat()).is_err());
            assert!(PublicKey::ec_point(curve, &sec1[1..]).is_err());
            assert!(PublicKey::ec_point(curve, &sec1[..2 * len]).is_err());
            assert!(PublicKey::ec_point(curve, &[&sec1[..], &[0]].concat()).is_err());
            for other in [
                KeyType::P256,
                KeyType::P384,
                KeyType::P521,
                KeyType::Ed25519,
            ] {
                assert_eq!(PublicKey::ec_point(other, &sec1).is_ok(), other == curve);
            }
        }
    }

    #[test]
    fn a_coordinate_is_below_the_prime() {
        // P-521's top byte has one bit to use; x + p would be a second
        // encoding of the same point.
        let (_, mut sec1) = generators()[2].clone();
        sec1[1] |= 2;
        assert!(PublicKey::ec_point(KeyType::P521, &sec1).is_err());
        let p = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
        let x = BigUint::parse_bytes(p.as_bytes(), 16).unwrap();
        let (_, p256) = &generators()[0];
        let above = RawKey::Ec {
            x: x.to_bytes_be(),
            y: p256[33..].to_vec(),
        };
        assert!(PublicKey::try_from(above).is_err());
    }

    #[test]
    fn an_ed25519_key_is_a_point_of_large_order_in_its_one_encoding() {
        // The base point: y = 4/5 (RFC 8032 section 5.1).
        let mut base = [0x66; 32];
        base[0] = 0x58;
        PublicKey::ed25519(&base).unwrap();
        assert!(PublicKey::ed25519(&base[..31]).is_err());
        assert!(PublicKey::ed25519(&[&base[..], &[0]].concat()).is_err());

        // y = 2 has no x.
        let mut off = [0; 32];
        off[0] = 2;
        assert!(PublicKey::ed25519(&off).is_err());

        // y of the points of order 1, 2 and 4, with either sign.
        let minus_one = [&[0xec][..], &[0xff; 30], &[0x7f]].concat();
        for (mut y, sign) in [
            ([&[1][..], &[0; 31]].concat(), 0),
            ([&[1][..], &[0; 31]].concat(), 0x80),
            (minus_one.clone(), 0),
            (minus_one, 0x80),
            (vec![0; 32], 0),
            (vec![0; 32], 0x80),
        ] {
            y[31] |= sign;
            assert!(PublicKey::ed25519(&y).is_err(), "{y:02x?}");
        }

        // y = 3 is on the curve; y = 3 + p is the same point written twice.
        let mut three = [0; 32];
        three[0] = 3;
        PublicKey::ed25519(&three).unwrap();
        let again = [&[0xf0][..], &[0xff; 30], &[0x7f]].concat();
        assert!(PublicKey::ed25519(&again).is_err());
    }

    #[test]
    fn a_stored_key_is_checked_when_it_is_read() {
        let key = PublicKey::rsa(&modulus(2048), &E).unwrap();
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<PublicKey>(&text).unwrap(), key);
        let short = RawKey::Rsa {
            n: modulus(1024),
            e: E.to_vec(),
        };
        let text = serde_json::to_string(&short).unwrap();
        let found = serde_json::from_str::<PublicKey>(&text).unwrap_err();
        assert!(
            found
                .to_string()
                .contains("expected an RSA modulus of 2048, 3072 or 4096 bits, got 1024"),
            "{found}"
        );
    }
}
