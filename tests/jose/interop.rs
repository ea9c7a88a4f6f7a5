//! The same keys, tokens and signatures in the hands of implementations that
//! are not ours.

use aws_lc_rs::digest;
use jsonwebtoken::jwk::ThumbprintHash;
use p256::elliptic_curve::rand_core::{CryptoRng, Error, RngCore};
use rsa::sha2::{Sha256, Sha384, Sha512};
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer, Verifier as _};
use rsa::{pkcs1v15, pss};
use sealkeeper::jose::{
    Algorithm, Header, Jwk, JwkSet, KeyType, PublicKey, RawKey, Verifier, compact, signing_input,
    thumbprint, verify_token,
};
use sealkeeper::time::{Span, Time};
use serde_json::{Value, json};

use super::keys::{TestKey, all_kinds};

const NOW: Time = Time::from_secs(1_800_000_000);
const INPUT: &[u8] = b"eyJhbGciOiJFUzI1NiJ9.e30";

/// `None` for what `jsonwebtoken` does not know: ES512, and Ed25519 under its
/// new name.
fn theirs(algorithm: Algorithm) -> Option<jsonwebtoken::Algorithm> {
    algorithm.name().parse().ok()
}

fn claims() -> Value {
    json!({"sub": "a", "exp": 4_000_000_000_u64, "n": 1.5})
}

#[test]
fn jsonwebtoken_verifies_our_tokens_with_our_jwks() {
    let mut seen = 0;
    for key in all_kinds() {
        let Some(alg) = theirs(key.algorithm) else {
            continue;
        };
        let jwk = key.jwk();
        let header = Header {
            algorithm: key.algorithm,
            kid: jwk.kid.clone(),
            typ: Some("at+jwt".into()),
        };
        let input = signing_input(&header, claims().to_string().as_bytes());
        let token = compact(&input, &key.sign(&input)).unwrap();

        let set = JwkSet { keys: vec![jwk] }.to_json();
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_slice(&set).unwrap();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        let their_jwk = set.find(header.kid.as_deref().unwrap()).unwrap();
        assert_eq!(
            their_jwk.thumbprint(ThumbprintHash::SHA256).unwrap(),
            header.kid.unwrap()
        );
        let decoding = jsonwebtoken::DecodingKey::from_jwk(their_jwk).unwrap();
        let found =
            jsonwebtoken::decode::<Value>(&token, &decoding, &jsonwebtoken::Validation::new(alg))
                .unwrap();
        assert_eq!(found.claims, claims(), "{}", key.algorithm);
        assert_eq!(found.header.typ.as_deref(), Some("at+jwt"));
        seen += 1;
    }
    // RS and PS in three hashes and three sizes, ES256, ES384, EdDSA.
    assert_eq!(seen, 6 * 3 + 3);
}

#[test]
fn we_verify_jsonwebtoken_s_tokens() {
    for key in all_kinds() {
        let Some(alg) = theirs(key.algorithm) else {
            continue;
        };
        let jwk = key.jwk();
        let mut header = jsonwebtoken::Header::new(alg);
        header.kid = Some(jwk.kid.clone());
        let token = jsonwebtoken::encode(&header, &claims(), &key.encoding_key()).unwrap();
        let keys = JwkSet { keys: vec![jwk] };
        let found = verify_token(&token, &keys, NOW, Span::ZERO).unwrap();
        assert_eq!(found.algorithm, key.algorithm);
        assert_eq!(
            serde_json::from_slice::<Value>(&found.claims).unwrap(),
            claims()
        );
        assert_eq!(found.expires, Some(Time::from_secs(4_000_000_000)));
    }
}

#[test]
fn jsonwebkey_reads_our_jwks_with_equal_thumbprints() {
    for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
        let jwk = TestKey::generate(algorithm, algorithm.default_key_type()).jwk();
        let text = serde_json::to_string(&jwk).unwrap();
        let theirs: jsonwebkey::JsonWebKey = text.parse().unwrap();
        assert_eq!(theirs.key.thumbprint(), jwk.kid);
        assert_eq!(theirs.key_id.as_deref(), Some(&jwk.kid[..]));
        assert_eq!(theirs.key_use, Some(jsonwebkey::KeyUse::Signing));
        // What it writes, we read as the same key.
        let again = serde_json::to_vec(&theirs).unwrap();
        assert_eq!(Jwk::from_json(&again).unwrap(), jwk);
    }
}

#[test]
fn rustcrypto_verifies_what_aws_lc_signs() {
    for key in all_kinds() {
        let public = key.public();
        let mut signature = key.sign(INPUT);
        let name = format!("{} {}", key.algorithm, public.key_type());
        assert!(
            rustcrypto_verifies(key.algorithm, &public, &signature),
            "{name}"
        );
        signature[40] ^= 4;
        assert!(
            !rustcrypto_verifies(key.algorithm, &public, &signature),
            "{name}"
        );
    }
}

#[test]
fn we_verify_what_rustcrypto_signs() {
    for key in all_kinds() {
        let public = key.public();
        let name = format!("{} {}", key.algorithm, public.key_type());
        let signature = rustcrypto_signs(&key);
        let verifier = Verifier::new(key.algorithm, &public).unwrap();
        assert_eq!(verifier.verify(INPUT, &signature), Ok(()), "{name}");
    }
}

