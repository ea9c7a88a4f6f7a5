//! When a caller stops waiting.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// How long a request may take: what its `grpc-timeout` says, and `longest`
/// where it says nothing, more, or something that is no timeout.
pub(super) fn allowed(metadata: &MetadataMap, longest: Duration) -> Duration {
    asked(metadata).map_or(longest, |asked| asked.min(longest))
}

/// What `grpc-timeout` says, if it says something.
pub(super) fn asked(metadata: &MetadataMap) -> Option<Duration> {
    parse(metadata.get("grpc-timeout")?.as_bytes())
}

/// One to eight digits and a unit, as in gRPC over HTTP/2's grammar of
/// `Timeout`.
fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits
        .iter()
        .fold(0_u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_grammar_says() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("40m", Some(Duration::from_millis(40))),
            ("50u", Some(Duration::from_micros(50))),
            ("60n", Some(Duration::from_nanos(60))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("0m", Some(Duration::ZERO)),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("5", None),
            ("-5S", None),
            ("5s", None),
            ("1.5S", None),
            ("５S", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn nobody_waits_longer_than_the_longest() {
        let longest = Duration::from_secs(5);
        let mut metadata = MetadataMap::new();
        assert_eq!(allowed(&metadata, longest), longest);
        for (text, expected) in [
            ("100m", Duration::from_millis(100)),
            ("1H", longest),
            ("soon", longest),
        ] {
            metadata.insert("grpc-timeout", text.parse().expect("ASCII"));
            assert_eq!(allowed(&metadata, longest), expected, "{text}");
        }
    }
}
