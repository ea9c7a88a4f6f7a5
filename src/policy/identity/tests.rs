#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use super::*;

/// The good and the bad examples of the SPIFFE-ID standard, and our own.
#[test]
fn spiffe_ids_have_one_spelling() {
    let longest = format!("spiffe://td/{}", "x".repeat(2048 - 12));
    for good in [
        "spiffe://staging.acme.com/payments/mysql",
        "spiffe://k8s-west.acme.com/ns/staging/sa/default",
        "spiffe://acme.com/9eebccd2-12bf-40a6-b262-65fe0487d453",
        "spiffe://td/A.b-C_d/...",
        "spiffe://under_score/x",
        &longest,
    ] {
        let id: SpiffeId = good.parse().unwrap();
        assert_eq!(id.as_str(), good);
    }
    let too_long = format!("{longest}x");
    let wide = format!("spiffe://{}/x", "d".repeat(256));
    for bad in [
        "",
        "spiffe:",
        "spiffe://",
        "spiffe:///x",
        "spiffe://acme.com",
        "spiffe://acme.com/",
        "spiffe://acme.com/x/",
        "spiffe://acme.com//x",
        "spiffe://acme.com/x/../y",
        "spiffe://acme.com/./y",
        "spiffe://acme.com/x?y=z",
        "spiffe://acme.com/x#y",
        "spiffe://acme.com/x%2Fy",
        "spiffe://acme.com/x y",
        "spiffe://acme.com/\u{e9}",
        "spiffe://acme.com/*",
        "spiffe://acme.com:8443/x",
        "spiffe://me@acme.com/x",
        "spiffe://Acme.com/x",
        "SPIFFE://acme.com/x",
        "https://acme.com/x",
        " spiffe://acme.com/x",
        "spiffe://acme.com/x\n",
        "spiffe:/acme.com/x",
        &too_long,
        &wide,
    ] {
        assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
    }
}

#[test]
fn a_pattern_is_about_one_id_or_what_is_below_a_path() {
    for (pattern, id, matches) in [
        ("spiffe://td/a", "spiffe://td/a", true),
        ("spiffe://td/a", "spiffe://td/ab", false),
        ("spiffe://td/a", "spiffe://td/a/b", false),
        ("spiffe://td/a/*", "spiffe://td/a/b", true),
        ("spiffe://td/a/*", "spiffe://td/a/b/c", true),
        ("spiffe://td/a/*", "spiffe://td/a", false),
        ("spiffe://td/a/*", "spiffe://td/ab", false),
        ("spiffe://td/*", "spiffe://td/a", true),
        ("spiffe://td/*", "spiffe://td.evil/a", false),
        ("spiffe://td/*", "spiffe://other/a", false),
    ] {
        let parsed: SpiffePattern = pattern.parse().unwrap();
        let id: SpiffeId = id.parse().unwrap();
        assert_eq!(parsed.matches(&id), matches, "{pattern} {id}");
        assert_eq!(parsed.to_string(), pattern);
    }
    for bad in [
        "*",
        "/*",
        "spiffe://*",
        "spiffe:///*",
        "spiffe://td*",
        "spiffe://td/a*",
        "spiffe://td/*/b",
        "spiffe://td/a/**",
        "spiffe://td//*",
        "spiffe://td/../*",
    ] {
        assert!(bad.parse::<SpiffePattern>().is_err(), "{bad}");
    }
}

#[test]
fn hosts_have_names_and_addresses_have_none() {
    for (text, name) in [
        ("login.example", "login.example"),
        ("Login.EXAMPLE", "login.example"),
        ("a", "a"),
        ("1.a", "1.a"),
        ("_sip.x-y.example", "_sip.x-y.example"),
    ] {
        assert_eq!(text.parse::<DnsName>().unwrap().as_str(), name);
    }
    let label = "x".repeat(64);
    let long = ["x"; 128].join(".");
    for bad in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "a b",
        "a\0",
        "*.a",
        "*",
        "127.0.0.1",
        "1",
        "::1",
        "é.example",
        "a/b",
        "a:b",
        &label,
        &long,
    ] {
        assert!(bad.parse::<DnsName>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_certificate_names_somebody_or_nobody() {
    type Expected = Result<&'static str, fn(&InvalidNames) -> bool>;
    let spiffe = "spiffe://td/login";
    let cases: &[(&[&str], &[&str], Expected)] = &[
        (&[spiffe], &[], Ok("spiffe://td/login")),
        (
            &[],
            &["b.example", "A.example"],
            Ok("dns:a.example dns:b.example"),
        ),
        (
            &[spiffe],
            &["b.example"],
            Ok("spiffe://td/login dns:b.example"),
        ),
        (&["https://x/y"], &["a.example"], Ok("dns:a.example")),
        (
            &["https://x/y", "urn:z"],
            &["a.example"],
            Ok("dns:a.example"),
        ),
        (&[], &["*.example", "a.example"], Ok("dns:a.example")),
        (&[], &["*.example"], Err(|e| *e == InvalidNames::None)),
        (&[], &[], Err(|e| *e == InvalidNames::None)),
        (&["https://x/y"], &[], Err(|e| *e == InvalidNames::None)),
        (
            &[spiffe, spiffe],
            &[],
            Err(|e| *e == InvalidNames::ManyUris(2)),
        ),
        (
            &[spiffe, "https://x"],
            &[],
            Err(|e| *e == InvalidNames::ManyUris(2)),
        ),
        (
            &["https://x", "Spiffe://td/x"],
            &[],
            Err(|e| *e == InvalidNames::ManyUris(2)),
        ),
        (
            &["SPIFFE://td/login"],
            &["a.example"],
            Err(|e| matches!(e, InvalidNames::Name(_))),
        ),
        (
            &["spiffe://td"],
            &["a.example"],
            Err(|e| matches!(e, InvalidNames::Name(_))),
        ),
        (
            &[spiffe],
            &["a b"],
            Err(|e| matches!(e, InvalidNames::Name(_))),
        ),
        (
            &[],
            &["a.example"; 65],
            Err(|e| *e == InvalidNames::TooMany(65)),
        ),
    ];
    for (uris, dns, expected) in cases {
        let names = Names::parse(uris, dns);
        match (&names, expected) {
            (Ok(names), Ok(ids)) => {
                let found: Vec<_> = names.ids().map(|id| id.to_string()).collect();
                assert_eq!(found.join(" "), *ids);
            }
            (Err(error), Err(is_it)) => assert!(is_it(error), "{error}"),
            _ => panic!("{uris:?} {dns:?}: {names:?}"),
        }
    }
}

#[test]
fn ids_have_one_spelling() {
    for id in [
        "unix:0",
        "unix:4294967295",
        "spiffe://td/x",
        "dns:a.example",
    ] {
        assert_eq!(id.parse::<CallerId>().unwrap().to_string(), id);
    }
    for bad in [
        "",
        "0",
        "unix:",
        "unix:00",
        "unix:+1",
        "unix:-1",
        "unix:4294967296",
        "uid:1",
        "dns:",
        "dns:*.x",
        "spiffe://td",
        "spiffe://td/*",
        "x",
    ] {
        assert!(bad.parse::<CallerId>().is_err(), "{bad}");
    }
}
