#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use serde_json::json;

use super::*;

/// The Ed25519 key of RFC 8037 appendix A.2, with a name.
fn ed25519() -> Value {
    json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "ours",
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
        "kid": "ours",
        "alg": "ES256",
        "use": "sig",
    })
}

fn rsa() -> Value {
    json!({
        "kty": "RSA",
        "n": base64url::encode(&[0xa5; 256]),
        "e": "AQAB",
        "kid": "ours",
        "alg": "PS384",
        "use": "sig",
    })
}

fn read(entries: &[Value]) -> BTreeSet<Offer> {
    Offer::all(json!({ "keys": entries }).to_string().as_bytes()).unwrap()
}

/// How an entry differs from this one's key.
fn difference(ours: &Value, entry: &Value) -> Option<Difference> {
    let ours = crate::jose::Jwk::from_json(ours.to_string().as_bytes()).unwrap();
    let found = read(std::slice::from_ref(entry)).pop_first().unwrap();
    found.differs_from(ours.algorithm, &ours.key)
}

fn with(mut entry: Value, member: &str, value: impl Into<Value>) -> Value {
    entry[member] = value.into();
    entry
}

fn without(mut entry: Value, member: &str) -> Value {
    entry.as_object_mut().unwrap().remove(member);
    entry
}

#[test]
fn a_key_is_found_as_verifiers_find_it() {
    for ours in [ed25519(), p256(), rsa()] {
        assert_eq!(difference(&ours, &ours), None);
        // What may be absent, and what nobody looks at.
        for entry in [
            without(ours.clone(), "alg"),
            without(ours.clone(), "use"),
            with(ours.clone(), "key_ops", json!(["verify"])),
            with(ours.clone(), "x5t", "whatever"),
        ] {
            assert_eq!(difference(&ours, &entry), None, "{entry}");
        }
    }
}

#[test]
fn another_key_under_its_name_is_another_key() {
    for ours in [ed25519(), p256(), rsa()] {
        for other in [ed25519(), p256(), rsa()] {
            if other != ours {
                assert_eq!(difference(&ours, &other), Some(Difference::Key));
            }
        }
    }
    let other = with(rsa(), "e", "AQAD");
    assert_eq!(difference(&rsa(), &other), Some(Difference::Key));
}

#[test]
fn what_verifiers_cannot_use_is_not_the_key() {
    let unfit = |unfit| Some(Difference::Unfit(unfit));
    for (member, value, why) in [
        ("x", json!("AAAA"), Some(Difference::Unreadable)),
        ("x", json!(7), Some(Difference::Unreadable)),
        ("crv", json!("P-384"), Some(Difference::Unreadable)),
        ("kty", json!("oct"), Some(Difference::Unreadable)),
        (
            "alg",
            json!("ES384"),
            Some(Difference::Algorithm("ES384".into())),
        ),
        (
            "alg",
            json!(null),
            Some(Difference::Algorithm("null".into())),
        ),
        ("use", json!("enc"), unfit(Unfit::Use)),
        ("key_ops", json!(["sign"]), unfit(Unfit::Use)),
        ("key_ops", json!([]), unfit(Unfit::Use)),
        ("d", json!("AAAA"), unfit(Unfit::Private)),
        (
            "x",
            json!("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU="),
            unfit(Unfit::Encoding),
        ),
    ] {
        let entry = with(p256(), member, value);
        assert_eq!(difference(&p256(), &entry), why, "{entry}");
    }
    // Another name of the same algorithm (RFC 9864) is another for verifiers.
    let other = with(ed25519(), "alg", "EdDSA");
    let named = Some(Difference::Algorithm("EdDSA".into()));
    assert_eq!(difference(&ed25519(), &other), named);
    let text = p256().to_string();
    let twice = text.replacen('{', r#"{"use":"sig","#, 1);
    let found = Offer::all(format!(r#"{{"keys":[{twice}]}}"#).as_bytes()).unwrap();
    let found = found.first().unwrap();
    assert_eq!(found.unfit, Some(Unfit::Ambiguous));
}

#[test]
fn a_name_that_stands_twice_is_nobodys() {
    for all in [[p256(), p256()], [p256(), ed25519()]] {
        let found = read(&all);
        let unfit = found.iter().map(|offer| offer.unfit);
        assert!(unfit.eq(found.iter().map(|_| Some(Unfit::Twice))));
    }
}

#[test]
fn what_is_not_understood_is_passed_over() {
    let entries = [
        json!(7),
        json!(null),
        json!({"kid": 8}),
        json!({"kty": "X"}),
        json!({"kid": "a", "kty": "new"}),
    ];
    let kids: Vec<_> = read(&entries).into_iter().map(|offer| offer.kid).collect();
    assert_eq!(kids, [None, Some("a".to_owned())]);
    for wrong in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        Offer::all(wrong.as_bytes()).unwrap_err();
    }
}

/// A thief's key is one in whatever clothes.
#[test]
fn numbers_are_read_whatever_else_is_wrong() {
    let ours = read(&[rsa()]).pop_first().unwrap().key;
    let n = base64url::encode(&[&[0][..], &[0xa5; 256]].concat());
    for entry in [
        with(rsa(), "n", n),
        with(rsa(), "e", "AQAB=="),
        with(rsa(), "use", "enc"),
        without(rsa(), "kid"),
    ] {
        let found = read(std::slice::from_ref(&entry)).pop_first().unwrap().key;
        assert!(found.is_some() && found == ours, "{entry}");
    }
}
