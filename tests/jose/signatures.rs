//! What a verifier accepts and what it does not, for each algorithm with each
//! kind of key.

use rsa::sha2::Sha256;
use rsa::signature::{RandomizedSigner, SignatureEncoding};
use sealkeeper::jose::{Algorithm, BadSignature, UnusableKey, Verifier};

use super::interop::CountingRng;
use super::keys::{KEY_TYPES, TestKey, all_kinds};

const INPUT: &[u8] = b"eyJhbGciOiJFUzI1NiJ9.e30";

#[test]
fn each_algorithm_verifies_its_own_signatures_and_no_altered_one() {
    for key in all_kinds() {
        let public = key.public();
        let name = format!("{} {}", key.algorithm, public.key_type());
        let verifier = Verifier::new(key.algorithm, &public).unwrap();
        let good = key.sign(INPUT);
        assert_eq!(good.len(), public.key_type().signature_len(), "{name}");
        assert_eq!(verifier.verify(INPUT, &good), Ok(()), "{name}");
        assert_eq!(verifier.clone().verify(INPUT, &good), Ok(()), "{name}");

        let mismatch = Err(BadSignature::Mismatch);
        for at in (0..good.len()).step_by(7).chain([good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(verifier.verify(INPUT, &bad), mismatch, "{name} byte {at}");
        }
        for at in [0, INPUT.len() - 1] {
            let mut other = INPUT.to_vec();
            other[at] ^= 1;
            assert_eq!(verifier.verify(&other, &good), mismatch, "{name}");
        }
        assert_eq!(verifier.verify(b"", &good), mismatch, "{name}");

        let length = |got| {
            Err(BadSignature::Length {
                expected: good.len(),
                got,
            })
        };
        let longer = [&good[..], &[0]].concat();
        let led = [&[0], &good[..]].concat();
        for bad in [&good[1..], &good[..good.len() - 1], &longer, &led, &[]] {
            assert_eq!(verifier.verify(INPUT, bad), length(bad.len()), "{name}");
        }
    }
}

#[test]
fn a_signature_of_one_algorithm_is_none_of_another() {
    let keys = all_kinds();
    for key in &keys {
        let signature = key.sign(INPUT);
        for algorithm in Algorithm::ALL {
            let same = algorithm == key.algorithm
                || [Algorithm::Ed25519, Algorithm::EdDsa].contains(&algorithm)
                    && [Algorithm::Ed25519, Algorithm::EdDsa].contains(&key.algorithm);
            let verified = Verifier::new(algorithm, &key.public())
                .is_ok_and(|verifier| verifier.verify(INPUT, &signature).is_ok());
            assert_eq!(verified, same, "{} as {algorithm}", key.algorithm);
        }
    }
}

#[test]
fn a_verifier_is_made_only_for_a_key_that_the_algorithm_takes() {
    for algorithm in Algorithm::ALL {
        for key_type in KEY_TYPES {
            let alg = Algorithm::ALL.into_iter().find(|alg| alg.accepts(key_type));
            let key = TestKey::generate(alg.unwrap(), key_type).public();
            let found = Verifier::new(algorithm, &key);
            if algorithm.accepts(key_type) {
                found.unwrap();
            } else {
                let expected = UnusableKey::WrongType {
                    algorithm,
                    key: key_type,
                };
                assert_eq!(found.unwrap_err(), expected);
            }
        }
    }
}

#[test]
fn a_pss_salt_is_as_long_as_the_hash() {
    let key = TestKey::generate(Algorithm::Ps256, KEY_TYPES[0]);
    let verifier = Verifier::new(Algorithm::Ps256, &key.public()).unwrap();
    for salt_len in [0, 20, 31, 32, 33, 64, 222] {
        let signer = rsa::pss::SigningKey::<Sha256>::new_with_salt_len(key.rsa(), salt_len);
        let signature = signer
            .sign_with_rng(&mut CountingRng::default(), INPUT)
            .to_vec();
        let verified = verifier.verify(INPUT, &signature).is_ok();
        assert_eq!(verified, salt_len == 32, "salt of {salt_len} bytes");
    }
}

#[test]
fn two_keys_do_not_verify_each_other() {
    for alg in [Algorithm::Es256, Algorithm::Es512, Algorithm::Ed25519] {
        let [ours, other] = [(), ()].map(|()| TestKey::generate(alg, alg.default_key_type()));
        let verifier = Verifier::new(alg, &other.public()).unwrap();
        assert_eq!(
            verifier.verify(INPUT, &ours.sign(INPUT)),
            Err(BadSignature::Mismatch)
        );
    }
}
