//! A rule's own bounds, and the kinds of tokens that presets describe.

use super::*;
use crate::policy::Preset;

/// One rule with changes, no demands of its own, and a request to it.
fn check(change: impl FnOnce(&mut Rule), claims: &str) -> Result<CheckedJwt, CheckError> {
    let mut draft = draft();
    let rule = &mut draft.rules[0];
    rule.required.clear();
    rule.forbidden.clear();
    rule.audiences = None;
    change(rule);
    let request = JwtRequest {
        key_set: "main".into(),
        algorithm: None,
        typ: None,
        claims: claims.into(),
    };
    let key = key(Algorithm::Es256, "new");
    check_jwt(
        &Rules::try_from(draft).unwrap(),
        &caller(1000, 2000),
        &request,
        &key,
        NOW,
    )
}

#[test]
fn a_rule_may_allow_a_shorter_life_than_its_key_set() {
    let five_minutes = |rule: &mut Rule| rule.max_lifetime = Some(Span::from_mins(5));
    check(five_minutes, r#"{"exp":1800000300}"#).unwrap();
    let found = refusal(
        check(five_minutes, r#"{"exp":1800000301}"#),
        "a second more",
    );
    assert_eq!(found.reason, Reason::ExpTooFar);
    assert_eq!(found.rule, "key_set.main.rule.api.max_lifetime");
    assert!(found.hint.contains("5m"), "{}", found.hint);
    check(|_| (), r#"{"exp":1800000301}"#).unwrap();
    // The key set's default of ten minutes would be too long.
    let added = check(five_minutes, "{}").unwrap();
    assert_eq!(added.exp, Time::from_secs(NOW_S + 300));
    let longer = check(|rule| rule.max_lifetime = Some(Span::from_mins(50)), "{}").unwrap();
    assert_eq!(longer.exp, Time::from_secs(NOW_S + 600));
}

#[test]
fn a_rule_may_allow_a_smaller_payload_than_its_key_set() {
    let small = |rule: &mut Rule| rule.max_payload = Some(100);
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(100));
    check(|_| (), &large).unwrap();
    let found = refusal(check(small, &large), "large");
    assert_eq!(found.reason, Reason::TooLarge);
    assert_eq!(found.rule, "key_set.main.rule.api.max_payload");
    // Ours count too.
    let just = format!(r#"{{"a":"{}"}}"#, "x".repeat(80));
    assert_eq!(
        refusal(check(small, &just), "ours").reason,
        Reason::TooLarge
    );
    check(small, "{}").unwrap();

    // And in a signing input, whose rule is known only once it was read.
    let mut draft = draft();
    draft.rules[0].max_payload = Some(CLAIMS.len() - 1);
    let request = JwsRequest {
        key_set: "main".into(),
        signing_input: input(CLAIMS.as_bytes()).text,
    };
    let rules = Rules::try_from(draft).unwrap();
    let outcome = check_jws(&rules, &caller(1000, 2000), &request, &keys(), NOW);
    assert_eq!(
        refusal(outcome, "input").rule,
        "key_set.main.rule.api.max_payload"
    );
}

fn as_kind(preset: Preset) -> impl Fn(&mut Rule) {
    move |rule| {
        rule.typ = preset.typ();
        rule.preset = Some(preset);
    }
}

/// Each is one claim away from its accepted twin.
fn refuses(preset: Preset, twin: &str, changes: &[(&str, &str)]) {
    check(as_kind(preset), twin).unwrap();
    for (from, to) in changes {
        let hostile = twin.replace(from, to);
        assert_ne!(hostile, twin, "{from}");
        let found = refusal(check(as_kind(preset), &hostile), to);
        assert_eq!(found.reason, Reason::ClaimNotAllowed, "{hostile}");
        assert_eq!(found.rule, "key_set.main.rule.api.preset", "{hostile}");
        assert_eq!(found.hint, format!("{} demands it", preset.source()));
        // Without the preset nothing is wrong with it.
        check(|_| (), &hostile).unwrap();
    }
}

#[test]
fn an_access_token_is_one_of_rfc_9068() {
    let twin = r#"{"aud":"https://one.example","sub":"a","client_id":"c","jti":"1","scope":"x y","auth_time":1,"amr":["pwd"],"acr":"1","z":1}"#;
    refuses(
        Preset::AccessToken,
        twin,
        &[
            (r#""aud":"https://one.example","#, ""),
            (r#""sub":"a","#, ""),
            (r#""client_id":"c","#, ""),
            (r#""jti":"1","#, ""),
            (r#""client_id":"c""#, r#""client_id":null"#),
            (r#""client_id":"c""#, r#""client_id":7"#),
            (r#""client_id":"c""#, r#""client_id":["c"]"#),
            (r#""scope":"x y""#, r#""scope":["x","y"]"#),
            (r#""auth_time":1"#, r#""auth_time":"1""#),
            (r#""auth_time":1"#, r#""auth_time":1.5"#),
            (r#""amr":["pwd"]"#, r#""amr":"pwd""#),
            (r#""amr":["pwd"]"#, r#""amr":[1]"#),
            (r#""acr":"1""#, r#""acr":1"#),
        ],
    );
    let token = check(as_kind(Preset::AccessToken), twin).unwrap();
    assert_eq!(token.typ.as_deref(), Some("at+jwt"));
    let names = json::members(&token.payload).unwrap();
    for name in Preset::AccessToken.required() {
        assert!(names.iter().any(|(found, _)| found == name), "{name}");
    }
}

#[test]
fn an_id_token_is_one_of_openid_connect() {
    let twin = r#"{"aud":"client","sub":"a","nonce":"n","auth_time":1,"azp":"client","amr":["pwd"],"acr":"1","at_hash":"h","c_hash":"h","z":1}"#;
    let long = format!(r#""sub":"{}""#, "a".repeat(256));
    refuses(
        Preset::IdToken,
        twin,
        &[
            (r#""aud":"client","#, ""),
            (r#""sub":"a","#, ""),
            (r#""sub":"a""#, &long),
            (r#""sub":"a""#, r#""sub":"ä""#),
            (r#""nonce":"n""#, r#""nonce":1"#),
            (r#""nonce":"n""#, r#""nonce":null"#),
            (r#""auth_time":1"#, r#""auth_time":1e0"#),
            (r#""azp":"client""#, r#""azp":["client"]"#),
            (r#""amr":["pwd"]"#, r#""amr":"pwd""#),
            (r#""acr":"1""#, r#""acr":1"#),
            (r#""at_hash":"h""#, r#""at_hash":1"#),
            (r#""c_hash":"h""#, r#""c_hash":1"#),
        ],
    );
    let kind = as_kind(Preset::IdToken);
    let token = check(&kind, twin).unwrap();
    assert_eq!(token.typ.as_deref(), Some("JWT"));
    // A nonce need not be there, and several audiences may.
    check(&kind, r#"{"aud":["client","other"],"sub":"a"}"#).unwrap();
}

/// What a preset demands holds for a signing input too, whose header may do
/// without `typ` where it is an ID token's.
#[test]
fn a_preset_holds_for_signing_inputs() {
    let check = |preset: Preset, header: &str, claims: &str| {
        let mut draft = draft();
        as_kind(preset)(&mut draft.rules[0]);
        let request = JwsRequest {
            key_set: "main".into(),
            signing_input: input_of(header, claims.as_bytes()).text,
        };
        let rules = Rules::try_from(draft).unwrap();
        check_jws(&rules, &caller(1000, 2000), &request, &keys(), NOW)
    };
    let bare = r#"{"alg":"ES256","kid":"new"}"#;
    let access = r#"{"alg":"ES256","kid":"new","typ":"at+jwt"}"#;
    let complete = CLAIMS.replace('}', r#","client_id":"c","jti":"1"}"#);
    assert_eq!(check(Preset::IdToken, bare, CLAIMS).unwrap().typ, None);
    check(Preset::IdToken, HEADER, CLAIMS).unwrap();
    check(Preset::AccessToken, access, &complete).unwrap();
    let found = refusal(check(Preset::AccessToken, access, CLAIMS), "client_id");
    assert_eq!(found.rule, "key_set.main.rule.api.preset");
    for (preset, header) in [
        (Preset::AccessToken, bare),
        (Preset::AccessToken, HEADER),
        (Preset::IdToken, access),
    ] {
        let found = refusal(check(preset, header, &complete), header);
        assert_eq!(found.reason, Reason::HeaderNotAllowed, "{preset} {header}");
    }
}

/// What a caller's program needs to mend the request by itself.
#[test]
fn a_refusal_names_the_current_key() {
    let current = |kid: &str, keys: Vec<KeyFacts>| {
        let header = HEADER.replace("new", kid);
        let input = Input {
            keys,
            ..input_of(&header, CLAIMS.as_bytes())
        };
        refusal(input.check(), kid).current_kid
    };
    assert_eq!(current("gone", keys()).as_deref(), Some("new"));
    assert_eq!(current("gone", vec![]), None);
    let other = refusal(ask("[]").check(), "another reason");
    assert_eq!((other.current_kid, other.retry_after), (None, None));
}
