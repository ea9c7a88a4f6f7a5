//! Long because: the table of hostile requests wants to be read as a whole.
//!
//! Requests that must be refused, over gRPC and through the whole agent. Each
//! differs in one field from a twin that is signed, is refused for the right
//! reason by the right rule, and never reaches the device: between the agent
//! and the token sits OpenSC's `pkcs11-spy`, which writes each call down.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::api::v1::{SignJwsRequest, SignJwtRequest};
use sealkeeper::jose::base64url;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use super::lab::{CALM, Lab, PATIENCE, softhsm_module, wait_for};
use crate::debian;

/// A member of the claims as in the accepted twin, as a hostile caller sends
/// it, the reason, the rule. `<N>` is a date N seconds from now. Each goes
/// into `SignJwt` and, completed with what nothing adds to, `SignJws`.
#[rustfmt::skip]
const MEMBERS: &[(&str, &str, &str, &str)] = &[
    // Duplicates, however they are spelt.
    (r#""a":1"#, r#""a":1,"a":1"#, "DUPLICATE_MEMBER", "builtin.no_duplicate_members"),
    (r#""a":1"#, r#""sub":"bob""#, "DUPLICATE_MEMBER", "builtin.no_duplicate_members"),
    (r#""a":1"#, r#""\u0073ub":"bob""#, "DUPLICATE_MEMBER", "builtin.no_duplicate_members"),
    (r#""a":{"b":1}"#, r#""a":{"b":1,"b":2}"#, "DUPLICATE_MEMBER", "builtin.no_duplicate_members"),
    (r#""a":[{"b":1}]"#, r#""a":[{"b":1,"\u0062":2}]"#, "DUPLICATE_MEMBER", "builtin.no_duplicate_members"),
    // What is not one JSON object.
    (r#""a":1"#, r#""a":1,"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":1"#, r#""a":01"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":1"#, r#""a":+1"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":1"#, r#""a":NaN"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":1"#, r#""a":Infinity"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":1"#, r#"'a':1"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":1"#, r#"a:1"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":1"#, r#""a":1/*x*/"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":1"#, r#""a":1} {"b":2"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":true"#, r#""a":True"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":"\ud83d\ude00""#, r#""a":"\ud83d""#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":"\n""#, "\"a\":\"\n\"", "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":"\n""#, r#""a":"\x0a""#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    (r#""a":[[]]"#, r#""a":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"#, "MALFORMED_CLAIMS", "builtin.one_json_object"),
    // The issuer is the key set's.
    (r#""iss":"https://lab.example""#, r#""iss":"https://other.example""#, "CLAIM_NOT_ALLOWED", "key_set.main.issuer"),
    (r#""iss":"https://lab.example""#, r#""iss":"https://lab.example/""#, "CLAIM_NOT_ALLOWED", "key_set.main.issuer"),
    (r#""iss":"https://lab.example""#, r#""iss":"HTTPS://lab.example""#, "CLAIM_NOT_ALLOWED", "key_set.main.issuer"),
    (r#""iss":"https://lab.example""#, r#""iss":["https://lab.example"]"#, "CLAIM_NOT_ALLOWED", "key_set.main.issuer"),
    (r#""iss":"https://lab.example""#, r#""iss":null"#, "CLAIM_NOT_ALLOWED", "key_set.main.issuer"),
    // Dates are integers, in seconds.
    (r#""exp":<600>"#, r#""exp":"<600>""#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""exp":<600>"#, r#""exp":<600>.0"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""exp":<600>"#, r#""exp":<600>e0"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""exp":<600>"#, r#""exp":null"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""exp":<600>"#, r#""exp":[<600>]"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""exp":<600>"#, r#""exp":true"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""iat":<0>"#, r#""iat":"<0>""#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""iat":<0>"#, r#""iat":<0>.25"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""iat":<0>"#, r#""iat":<0>E0"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":"0""#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":0.0"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":-0"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":0e0"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":{}"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""nbf":-9007199254740991"#, r#""nbf":-9007199254740992"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    (r#""nbf":0"#, r#""nbf":9007199254740992"#, "CLAIM_NOT_ALLOWED", "builtin.integer_dates"),
    // No instant lies between `nbf` and `exp`.
    (r#""exp":<600>,"nbf":<540>"#, r#""exp":<600>,"nbf":<600>"#, "CLAIM_NOT_ALLOWED", "builtin.nbf_before_exp"),
    (r#""exp":<600>,"nbf":<540>"#, r#""exp":<600>,"nbf":9007199254740991"#, "CLAIM_NOT_ALLOWED", "builtin.nbf_before_exp"),
    (r#""nbf":<540>"#, r#""nbf":<1860>"#, "CLAIM_NOT_ALLOWED", "builtin.nbf_before_exp"),
    (r#""exp":<120>,"iat":<60>"#, r#""exp":<120>,"iat":<180>"#, "CLAIM_NOT_ALLOWED", "builtin.iat_before_exp"),
    // Dates against the clock, a minute off the edge: it runs.
    (r#""exp":<60>"#, r#""exp":<-60>"#, "EXPIRED", "builtin.not_expired"),
    (r#""exp":<60>"#, r#""exp":0"#, "EXPIRED", "builtin.not_expired"),
    (r#""exp":<60>"#, r#""exp":-<60>"#, "EXPIRED", "builtin.not_expired"),
    (r#""exp":<1740>"#, r#""exp":<1860>"#, "EXP_TOO_FAR", "key_set.main.rule.api.max_lifetime"),
    (r#""exp":<1740>"#, r#""exp":<1740>000"#, "EXP_TOO_FAR", "key_set.main.rule.api.max_lifetime"),
    (r#""exp":<1740>"#, r#""exp":9223372036854775807"#, "EXP_TOO_FAR", "key_set.main.rule.api.max_lifetime"),
    (r#""exp":<1740>"#, r#""exp":99999999999999999999999"#, "EXP_TOO_FAR", "key_set.main.rule.api.max_lifetime"),
    (r#""iat":<-240>"#, r#""iat":<-360>"#, "CLAIM_NOT_ALLOWED", "key_set.main.skew"),
    (r#""iat":<240>"#, r#""iat":<360>"#, "CLAIM_NOT_ALLOWED", "key_set.main.skew"),
    (r#""iat":<0>"#, r#""iat":0"#, "CLAIM_NOT_ALLOWED", "key_set.main.skew"),
    (r#""iat":<0>"#, r#""iat":<0>000"#, "CLAIM_NOT_ALLOWED", "key_set.main.skew"),
    // The types of registered claims.
    (r#""jti":"1""#, r#""jti":1"#, "CLAIM_NOT_ALLOWED", "builtin.registered_claims"),
    (r#""jti":"1""#, r#""jti":null"#, "CLAIM_NOT_ALLOWED", "builtin.registered_claims"),
    // What the rule forbids, however it is spelt.
    (r#""admi":true"#, r#""admin":true"#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.forbidden"),
    (r#""admi":true"#, r#""\u0061dmin":true"#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.forbidden"),
    (r#""admi":null"#, r#""admin":null"#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.forbidden"),
];

/// `sub` and `aud` as in the accepted twin and as a hostile caller sends them.
#[rustfmt::skip]
const SUBJECTS: &[(&str, &str, &str, &str)] = &[
    (r#""sub":"a","aud":"https://one.example""#, r#""aud":"https://one.example""#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.required"),
    (r#""sub":"a","aud":"https://one.example""#, r#""sub":null,"aud":"https://one.example""#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.required"),
    (r#""sub":"a","aud":"https://one.example""#, r#""sub":7,"aud":"https://one.example""#, "CLAIM_NOT_ALLOWED", "builtin.registered_claims"),
    (r#""sub":"a","aud":"https://one.example""#, r#""sub":"a""#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.audiences"),
    (r#""sub":"a","aud":"https://one.example""#, r#""sub":"a","aud":"https://one.example/""#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.audiences"),
    (r#""sub":"a","aud":"https://one.example""#, r#""sub":"a","aud":"https://one.exampl""#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.audiences"),
    (r#""sub":"a","aud":"https://one.example""#, r#""sub":"a","aud":"""#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.audiences"),
    (r#""sub":"a","aud":"https://many.example/x""#, r#""sub":"a","aud":"https://many.example.evil/x""#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.audiences"),
    (r#""sub":"a","aud":["https://one.example"]"#, r#""sub":"a","aud":["https://one.example","https://two.example"]"#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.api.audiences"),
    (r#""sub":"a","aud":["https://one.example"]"#, r#""sub":"a","aud":[]"#, "CLAIM_NOT_ALLOWED", "builtin.registered_claims"),
    (r#""sub":"a","aud":["https://one.example"]"#, r#""sub":"a","aud":["https://one.example",1]"#, "CLAIM_NOT_ALLOWED", "builtin.registered_claims"),
    (r#""sub":"a","aud":["https://one.example"]"#, r#""sub":"a","aud":{"0":"https://one.example"}"#, "CLAIM_NOT_ALLOWED", "builtin.registered_claims"),
    (r#""sub":"a","aud":["https://one.example"]"#, r#""sub":"a","aud":null"#, "CLAIM_NOT_ALLOWED", "builtin.registered_claims"),
];

/// Headers of signing inputs; the twin's is `HEADER`. `KID` is the active key,
/// `STANDBY` the published one after it, `OTHER` the active key of another
/// key set.
const HEADER: &str = r#"{"alg":"ES256","kid":"KID","typ":"JWT"}"#;

#[rustfmt::skip]
const HEADERS: &[(&str, &str, &str)] = &[
    (r#"{"alg":"Ed25519","kid":"KID","typ":"JWT"}"#, "HEADER_NOT_ALLOWED", "builtin.alg_is_the_keys"),
    (r#"{"alg":"ES384","kid":"KID","typ":"JWT"}"#, "NOT_ALLOWED", "key_set.main.rule.api.algorithms"),
    (r#"{"alg":"none","kid":"KID","typ":"JWT"}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"HS256","kid":"KID","typ":"JWT"}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"es256","kid":"KID","typ":"JWT"}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":["ES256"],"kid":"KID","typ":"JWT"}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"kid":"KID","typ":"JWT"}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"gone","typ":"JWT"}"#, "KID_NOT_ACTIVE", "builtin.kid_is_active"),
    (r#"{"alg":"ES256","kid":"STANDBY","typ":"JWT"}"#, "KID_NOT_ACTIVE", "builtin.kid_is_active"),
    (r#"{"alg":"ES256","kid":"OTHER","typ":"JWT"}"#, "KID_NOT_ACTIVE", "builtin.kid_is_active"),
    (r#"{"alg":"ES256","kid":"","typ":"JWT"}"#, "KID_NOT_ACTIVE", "builtin.kid_is_active"),
    (r#"{"alg":"ES256","kid":" KID","typ":"JWT"}"#, "KID_NOT_ACTIVE", "builtin.kid_is_active"),
    (r#"{"alg":"ES256","typ":"JWT"}"#, "KID_NOT_ACTIVE", "builtin.kid_is_active"),
    (r#"{"alg":"ES256","kid":7,"typ":"JWT"}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"ES256","kid":null,"typ":"JWT"}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"KID"}"#, "HEADER_NOT_ALLOWED", "key_set.main.rule.api.typ"),
    (r#"{"alg":"ES256","kid":"KID","typ":"jwt"}"#, "HEADER_NOT_ALLOWED", "key_set.main.rule.api.typ"),
    (r#"{"alg":"ES256","kid":"KID","typ":"application/JWT"}"#, "HEADER_NOT_ALLOWED", "key_set.main.rule.api.typ"),
    (r#"{"alg":"ES256","kid":"KID","typ":1}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"KID","typ":"at+jwt"}"#, "CLAIM_NOT_ALLOWED", "key_set.main.rule.access.preset"),
    (r#"{"alg":"ES256","kid":"KID","typ":"JWT","crit":["b64"]}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"KID","typ":"JWT","b64":false}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"KID","typ":"JWT","jku":"https://evil.example"}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"KID","typ":"JWT","jwk":{}}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"KID","typ":"JWT","x5c":[]}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"ES256","kid":"KID","typ":"JWT","cty":"JWT"}"#, "HEADER_NOT_ALLOWED", "builtin.header_members"),
    (r#"{"alg":"ES256","alg":"ES256","kid":"KID","typ":"JWT"}"#, "DUPLICATE_MEMBER", "builtin.no_duplicate_members"),
    (r#"{"alg":"ES256","kid":"KID","\u006bid":"KID","typ":"JWT"}"#, "DUPLICATE_MEMBER", "builtin.no_duplicate_members"),
    (r#"{"alg":"ES256","kid":"KID","typ":"JWT""#, "MALFORMED_SIGNING_INPUT", "builtin.signing_input"),
    (r#"["ES256"]"#, "MALFORMED_SIGNING_INPUT", "builtin.signing_input"),
    ("", "MALFORMED_SIGNING_INPUT", "builtin.signing_input"),
];

/// Either call.
#[derive(Clone)]
enum Ask {
    Jwt(SignJwtRequest),
    Jws(SignJwsRequest),
}

/// A request, the twin that is accepted, and what the refusal says.
struct Case {
    twin: Ask,
    hostile: Ask,
    reason: &'static str,
    rule: &'static str,
}

/// Who signs, for the tables' placeholders.
struct Kids {
    active: String,
    standby: String,
    other: String,
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// Puts dates where `<N>` stands.
fn dated(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        let (offset, after) = after.split_once('>').unwrap();
        out.push_str(before);
        out.push_str(&(now() + offset.parse::<i64>().unwrap()).to_string());
        rest = after;
    }
    out + rest
}

fn jwt(claims: impl Into<Vec<u8>>) -> SignJwtRequest {
    SignJwtRequest {
        key_set: "main".into(),
        claims: claims.into(),
        alg: Some("ES256".into()),
        typ: Some("JWT".into()),
    }
}

/// A signing input; what nobody adds to it is added here, unless the text
/// speaks of it.
fn jws(kids: &Kids, header: &str, claims: &[u8]) -> SignJwsRequest {
    let header = header
        .replace("KID", &kids.active)
        .replace("STANDBY", &kids.standby)
        .replace("OTHER", &kids.other);
    let mut claims = claims.to_vec();
    for (name, member) in [
        ("\"iss\"", r#""iss":"https://lab.example","#.to_owned()),
        ("\"iat\"", format!(r#""iat":{},"#, now())),
        ("\"exp\"", format!(r#""exp":{},"#, now() + 600)),
    ] {
        let text = String::from_utf8_lossy(&claims);
        if claims.first() == Some(&b'{') && !text.contains(name) {
            claims.splice(1..1, member.into_bytes());
        }
    }
    let input = [header.as_bytes(), &claims]
        .map(base64url::encode)
        .join(".");
    SignJwsRequest {
        key_set: "main".into(),
        signing_input: input.into_bytes(),
    }
}

const PLAIN: &str = r#"{"sub":"a","aud":"https://one.example","a":1}"#;

fn claims_cases(kids: &Kids) -> Vec<Case> {
    let members = MEMBERS.iter().map(|(twin, hostile, reason, rule)| {
        let frame = |member| {
            dated(&format!(
                r#"{{"sub":"a","aud":"https://one.example",{member}}}"#
            ))
        };
        (frame(twin), frame(hostile), *reason, *rule)
    });
    let subjects = SUBJECTS.iter().map(|(twin, hostile, reason, rule)| {
        (
            format!("{{{twin}}}"),
            format!("{{{hostile}}}"),
            *reason,
            *rule,
        )
    });
    let wholes = [
        format!("[{PLAIN}]"),
        "\"sub\"".into(),
        "null".into(),
        String::new(),
        PLAIN[..PLAIN.len() - 1].into(),
        format!("{PLAIN}}}"),
        format!("\u{feff}{PLAIN}"),
        format!("{PLAIN}\0"),
    ]
    .map(|hostile| {
        let rule = "builtin.one_json_object";
        (PLAIN.to_owned(), hostile, "MALFORMED_CLAIMS", rule)
    });
    let mut cases = Vec::new();
    for (twin, hostile, reason, rule) in members.chain(subjects).chain(wholes) {
        cases.push(Case {
            twin: Ask::Jwt(jwt(&*twin)),
            hostile: Ask::Jwt(jwt(&*hostile)),
            reason,
            rule,
        });
        cases.push(Case {
            twin: Ask::Jws(jws(kids, HEADER, twin.as_bytes())),
            hostile: Ask::Jws(jws(kids, HEADER, hostile.as_bytes())),
            reason,
            rule,
        });
    }
    let mut not_utf8 = PLAIN.as_bytes().to_vec();
    not_utf8[9] = 0xff;
    cases.push(Case {
        twin: Ask::Jwt(jwt(PLAIN)),
        hostile: Ask::Jwt(jwt(not_utf8)),
        reason: "MALFORMED_CLAIMS",
        rule: "builtin.one_json_object",
    });
    cases
}

fn header_cases(kids: &Kids) -> Vec<Case> {
    let twin = || Ask::Jws(jws(kids, HEADER, PLAIN.as_bytes()));
    let headers = HEADERS.iter().map(|(header, reason, rule)| Case {
        twin: twin(),
        hostile: Ask::Jws(jws(kids, header, PLAIN.as_bytes())),
        reason,
        rule,
    });
    headers.collect()
}

/// Spellings of one signing input that are not the one.
fn encoding_cases(kids: &Kids) -> Vec<Case> {
    // Lengths are chosen so that the payload has spare bits to play with.
    let twin = (0..3)
        .map(|n| {
            let padded = PLAIN.replace("\"a\",", &format!("\"{}\",", "a".repeat(n + 1)));
            let twin = jws(kids, HEADER, padded.as_bytes());
            String::from_utf8(twin.signing_input).unwrap()
        })
        .find(|input| input.split('.').nth(1).unwrap().len() % 4 != 0)
        .unwrap();
    let (header, payload) = twin.split_once('.').unwrap();
    let last = payload.chars().next_back().unwrap();
    let spare = char::from_u32(u32::from(last) + 1).unwrap();
    let input = |text: &str| {
        Ask::Jws(SignJwsRequest {
            key_set: "main".into(),
            signing_input: text.into(),
        })
    };
    [
        format!("{header}.{payload}="),
        format!("{header}=.{payload}"),
        format!("{header}.{}{spare}", &payload[..payload.len() - 1]),
        format!("{header}.{payload}."),
        format!(".{header}.{payload}"),
        format!("{header}.{payload}.{payload}"),
        format!("{header}{payload}"),
        format!("{header}..{payload}"),
        format!(" {twin}"),
        format!("{twin}\n"),
        format!("{header}.\r\n{payload}"),
        format!("{header}.+{}", &payload[1..]),
        twin.replacen('.', "\u{ff0e}", 1),
        header.to_owned(),
        ".".into(),
        String::new(),
    ]
    .iter()
    .map(|hostile| Case {
        twin: input(&twin),
        hostile: input(hostile),
        reason: "MALFORMED_SIGNING_INPUT",
        rule: "builtin.signing_input",
    })
    .collect()
}

/// One field of the request other than the claims.
fn field_cases(kids: &Kids) -> Vec<Case> {
    type Change = fn(&mut SignJwtRequest);
    let padded = |len: usize| format!("{PLAIN}{}", " ".repeat(len - PLAIN.len()));
    let changes: [(Change, &str, &str); 11] = [
        (
            |r| r.key_set = "nosuch".into(),
            "UNKNOWN_KEY_SET",
            "key_set",
        ),
        (|r| r.key_set = String::new(), "UNKNOWN_KEY_SET", "key_set"),
        (
            |r| r.key_set = "closed".into(),
            "NOT_ALLOWED",
            "key_set.closed.rule",
        ),
        (
            |r| r.alg = Some("ES384".into()),
            "NOT_ALLOWED",
            "key_set.main.rule.api.algorithms",
        ),
        (
            |r| r.alg = Some("none".into()),
            "UNKNOWN_ALGORITHM",
            "builtin.algorithms",
        ),
        (
            |r| r.alg = Some("HS256".into()),
            "UNKNOWN_ALGORITHM",
            "builtin.algorithms",
        ),
        (
            |r| r.typ = Some("secevent+jwt".into()),
            "HEADER_NOT_ALLOWED",
            "key_set.main.rule.api.typ",
        ),
        (
            |r| r.typ = Some("jwt".into()),
            "HEADER_NOT_ALLOWED",
            "key_set.main.rule.api.typ",
        ),
        (
            |r| r.typ = Some(String::new()),
            "HEADER_NOT_ALLOWED",
            "key_set.main.rule.api.typ",
        ),
        (
            |r| r.typ = Some(r#"JWT","x":"y"#.into()),
            "HEADER_NOT_ALLOWED",
            "key_set.main.rule.api.typ",
        ),
        (
            |r| r.typ = Some("at+jwt".into()),
            "CLAIM_NOT_ALLOWED",
            "key_set.main.rule.access.preset",
        ),
    ];
    let mut cases: Vec<Case> = changes
        .into_iter()
        .map(|(change, reason, rule)| {
            let mut hostile = jwt(PLAIN);
            change(&mut hostile);
            Case {
                twin: Ask::Jwt(jwt(PLAIN)),
                hostile: Ask::Jwt(hostile),
                reason,
                rule,
            }
        })
        .collect();
    cases.push(Case {
        twin: Ask::Jwt(jwt(padded(1000))),
        hostile: Ask::Jwt(jwt(padded(1100))),
        reason: "TOO_LARGE",
        rule: "key_set.main.rule.api.max_payload",
    });
    // The key set's bound, which holds before a rule is known.
    cases.push(Case {
        twin: Ask::Jws(jws(kids, HEADER, padded(800).as_bytes())),
        hostile: Ask::Jws(jws(kids, HEADER, padded(10_000).as_bytes())),
        reason: "TOO_LARGE",
        rule: "key_set.main.max_payload",
    });
    let to_another_set = |key_set: &str| SignJwsRequest {
        key_set: key_set.into(),
        ..jws(kids, HEADER, PLAIN.as_bytes())
    };
    cases.push(Case {
        twin: Ask::Jws(to_another_set("main")),
        hostile: Ask::Jws(to_another_set("jwt-only")),
        reason: "NOT_ALLOWED",
        rule: "key_set.jwt-only.rule.claims.operations",
    });
    cases
}

/// The kind of token that RFC 9068 describes, one claim away.
fn access_token_cases() -> Vec<Case> {
    let twin = r#"{"aud":"api","sub":"a","client_id":"c","jti":"1"}"#;
    let access = |claims: &str| {
        Ask::Jwt(SignJwtRequest {
            typ: Some("at+jwt".into()),
            ..jwt(claims)
        })
    };
    [
        (r#""aud":"api","#, ""),
        (r#""sub":"a","#, ""),
        (r#""client_id":"c","#, ""),
        (r#","jti":"1""#, ""),
        (r#""client_id":"c""#, r#""client_id":7"#),
        (r#""client_id":"c""#, r#""client_id":null"#),
    ]
    .iter()
    .map(|(from, to)| Case {
        twin: access(twin),
        hostile: access(&twin.replace(from, to)),
        reason: "CLAIM_NOT_ALLOWED",
        rule: "key_set.main.rule.access.preset",
    })
    .collect()
}

/// What was asked of the device, seen from outside of our own code.
struct Spy(PathBuf);

impl Spy {
    /// Signatures begun so far.
    fn signatures(&self) -> usize {
        let text = fs::read(&self.0).unwrap();
        let text = String::from_utf8_lossy(&text);
        text.lines()
            .filter(|line| line.ends_with(": C_SignInit"))
            .count()
    }
}

/// A laboratory whose token is spied on, with key sets that this process may
/// use, may not, and may use in part.
fn guarded_lab() -> (Lab, Spy) {
    let lab = Lab::new(CALM, &["ES256", "ES384", "Ed25519"]);
    let path = lab.path("sealkeeper.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (head, _) = text.split_once("[[key_set.main.rule]]").unwrap();
    let uid = rustix::process::getuid().as_raw();
    let spied = lab.path("spied");
    let module = softhsm_module();
    let spy = debian::library("pkcs11-spy.so").expect("OpenSC is installed by scripts/test");
    let head = head
        .replace(
            &format!("module = \"{}\"", module.display()),
            &format!("module = \"{}\"", spy.display()),
        )
        .replace(
            "env = { ",
            &format!(
                "env = {{ PKCS11SPY = \"{}\", PKCS11SPY_OUTPUT = \"{}\", ",
                module.display(),
                spied.display()
            ),
        )
        .replace("[key_set.main]\n", "[key_set.main]\nmax_payload = 4096\n");
    let rules = format!(
        r#"
[[key_set.main.rule]]
name = "api"
uid = [{uid}]
operations = ["sign-jwt", "sign-jws"]
algorithms = ["ES256", "Ed25519"]
typ = ["JWT"]
audiences = ["https://one.example", "https://many.example/*"]
required = ["sub"]
forbidden = ["admin"]
max_lifetime = "30m"
max_payload = 1024
[[key_set.main.rule]]
name = "access"
uid = [{uid}]
operations = ["sign-jwt", "sign-jws"]
algorithms = ["ES256", "Ed25519"]
preset = "at+jwt"
[key_set.closed]
issuer = "https://lab.example"
device = "softhsm"
track = [{{ alg = "ES256" }}]
[[key_set.closed.rule]]
name = "others"
uid = [{others}]
operations = ["sign-jwt"]
[key_set.jwt-only]
issuer = "https://lab.example"
device = "softhsm"
track = [{{ alg = "ES256" }}]
[[key_set.jwt-only.rule]]
name = "claims"
uid = [{uid}]
operations = ["sign-jwt"]
[key_set.slow]
issuer = "https://lab.example"
device = "softhsm"
track = [{{ alg = "ES256" }}]
[[key_set.slow.rule]]
name = "twice"
uid = [{uid}]
operations = ["sign-jwt"]
rate = {{ count = 2, per = "1d" }}
"#,
        others = uid + 1
    );
    fs::write(&path, head + &rules).unwrap();
    (lab, Spy(spied))
}

/// The keys of a key set by phase.
fn kid(lab: &Lab, key_set: &str, phase: &str) -> Option<String> {
    let listing = lab.ok(&["keys", "list", "--key-set", key_set, "--json"]);
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    let keys = listing["key_sets"][0]["keys"].as_array().unwrap();
    let found = keys
        .iter()
        .find(|key| key["alg"] == "ES256" && key["phase"] == phase)?;
    Some(found["kid"].as_str().unwrap().to_owned())
}

async fn ask(signer: &mut SignerClient<Channel>, ask: Ask) -> Result<(), tonic::Status> {
    match ask {
        Ask::Jwt(request) => signer.sign_jwt(request).await.map(drop),
        Ask::Jws(request) => signer.sign_jws(request).await.map(drop),
    }
}

#[tokio::test]
async fn hostile_requests_are_refused_before_the_device() {
    let (lab, spy) = guarded_lab();
    lab.init();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    // Every track of every key set has its standby: nothing more is generated,
    // and so nothing signs but requests.
    let expected = BTreeSet::from(["main", "closed", "jwt-only", "slow"]);
    wait_for(|| {
        let listing = lab.ok(&["keys", "list", "--json"]);
        let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
        let sets = listing["key_sets"].as_array().unwrap();
        let settled = sets.iter().filter(|set| {
            let keys = set["keys"].as_array().unwrap();
            let of = |phase| keys.iter().filter(|key| key["phase"] == phase).count();
            of("published") == of("active") && of("active") > 0
        });
        settled.count() == expected.len()
    })
    .await;
    let kids = Kids {
        active: kid(&lab, "main", "active").unwrap(),
        standby: kid(&lab, "main", "published").unwrap(),
        other: kid(&lab, "jwt-only", "active").unwrap(),
    };
    let mut cases = claims_cases(&kids);
    cases.extend(header_cases(&kids));
    cases.extend(encoding_cases(&kids));
    cases.extend(field_cases(&kids));
    cases.extend(access_token_cases());
    assert!(cases.len() >= 200, "only {} cases", cases.len());

    let before = spy.signatures();
    for (at, case) in cases.iter().enumerate() {
        let name = shown(&case.hostile);
        let status = ask(&mut signer, case.hostile.clone())
            .await
            .expect_err(&name);
        let details = status.get_error_details();
        let info = details
            .error_info()
            .unwrap_or_else(|| panic!("{name}: {status:?}"));
        assert_eq!(info.reason, case.reason, "{at} {name}: {status:?}");
        let told = |key: &str| info.metadata.get(key).map(String::as_str);
        assert_eq!(told("rule"), Some(case.rule), "{name}: {status:?}");
        assert_eq!(told("fault"), Some("caller"), "{name}");
        assert!(told("hint").is_some_and(|hint| !hint.is_empty()), "{name}");
        let current = (case.reason == "KID_NOT_ACTIVE").then_some(&*kids.active);
        assert_eq!(told("current_kid"), current, "{name}");
    }
    assert_eq!(
        spy.signatures(),
        before,
        "a refused request reached the device"
    );

    let twins = cases.len();
    for case in cases {
        let name = shown(&case.twin);
        let signed = ask(&mut signer, case.twin).await;
        signed.unwrap_or_else(|status| panic!("the twin {name}: {status:?}"));
    }
    assert_eq!(spy.signatures(), before + twins, "the spy sees signatures");

    over_the_rate(&mut signer, &spy).await;
    let log = lab.log();
    assert!(
        !log.contains("https://one.example"),
        "claims are in the log"
    );
}

/// The request after the last one that the rule grants: the same, and refused.
async fn over_the_rate(signer: &mut SignerClient<Channel>, spy: &Spy) {
    let slow = || {
        Ask::Jwt(SignJwtRequest {
            key_set: "slow".into(),
            ..jwt("{}")
        })
    };
    // A mistake costs nothing.
    let mistaken = Ask::Jwt(SignJwtRequest {
        key_set: "slow".into(),
        ..jwt("[]")
    });
    for _ in 0..5 {
        ask(signer, mistaken.clone()).await.unwrap_err();
    }
    ask(signer, slow()).await.unwrap();
    ask(signer, slow()).await.unwrap();
    let before = spy.signatures();
    let status = ask(signer, slow()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "RATE_LIMITED");
    assert_eq!(info.metadata["rule"], "key_set.slow.rule.twice.rate");
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    let half_a_day = std::time::Duration::from_secs(12 * 3600);
    assert!(
        wait <= half_a_day && wait > half_a_day - PATIENCE,
        "{wait:?}"
    );
    assert_eq!(spy.signatures(), before);
}

fn shown(ask: &Ask) -> String {
    let (call, bytes) = match ask {
        Ask::Jwt(request) => ("jwt", &request.claims),
        Ask::Jws(request) => ("jws", &request.signing_input),
    };
    format!("{call} {}", String::from_utf8_lossy(bytes))
}
