#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use super::*;

fn draft() -> Draft {
    Draft {
        key_set: "main".into(),
        issuer: "https://issuer.example".into(),
        max_token_lifetime: Span::from_hours(1),
        default_lifetime: Span::from_mins(10),
        skew: Span::from_mins(5),
        max_payload: DEFAULT_MAX_PAYLOAD,
        rules: vec![rule("one")],
    }
}

fn rule(name: &str) -> Rule {
    Rule {
        name: name.into(),
        who: Matcher {
            uids: Some(BTreeSet::from([1])),
            ..Matcher::default()
        },
        operations: BTreeSet::from([Operation::SignJwt]),
        algorithms: Algorithms::All,
        typ: vec![Typ::Is("JWT".into())],
        required: BTreeSet::from(["sub".into()]),
        forbidden: BTreeSet::from(["admin".into()]),
        audiences: Some(vec![Audience::Prefix("urn:x:".into())]),
        preset: None,
        max_lifetime: None,
        max_payload: None,
        rate: None,
    }
}

#[test]
fn drafts_that_make_no_sense_are_not_loaded() {
    type Change = fn(&mut Draft);
    let cases: &[(Change, Option<usize>, &str)] = &[
        (|d| d.issuer.clear(), None, "issuer"),
        (|d| d.issuer.push('\n'), None, "issuer"),
        (
            |d| d.default_lifetime = Span::from_millis(999),
            None,
            "default_lifetime",
        ),
        (
            |d| d.default_lifetime = Span::from_secs(3601),
            None,
            "default_lifetime",
        ),
        (|d| d.max_payload = 0, None, "max_payload"),
        (|d| d.rules[0].name.clear(), Some(0), "name"),
        (|d| d.rules.push(rule("one")), Some(1), "name"),
        (|d| d.rules[0].who = Matcher::default(), Some(0), "who"),
        (
            |d| d.rules[0].who.uids = Some(BTreeSet::new()),
            Some(0),
            "who",
        ),
        (
            |d| d.rules[0].who.gids = Some(BTreeSet::new()),
            Some(0),
            "who",
        ),
        (
            |d| d.rules[0].who.dns = Some(BTreeSet::from(["a.example".parse().unwrap()])),
            Some(0),
            "who",
        ),
        (
            |d| {
                d.rules[0].who = Matcher {
                    spiffe: Some(BTreeSet::new()),
                    ..Matcher::default()
                };
            },
            Some(0),
            "who",
        ),
        (|d| d.rules[0].operations.clear(), Some(0), "operations"),
        (
            |d| d.rules[0].algorithms = Algorithms::Only(BTreeSet::new()),
            Some(0),
            "algorithms",
        ),
        (|d| d.rules[0].typ.clear(), Some(0), "typ"),
        (
            |d| d.rules[0].typ.push(Typ::Is(String::new())),
            Some(0),
            "typ",
        ),
        (
            |d| d.rules[0].typ.push(Typ::Is("a\"b".into())),
            Some(0),
            "typ",
        ),
        (
            |d| d.rules[0].typ.push(Typ::Is("Application/at+jwt".into())),
            Some(0),
            "typ",
        ),
        (
            |d| d.rules[0].typ.push(Typ::Is("x".repeat(128))),
            Some(0),
            "typ",
        ),
        (
            |d| d.rules[0].required.extend(["admin".into()]),
            Some(0),
            "forbidden",
        ),
        (
            |d| d.rules[0].forbidden.extend(["exp".into()]),
            Some(0),
            "forbidden",
        ),
        (
            |d| d.rules[0].audiences = Some(vec![]),
            Some(0),
            "audiences",
        ),
        (
            |d| d.rules[0].audiences = Some(vec![Audience::Exact(String::new())]),
            Some(0),
            "audiences",
        ),
        (
            |d| d.rules[0].audiences = Some(vec![Audience::Prefix("https://a.example".into())]),
            Some(0),
            "audiences",
        ),
        (
            |d| d.rules[0].audiences = Some(vec![Audience::Prefix(String::new())]),
            Some(0),
            "audiences",
        ),
        (
            |d| d.rules[0].max_lifetime = Some(Span::from_millis(3_600_001)),
            Some(0),
            "max_lifetime",
        ),
        (
            |d| d.rules[0].max_lifetime = Some(Span::from_millis(999)),
            Some(0),
            "max_lifetime",
        ),
        (
            |d| d.rules[0].max_payload = Some(DEFAULT_MAX_PAYLOAD + 1),
            Some(0),
            "max_payload",
        ),
        (|d| d.rules[0].max_payload = Some(0), Some(0), "max_payload"),
        (
            |d| {
                d.rules[0].rate = Some(Rate {
                    count: 0,
                    per: Span::from_secs(1),
                    burst: 1,
                });
            },
            Some(0),
            "rate",
        ),
        (
            |d| d.rules[0].preset = Some(Preset::AccessToken),
            Some(0),
            "typ",
        ),
        (
            |d| {
                d.rules[0].preset = Some(Preset::IdToken);
                d.rules[0].required.clear();
                d.rules[0].forbidden = BTreeSet::from(["sub".into()]);
            },
            Some(0),
            "forbidden",
        ),
    ];
    Rules::try_from(draft()).unwrap();
    for (change, rule, field) in cases {
        let mut draft = draft();
        change(&mut draft);
        let found = Rules::try_from(draft).unwrap_err();
        assert_eq!((found.rule, found.field), (*rule, *field), "{found}");
    }
}

