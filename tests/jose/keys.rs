//! Keys that can sign, for tests of what only verifies.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsBigEndian, AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding};
use rsa::pkcs1::{DecodeRsaPublicKey, EncodeRsaPrivateKey};
use rsa::pkcs8::DecodePrivateKey;
use rsa::traits::PublicKeyParts;
use sealkeeper::jose::{Algorithm, Jwk, KeyType, PublicKey};

/// All kinds of key.
pub(super) const KEY_TYPES: [KeyType; 7] = [
    KeyType::Rsa2048,
    KeyType::Rsa3072,
    KeyType::Rsa4096,
    KeyType::P256,
    KeyType::P384,
    KeyType::P521,
    KeyType::Ed25519,
];

/// Each algorithm with each kind of key that it takes.
pub(super) fn all_kinds() -> Vec<TestKey> {
    let pairs = Algorithm::ALL
        .into_iter()
        .flat_map(|alg| KEY_TYPES.map(|key_type| (alg, key_type)));
    pairs
        .filter(|(alg, key_type)| alg.accepts(*key_type))
        .map(|(alg, key_type)| TestKey::generate(alg, key_type))
        .collect()
}

/// A key pair that signs with one algorithm.
pub(super) struct TestKey {
    pub(super) algorithm: Algorithm,
    secret: Secret,
}

enum Secret {
    Rsa(&'static RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl TestKey {
    /// A new key; RSA keys are shared, since making them takes long.
    pub(super) fn generate(algorithm: Algorithm, key_type: KeyType) -> Self {
        static RSA: [OnceLock<RsaKeyPair>; 3] = [const { OnceLock::new() }; 3];
        let rsa = |index: usize, size| {
            Secret::Rsa(RSA[index].get_or_init(|| RsaKeyPair::generate(size).unwrap()))
        };
        let ec = |alg| Secret::Ec(EcdsaKeyPair::generate(alg).unwrap());
        let secret = match key_type {
            KeyType::Rsa2048 => rsa(0, KeySize::Rsa2048),
            KeyType::Rsa3072 => rsa(1, KeySize::Rsa3072),
            KeyType::Rsa4096 => rsa(2, KeySize::Rsa4096),
            KeyType::P256 => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            KeyType::P384 => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            KeyType::P521 => ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            KeyType::Ed25519 => Secret::Ed25519(Ed25519KeyPair::generate().unwrap()),
        };
        Self { algorithm, secret }
    }

    pub(super) fn public(&self) -> PublicKey {
        match &self.secret {
            Secret::Rsa(pair) => {
                let public = rsa::RsaPublicKey::from_pkcs1_der(pair.public_key().as_ref()).unwrap();
                PublicKey::rsa(&public.n().to_bytes_be(), &public.e().to_bytes_be()).unwrap()
            }
            Secret::Ec(pair) => {
                let curve = self.algorithm.default_key_type();
                PublicKey::ec_point(curve, pair.public_key().as_ref()).unwrap()
            }
            Secret::Ed25519(pair) => PublicKey::ed25519(pair.public_key().as_ref()).unwrap(),
        }
    }

    pub(super) fn jwk(&self) -> Jwk {
        Jwk::named_by_thumbprint(self.algorithm, self.public()).unwrap()
    }

    /// A signature in JOSE form.
    pub(super) fn sign(&self, input: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match &self.secret {
            Secret::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match self.algorithm {
                    Algorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    other => panic!("{other} is no RSA algorithm"),
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &rng, input, &mut out).unwrap();
                out
            }
            Secret::Ec(pair) => pair.sign(&rng, input).unwrap().as_ref().to_vec(),
            Secret::Ed25519(pair) => pair.sign(input).as_ref().to_vec(),
        }
    }

    /// The secret scalar or seed of an EC or Ed25519 key.
    pub(super) fn scalar(&self) -> Vec<u8> {
        match &self.secret {
            Secret::Rsa(_) => panic!("an RSA key has no scalar"),
            Secret::Ec(pair) => pair.private_key().as_be_bytes().unwrap().as_ref().to_vec(),
            Secret::Ed25519(pair) => pair
                .seed()
                .unwrap()
                .as_be_bytes()
                .unwrap()
                .as_ref()
                .to_vec(),
        }
    }

    /// An RSA key, as RustCrypto holds it.
    pub(super) fn rsa(&self) -> rsa::RsaPrivateKey {
        let Secret::Rsa(pair) = &self.secret else {
            panic!("{} is no RSA algorithm", self.algorithm);
        };
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        rsa::RsaPrivateKey::from_pkcs8_der(pkcs8.as_ref()).unwrap()
    }

    /// The key as `jsonwebtoken` takes it.
    pub(super) fn encoding_key(&self) -> jsonwebtoken::EncodingKey {
        use jsonwebtoken::EncodingKey;
        match &self.secret {
            Secret::Rsa(_) => {
                EncodingKey::from_rsa_der(self.rsa().to_pkcs1_der().unwrap().as_bytes())
            }
            Secret::Ec(pair) => EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()),
            Secret::Ed25519(pair) => EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref()),
        }
    }
}