/// What an Ed25519 point is, as another crate's strict verification sees it.
#[test]
fn ed25519_dalek_s_strict_verification_takes_our_keys_and_signatures() {
    let key = TestKey::generate(Algorithm::Ed25519, KeyType::Ed25519);
    let RawKey::Ed25519 { x } = key.public().raw().clone() else {
        panic!("not an Ed25519 key");
    };
    let point = x.as_slice().try_into().unwrap();
    let theirs = ed25519_dalek::VerifyingKey::from_bytes(point).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(&key.sign(INPUT)).unwrap();
    theirs.verify_strict(INPUT, &signature).unwrap();
    assert_eq!(key.jwk().kid, thumbprint(&key.public()));
}

fn rustcrypto_verifies(algorithm: Algorithm, key: &PublicKey, signature: &[u8]) -> bool {
    match key.raw() {
        RawKey::Rsa { n, e } => {
            let number = rsa::BigUint::from_bytes_be;
            let key = rsa::RsaPublicKey::new(number(n), number(e)).unwrap();
            let v15 = || pkcs1v15::Signature::try_from(signature).unwrap();
            let pss = || pss::Signature::try_from(signature).unwrap();
            match algorithm {
                Algorithm::Rs256 => {
                    pkcs1v15::VerifyingKey::<Sha256>::new(key).verify(INPUT, &v15())
                }
                Algorithm::Rs384 => {
                    pkcs1v15::VerifyingKey::<Sha384>::new(key).verify(INPUT, &v15())
                }
                Algorithm::Rs512 => {
                    pkcs1v15::VerifyingKey::<Sha512>::new(key).verify(INPUT, &v15())
                }
                Algorithm::Ps256 => pss::VerifyingKey::<Sha256>::new(key).verify(INPUT, &pss()),
                Algorithm::Ps384 => pss::VerifyingKey::<Sha384>::new(key).verify(INPUT, &pss()),
                Algorithm::Ps512 => pss::VerifyingKey::<Sha512>::new(key).verify(INPUT, &pss()),
                other => panic!("{other} with an RSA key"),
            }
            .is_ok()
        }
        RawKey::Ec { x, y } => {
            let sec1 = [&[4], &x[..], &y[..]].concat();
            match algorithm {
                Algorithm::Es256 => {
                    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&sec1).unwrap();
                    let signature = p256::ecdsa::Signature::from_slice(signature).unwrap();
                    key.verify(INPUT, &signature).is_ok()
                }
                Algorithm::Es384 => {
                    let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(&sec1).unwrap();
                    let signature = p384::ecdsa::Signature::from_slice(signature).unwrap();
                    key.verify(INPUT, &signature).is_ok()
                }
                _ => {
                    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(&sec1).unwrap();
                    let signature = p521::ecdsa::Signature::from_slice(signature).unwrap();
                    key.verify(INPUT, &signature).is_ok()
                }
            }
        }
        RawKey::Ed25519 { x } => {
            let key = ed25519_dalek::VerifyingKey::try_from(&x[..]).unwrap();
            let signature = ed25519_dalek::Signature::from_slice(signature).unwrap();
            key.verify(INPUT, &signature).is_ok()
        }
    }
}

fn rustcrypto_signs(key: &TestKey) -> Vec<u8> {
    let rng = &mut CountingRng::default();
    match key.algorithm {
        Algorithm::Rs256 => pkcs1v15::SigningKey::<Sha256>::new(key.rsa())
            .sign(INPUT)
            .to_vec(),
        Algorithm::Rs384 => pkcs1v15::SigningKey::<Sha384>::new(key.rsa())
            .sign(INPUT)
            .to_vec(),
        Algorithm::Rs512 => pkcs1v15::SigningKey::<Sha512>::new(key.rsa())
            .sign(INPUT)
            .to_vec(),
        Algorithm::Ps256 => pss::SigningKey::<Sha256>::new(key.rsa())
            .sign_with_rng(rng, INPUT)
            .to_vec(),
        Algorithm::Ps384 => pss::SigningKey::<Sha384>::new(key.rsa())
            .sign_with_rng(rng, INPUT)
            .to_vec(),
        Algorithm::Ps512 => pss::SigningKey::<Sha512>::new(key.rsa())
            .sign_with_rng(rng, INPUT)
            .to_vec(),
        Algorithm::Es256 => {
            let key = p256::ecdsa::SigningKey::from_slice(&key.scalar()).unwrap();
            let signature: p256::ecdsa::Signature = key.sign(INPUT);
            signature.to_vec()
        }
        Algorithm::Es384 => {
            let key = p384::ecdsa::SigningKey::from_slice(&key.scalar()).unwrap();
            let signature: p384::ecdsa::Signature = key.sign(INPUT);
            signature.to_vec()
        }
        Algorithm::Es512 => {
            let key = p521::ecdsa::SigningKey::from_slice(&key.scalar()).unwrap();
            let signature: p521::ecdsa::Signature = key.sign_with_rng(rng, INPUT);
            signature.to_vec()
        }
        Algorithm::Ed25519 | Algorithm::EdDsa => {
            let seed = key.scalar().as_slice().try_into().unwrap();
            let key = ed25519_dalek::SigningKey::from_bytes(&seed);
            key.sign(INPUT).to_vec()
        }
    }
}

/// A reproducible stream: the SHA-512 of a counter. For salts and nonces in
/// tests, and for nothing else.
#[derive(Default)]
pub(super) struct CountingRng(u64);

impl CryptoRng for CountingRng {}

impl RngCore for CountingRng {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(64) {
            self.0 += 1;
            let block = digest::digest(&digest::SHA512, &self.0.to_le_bytes());
            chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}
