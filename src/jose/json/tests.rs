#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn names_and_values(text: &str) -> Vec<(String, String)> {
    members(text.as_bytes())
        .unwrap()
        .into_iter()
        .map(|(name, value)| (name, value.get().to_owned()))
        .collect()
}

#[test]
fn values_are_verbatim_and_in_order() {
    let text = " {\"z\" : 1.0e+2 ,\r\n\t\"a\":{\"b\" : [ ] },\"\\u00e9\\n\": \"\\u0041\\/\"} ";
    let expected = [
        ("z", "1.0e+2"),
        ("a", "{\"b\" : [ ] }"),
        ("é\n", "\"\\u0041\\/\""),
    ]
    .map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(names_and_values(text), expected);
    assert_eq!(names_and_values("{}"), []);
    assert_eq!(
        string(members(text.as_bytes()).unwrap()[2].1).as_deref(),
        Some("A/")
    );
    assert_eq!(string(members(text.as_bytes()).unwrap()[0].1), None);
}

#[test]
fn a_member_that_stands_twice_is_refused_however_it_is_escaped() {
    for text in [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"\u0061":1,"b":0,"a":2}"#,
        r#"{"x":{"a":1,"a":1}}"#,
        r#"{"x":[0,{"y":[{"a":1,"\u0061":1}]}]}"#,
        r#"{"😀":1,"\ud83d\ude00":2}"#,
        r#"{"":1,"":2}"#,
        r#"{"/":1,"\/":2}"#,
    ] {
        let found = members(text.as_bytes()).unwrap_err();
        assert!(
            matches!(found, JsonError::Duplicate { .. }),
            "{text}: {found}"
        );
        assert_eq!(check(text.as_bytes()).unwrap_err(), found);
    }
    assert_eq!(
        check(br#"{"a":1,"\u0061":2}"#).unwrap_err(),
        JsonError::Duplicate {
            first: 1,
            second: 7
        }
    );
    // One name in two objects is no duplicate.
    check(br#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#).unwrap();
}

#[test]
fn nesting_is_bounded() {
    let nested = |open: &str, close: &str, n| {
        let mut text = open.repeat(n);
        text.push('1');
        text.push_str(&close.repeat(n));
        text
    };
    for (open, close, len) in [("[", "]", 1), ("{\"a\":", "}", 5)] {
        check(nested(open, close, MAX_DEPTH).as_bytes()).unwrap();
        assert_eq!(
            check(nested(open, close, MAX_DEPTH + 1).as_bytes()),
            Err(JsonError::TooDeep {
                at: MAX_DEPTH * len
            })
        );
    }
    // The reader's stack does not grow with what it is given.
    assert!(check(nested("[", "]", 1_000_000).as_bytes()).is_err());
    // Siblings are not deeper.
    check(format!("[{}]", vec!["[[]]"; 100].join(",")).as_bytes()).unwrap();
}

#[test]
fn strings_are_unicode() {
    for text in [
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\udc00\ud800""#,
        r#""\ud800\u0041""#,
        r#""\ud800\ud800""#,
        r#""\ud83dx""#,
        r#"{"\ud800":1}"#,
    ] {
        let found = check(text.as_bytes()).unwrap_err();
        assert!(
            matches!(found, JsonError::LoneSurrogate { .. }),
            "{text}: {found}"
        );
    }
    check(br#""\ud83d\ude00\uDBFF\uDFFF""#).unwrap();
    assert_eq!(check(b"\"a\xff\""), Err(JsonError::NotUtf8 { at: 2 }));
    // A surrogate, and an overlong slash, written as bytes.
    assert!(check(b"\"\xed\xa0\x80\"").is_err());
    assert!(check(b"\"\xc0\xaf\"").is_err());
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    let syntax = |expected, at| Err(JsonError::Syntax { expected, at });
    assert_eq!(check(b""), syntax("a value", 0));
    assert_eq!(check(b"[1,]"), syntax("a value", 3));
    assert_eq!(check(b"{\"a\":1,}"), syntax("a member's name", 7));
    assert_eq!(check(b"{\"a\" 1}"), syntax("a colon", 5));
    assert_eq!(check(b"\"a\nb\""), syntax("the rest of a string", 2));
    assert_eq!(check(b"nul"), syntax("null", 0));
    assert_eq!(check(b"01"), Err(JsonError::Trailing { at: 1 }));
    assert_eq!(check(b"1 2"), Err(JsonError::Trailing { at: 2 }));
    assert_eq!(check(b"{} {}"), Err(JsonError::Trailing { at: 3 }));
    assert_eq!(
        members(b" []").unwrap_err(),
        JsonError::NotAnObject { at: 1 }
    );
    for text in [
        "1.",
        ".5",
        "-",
        "+1",
        "1e",
        "0x1",
        "\\u0022",
        "\"\\x\"",
        "\"\\u00g0\"",
        "\"\\u00",
    ] {
        assert!(check(text.as_bytes()).is_err(), "{text}");
    }
    // A byte order mark, a vertical tab, a no-break space.
    for text in ["\u{feff}{}", "\u{b}1", "\u{a0}1"] {
        assert!(check(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn an_error_shows_nothing_of_the_text() {
    for text in [
        "{\"secret\":1,\"secret\":2}",
        "{\"a\":secret}",
        "{\"a\":\"secret",
    ] {
        let found = check(text.as_bytes()).unwrap_err();
        assert!(!format!("{found} {found:?}").contains("secret"), "{found}");
    }
}

/// A value, and one text of it.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300..1e300f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Text that is nearly JSON.
fn soup() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        proptest::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\"",
            "\"\\u0061\"",
            "\\",
            "\\ud800",
            "\\udc00",
            "\"\\ud83d\\ude00\"",
            "0",
            "-",
            "1",
            ".",
            "e",
            "E",
            "+",
            "true",
            "false",
            "null",
            " ",
            "\n",
            "\u{7f}",
            "\u{feff}",
            "\"b\":",
            "\"a\":1",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_read(value in value()) {
        let text = serde_json::to_vec_pretty(&value).unwrap();
        prop_assert_eq!(check(&text), Ok(()));
        // Its floats are not read back to the last bit, so ask it both times.
        let value = serde_json::from_slice::<Value>(&text).unwrap();
        if let Value::Object(object) = &value {
            let found = members(&text).unwrap();
            prop_assert_eq!(found.len(), object.len());
            for (name, raw) in found {
                let value: Value = serde_json::from_str(raw.get()).unwrap();
                prop_assert_eq!(Some(&value), object.get(&name));
            }
        }
    }

    /// Where this reader and `serde_json` differ, it is by being stricter
    /// about duplicates, surrogates and depth, or by a number that is JSON
    /// and too large for a float.
    #[test]
    fn nothing_is_read_that_serde_json_does_not_read(text in soup()) {
        let ours = check(text.as_bytes());
        let theirs = serde_json::from_str::<Value>(&text);
        match (ours, theirs) {
            (Ok(()), Err(e)) => prop_assert!(e.to_string().contains("out of range"), "{}", e),
            (Err(e), Ok(_)) => prop_assert!(matches!(e, JsonError::Duplicate { .. }), "{}", e),
            _ => {}
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let whole = check(&bytes).is_ok();
        prop_assert!(whole || members(&bytes).is_err());
    }
}
