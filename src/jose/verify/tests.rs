#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair,
};

use super::*;
use crate::jose::{Header, base64url, compact, signing_input};

const NOW: Time = Time::from_secs(1_800_000_000);
const LEEWAY: Span = Span::from_secs(60);

/// A key that can sign, and its public half under a name.
struct Signer {
    pair: Ed25519KeyPair,
    jwk: Jwk,
}

impl Signer {
    fn named(kid: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = PublicKey::ed25519(pair.public_key().as_ref()).unwrap();
        Self {
            jwk: Jwk::new(kid, Algorithm::Ed25519, key).unwrap(),
            pair,
        }
    }

    /// A token that names `kid`, whoever signs it.
    fn token(&self, kid: &str, claims: &str) -> String {
        let header = Header {
            algorithm: Algorithm::Ed25519,
            kid: kid.into(),
            typ: Some("JWT".into()),
        };
        self.sealed(&signing_input(&header, claims.as_bytes()))
    }

    fn with_header(&self, header: &str) -> String {
        self.sealed(format!("{}.e30", base64url::encode(header.as_bytes())).as_bytes())
    }

    fn sealed(&self, input: &[u8]) -> String {
        compact(input, self.pair.sign(input).as_ref()).unwrap()
    }
}

fn set<'a>(signers: impl IntoIterator<Item = &'a Signer>) -> JwkSet {
    JwkSet {
        keys: signers.into_iter().map(|s| s.jwk.clone()).collect(),
    }
}

#[test]
fn a_good_token_shows_its_claims_and_dates() {
    let signer = Signer::named("k1");
    let claims = r#"{"sub":"a","exp":1800000100,"nbf":1799999999.25}"#;
    let token = signer.token("k1", claims);
    let found = verify_token(&token, &set([&signer]), NOW, Span::ZERO).unwrap();
    assert_eq!(
        found,
        VerifiedToken {
            kid: "k1".into(),
            algorithm: Algorithm::Ed25519,
            typ: Some("JWT".into()),
            claims: claims.into(),
            expires: Some(Time::from_secs(1_800_000_100)),
            not_before: Some(Time::from_millis(1_799_999_999_250)),
        }
    );
    assert!(!format!("{found:?}").contains("sub"));
    // No dates: good for ever.
    let token = signer.token("k1", "{}");
    verify_token(&token, &set([&signer]), NOW, Span::ZERO).unwrap();
}