#[test]
fn what_is_given_of_a_matcher_must_all_hold() {
    let ids = |ids: &[u32]| Some(ids.iter().copied().collect());
    let caller = |uid, gid| Caller::Unix {
        uid,
        gid,
        groups: BTreeSet::from([70, 71]),
        pid: Some(1),
    };
    for (uids, gids, uid, gid, matches) in [
        (ids(&[1, 2]), None, 2, 9, true),
        (ids(&[1, 2]), None, 3, 9, false),
        (None, ids(&[5]), 9, 5, true),
        (None, ids(&[5]), 5, 9, false),
        (None, ids(&[5, 71]), 9, 9, true),
        (ids(&[71]), None, 9, 9, false),
        (ids(&[1]), ids(&[5]), 1, 5, true),
        (ids(&[1]), ids(&[70]), 1, 9, true),
        (ids(&[1]), ids(&[70]), 2, 9, false),
        (ids(&[1]), ids(&[5]), 1, 6, false),
        (ids(&[1]), ids(&[5]), 2, 5, false),
        (None, None, 0, 0, false),
    ] {
        let who = Matcher {
            uids,
            gids,
            ..Matcher::default()
        };
        assert_eq!(
            who.matches(&caller(uid, gid)),
            matches,
            "{who:?} {uid}:{gid}"
        );
        assert!(!who.matches(&tls("spiffe://td/a", &["a.example"])));
    }
}

fn tls(spiffe: &str, dns: &[&str]) -> Caller {
    let uris: Vec<&str> = Some(spiffe)
        .filter(|id| !id.is_empty())
        .into_iter()
        .collect();
    let names = crate::policy::Names::parse(&uris, dns).unwrap();
    Caller::Tls { names }
}

#[test]
fn certificates_are_matched_by_name() {
    let none: &[&str] = &[];
    for (dns, spiffe, caller, matches) in [
        (&["a.example"][..], none, tls("", &["a.example"]), true),
        (
            &["a.example"],
            none,
            tls("", &["b.example", "a.example"]),
            true,
        ),
        (&["a.example"], none, tls("", &["b.a.example"]), false),
        (&["a.example"], none, tls("spiffe://td/a", &[]), false),
        (none, &["spiffe://td/a"], tls("spiffe://td/a", &[]), true),
        (
            none,
            &["spiffe://td/a", "spiffe://td/b"],
            tls("spiffe://td/b", &[]),
            true,
        ),
        (none, &["spiffe://td/a"], tls("spiffe://td/a/b", &[]), false),
        (
            none,
            &["spiffe://td/a/*"],
            tls("spiffe://td/a/b", &[]),
            true,
        ),
        (none, &["spiffe://td/a"], tls("", &["td"]), false),
        (
            &["a.example"],
            &["spiffe://td/*"],
            tls("spiffe://td/a", &["a.example"]),
            true,
        ),
        (
            &["a.example"],
            &["spiffe://td/*"],
            tls("spiffe://td/a", &["b.example"]),
            false,
        ),
        (
            &["a.example"],
            &["spiffe://td/*"],
            tls("", &["a.example"]),
            false,
        ),
    ] {
        let dns = dns.iter().map(|name| name.parse().unwrap());
        let spiffe = spiffe.iter().map(|id| id.parse().unwrap());
        let who = Matcher {
            dns: Some(dns.collect()).filter(|set: &BTreeSet<_>| !set.is_empty()),
            spiffe: Some(spiffe.collect()).filter(|set: &BTreeSet<_>| !set.is_empty()),
            ..Matcher::default()
        };
        assert_eq!(who.matches(&caller), matches, "{who:?} {caller}");
        let process = Caller::Unix {
            uid: 0,
            gid: 0,
            groups: BTreeSet::new(),
            pid: None,
        };
        assert!(!who.matches(&process));
    }
}

/// The checks of a draft keep such a rule from being loaded; were it loaded,
/// it would be about nobody.
#[test]
fn a_rule_that_asks_for_ids_and_names_matches_nobody() {
    let who = Matcher {
        uids: Some(BTreeSet::from([1])),
        dns: Some(BTreeSet::from(["a.example".parse().unwrap()])),
        ..Matcher::default()
    };
    let process = Caller::Unix {
        uid: 1,
        gid: 1,
        groups: BTreeSet::new(),
        pid: None,
    };
    assert!(!who.matches(&process));
    assert!(!who.matches(&tls("", &["a.example"])));
}

#[test]
fn a_rule_names_ids() {
    let names = |who: &Matcher, id: &str| who.names(&id.parse().unwrap());
    let users = Matcher {
        uids: Some(BTreeSet::from([1])),
        ..Matcher::default()
    };
    let certificates = Matcher {
        dns: Some(BTreeSet::from(["a.example".parse().unwrap()])),
        spiffe: Some(BTreeSet::from(["spiffe://td/a/*".parse().unwrap()])),
        ..Matcher::default()
    };
    for (who, id, expected) in [
        (&users, "unix:1", true),
        (&users, "unix:2", false),
        (&users, "dns:a.example", false),
        (&certificates, "dns:a.example", true),
        (&certificates, "dns:b.example", false),
        (&certificates, "spiffe://td/a/b", true),
        (&certificates, "spiffe://td/b", false),
        (&certificates, "unix:1", false),
    ] {
        assert_eq!(names(who, id), expected, "{id}");
    }
}
