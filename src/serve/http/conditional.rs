//! `If-None-Match` (RFC 9110 section 13.1.2).

use axum::http::HeaderMap;
use axum::http::header::IF_NONE_MATCH;

/// Whether the client already holds the representation that `etag` names:
/// one of its tags is equal under weak comparison (section 8.8.3.2), or it
/// says `*`.
///
/// A field that does not follow the grammar counts for nothing: the whole
/// answer is never wrong.
pub(super) fn is_held(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = etag.strip_prefix("W/").unwrap_or(etag);
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .any(|field| holds(field.as_bytes(), opaque.as_bytes()))
}

fn holds(field: &[u8], opaque: &[u8]) -> bool {
    if field.trim_ascii() == b"*" {
        return true;
    }
    let mut rest = field;
    let mut found = false;
    loop {
        rest = rest.trim_ascii_start();
        // Lists may have empty elements (section 5.6.1.2).
        if let Some(more) = rest.strip_prefix(b",") {
            rest = more;
            continue;
        }
        if rest.is_empty() {
            return found;
        }
        let Some((tag, more)) = take_tag(rest) else {
            return false;
        };
        found |= tag == opaque;
        rest = more.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return false;
        }
    }
}

/// One entity tag, its quotes included and its weakness dropped, and what
/// follows it. A comma may stand within the quotes.
fn take_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"W/").unwrap_or(text);
    let inner = text.strip_prefix(b"\"")?;
    let end = inner.iter().position(|byte| *byte == b'"')?;
    Some(text.split_at(end + 2))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn tags_are_compared_as_rfc_9110_says() {
        for (field, held) in [
            ("\"a1\"", true),
            ("W/\"a1\"", true),
            ("*", true),
            (" * ", true),
            ("\"x\", \"a1\"", true),
            ("\"x\",W/\"a1\" ,\"y\"", true),
            (", ,\"a1\",,", true),
            ("\"x,\\\", \"a1\"", true),
            ("\"a1", false),
            ("a1", false),
            ("\"A1\"", false),
            ("\"a1 \"", false),
            ("\"x\"", false),
            ("\"x, \"", false),
            ("w/\"a1\"", false),
            ("\"a1\" \"b\"", false),
            ("\"a1\", b", false),
            ("\"x\", *", false),
            ("\"\"", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_str(field).unwrap());
            assert_eq!(is_held(&headers, "\"a1\""), held, "{field}");
            assert_eq!(is_held(&headers, "W/\"a1\""), held, "{field}");
        }
        assert!(!is_held(&HeaderMap::new(), "\"a1\""));
    }

    #[test]
    fn fields_that_stand_twice_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(IF_NONE_MATCH, HeaderValue::from_static("\"x\""));
        headers.append(IF_NONE_MATCH, HeaderValue::from_static("\"a1\""));
        assert!(is_held(&headers, "\"a1\""));
    }

    #[test]
    fn bytes_beyond_ascii_are_no_match_and_no_panic() {
        let mut headers = HeaderMap::new();
        let field = HeaderValue::from_bytes(b"\"\xff\xfe\"").unwrap();
        headers.insert(IF_NONE_MATCH, field);
        assert!(!is_held(&headers, "\"a1\""));
    }
}
