//! Which mechanism signs what (PKCS#11 v3.1 sections 6.1 and 6.3), by what
//! the token lists.

use aws_lc_rs::digest;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};

use crate::hsm::message::{Cure, Fault, FaultKind};
use crate::jose::{Algorithm, KeyType};

/// The mechanisms that a token lists.
#[derive(Clone, Debug)]
pub(crate) struct Mechanisms(Vec<MechanismType>);

/// How one algorithm is signed with on this token.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    hash: Option<Hash>,
    scheme: Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// The token hashes: `CKM_SHAnnn_RSA_PKCS`.
    HashRsaPkcs,
    /// We hash and wrap: `CKM_RSA_PKCS` over a `DigestInfo`.
    RsaPkcs,
    /// The token hashes: `CKM_SHAnnn_RSA_PKCS_PSS`.
    HashRsaPss,
    /// We hash: `CKM_RSA_PKCS_PSS`.
    RsaPss,
    /// We hash: few tokens have `CKM_ECDSA_SHAnnn`.
    Ecdsa,
    /// `CKM_EDDSA` without parameter is pure Ed25519 on a key of that curve.
    Eddsa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Mechanisms {
    pub(crate) const fn new(listed: Vec<MechanismType>) -> Self {
        Self(listed)
    }

    /// How to sign with `algorithm`, or why this token cannot.
    pub(crate) fn plan(&self, algorithm: Algorithm) -> Result<Plan, Fault> {
        let hash = hash_of(algorithm);
        let schemes: &[Scheme] = match algorithm {
            Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => {
                &[Scheme::HashRsaPkcs, Scheme::RsaPkcs]
            }
            Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => {
                &[Scheme::HashRsaPss, Scheme::RsaPss]
            }
            Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 => &[Scheme::Ecdsa],
            Algorithm::Ed25519 | Algorithm::EdDsa => &[Scheme::Eddsa],
        };
        let plans = schemes.iter().map(|&scheme| Plan { hash, scheme });
        let mut wanted = Vec::new();
        for plan in plans {
            let mechanism = plan.mechanism().mechanism_type();
            if self.0.contains(&mechanism) {
                return Ok(plan);
            }
            wanted.push(mechanism.to_string());
        }
        Err(unsupported(algorithm.name(), &wanted))
    }

    /// How to make a key of this type, or why this token cannot.
    pub(crate) fn generator(&self, key_type: KeyType) -> Result<Mechanism<'static>, Fault> {
        let mechanism = match key_type {
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => Mechanism::RsaPkcsKeyPairGen,
            KeyType::P256 | KeyType::P384 | KeyType::P521 => Mechanism::EccKeyPairGen,
            KeyType::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
        };
        let wanted = mechanism.mechanism_type();
        if self.0.contains(&wanted) {
            Ok(mechanism)
        } else {
            Err(unsupported(&key_type.to_string(), &[wanted.to_string()]))
        }
    }
}

impl Plan {
    /// What `C_Sign` is given.
    pub(crate) fn data(&self, input: &[u8]) -> Vec<u8> {
        let hashed = |hash: Hash| digest::digest(hash.digest(), input).as_ref().to_vec();
        match (self.scheme, self.hash) {
            (Scheme::RsaPkcs, Some(hash)) => [hash.digest_info(), &hashed(hash)].concat(),
            (Scheme::RsaPss | Scheme::Ecdsa, Some(hash)) => hashed(hash),
            (Scheme::HashRsaPkcs | Scheme::HashRsaPss | Scheme::Eddsa, _) | (_, None) => {
                input.to_vec()
            }
        }
    }