#[test]
fn dates_are_compared_to_the_millisecond_with_leeway_on_both() {
    let signer = Signer::named("k1");
    let keys = set([&signer]);
    let s = NOW.as_secs();
    let check = |claims: String, now_ms: i64, leeway| {
        let now = Time::from_millis(s * 1000 + now_ms);
        verify_token(&signer.token("k1", &claims), &keys, now, leeway)
    };
    let exp = format!("{{\"exp\":{s}}}");
    check(exp.clone(), -1, Span::ZERO).unwrap();
    check(exp.clone(), 59_999, LEEWAY).unwrap();
    assert_eq!(
        check(exp.clone(), 0, Span::ZERO),
        Err(TokenFault::Expired {
            at: NOW,
            ago: Span::ZERO
        })
    );
    assert_eq!(
        check(exp, 60_000, LEEWAY),
        Err(TokenFault::Expired {
            at: NOW,
            ago: LEEWAY
        })
    );
    let nbf = format!("{{\"nbf\":{s}}}");
    check(nbf.clone(), 0, Span::ZERO).unwrap();
    check(nbf.clone(), -60_000, LEEWAY).unwrap();
    assert_eq!(
        check(nbf.clone(), -1, Span::ZERO),
        Err(TokenFault::NotYetValid {
            at: NOW,
            wait: Span::from_millis(1)
        })
    );
    assert!(check(nbf, -60_001, LEEWAY).is_err());
    for (claims, claim) in [
        (r#"{"exp":"1800000100"}"#, "exp"),
        (r#"{"exp":null}"#, "exp"),
        (r#"{"nbf":{}}"#, "nbf"),
    ] {
        assert_eq!(
            check(claims.into(), 0, LEEWAY),
            Err(TokenFault::Date { claim })
        );
    }
    // Dates beyond all reason do not wrap.
    check(r#"{"exp":9223372036854775807}"#.into(), 0, LEEWAY).unwrap();
    check(r#"{"exp":1e300}"#.into(), 0, LEEWAY).unwrap();
    check(r#"{"exp":-1e300}"#.into(), 0, LEEWAY).unwrap_err();
    check(r#"{"nbf":1e300}"#.into(), 0, LEEWAY).unwrap_err();
}

#[test]
fn the_key_is_the_one_that_the_header_names() {
    let (old, new) = (Signer::named("old"), Signer::named("new"));
    let both = set([&old, &new]);
    let verify = |token: &str, keys: &JwkSet| verify_token(token, keys, NOW, LEEWAY);

    verify(&new.token("new", "{}"), &both).unwrap();
    assert_eq!(
        verify(&new.token("new", "{}"), &set([&old])),
        Err(TokenFault::UnknownKid {
            kid: "new".into(),
            known: 1
        })
    );
    assert_eq!(
        verify(&new.token("old", "{}"), &both),
        Err(TokenFault::WrongKey {
            kid: "old".into(),
            signer: "new".into()
        })
    );
    assert_eq!(
        verify(&Signer::named("x").token("old", "{}"), &both),
        Err(TokenFault::Signature {
            kid: "old".into(),
            why: BadSignature::Mismatch
        })
    );
    // One name, two keys: a verifier may take either, so only the first helps.
    let again = Signer::named("old");
    assert_eq!(
        verify(&again.token("old", "{}"), &set([&old, &again])),
        Err(TokenFault::WrongKey {
            kid: "old".into(),
            signer: "old".into()
        })
    );
}

#[test]
fn the_algorithm_is_the_one_that_the_set_gives() {
    let signer = Signer::named("k1");
    let verify = |header: &str| {
        verify_token(&signer.with_header(header), &set([&signer]), NOW, LEEWAY).unwrap_err()
    };
    for (alg, got) in [("EdDSA", Algorithm::EdDsa), ("ES256", Algorithm::Es256)] {
        assert_eq!(
            verify(&format!(r#"{{"alg":"{alg}","kid":"k1"}}"#)),
            TokenFault::WrongAlgorithm {
                kid: "k1".into(),
                expected: Algorithm::Ed25519,
                got
            }
        );
    }
    for alg in ["none", "HS256"] {
        assert!(matches!(
            verify(&format!(r#"{{"alg":"{alg}","kid":"k1"}}"#)),
            TokenFault::Malformed(InvalidJws::UnknownAlgorithm(_))
        ));
    }
    assert_eq!(verify(r#"{"alg":"Ed25519"}"#), TokenFault::NoKid);
    assert_eq!(
        verify(r#"{"alg":"Ed25519","kid":"k1","crit":["exp"]}"#),
        TokenFault::Critical
    );
}

#[test]
fn claims_are_one_object_with_one_meaning() {
    let signer = Signer::named("k1");
    for claims in ["", "[]", "{}{}", r#"{"exp":1,"\u0065xp":1900000000}"#] {
        let token = signer.token("k1", claims);
        assert!(matches!(
            verify_token(&token, &set([&signer]), NOW, LEEWAY),
            Err(TokenFault::Claims(_))
        ));
    }
    let huge = "a".repeat(MAX_TOKEN_BYTES + 1);
    assert!(matches!(
        verify_token(&huge, &set([&signer]), NOW, LEEWAY),
        Err(TokenFault::Malformed(InvalidJws::TooLong { .. }))
    ));
}

#[test]
fn an_ecdsa_signature_is_r_and_s_of_full_length_and_never_der() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let key = PublicKey::ec_point(KeyType::P256, pair.public_key().as_ref()).unwrap();
    let verifier = Verifier::new(Algorithm::Es256, &key).unwrap();
    let good = pair.sign(&SystemRandom::new(), b"input").unwrap();
    verifier.verify(b"input", good.as_ref()).unwrap();

    let secret = pair.private_key().as_be_bytes().unwrap();
    let der = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        secret.as_ref(),
        pair.public_key().as_ref(),
    )
    .unwrap()
    .sign(&SystemRandom::new(), b"input")
    .unwrap();
    assert_eq!(
        verifier.verify(b"input", der.as_ref()),
        Err(BadSignature::Length {
            expected: 64,
            got: der.as_ref().len()
        })
    );
    // r = 0, s = 0 and their like.
    assert_eq!(
        verifier.verify(b"input", &[0; 64]),
        Err(BadSignature::Mismatch)
    );
    assert_eq!(
        verifier.verify(b"input", &[0xff; 64]),
        Err(BadSignature::Mismatch)
    );
}

#[test]
fn a_verifier_is_for_one_algorithm_and_its_kind_of_key() {
    let key = Signer::named("k1").jwk.key;
    for algorithm in Algorithm::ALL {
        match Verifier::new(algorithm, &key) {
            Ok(verifier) => {
                assert!(matches!(algorithm, Algorithm::Ed25519 | Algorithm::EdDsa));
                assert_eq!(verifier.algorithm(), algorithm);
            }
            Err(why) => assert_eq!(
                why,
                UnusableKey::WrongType {
                    algorithm,
                    key: KeyType::Ed25519
                }
            ),
        }
    }
}
