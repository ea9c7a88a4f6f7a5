#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use proptest::prelude::*;

use super::*;

const MAX: usize = 10_000;

fn header() -> Header {
    Header {
        algorithm: Algorithm::Es256,
        kid: "k1".into(),
        typ: Some("at+jwt".into()),
    }
}

/// A signing input with this header text.
fn input(header: &str) -> Vec<u8> {
    format!("{}.e30", base64url::encode(header.as_bytes())).into_bytes()
}

fn parse(header: &str) -> Result<SigningInput, InvalidJws> {
    SigningInput::parse(&input(header), MAX)
}

#[test]
fn the_header_is_alg_kid_typ_and_nothing_else() {
    let text = |header: &Header| String::from_utf8(header.to_json()).unwrap();
    assert_eq!(
        text(&header()),
        r#"{"alg":"ES256","kid":"k1","typ":"at+jwt"}"#
    );
    let untyped = Header {
        typ: None,
        kid: "a\"b\\c\n\u{1f600}".into(),
        ..header()
    };
    assert_eq!(
        text(&untyped),
        "{\"alg\":\"ES256\",\"kid\":\"a\\\"b\\\\c\\n\u{1f600}\"}"
    );
    for algorithm in Algorithm::ALL {
        let header = Header {
            algorithm,
            ..header()
        };
        assert!(text(&header).contains(&format!(r#""alg":"{}""#, algorithm.name())));
    }
}

#[test]
fn a_token_is_taken_apart_into_what_it_was_made_of() {
    let input = signing_input(&header(), b"{\"a\":1}");
    assert_eq!(
        String::from_utf8(input.clone()).unwrap(),
        "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiYXQrand0In0.eyJhIjoxfQ"
    );
    let token = compact(&input, &[0xfb, 0xff]).unwrap();
    assert!(token.ends_with(".eyJhIjoxfQ.-_8"), "{token}");
    let jws = CompactJws::parse(token.as_bytes(), MAX).unwrap();
    assert_eq!(jws.signing_input, input);
    assert_eq!(jws.signature, [0xfb, 0xff]);
    assert_eq!(jws.payload, b"{\"a\":1}");
    assert_eq!(compact(b"\xff.", b""), Err(InvalidJws::NotAscii));
    assert_eq!(compact("é.".as_bytes(), b""), Err(InvalidJws::NotAscii));
}

#[test]
fn other_members_are_named() {
    let text = r#"{"crit":["b64"],"b64":false,"alg":"RS256","\u006aku":"x"}"#;
    let header = parse(text).unwrap().header;
    assert_eq!(
        header,
        ParsedHeader {
            algorithm: Algorithm::Rs256,
            kid: None,
            typ: None,
            others: ["crit", "b64", "jku"].map(String::from).to_vec(),
        }
    );
}

#[test]
fn a_header_says_one_thing() {
    let found = |text: &str| parse(text).unwrap_err();
    for text in [
        r#"{"alg":"ES256","alg":"RS256"}"#,
        r#"{"alg":"ES256","\u0061lg":"RS256"}"#,
        r#"{"alg":"ES256","kid":"a","k\u0069d":"b"}"#,
        r#"{"alg":"ES256","jwk":{"a":1,"a":1}}"#,
    ] {
        assert!(
            matches!(
                found(text),
                InvalidJws::HeaderJson(JsonError::Duplicate { .. })
            ),
            "{text}"
        );
    }
    assert_eq!(found("{}"), InvalidJws::NoAlgorithm);
    for (text, name) in [
        (r#"{"alg":null}"#, "alg"),
        (r#"{"alg":"ES256","kid":5}"#, "kid"),
        (r#"{"alg":"ES256","typ":["JWT"]}"#, "typ"),
    ] {
        assert_eq!(found(text), InvalidJws::HeaderMember { name });
    }
    for alg in ["none", "HS256", "es256", "ES256 ", ""] {
        assert!(matches!(
            found(&format!(r#"{{"alg":"{alg}"}}"#)),
            InvalidJws::UnknownAlgorithm(_)
        ));
    }
    for text in ["", "[]", "\"ES256\"", r#"{"alg":"ES256"} "x""#] {
        assert!(matches!(found(text), InvalidJws::HeaderJson(_)), "{text}");
    }
}

#[test]
fn parts_are_counted_and_canonical() {
    let good = "eyJhbGciOiJFUzI1NiJ9";
    let parts = |expected, got| InvalidJws::Parts { expected, got };
    let encoding = |part| InvalidJws::Encoding { part };
    for (text, why) in [
        (String::new(), parts(2, 1)),
        (good.to_owned(), parts(2, 1)),
        (format!("{good}.e30.AA"), parts(2, 3)),
        (format!("{good}=.e30"), encoding("header")),
        (format!("{good}\n.e30"), encoding("header")),
        (format!("{good}.e30="), encoding("payload")),
        (format!("{good}.e31"), encoding("payload")),
        (format!("{good}.+/8"), encoding("payload")),
    ] {
        assert_eq!(
            SigningInput::parse(text.as_bytes(), MAX),
            Err(why),
            "{text}"
        );
    }
    for (text, why) in [
        (format!("{good}.e30"), parts(3, 2)),
        (format!("{good}.e30.AA.AA"), parts(3, 4)),
        (format!("{good}.e30.AB"), encoding("signature")),
        (format!("{good}.e30.AA=="), encoding("signature")),
    ] {
        assert_eq!(
            CompactJws::parse(text.as_bytes(), MAX).unwrap_err(),
            why,
            "{text}"
        );
    }
    // A payload may be empty; a header may not.
    SigningInput::parse(format!("{good}.").as_bytes(), MAX).unwrap();
    assert!(SigningInput::parse(b".e30", MAX).is_err());
}

#[test]
fn size_is_bounded_before_anything_else() {
    let text = signing_input(&header(), &[b' '; 500]);
    SigningInput::parse(&text, text.len()).unwrap();
    assert_eq!(
        SigningInput::parse(&text, text.len() - 1),
        Err(InvalidJws::TooLong {
            max: text.len() - 1,
            got: text.len()
        })
    );
    assert!(matches!(
        CompactJws::parse(&[b'.'; 100], 99),
        Err(InvalidJws::TooLong { max: 99, got: 100 })
    ));
}

#[test]
fn debug_shows_no_payload() {
    let text = signing_input(&header(), b"hunter2");
    let token = compact(&text, b"hunter2").unwrap();
    let shown = format!(
        "{:?} {:?}",
        SigningInput::parse(&text, MAX).unwrap(),
        CompactJws::parse(token.as_bytes(), MAX).unwrap()
    );
    assert!(shown.contains("7 bytes"), "{shown}");
    for secret in [
        String::from("hunter2"),
        base64url::encode(b"hunter2"),
        format!("{:?}", b"hunter2"),
    ] {
        assert!(!shown.contains(&secret), "{shown}");
    }
}

proptest! {
    #[test]
    fn what_is_assembled_is_parsed(
        algorithm in proptest::sample::select(Algorithm::ALL.to_vec()),
        kid in any::<String>(),
        typ in any::<Option<String>>(),
        payload in any::<Vec<u8>>(),
        signature in any::<Vec<u8>>(),
    ) {
        let header = Header { algorithm, kid, typ };
        let input = signing_input(&header, &payload);
        let token = compact(&input, &signature).unwrap();
        let jws = CompactJws::parse(token.as_bytes(), MAX).unwrap();
        let parsed = ParsedHeader {
            algorithm,
            kid: Some(header.kid),
            typ: header.typ,
            others: vec![],
        };
        prop_assert_eq!(&jws.header, &parsed);
        prop_assert_eq!(jws.signing_input, &input[..]);
        prop_assert_eq!(&jws.payload, &payload);
        prop_assert_eq!(&jws.signature, &signature);
        let read = SigningInput::parse(&input, MAX).unwrap();
        prop_assert_eq!((read.header, read.payload), (parsed, payload));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
        let _ = (SigningInput::parse(&bytes, MAX), CompactJws::parse(&bytes, MAX));
    }

    /// As above, but past the base64url.
    #[test]
    fn no_header_makes_it_panic(header in any::<Vec<u8>>(), rest in "[.A-Za-z0-9_-]{0,20}") {
        let text = format!("{}.{rest}", base64url::encode(&header));
        let _ = SigningInput::parse(text.as_bytes(), MAX);
        let _ = CompactJws::parse(text.as_bytes(), MAX);
    }

    /// There is no second text of a token: change any byte, and it is refused
    /// or says something else.
    #[test]
    fn no_two_texts_mean_the_same(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let token = compact(&signing_input(&header(), b"{}"), b"signature").unwrap().into_bytes();
        let mut other = token.clone();
        other[at.index(token.len())] = byte;
        if other != token {
            let ours = CompactJws::parse(&token, MAX).unwrap();
            if let Ok(theirs) = CompactJws::parse(&other, MAX) {
                prop_assert_ne!(
                    (ours.signing_input, ours.signature),
                    (theirs.signing_input, theirs.signature)
                );
            }
        }
    }
}
