#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The Ed25519 key of RFC 8037 appendix A.2, with a name.
fn ed25519() -> Value {
    json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        "alg": "Ed25519",
        "use": "sig",
    })
}

/// The P-256 key of RFC 7515 appendix A.3, with a name.
fn p256() -> Value {
    json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "kid": "p256",
        "alg": "ES256",
        "use": "sig",
    })
}

/// An RSA key with a modulus that is odd and of the right length, which is all
/// that is asked of one.
fn rsa() -> Value {
    json!({
        "kty": "RSA",
        "n": base64url::encode(&[0xa5; 256]),
        "e": "AQAB",
        "kid": "rsa",
        "alg": "PS384",
        "use": "sig",
    })
}

fn read(jwk: &Value) -> Result<Jwk, InvalidJwk> {
    Jwk::from_json(jwk.to_string().as_bytes())
}

fn with(mut jwk: Value, member: &str, value: Value) -> Value {
    jwk[member] = value;
    jwk
}

fn without(mut jwk: Value, member: &str) -> Value {
    jwk.as_object_mut().unwrap().remove(member);
    jwk
}

#[test]
fn what_is_read_is_written_again_in_one_order() {
    let set = JwkSet {
        keys: [rsa(), p256(), ed25519()]
            .iter()
            .map(|jwk| read(jwk).unwrap())
            .collect(),
    };
    let n = base64url::encode(&[0xa5; 256]);
    let expected = format!(
        concat!(
            r#"{{"keys":[{{"kty":"RSA","n":"{}","e":"AQAB","kid":"rsa","alg":"PS384","use":"sig"}},"#,
            r#"{{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","#,
            r#""y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"p256","alg":"ES256","use":"sig"}},"#,
            r#"{{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","#,
            r#""kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","alg":"Ed25519","use":"sig"}}]}}"#,
        ),
        n
    );
    assert_eq!(String::from_utf8(set.to_json()).unwrap(), expected);
    assert_eq!(set.to_json(), set.clone().to_json());
    assert_eq!(
        serde_json::from_slice::<JwkSet>(&set.to_json()).unwrap(),
        set
    );
    let served = ServedSet::read(&set.to_json()).unwrap();
    assert_eq!((served.set, served.others), (set, vec![]));
    assert_eq!(JwkSet::default().to_json(), br#"{"keys":[]}"#);
}

#[test]
fn a_key_with_a_private_member_is_refused_whatever_it_holds() {
    for jwk in [rsa(), p256(), ed25519()] {
        for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
            for value in [json!("AA"), json!(null), json!([{"r": "AA"}]), json!(1)] {
                let jwk = with(jwk.clone(), name, value);
                assert_eq!(read(&jwk), Err(InvalidJwk::PrivateMember { name }));
                assert!(serde_json::from_value::<Jwk>(jwk).is_err());
            }
        }
    }
    // Its name may hide behind an escape; its value stays out of the error.
    let text = ed25519()
        .to_string()
        .replacen('{', r#"{"\u0064":"hunter2","#, 1);
    let found = Jwk::from_json(text.as_bytes()).unwrap_err();
    assert_eq!(found, InvalidJwk::PrivateMember { name: "d" });
    assert!(!format!("{found} {found:?}").contains("hunter2"));
    let oct = json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMko", "kid": "mac"});
    assert_eq!(read(&oct), Err(InvalidJwk::PrivateMember { name: "k" }));
}

#[test]
fn numbers_are_unpadded_canonical_base64url() {
    for (jwk, name) in [
        (rsa(), "n"),
        (rsa(), "e"),
        (p256(), "x"),
        (p256(), "y"),
        (ed25519(), "x"),
    ] {
        let good = jwk[name].as_str().unwrap().to_owned();
        let padded = format!("{good}=");
        let standard = good.replacen(|c: char| c.is_ascii_uppercase(), "+", 1);
        let spaced = format!(" {good}");
        let mut bad = vec![padded, standard, spaced];
        // A last character that has spare bits, with one of them set.
        if good.len() % 4 != 0 {
            let last = good.chars().last().unwrap();
            bad.push(format!(
                "{}{}",
                &good[..good.len() - 1],
                char::from(last as u8 + 1)
            ));
        }
        for text in bad {
            let found = read(&with(jwk.clone(), name, json!(text)));
            assert_eq!(found, Err(InvalidJwk::Encoding { name }), "{text}");
        }
        assert_eq!(
            read(&without(jwk.clone(), name)),
            Err(InvalidJwk::Missing { name })
        );
        assert!(matches!(
            read(&with(jwk, name, json!(5))),
            Err(InvalidJwk::Shape { .. })
        ));
    }
    // Leading zeros, which other readers would compare as another key.
    let n = base64url::encode(&[&[0], &[0xa5; 256][..]].concat());
    assert!(matches!(
        read(&with(rsa(), "n", json!(n))),
        Err(InvalidJwk::Key(_))
    ));
}

#[test]
fn the_algorithm_takes_the_key() {
    for (jwk, good) in [
        (
            rsa(),
            &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..],
        ),
        (p256(), &["ES256"]),
        (ed25519(), &["Ed25519", "EdDSA"]),
    ] {
        for algorithm in Algorithm::ALL {
            let found = read(&with(jwk.clone(), "alg", json!(algorithm.name())));
            if good.contains(&algorithm.name()) {
                assert_eq!(found.unwrap().algorithm, algorithm);
            } else {
                assert!(matches!(found, Err(InvalidJwk::WrongAlgorithm { .. })));
            }
        }
        for alg in ["none", "HS256", "es256", "RSA-OAEP", ""] {
            assert!(matches!(
                read(&with(jwk.clone(), "alg", json!(alg))),
                Err(InvalidJwk::UnknownAlgorithm(_))
            ));
        }
    }
}