    pub(crate) fn mechanism(&self) -> Mechanism<'static> {
        use Mechanism as M;
        match (self.scheme, self.hash) {
            (Scheme::HashRsaPkcs, Some(Hash::Sha384)) => M::Sha384RsaPkcs,
            (Scheme::HashRsaPkcs, Some(Hash::Sha512)) => M::Sha512RsaPkcs,
            (Scheme::HashRsaPkcs, _) => M::Sha256RsaPkcs,
            (Scheme::HashRsaPss, Some(Hash::Sha384)) => M::Sha384RsaPkcsPss(pss(Hash::Sha384)),
            (Scheme::HashRsaPss, Some(Hash::Sha512)) => M::Sha512RsaPkcsPss(pss(Hash::Sha512)),
            (Scheme::HashRsaPss, _) => M::Sha256RsaPkcsPss(pss(Hash::Sha256)),
            (Scheme::RsaPkcs, _) => M::RsaPkcs,
            (Scheme::RsaPss, hash) => M::RsaPkcsPss(pss(hash.unwrap_or(Hash::Sha256))),
            (Scheme::Ecdsa, _) => M::Ecdsa,
            (Scheme::Eddsa, _) => M::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
        }
    }
}

impl Hash {
    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    /// The DER of `DigestInfo` up to the digest (RFC 8017 section 9.2, note 1).
    fn digest_info(self) -> &'static [u8] {
        match self {
            Self::Sha256 => &[
                0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
                0x01, 0x05, 0x00, 0x04, 0x20,
            ],
            Self::Sha384 => &[
                0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
                0x02, 0x05, 0x00, 0x04, 0x30,
            ],
            Self::Sha512 => &[
                0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
                0x03, 0x05, 0x00, 0x04, 0x40,
            ],
        }
    }
}

/// RFC 7518 section 3.5: MGF1 with the same hash, a salt as long as the hash.
fn pss(hash: Hash) -> PkcsPssParams {
    let (hash_alg, mgf, s_len) = match hash {
        Hash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32),
        Hash::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
        Hash::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
    };
    PkcsPssParams {
        hash_alg,
        mgf,
        s_len: s_len.into(),
    }
}

const fn hash_of(algorithm: Algorithm) -> Option<Hash> {
    match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::Es256 => Some(Hash::Sha256),
        Algorithm::Rs384 | Algorithm::Ps384 | Algorithm::Es384 => Some(Hash::Sha384),
        Algorithm::Rs512 | Algorithm::Ps512 | Algorithm::Es512 => Some(Hash::Sha512),
        Algorithm::Ed25519 | Algorithm::EdDsa => None,
    }
}

fn unsupported(what: &str, wanted: &[String]) -> Fault {
    Fault::new(
        FaultKind::Refused,
        Cure::Never,
        format!(
            "this token cannot do {what}: it lists none of {}",
            wanted.join(", ")
        ),
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_token_hashes_where_it_can() {
        let token = Mechanisms::new(vec![
            MechanismType::SHA256_RSA_PKCS,
            MechanismType::RSA_PKCS,
            MechanismType::RSA_PKCS_PSS,
        ]);
        let plan = token.plan(Algorithm::Rs256).unwrap();
        assert_eq!(plan.scheme, Scheme::HashRsaPkcs);
        assert_eq!(plan.data(b"x"), b"x");
        assert_eq!(
            token.plan(Algorithm::Rs384).unwrap().scheme,
            Scheme::RsaPkcs
        );
        assert_eq!(token.plan(Algorithm::Ps512).unwrap().scheme, Scheme::RsaPss);
    }

    #[test]
    fn digest_info_is_der() {
        let token = Mechanisms::new(vec![MechanismType::RSA_PKCS]);
        for (algorithm, len) in [
            (Algorithm::Rs256, 32),
            (Algorithm::Rs384, 48),
            (Algorithm::Rs512, 64),
        ] {
            let data = token.plan(algorithm).unwrap().data(b"x");
            assert_eq!(data.len(), 19 + len);
            assert_eq!(usize::from(data[1]), data.len() - 2);
            assert_eq!(usize::from(data[18]), len);
        }
    }

    #[test]
    fn what_a_token_cannot_do_is_named() {
        let token = Mechanisms::new(vec![MechanismType::RSA_PKCS]);
        let fault = token.plan(Algorithm::Es256).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Refused);
        assert!(fault.why.contains("CKM_ECDSA"), "{}", fault.why);
        let fault = token.generator(KeyType::Ed25519).unwrap_err();
        assert!(fault.why.contains("EDWARDS"), "{}", fault.why);
    }
}
