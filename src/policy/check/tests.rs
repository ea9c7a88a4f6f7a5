//! What policy lets through, and what it does not.
//!
//! Long because: the table of hostile requests wants to be read as a whole.

#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

mod hostile;
mod kinds;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::jose::{base64url, json};
use crate::policy::rules::{Algorithms, Audience, Draft, Matcher, Rule};
use crate::time::Span;

/// 2027-01-15T08:00:00.250Z: not a whole second, so that rounding shows.
const NOW: Time = Time::from_millis(1_800_000_000_250);

/// `NOW`, in seconds, rounded down.
const NOW_S: i64 = 1_800_000_000;

fn draft() -> Draft {
    let rule = Rule {
        name: "api".into(),
        who: Matcher {
            uids: Some(BTreeSet::from([1000])),
            gids: Some(BTreeSet::from([2000])),
            ..Matcher::default()
        },
        operations: BTreeSet::from([Operation::SignJwt, Operation::SignJws]),
        algorithms: Algorithms::Only(BTreeSet::from([Algorithm::Es256, Algorithm::Rs256])),
        typ: vec![Typ::Is("at+jwt".into()), Typ::Is("JWT".into())],
        required: BTreeSet::from(["sub".into()]),
        forbidden: BTreeSet::from(["admin".into()]),
        audiences: Some(vec![
            Audience::Exact("https://one.example".into()),
            Audience::Prefix("https://many.example/".into()),
        ]),
        preset: None,
        max_lifetime: None,
        max_payload: None,
        rate: None,
    };
    Draft {
        key_set: "main".into(),
        issuer: "https://issuer.example".into(),
        max_token_lifetime: Span::from_hours(1),
        default_lifetime: Span::from_mins(10),
        skew: Span::from_mins(5),
        max_payload: 1024,
        rules: vec![rule],
    }
}

fn rules() -> Rules {
    Rules::try_from(draft()).unwrap()
}

fn caller(uid: u32, gid: u32) -> Caller {
    Caller::Unix {
        uid,
        gid,
        groups: BTreeSet::new(),
        pid: None,
    }
}

fn key(algorithm: Algorithm, kid: &str) -> KeyFacts {
    KeyFacts {
        algorithm,
        kid: kid.into(),
        exp_limit: Time::from_secs(NOW_S + 7200),
    }
}

/// The active ES256 key, the one before it, and the active RS256 key.
fn keys() -> Vec<KeyFacts> {
    vec![
        key(Algorithm::Es256, "new"),
        key(Algorithm::Es256, "old"),
        key(Algorithm::Rs256, "rsa"),
    ]
}

/// One request to either call, with one knob for each field.
#[derive(Clone)]
struct Ask {
    uid: u32,
    gid: u32,
    typ: Option<&'static str>,
    algorithm: Option<Algorithm>,
    key: KeyFacts,
    claims: Vec<u8>,
}

fn ask(claims: impl Into<Vec<u8>>) -> Ask {
    Ask {
        uid: 1000,
        gid: 2000,
        typ: None,
        algorithm: None,
        key: key(Algorithm::Es256, "new"),
        claims: claims.into(),
    }
}

impl Ask {
    fn check(&self) -> Result<CheckedJwt, CheckError> {
        let request = JwtRequest {
            key_set: "main".into(),
            algorithm: self.algorithm,
            typ: self.typ.map(str::to_owned),
            claims: self.claims.clone(),
        };
        let caller = caller(self.uid, self.gid);
        check_jwt(&rules(), &caller, &request, &self.key, NOW)
    }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, CheckError>, name: &str) -> Refusal {
    match outcome {
        Err(CheckError::Refused(refusal)) => refusal,
        other => panic!("{name}: expected a refusal, got {other:?}"),
    }
}

/// The members that a hostile claim goes in among, in the order of the
/// accepted twin; `@` marks the place.
const FRAME: &str = r#"{"sub":"alice","aud":"https://one.example",@}"#;

fn framed(member: &str) -> Vec<u8> {
    FRAME.replace('@', member).into_bytes()
}

/// A signing input and who sends it.
#[derive(Clone)]
struct Input {
    uid: u32,
    text: Vec<u8>,
    keys: Vec<KeyFacts>,
}

