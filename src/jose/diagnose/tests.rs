#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::jose::{Jwk, JwkSet, PublicKey, base64url, compact};

const NOW: Time = Time::from_secs(1_800_000_000);

struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn jwk(&self, kid: &str) -> Jwk {
        let key = PublicKey::ed25519(self.0.public_key().as_ref()).unwrap();
        Jwk::new(kid, Algorithm::Ed25519, key).unwrap()
    }

    fn token(&self, header: &str, claims: &str) -> String {
        let input = [header, claims].map(|part| base64url::encode(part.as_bytes()));
        let input = input.join(".");
        compact(input.as_bytes(), self.0.sign(input.as_bytes()).as_ref()).unwrap()
    }
}

const HEADER: &str = r#"{"alg":"Ed25519","kid":"k1","typ":"JWT"}"#;

const CLAIMS: &str = r#"{"iss":"https://login.example","aud":["api","b"],"iat":1799999990,"nbf":1799999990,"exp":1800000600}"#;

fn expected() -> Expected<'static> {
    Expected {
        now: NOW,
        leeway: Span::ZERO,
        issuer: Some("https://login.example"),
        audience: Some("api"),
        fresh: true,
    }
}

/// A set of `k1` and `k2`, and who signs with them.
fn world() -> (Signer, Signer, ServedSet) {
    let (one, two) = (Signer::new(), Signer::new());
    let set = JwkSet {
        keys: vec![one.jwk("k1"), two.jwk("k2")],
    };
    let odd = r#"{"kty":"oct","kid":"odd","k":"AA"}]}"#;
    let text = String::from_utf8(set.to_json()).unwrap();
    let text = format!("{},{odd}", text.strip_suffix("]}").unwrap());
    (one, two, ServedSet::read(text.as_bytes()).unwrap())
}

#[test]
fn nothing_is_wrong_with_a_good_token() {
    let (one, _, keys) = world();
    let found = diagnose(&one.token(HEADER, CLAIMS), &keys, &expected());
    assert!(found.is_good(), "{found:?}");
    assert_eq!(found.kid.as_deref(), Some("k1"));
    assert_eq!(found.algorithm, Some(Algorithm::Ed25519));
    assert_eq!(found.typ.as_deref(), Some("JWT"));
    assert_eq!(found.issuer.as_deref(), Some("https://login.example"));
    assert_eq!(found.issued, Some(Time::from_secs(1_799_999_990)));
    assert_eq!(found.expires, Some(Time::from_secs(1_800_000_600)));
    // What is not asked for is not looked at; without dates it is good for ever.
    let anything = Expected {
        issuer: None,
        audience: None,
        ..expected()
    };
    assert!(diagnose(&one.token(HEADER, "{}"), &keys, &anything).is_good());
}

