//! Requests that must be refused, each of them one field away from a twin that
//! is accepted.

use super::*;

use Reason::{
    ClaimNotAllowed, DuplicateMember, ExpTooFar, Expired, HeaderNotAllowed, KidNotActive,
    MalformedClaims, MalformedSigningInput, NotAllowed, TooLarge, UnknownAlgorithm,
};

/// Member as in the accepted twin, member as a hostile caller sends it, the
/// reason, the rule. Held against `SignJwt` and, completed with what nothing
/// adds to, `SignJws`.
#[rustfmt::skip]
const MEMBERS: &[(&str, &str, Reason, &str)] = &[
    // Duplicates, however they are spelt.
    (r#""a":1"#, r#""a":1,"a":1"#, DuplicateMember, "builtin.no_duplicate_members"),
    (r#""a":1"#, r#""sub":"bob""#, DuplicateMember, "builtin.no_duplicate_members"),
    (r#""a":1"#, r#""\u0073ub":"bob""#, DuplicateMember, "builtin.no_duplicate_members"),
    (r#""a":{"b":1}"#, r#""a":{"b":1,"b":2}"#, DuplicateMember, "builtin.no_duplicate_members"),
    (r#""a":[{"b":1}]"#, r#""a":[{"b":1,"\u0062":2}]"#, DuplicateMember, "builtin.no_duplicate_members"),
    // What is not one JSON object.
    (r#""a":1"#, r#""a":1,"#, MalformedClaims, "builtin.one_json_object"),
    (r#""a":1"#, r#""a":01"#, MalformedClaims, "builtin.one_json_object"),
    (r#""a":1"#, r#""a":NaN"#, MalformedClaims, "builtin.one_json_object"),
    (r#""a":1"#, r#"'a':1"#, MalformedClaims, "builtin.one_json_object"),
    (r#""a":1"#, r#"a:1"#, MalformedClaims, "builtin.one_json_object"),
    (r#""a":1"#, r#""a":1/*x*/"#, MalformedClaims, "builtin.one_json_object"),
    (r#""a":1"#, r#""a":1} {"b":2"#, MalformedClaims, "builtin.one_json_object"),
    (r#""a":"\ud83d\ude00""#, r#""a":"\ud83d""#, MalformedClaims, "builtin.one_json_object"),
    (r#""a":"\n""#, "\"a\":\"\n\"", MalformedClaims, "builtin.one_json_object"),
    (r#""a":[[]]"#, r#""a":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"#, MalformedClaims, "builtin.one_json_object"),
    // The issuer is the key set's.
    (r#""iss":"https://issuer.example""#, r#""iss":"https://other.example""#, ClaimNotAllowed, "key_set.main.issuer"),
    (r#""iss":"https://issuer.example""#, r#""iss":"https://issuer.example/""#, ClaimNotAllowed, "key_set.main.issuer"),
    (r#""iss":"https://issuer.example""#, r#""iss":"HTTPS://issuer.example""#, ClaimNotAllowed, "key_set.main.issuer"),
    (r#""iss":"https://issuer.example""#, r#""iss":["https://issuer.example"]"#, ClaimNotAllowed, "key_set.main.issuer"),
    (r#""iss":"https://issuer.example""#, r#""iss":null"#, ClaimNotAllowed, "key_set.main.issuer"),
    (r#""iss":"https://issuer.example""#, r#""\u0069ss":"https://other.example""#, ClaimNotAllowed, "key_set.main.issuer"),
    // Dates are integers, in seconds.
    (r#""exp":1800000600"#, r#""exp":"1800000600""#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""exp":1800000600"#, r#""exp":1800000600.0"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""exp":1800000600"#, r#""exp":1.8000006e9"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""exp":1800000600"#, r#""exp":18000006E2"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""exp":1800000600"#, r#""exp":null"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""exp":1800000600"#, r#""exp":[1800000600]"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""exp":1800000600"#, r#""exp":true"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""iat":1800000000"#, r#""iat":"1800000000""#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""iat":1800000000"#, r#""iat":1800000000.25"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""iat":1800000000"#, r#""iat":1.8e9"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":"0""#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":0.0"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":-0"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":0e0"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":{}"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""nbf":-9007199254740991"#, r#""nbf":-9007199254740992"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":9007199254740992"#, ClaimNotAllowed, "builtin.integer_dates"),
    (r#""nbf":-1"#, r#""nbf":-99999999999999999999"#, ClaimNotAllowed, "builtin.integer_dates"),
    // `nbf` against `exp`, which is 1800000600 where none is given.
    (r#""exp":1800000060,"nbf":1800000059"#, r#""exp":1800000060,"nbf":1800000060"#, ClaimNotAllowed, "builtin.nbf_before_exp"),
    (r#""nbf":1800000060,"exp":1800000061"#, r#""nbf":1800000062,"exp":1800000061"#, ClaimNotAllowed, "builtin.nbf_before_exp"),
    (r#""nbf":1800000599"#, r#""nbf":1800000600"#, ClaimNotAllowed, "builtin.nbf_before_exp"),
    (r#""nbf":0"#, r#""nbf":9007199254740991"#, ClaimNotAllowed, "builtin.nbf_before_exp"),
    (r#""exp":1800000060,"iat":1800000059"#, r#""exp":1800000060,"iat":1800000060"#, ClaimNotAllowed, "builtin.iat_before_exp"),
    (r#""iat":1800000059,"exp":1800000060"#, r#""iat":1800000061,"exp":1800000060"#, ClaimNotAllowed, "builtin.iat_before_exp"),
    // `exp` against the clock: NOW is 1800000000.250.
    (r#""exp":1800000001"#, r#""exp":1800000000"#, Expired, "builtin.not_expired"),
    (r#""exp":1800000001"#, r#""exp":0"#, Expired, "builtin.not_expired"),
    (r#""exp":1800000001"#, r#""exp":-1800000001"#, Expired, "builtin.not_expired"),
    (r#""exp":1800000001"#, r#""exp":-9223372036854775809"#, Expired, "builtin.not_expired"),
    (r#""exp":1800003600"#, r#""exp":1800003601"#, ExpTooFar, "key_set.main.max_token_lifetime"),
    (r#""exp":1800003600"#, r#""exp":1800003600000"#, ExpTooFar, "key_set.main.max_token_lifetime"),
    (r#""exp":1800003600"#, r#""exp":9223372036854775807"#, ExpTooFar, "key_set.main.max_token_lifetime"),
    (r#""exp":1800003600"#, r#""exp":99999999999999999999999"#, ExpTooFar, "key_set.main.max_token_lifetime"),
    // `iat` against the clock.
    (r#""iat":1799999701"#, r#""iat":1799999700"#, ClaimNotAllowed, "key_set.main.skew"),
    (r#""iat":1800000300"#, r#""iat":1800000301"#, ClaimNotAllowed, "key_set.main.skew"),
    (r#""iat":1800000000"#, r#""iat":0"#, ClaimNotAllowed, "key_set.main.skew"),
    (r#""iat":1800000000"#, r#""iat":1800000000000"#, ClaimNotAllowed, "key_set.main.skew"),
    (r#""iat":1800000000"#, r#""iat":99999999999999999999"#, ClaimNotAllowed, "key_set.main.skew"),
    (r#""iat":1800000000"#, r#""iat":-99999999999999999999"#, ClaimNotAllowed, "key_set.main.skew"),
    // The types of registered claims.
    (r#""jti":"1""#, r#""jti":1"#, ClaimNotAllowed, "builtin.registered_claims"),
    (r#""jti":"1""#, r#""jti":null"#, ClaimNotAllowed, "builtin.registered_claims"),
    // What the rule forbids, however it is spelt.
    (r#""admi":true"#, r#""admin":true"#, ClaimNotAllowed, "key_set.main.rule.api.forbidden"),
    (r#""admi":true"#, r#""\u0061dmin":true"#, ClaimNotAllowed, "key_set.main.rule.api.forbidden"),
    (r#""admi":null"#, r#""admin":null"#, ClaimNotAllowed, "key_set.main.rule.api.forbidden"),
];

/// Claims as in the accepted twin and as a hostile caller sends them.
#[rustfmt::skip]
const WHOLES: &[(&str, &str, Reason, &str)] = &[
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#"[{"sub":"a","aud":"https://one.example"}]"#, MalformedClaims, "builtin.one_json_object"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#""sub""#, MalformedClaims, "builtin.one_json_object"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, "null", MalformedClaims, "builtin.one_json_object"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, "", MalformedClaims, "builtin.one_json_object"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#"{"sub":"a","aud":"https://one.example""#, MalformedClaims, "builtin.one_json_object"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#"{"sub":"a","aud":"https://one.example"}}"#, MalformedClaims, "builtin.one_json_object"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, "\u{feff}{\"sub\":\"a\",\"aud\":\"https://one.example\"}", MalformedClaims, "builtin.one_json_object"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, "{\"sub\":\"a\",\"aud\":\"https://one.example\"}\0", MalformedClaims, "builtin.one_json_object"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#"{"aud":"https://one.example"}"#, ClaimNotAllowed, "key_set.main.rule.api.required"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#"{"sub":null,"aud":"https://one.example"}"#, ClaimNotAllowed, "key_set.main.rule.api.required"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#"{"sub":7,"aud":"https://one.example"}"#, ClaimNotAllowed, "builtin.registered_claims"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#"{"sub":"a"}"#, ClaimNotAllowed, "key_set.main.rule.api.audiences"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#"{"sub":"a","aud":"https://one.example/"}"#, ClaimNotAllowed, "key_set.main.rule.api.audiences"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#"{"sub":"a","aud":"https://one.exampl"}"#, ClaimNotAllowed, "key_set.main.rule.api.audiences"),
    (r#"{"sub":"a","aud":"https://one.example"}"#, r#"{"sub":"a","aud":""}"#, ClaimNotAllowed, "key_set.main.rule.api.audiences"),
    (r#"{"sub":"a","aud":"https://many.example/x"}"#, r#"{"sub":"a","aud":"https://many.example.evil/x"}"#, ClaimNotAllowed, "key_set.main.rule.api.audiences"),
    (r#"{"sub":"a","aud":["https://one.example"]}"#, r#"{"sub":"a","aud":["https://one.example","https://two.example"]}"#, ClaimNotAllowed, "key_set.main.rule.api.audiences"),
    (r#"{"sub":"a","aud":["https://one.example"]}"#, r#"{"sub":"a","aud":[]}"#, ClaimNotAllowed, "builtin.registered_claims"),
    (r#"{"sub":"a","aud":["https://one.example"]}"#, r#"{"sub":"a","aud":["https://one.example",1]}"#, ClaimNotAllowed, "builtin.registered_claims"),
    (r#"{"sub":"a","aud":["https://one.example"]}"#, r#"{"sub":"a","aud":{"0":"https://one.example"}}"#, ClaimNotAllowed, "builtin.registered_claims"),
    (r#"{"sub":"a","aud":["https://one.example"]}"#, r#"{"sub":"a","aud":null}"#, ClaimNotAllowed, "builtin.registered_claims"),
];

#[test]
fn hostile_claims_are_refused_where_their_twins_are_accepted() {
    let members = MEMBERS
        .iter()
        .map(|(twin, hostile, reason, rule)| (framed(twin), framed(hostile), reason, rule));
    let wholes = WHOLES.iter().map(|(twin, hostile, reason, rule)| {
        (
            twin.as_bytes().to_vec(),
            hostile.as_bytes().to_vec(),
            reason,
            rule,
        )
    });
    let mut seen = 0;
    for (twin, hostile, reason, rule) in members.chain(wholes) {
        let name = String::from_utf8_lossy(&hostile).into_owned();
        ask(twin.clone())
            .check()
            .unwrap_or_else(|e| panic!("the twin of {name}: {e}"));
        let found = refusal(ask(hostile.clone()).check(), &name);
        assert_eq!(
            (found.reason, found.rule.as_str()),
            (*reason, *rule),
            "{name}"
        );
        assert!(!found.hint.is_empty(), "{name}");

        // The same claims in a signing input, completed where they can be.
        input(&complete_claims(&twin))
            .check()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let found = refusal(input(&complete_claims(&hostile)).check(), &name);
        assert_eq!(
            (found.reason, found.rule.as_str()),
            (*reason, *rule),
            "{name}"
        );
        seen += 1;
    }
    assert!(seen >= 60, "expected at least 60 cases, got {seen}");
}

#[test]
fn hostile_bytes_are_refused() {
    let twin = framed(r#""a":"x""#);
    let mut not_utf8 = twin.clone();
    let at = twin.len() - 3;
    not_utf8[at] = 0xff;
    ask(twin).check().unwrap();
    assert_eq!(
        refusal(ask(not_utf8).check(), "0xff").reason,
        MalformedClaims
    );
}

#[test]
fn hostile_requests_are_refused_where_their_twins_are_accepted() {
    type Change = fn(&mut Ask);
    let cases: &[(&str, Change, Reason, &str)] = &[
        (
            "another uid",
            |a| a.uid = 1001,
            NotAllowed,
            "key_set.main.rule",
        ),
        ("root", |a| a.uid = 0, NotAllowed, "key_set.main.rule"),
        (
            "another gid",
            |a| a.gid = 2001,
            NotAllowed,
            "key_set.main.rule",
        ),
        (
            "ids swapped",
            |a| (a.uid, a.gid) = (2000, 1000),
            NotAllowed,
            "key_set.main.rule",
        ),
        (
            "a track that the rule does not name",
            |a| a.key.algorithm = Algorithm::Ps256,
            NotAllowed,
            "key_set.main.rule.api.algorithms",
        ),
        (
            "an algorithm that is not the key's",
            |a| a.algorithm = Some(Algorithm::Rs256),
            UnknownAlgorithm,
            "key_set.main.track",
        ),
        (
            "another typ",
            |a| a.typ = Some("secevent+jwt"),
            HeaderNotAllowed,
            "key_set.main.rule.api.typ",
        ),
        (
            "another case",
            |a| a.typ = Some("jwt"),
            HeaderNotAllowed,
            "key_set.main.rule.api.typ",
        ),
        (
            "an empty typ",
            |a| a.typ = Some(""),
            HeaderNotAllowed,
            "key_set.main.rule.api.typ",
        ),
        (
            "the long form",
            |a| a.typ = Some("application/at+jwt"),
            HeaderNotAllowed,
            "key_set.main.rule.api.typ",
        ),
        (
            "a typ that breaks out of its quotes",
            |a| a.typ = Some(r#"JWT","x":"y"#),
            HeaderNotAllowed,
            "key_set.main.rule.api.typ",
        ),
        (
            "more bytes than the key set allows",
            |a| a.claims.resize(1025, b' '),
            TooLarge,
            "key_set.main.max_payload",
        ),
    ];
    let twin = Ask {
        typ: Some("JWT"),
        algorithm: Some(Algorithm::Es256),
        ..ask(framed(r#""a":1"#))
    };
    twin.check().unwrap();
    for (name, change, reason, rule) in cases {
        let mut hostile = twin.clone();
        change(&mut hostile);
        // An algorithm that the caller leaves open, where the key is another.
        if hostile.key.algorithm != Algorithm::Es256 {
            hostile.algorithm = None;
        }
        let found = refusal(hostile.check(), name);
        assert_eq!(
            (found.reason, found.rule.as_str()),
            (*reason, *rule),
            "{name}"
        );
    }
}

/// Headers of signing inputs; the twin is [`HEADER`].
#[rustfmt::skip]
const HEADERS: &[(&str, Reason, &str)] = &[
    (r#"{"alg":"RS256","kid":"new","typ":"JWT"}"#, HeaderNotAllowed, "builtin.alg_is_the_keys"),
    (r#"{"alg":"ES384","kid":"new","typ":"JWT"}"#, NotAllowed, "key_set.main.rule.api.algorithms"),
    (r#"{"alg":"none","kid":"new","typ":"JWT"}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"HS256","kid":"new","typ":"JWT"}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"es256","kid":"new","typ":"JWT"}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":["ES256"],"kid":"new","typ":"JWT"}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"kid":"new","typ":"JWT"}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"gone","typ":"JWT"}"#, KidNotActive, "builtin.kid_is_active"),
    (r#"{"alg":"ES256","kid":"","typ":"JWT"}"#, KidNotActive, "builtin.kid_is_active"),
    (r#"{"alg":"ES256","kid":"New","typ":"JWT"}"#, KidNotActive, "builtin.kid_is_active"),
    (r#"{"alg":"ES256","typ":"JWT"}"#, KidNotActive, "builtin.kid_is_active"),
    (r#"{"alg":"ES256","kid":7,"typ":"JWT"}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"ES256","kid":null,"typ":"JWT"}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"new"}"#, HeaderNotAllowed, "key_set.main.rule.api.typ"),
    (r#"{"alg":"ES256","kid":"new","typ":"jwt"}"#, HeaderNotAllowed, "key_set.main.rule.api.typ"),
    (r#"{"alg":"ES256","kid":"new","typ":"application/JWT"}"#, HeaderNotAllowed, "key_set.main.rule.api.typ"),
    (r#"{"alg":"ES256","kid":"new","typ":1}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"new","typ":"JWT","crit":["b64"]}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"new","typ":"JWT","b64":false}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"new","typ":"JWT","jku":"https://evil.example"}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"new","typ":"JWT","jwk":{}}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"new","typ":"JWT","x5c":[]}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"new","typ":"JWT","cty":"JWT"}"#, HeaderNotAllowed, "builtin.header_members"),
    (r#"{"alg":"ES256","alg":"ES256","kid":"new","typ":"JWT"}"#, DuplicateMember, "builtin.no_duplicate_members"),
    (r#"{"alg":"ES256","kid":"new","\u006bid":"old","typ":"JWT"}"#, DuplicateMember, "builtin.no_duplicate_members"),
    (r#"{"alg":"ES256","kid":"new","typ":"JWT""#, MalformedSigningInput, "builtin.signing_input"),
    (r#"["ES256"]"#, MalformedSigningInput, "builtin.signing_input"),
    ("", MalformedSigningInput, "builtin.signing_input"),
];

#[test]
fn hostile_headers_are_refused_where_their_twin_is_accepted() {
    input(CLAIMS.as_bytes()).check().unwrap();
    for (header, reason, rule) in HEADERS {
        let found = refusal(input_of(header, CLAIMS.as_bytes()).check(), header);
        assert_eq!(
            (found.reason, found.rule.as_str()),
            (*reason, *rule),
            "{header}"
        );
    }
}

#[test]
fn hostile_encodings_are_refused_where_their_twin_is_accepted() {
    // Lengths are chosen so that each part has spare bits to play with.
    let header = base64url::encode(HEADER.as_bytes());
    let claims = CLAIMS.replace("\"a\"", "\"abc\"");
    let payload = base64url::encode(claims.as_bytes());
    assert_ne!(payload.len() % 4, 0);
    let twin = format!("{header}.{payload}");
    let check = |text: &str| {
        let text = text.as_bytes().to_vec();
        Input { text, ..input(b"") }.check()
    };
    check(&twin).unwrap();
    let last = payload.chars().next_back().unwrap();
    let spare = char::from_u32(u32::from(last) + 1).unwrap();
    let respelt = format!("{header}.{}{spare}", &payload[..payload.len() - 1]);
    for text in [
        format!("{header}.{payload}="),
        format!("{header}=.{payload}"),
        respelt,
        format!("{header}.{payload}."),
        format!(".{header}.{payload}"),
        format!("{header}.{payload}.{payload}"),
        format!("{header}{payload}"),
        format!("{header}..{payload}"),
        format!(" {twin}"),
        format!("{twin}\n"),
        format!("{header}.\r\n{payload}"),
        twin.replacen('.', "\u{ff0e}", 1),
        header.clone(),
        ".".into(),
        String::new(),
    ] {
        let found = refusal(check(&text), &text);
        assert_eq!(found.reason, MalformedSigningInput, "{text}");
        assert_eq!(found.rule, "builtin.signing_input", "{text}");
    }
    let padded = format!("{CLAIMS}{}", " ".repeat(1025 - CLAIMS.len()));
    let just = refusal(input(padded.as_bytes()).check(), "one byte too many");
    assert_eq!(just.reason, TooLarge);
    input(&padded.as_bytes()[..1024]).check().unwrap();
    let huge = refusal(check(&"A".repeat(100_000)), "huge");
    assert_eq!(
        (huge.reason, huge.rule.as_str()),
        (TooLarge, "key_set.main.max_payload")
    );
}