impl Input {
    fn check(&self) -> Result<CheckedJws, CheckError> {
        let request = JwsRequest {
            key_set: "main".into(),
            signing_input: self.text.clone(),
        };
        let caller = caller(self.uid, 2000);
        check_jws(&rules(), &caller, &request, &self.keys, NOW)
    }
}

const HEADER: &str = r#"{"alg":"ES256","kid":"new","typ":"JWT"}"#;

const CLAIMS: &str = r#"{"sub":"a","aud":"https://one.example","iss":"https://issuer.example","iat":1800000000,"exp":1800000600}"#;

fn input_of(header: &str, payload: &[u8]) -> Input {
    let header = base64url::encode(header.as_bytes());
    let payload = base64url::encode(payload);
    Input {
        uid: 1000,
        text: format!("{header}.{payload}").into_bytes(),
        keys: keys(),
    }
}

fn input(payload: &[u8]) -> Input {
    input_of(HEADER, payload)
}

/// Adds whichever of `iss`, `iat` and `exp` is missing, if the text is an
/// object as far as a glance can tell.
fn complete_claims(claims: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(claims) else {
        return claims.to_vec();
    };
    let mut text = text.to_owned();
    for (name, escaped, member) in [
        (
            "\"iss\"",
            "\"\\u0069ss\"",
            r#""iss":"https://issuer.example""#,
        ),
        ("\"iat\"", "\"iat\"", r#""iat":1800000000"#),
        ("\"exp\"", "\"exp\"", r#""exp":1800000600"#),
    ] {
        if !text.contains(name) && !text.contains(escaped) && text.starts_with('{') {
            text = text.replacen('{', &format!("{{{member},"), 1);
        }
    }
    text.into_bytes()
}

#[test]
fn a_signing_input_is_signed_as_it_is() {
    let checked = input(CLAIMS.as_bytes()).check().unwrap();
    assert_eq!(
        checked,
        CheckedJws {
            kid: "new".into(),
            algorithm: Algorithm::Es256,
            typ: Some("JWT".into()),
            exp: Time::from_secs(NOW_S + 600),
            rule: "api".into(),
        }
    );
    // During the handover the key before it still signs; so does each track.
    let old = input_of(
        r#"{"typ":"JWT","kid":"old","alg":"ES256"}"#,
        CLAIMS.as_bytes(),
    );
    assert_eq!(old.check().unwrap().kid, "old");
    let rsa = input_of(
        r#"{"alg":"RS256","kid":"rsa","typ":"at+jwt"}"#,
        CLAIMS.as_bytes(),
    );
    assert_eq!(rsa.check().unwrap().algorithm, Algorithm::Rs256);
}

/// What the agent adds counts: a payload that just fits does not when `iss`,
/// `iat` and `exp` come on top.
#[test]
fn what_is_added_counts_towards_the_size() {
    let padded = |n: usize| ask(framed(&format!("\"a\":\"{}\"", "x".repeat(n))));
    let added = padded(0).check().unwrap().payload.len() - padded(0).claims.len();
    let room = 1024 - padded(0).claims.len() - added;
    assert_eq!(padded(room).check().unwrap().payload.len(), 1024);
    assert!(padded(room + 1).claims.len() <= 1024);
    let found = refusal(padded(room + 1).check(), "one byte more");
    assert_eq!(found.reason, Reason::TooLarge);
    assert!(found.message.contains("1025"), "{found}");
}

#[test]
fn claims_stay_as_they_are_and_ours_follow() {
    let claims = " {\"aud\" : \"https://one.example\",\n \"sub\":\"\\u0061\", \"z\":1.0e+2 }\r\n";
    let checked = ask(claims).check().unwrap();
    let expected = "{\"aud\" : \"https://one.example\",\n \"sub\":\"\\u0061\", \"z\":1.0e+2 \
                    ,\"iss\":\"https://issuer.example\",\"iat\":1800000000,\"exp\":1800000600}";
    assert_eq!(String::from_utf8(checked.payload).unwrap(), expected);
    assert_eq!(checked.exp, Time::from_secs(NOW_S + 600));
    assert_eq!(checked.typ.as_deref(), Some("at+jwt"));
    assert_eq!(checked.rule, "api");

    let own = r#"{"sub":"a","aud":"https://one.example","exp":1800000100,"iss":"https://issuer.example","iat":1799999999}"#;
    assert_eq!(ask(own).check().unwrap().payload, own.as_bytes());
}

/// A rule may be so loose that a caller's object is empty: then ours stand
/// there without a comma before them.
#[test]
fn an_empty_object_is_filled() {
    let mut draft = draft();
    draft.rules[0].required.clear();
    draft.rules[0].audiences = None;
    let rules = Rules::try_from(draft).unwrap();
    let request = JwtRequest {
        key_set: "main".into(),
        algorithm: None,
        typ: None,
        claims: b"{ }".to_vec(),
    };
    let key = key(Algorithm::Es256, "new");
    let checked = check_jwt(&rules, &caller(1000, 2000), &request, &key, NOW).unwrap();
    let names: Vec<_> = json::members(&checked.payload)
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["iss", "iat", "exp"]);
}

/// Beyond the ceiling is not the caller's fault, beyond the longest lifetime
/// is, and the second is looked at first.
#[test]
fn the_ceiling_is_told_apart_from_the_longest_lifetime() {
    let with = |member: &str, limit: i64| {
        let mut ask = ask(framed(member));
        ask.key.exp_limit = Time::from_secs(limit);
        ask.check()
    };
    let limit = NOW_S + 60;
    with(r#""exp":1800000060"#, limit).unwrap();
    for member in [r#""exp":1800000061"#, r#""exp":1800003600"#, r#""a":1"#] {
        assert!(
            matches!(
                with(member, limit),
                Err(CheckError::CeilingReached { exp_limit, .. }) if exp_limit == Time::from_secs(limit)
            ),
            "{member}"
        );
    }
    let found = refusal(with(r#""exp":1800003601"#, limit), "too far");
    assert_eq!(found.reason, Reason::ExpTooFar);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut draft = draft();
    let mut second = draft.rules[0].clone();
    second.name = "id".into();
    second.typ = vec![Typ::Is("JWT".into()), Typ::Is("logout+jwt".into())];
    second.required = BTreeSet::from(["nonce".into()]);
    draft.rules.push(second);
    let rules = Rules::try_from(draft).unwrap();
    let rule_of = |typ: Option<&str>| {
        let request = JwtRequest {
            key_set: "main".into(),
            algorithm: None,
            typ: typ.map(str::to_owned),
            claims: br#"{"sub":"a","aud":"https://one.example"}"#.to_vec(),
        };
        let key = key(Algorithm::Es256, "new");
        check_jwt(&rules, &caller(1000, 2000), &request, &key, NOW)
    };
    assert_eq!(rule_of(None).unwrap().rule, "api");
    assert_eq!(rule_of(Some("JWT")).unwrap().rule, "api");
    let found = refusal(rule_of(Some("logout+jwt")), "logout+jwt");
    assert_eq!(found.rule, "key_set.main.rule.id.required");
    // The refusal of a third names what either rule allows, once.
    let found = refusal(rule_of(Some("x")), "x");
    assert_eq!(
        found.message,
        r#"expected typ "at+jwt" or "JWT" or "logout+jwt", got another"#
    );
}

/// Nothing is added to a signing input, so what would be must be there.
#[test]
fn an_audience_that_is_none_is_named_for_what_it_is() {
    for (aud, got) in [
        ("[]", "an empty list"),
        ("[ ]", "an empty list"),
        (
            "[\"https://one.example\",1]",
            "a list with something else in it",
        ),
        ("[[]]", "a list with something else in it"),
        ("{}", "an object"),
        ("7", "another number"),
    ] {
        let claims = format!(r#"{{"sub":"a","aud":{aud}}}"#);
        let message = refusal(ask(claims).check(), aud).message;
        let expected = "expected aud to be a string or a list of strings, got";
        assert_eq!(message, format!("{expected} {got}"));
    }
}

/// Found by review: a token was signed that no verifier ever takes.
#[test]
fn a_token_is_valid_for_a_second_at_least() {
    for (twin, hostile, exp) in [
        (
            r#""exp":1800000600,"nbf":1800000599"#,
            r#""exp":1800000600,"nbf":1800000600"#,
            "2027-01-15T08:10:00Z",
        ),
        // Filled in for one call, and by the test for the other.
        (
            r#""nbf":1800000599"#,
            r#""nbf":1800000600"#,
            "2027-01-15T08:10:00Z",
        ),
    ] {
        ask(framed(twin)).check().unwrap();
        input(&complete_claims(&framed(twin))).check().unwrap();
        let refused = [
            refusal(ask(framed(hostile)).check(), hostile),
            refusal(input(&complete_claims(&framed(hostile))).check(), hostile),
        ];
        for refused in refused {
            assert_eq!(refused.rule, "builtin.nbf_before_exp");
            assert_eq!(
                refused.message,
                format!("expected nbf before exp {exp}, got {exp}")
            );
        }
    }
}

#[test]
fn a_signing_input_must_be_complete() {
    for (name, member) in [
        ("iss", r#","iss":"https://issuer.example""#),
        ("iat", r#","iat":1800000000"#),
        ("exp", r#","exp":1800000600"#),
    ] {
        let claims = CLAIMS.replace(member, "");
        assert_ne!(claims, CLAIMS);
        let found = refusal(input(claims.as_bytes()).check(), name);
        assert_eq!(found.reason, Reason::ClaimNotAllowed, "{name}");
        assert_eq!(found.rule, "builtin.complete_claims", "{name}");
        assert!(found.message.contains(name), "{found}");
    }
}

#[test]
fn the_hint_names_the_current_key_of_the_track() {
    let hint = |header: &str, keys: Vec<KeyFacts>| {
        let input = Input {
            keys,
            ..input_of(header, CLAIMS.as_bytes())
        };
        refusal(input.check(), header).hint
    };
    let es = r#"{"alg":"ES256","kid":"gone","typ":"JWT"}"#;
    let rs = r#"{"alg":"RS256","kid":"gone","typ":"JWT"}"#;
    assert_eq!(hint(es, keys()), r#"use kid "new" with alg ES256"#);
    assert_eq!(hint(rs, keys()), r#"use kid "rsa" with alg RS256"#);
    assert_eq!(
        hint(rs, keys()[..1].to_vec()),
        r#"use kid "new" with alg ES256"#
    );
    assert_eq!(hint(es, vec![]), "no key of this key set may sign now");
}

#[test]
fn each_key_has_its_own_ceiling() {
    let mut keys = keys();
    keys[1].exp_limit = Time::from_secs(NOW_S + 599);
    let with = |kid: &str| {
        let header = HEADER.replace("new", kid);
        Input {
            keys: keys.clone(),
            ..input_of(&header, CLAIMS.as_bytes())
        }
        .check()
    };
    with("new").unwrap();
    assert!(matches!(
        with("old"),
        Err(CheckError::CeilingReached { .. })
    ));
}

#[test]
fn a_stranger_gets_no_signature_for_a_signing_input() {
    let stranger = Input {
        uid: 1,
        ..input(CLAIMS.as_bytes())
    };
    assert_eq!(
        refusal(stranger.check(), "stranger").reason,
        Reason::NotAllowed
    );
    let mut only_jwt = draft();
    only_jwt.rules[0].operations = BTreeSet::from([Operation::SignJwt]);
    let only_jwt = Rules::try_from(only_jwt).unwrap();
    let request = JwsRequest {
        key_set: "main".into(),
        signing_input: input(CLAIMS.as_bytes()).text,
    };
    let outcome = check_jws(&only_jwt, &caller(1000, 2000), &request, &keys(), NOW);
    let found = refusal(outcome, "operations");
    assert_eq!(found.rule, "key_set.main.rule.api.operations");
}

/// A header without `typ` needs a rule that says so.
#[test]
fn a_header_without_typ_needs_a_rule_that_says_so() {
    let mut draft = draft();
    draft.rules[0].typ = vec![Typ::Absent];
    let rules = Rules::try_from(draft).unwrap();
    let check = |header: &str| {
        let request = JwsRequest {
            key_set: "main".into(),
            signing_input: input_of(header, CLAIMS.as_bytes()).text,
        };
        check_jws(&rules, &caller(1000, 2000), &request, &keys(), NOW)
    };
    assert_eq!(check(r#"{"alg":"ES256","kid":"new"}"#).unwrap().typ, None);
    let found = refusal(check(HEADER), HEADER);
    assert_eq!(found.message, "expected typ (none), got another");
}

/// Claims are the caller's secret: no refusal repeats a value of theirs.
#[test]
fn refusals_repeat_no_value() {
    let secret = "planted-5e1d";
    for member in [
        format!(r#""iss":"{secret}""#),
        format!(r#""exp":"{secret}""#),
        format!(r#""jti":["{secret}"]"#),
        format!(r#""a":"{secret}","a":"{secret}""#),
        format!(r#""a":"{secret}" "{secret}""#),
        format!(r#""admin":"{secret}""#),
    ] {
        let found = refusal(ask(framed(&member)).check(), &member);
        let shown = format!("{found:?} {found}");
        assert!(!shown.contains(secret), "{member}: {shown}");
    }
    let aud = format!(r#"{{"sub":"a","aud":"{secret}"}}"#);
    assert!(!format!("{:?}", ask(aud).check()).contains(secret));
    for header in [
        format!(r#"{{"alg":"{secret}","kid":"new","typ":"JWT"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{secret}","typ":"JWT"}}"#),
        format!(r#"{{"alg":"ES256","kid":"new","typ":"{secret}"}}"#),
        format!(r#"{{"alg":"ES256","kid":"new","typ":"JWT","{secret}":1}}"#),
    ] {
        let found = refusal(input_of(&header, CLAIMS.as_bytes()).check(), &header);
        let shown = format!("{found:?} {found}");
        assert!(!shown.contains(secret), "{header}: {shown}");
    }
    let accepted = ask(framed(&format!("\"a\":\"{secret}\""))).check().unwrap();
    assert!(!format!("{accepted:?}").contains(secret));
}

/// Claims that are mostly right, so that much of what is generated is
/// accepted.
fn claims() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("1".to_owned()),
        Just("-0.5e3".to_owned()),
        Just("null".to_owned()),
        any::<String>().prop_map(|s| serde_json::Value::from(s).to_string()),
        Just(r#"{ "x" : [ 1 , {} ] }"#.to_owned()),
    ];
    let other = ("[a-f\\\\\"é]{0,3}", value)
        .prop_map(|(name, value)| format!("{} :{value}", serde_json::Value::from(name)));
    let own = proptest::sample::select(vec![
        r#""iss": "https://issuer.example""#.to_owned(),
        r#""iat":1800000000"#.to_owned(),
        r#""iat":1.8e9"#.to_owned(),
        r#""exp":1800000600"#.to_owned(),
        r#""exp":1900000600"#.to_owned(),
        r#""nbf":0"#.to_owned(),
        r#""jti":"j""#.to_owned(),
        r#""\u0065xp":1800000009"#.to_owned(),
    ]);
    let member = prop_oneof![3 => other, 2 => own];
    proptest::collection::vec(member, 0..5).prop_map(|members| {
        let mut all = vec![
            r#""sub":"a""#.to_owned(),
            r#""aud":"https://one.example""#.to_owned(),
        ];
        all.extend(members);
        format!("{{{}}}", all.join(" , "))
    })
}

proptest! {
    #[test]
    fn no_claims_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = ask(bytes.clone()).check();
        let _ = input(&bytes).check();
        let _ = Input { text: bytes, ..input(b"") }.check();
    }

    /// What is accepted reparses to the caller's members, in their order and
    /// byte for byte, and ours, which are right.
    #[test]
    fn accepted_claims_are_the_callers_and_ours(claims in claims()) {
        match ask(claims.clone()).check() {
            Err(CheckError::Refused(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
            Ok(checked) => {
                let before = json::members(claims.as_bytes()).unwrap();
                let after = json::members(&checked.payload).unwrap();
                for (at, (name, value)) in before.iter().enumerate() {
                    prop_assert_eq!(&after[at].0, name);
                    prop_assert_eq!(after[at].1.get(), value.get());
                }
                for (name, _) in &after[before.len()..] {
                    prop_assert!(["iss", "iat", "exp"].contains(&name.as_str()));
                }
                let find = |wanted: &str| after.iter().find(|(name, _)| name == wanted).unwrap().1;
                prop_assert_eq!(json::string(find("iss")).unwrap(), "https://issuer.example");
                let iat: i64 = find("iat").get().parse().unwrap();
                prop_assert_eq!(iat, NOW_S);
                let exp: i64 = find("exp").get().parse().unwrap();
                prop_assert_eq!(Time::from_secs(exp), checked.exp);
                prop_assert!(checked.exp > NOW && checked.exp <= NOW + Span::from_hours(1));
            }
        }
    }
}