/// Header, claims, and the one finding: its code, what its text and its hint
/// hold.
#[rustfmt::skip]
const BROKEN: &[(&str, &str, Code, &str, &str)] = &[
    (r#"{"alg":"Ed25519","typ":"JWT"}"#, CLAIMS, Code::NoKid, "\"kid\"", "the key \"k1\" of the set signed it"),
    (r#"{"alg":"Ed25519","kid":"gone"}"#, CLAIMS, Code::UnknownKid, "no key \"gone\" in the set; there are: k1, k2", "the key \"k1\" of the set signed it"),
    (r#"{"alg":"Ed25519","kid":"odd"}"#, CLAIMS, Code::UnusableKey, "cannot be used", "set is at fault"),
    (r#"{"alg":"Ed25519","kid":"k2"}"#, CLAIMS, Code::WrongKey, "names the key \"k2\", but \"k1\"", "mixed"),
    (r#"{"alg":"ES256","kid":"k1"}"#, CLAIMS, Code::WrongAlgorithm, "used with Ed25519, the token says ES256", "one algorithm"),
    (r#"{"alg":"EdDSA","kid":"k1"}"#, CLAIMS, Code::WrongAlgorithm, "used with Ed25519, the token says EdDSA", "one algorithm"),
    (r#"{"alg":"Ed25519","kid":"k1","crit":["x"]}"#, CLAIMS, Code::CriticalHeader, "crit", "RFC 7515"),
    (r#"{"alg":"none","kid":"k1"}"#, CLAIMS, Code::Malformed, "none", "attacks"),
    (r#"{"alg":"HS256","kid":"k1"}"#, CLAIMS, Code::Malformed, "HS256", "attacks"),
    (r#"{"kid":"k1"}"#, CLAIMS, Code::Malformed, "\"alg\"", "RFC 7519"),
    (r#"{"alg":"Ed25519","kid":"k1""#, CLAIMS, Code::Malformed, "header", "RFC 7519"),
    (HEADER, r#"{"iss":"https://login.example","aud":"api","exp":1800000000}"#, Code::Expired, "expired at 2027-01-15T08:00:00Z, 0s ago", "new token; the comparison allows for no leeway"),
    (HEADER, r#"{"iss":"https://login.example","aud":"api","exp":1799996300}"#, Code::Expired, "1h 1m 40s ago", "new token"),
    (HEADER, r#"{"iss":"https://login.example","aud":"api","nbf":1800000060}"#, Code::NotYetValid, "in 1m", "clocks"),
    (HEADER, r#"{"iss":"https://login.example","aud":"api","iat":1800000300}"#, Code::IssuedInFuture, "5m from now", "the issuer's clock is 5m ahead"),
    (HEADER, r#"{"iss":"https://login.example","aud":"api","exp":"1800000600"}"#, Code::BadDate, "\"exp\"", "without quotes"),
    (HEADER, r#"{"iss":"https://login.example/","aud":"api"}"#, Code::WrongIssuer, "got \"https://login.example/\"", "last slash"),
    (HEADER, r#"{"aud":"api"}"#, Code::WrongIssuer, "got none", "exact"),
    (HEADER, r#"{"iss":"https://login.example","aud":["b"]}"#, Code::WrongAudience, "got [\"b\"]", "somebody else"),
    (HEADER, r#"{"iss":"https://login.example"}"#, Code::WrongAudience, "got []", "somebody else"),
    (HEADER, "[]", Code::MalformedClaims, "claims", "different claims"),
    (HEADER, r#"{"iss":"https://login.example","aud":"api","a":1,"a":2}"#, Code::MalformedClaims, "claims", "different claims"),
];

#[test]
fn each_fault_is_named_alone() {
    let (one, _, keys) = world();
    for (header, claims, code, problem, hint) in BROKEN {
        let found = diagnose(&one.token(header, claims), &keys, &expected());
        let [only] = &*found.findings else {
            panic!("{header} {claims}: {found:?}");
        };
        assert_eq!(only.code, *code, "{header} {claims}: {only:?}");
        assert!(only.problem.contains(problem), "{only:?}");
        assert!(only.hint.contains(hint), "{only:?}");
    }
}

#[test]
fn texts_that_are_no_tokens_are_explained() {
    let (one, _, keys) = world();
    let good = one.token(HEADER, CLAIMS);
    let (input, signature) = good.rsplit_once('.').unwrap();
    for (token, hint) in [
        (String::new(), "opaque"),
        ("abcdef".into(), "opaque"),
        (format!("{good}.a.b"), "encrypted"),
        (input.to_owned(), "cut off"),
        (format!("Bearer {good}"), "word before"),
        (format!("\"{good}\""), "copied"),
        (format!("{input}.{signature}="), "copied"),
        (format!("{input}.{}", &signature[1..]), ""),
        (format!("{input}.+{}", &signature[1..]), "copied"),
    ] {
        let found = diagnose(&token, &keys, &expected());
        let [only] = &*found.findings else {
            panic!("{token}: {found:?}");
        };
        let codes = [Code::Malformed, Code::BadSignature];
        assert!(codes.contains(&only.code), "{only:?}");
        assert!(only.hint.contains(hint), "{token}: {only:?}");
        assert!(!format!("{found:?}").contains(signature), "{found:?}");
    }
}

#[test]
fn a_changed_token_and_a_strangers_are_told_apart_from_a_mix_up() {
    let (one, _, keys) = world();
    let stranger = Signer::new().token(HEADER, CLAIMS);
    let changed = one.token(HEADER, CLAIMS);
    let parts: Vec<&str> = changed.split('.').collect();
    let other = CLAIMS.replace("\"b\"", "\"c\"");
    let changed = [parts[0], &base64url::encode(other.as_bytes()), parts[2]].join(".");
    for token in [stranger, changed] {
        let found = diagnose(&token, &keys, &expected());
        assert_eq!(found.findings.len(), 1, "{found:?}");
        assert_eq!(found.findings[0].code, Code::BadSignature);
    }
}

#[test]
fn whether_fetching_again_helps_depends_on_the_copy() {
    let (_, _, keys) = world();
    let token = Signer::new().token(r#"{"alg":"Ed25519","kid":"new"}"#, CLAIMS);
    let hint = |fresh| {
        let expected = Expected {
            fresh,
            ..expected()
        };
        diagnose(&token, &keys, &expected).findings[0].hint.clone()
    };
    assert!(hint(false).starts_with("fetch the set again"));
    assert!(hint(true).contains("fetched just now"));
    let empty = ServedSet::read(br#"{"keys":[]}"#).unwrap();
    let found = diagnose(&token, &empty, &expected());
    assert!(found.findings[0].problem.ends_with("there are: none"));
}

#[test]
fn everything_is_said_at_once_and_leeway_counts() {
    let (_, _, keys) = world();
    let claims = r#"{"iss":"x","iat":1800000060,"exp":1799999940}"#;
    let token = Signer::new().token(r#"{"alg":"Ed25519","kid":"gone"}"#, claims);
    let codes = |leeway| {
        let expected = Expected {
            leeway,
            ..expected()
        };
        let found = diagnose(&token, &keys, &expected).findings;
        found.iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    let (kid, issuer, audience) = (Code::UnknownKid, Code::WrongIssuer, Code::WrongAudience);
    assert_eq!(
        codes(Span::ZERO),
        [kid, Code::Expired, Code::IssuedInFuture, issuer, audience]
    );
    assert_eq!(codes(Span::from_millis(60_001)), [kid, issuer, audience]);
}