#[test]
fn a_key_is_of_the_kind_that_it_says() {
    for (jwk, member, value) in [
        (p256(), "crv", "P-384"),
        (p256(), "crv", "secp256k1"),
        (p256(), "crv", ""),
        (p256(), "kty", "RSA"),
        (p256(), "kty", "ec"),
        (ed25519(), "crv", "Ed448"),
        (ed25519(), "crv", "X25519"),
        (ed25519(), "kty", "EC"),
        (rsa(), "kty", "AKP"),
        (rsa(), "use", "enc"),
        (rsa(), "use", ""),
    ] {
        let found = read(&with(jwk, member, json!(value)));
        assert!(found.is_err(), "{member} {value}: {found:?}");
    }
    assert_eq!(
        read(&without(rsa(), "kid")),
        Err(InvalidJwk::Missing { name: "kid" })
    );
    assert_eq!(
        read(&without(rsa(), "alg")),
        Err(InvalidJwk::Missing { name: "alg" })
    );
    // `use` is optional (RFC 7517 section 4.2), and so is what we do not know.
    read(&without(rsa(), "use")).unwrap();
    read(&with(rsa(), "x5c", json!(["AA=="]))).unwrap();
}

#[test]
fn members_that_stand_twice_are_refused() {
    let twice = |extra| ed25519().to_string().replacen('{', extra, 1);
    for extra in [
        r#"{"kid":"a","#,
        r#"{"\u006bid":"a","#,
        r#"{"z":{"a":1,"a":2},"#,
    ] {
        assert!(matches!(
            Jwk::from_json(twice(extra).as_bytes()),
            Err(InvalidJwk::Json(JsonError::Duplicate { .. }))
        ));
    }
    // serde's form sees those that matter.
    assert!(serde_json::from_str::<Jwk>(&twice(r#"{"kid":"a","#)).is_err());
}

#[test]
fn a_served_set_keeps_what_it_understands_and_names_the_rest() {
    let entries = json!([
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "pq"},
        ed25519(),
        {"kty": "oct", "k": "AA", "kid": "mac"},
        with(p256(), "d", json!("AA")),
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "broken", "alg": "ES256"},
        {"kid": 5},
        "no object",
        rsa(),
    ]);
    let text = json!({"keys": entries, "issuer": {"extra": true}}).to_string();
    let served = ServedSet::read(text.as_bytes()).unwrap();
    let kids: Vec<_> = served.set.keys.iter().map(|jwk| &jwk.kid[..]).collect();
    assert_eq!(kids, ["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "rsa"]);
    let others: Vec<_> = served.others.iter().map(|key| key.kid.as_deref()).collect();
    let expected = [
        Some("pq"),
        Some("mac"),
        Some("p256"),
        Some("broken"),
        None,
        None,
    ];
    assert_eq!(others, expected);
    assert_eq!(
        served.others[2].why,
        InvalidJwk::PrivateMember { name: "d" }
    );

    for text in ["{}", r#"{"keys":{}}"#, r#"{"keys":null}"#] {
        assert_eq!(ServedSet::read(text.as_bytes()), Err(InvalidJwkSet::NoKeys));
    }
    for text in [
        "",
        "[]",
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[]} x"#,
        "<html>",
    ] {
        assert!(matches!(
            ServedSet::read(text.as_bytes()),
            Err(InvalidJwkSet::Json(_))
        ));
    }
}

#[test]
fn a_key_is_found_by_its_name_and_the_first_one_counts() {
    let first = read(&with(p256(), "kid", json!("same"))).unwrap();
    let second = read(&with(ed25519(), "kid", json!("same"))).unwrap();
    let set = JwkSet {
        keys: vec![first.clone(), second],
    };
    assert_eq!(set.find("same"), Some(&first));
    assert_eq!(set.find("Same"), None);
}

proptest! {
    #[test]
    fn any_kid_survives(kid in any::<String>()) {
        let mut jwk = read(&ed25519()).unwrap();
        jwk.kid = kid;
        let text = serde_json::to_vec(&jwk).unwrap();
        prop_assert_eq!(Jwk::from_json(&text).unwrap(), jwk.clone());
        let set = JwkSet { keys: vec![jwk] };
        prop_assert_eq!(ServedSet::read(&set.to_json()).unwrap().set, set);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (Jwk::from_json(&bytes), ServedSet::read(&bytes));
    }
}
