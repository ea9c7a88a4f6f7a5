//! `pkcs11:` URIs that name a token (RFC 7512).

use std::collections::BTreeMap;

/// What a URI says of a device; each member is absent where it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenUri {
    pub(super) label: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) module: Option<String>,
    /// The path of `pin-source=file:...`.
    pub(super) pin_file: Option<String>,
}

/// What is wrong with a URI, and what to do. Never shows a value of the query:
/// it may be a PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadUri {
    pub(super) message: String,
    pub(super) hint: &'static str,
}

fn bad<T>(message: impl Into<String>, hint: &'static str) -> Result<T, BadUri> {
    Err(BadUri {
        message: message.into(),
        hint,
    })
}

const SHAPE: &str = "pkcs11:token=LABEL;serial=SERIAL?module-path=/path/to/module.so&pin-source=file:/path/to/pin (RFC 7512)";

/// Reads a URI. Attributes that would select something else than a token, or
/// that would be ignored, are refused.
pub(super) fn parse(uri: &str) -> Result<TokenUri, BadUri> {
    let Some(rest) = uri.strip_prefix("pkcs11:") else {
        return bad("expected a URI that begins with pkcs11:", SHAPE);
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut token = TokenUri::default();
    for (name, value) in attributes(path, ';')? {
        match name {
            "token" => token.label = Some(value),
            "serial" => token.serial = Some(value),
            "object" | "type" | "id" => {
                return bad(
                    format!("{name} names a key, expected a token"),
                    "keys are generated and found by the agent; name the token alone",
                );
            }
            _ => {
                return bad(
                    format!("expected token or serial, got {name}"),
                    "a label or a serial number says enough, and neither changes when a reader is plugged elsewhere",
                );
            }
        }
    }
    for (name, value) in attributes(query, '&')? {
        match name {
            "module-path" => token.module = Some(value),
            "pin-source" => token.pin_file = Some(pin_file(&value)?),
            "pin-value" => {
                return bad(
                    "pin-value puts the PIN into the configuration",
                    "put it into a file that its owner alone may read, and name that: pin-source=file:/path/to/pin; then change the PIN, since copies of this file may exist",
                );
            }
            "module-name" => {
                return bad(
                    "module-name means another file on each system",
                    "name the library itself: module-path=/path/to/module.so",
                );
            }
            _ => {
                return bad(
                    format!("expected module-path or pin-source, got {name}"),
                    SHAPE,
                );
            }
        }
    }
    Ok(token)
}

/// RFC 7512 section 2.4 also allows `|command`; running one with the daemon's
/// rights is not worth it.
fn pin_file(source: &str) -> Result<String, BadUri> {
    let path = source.strip_prefix("file:").unwrap_or_default();
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        bad(
            "pin-source: expected file: and an absolute path",
            "pin-source=file:/path/to/pin; commands are not run",
        )
    }
}

fn attributes(text: &str, separator: char) -> Result<BTreeMap<&str, String>, BadUri> {
    let mut found = BTreeMap::new();
    for attribute in text.split(separator).filter(|part| !part.is_empty()) {
        let Some((name, value)) = attribute.split_once('=') else {
            return bad("expected NAME=VALUE in each attribute", SHAPE);
        };
        let Some(value) = decode(value) else {
            return bad(
                format!("{name}: expected percent-encoded UTF-8"),
                "a space is %20, a percent sign %25",
            );
        };
        if value.is_empty() {
            return bad(format!("{name}: expected a value, got nothing"), SHAPE);
        }
        if found.insert(name, value).is_some() {
            return bad(
                format!("{name} stands twice"),
                "each attribute at most once (RFC 7512 section 2.3)",
            );
        }
    }
    Ok(found)
}

/// RFC 3986 section 2.1, strictly: two hexadecimal digits after each `%`, no
/// raw space or control character.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                decoded.push(u8::try_from(high * 16 + low).ok()?);
            }
            b' ' | 0..=31 | 127 => return None,
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test ends where it fails")]
mod tests {
    use super::*;

    #[test]
    fn reads_what_rfc_7512_section_3_shows_of_tokens() {
        let token = parse("pkcs11:token=The%20Software%20PKCS%2311%20Softtoken").unwrap();
        assert_eq!(
            token.label.as_deref(),
            Some("The Software PKCS#11 Softtoken")
        );
        let token = parse("pkcs11:serial=DECC0401648?pin-source=file:/etc/token").unwrap();
        assert_eq!(token.serial.as_deref(), Some("DECC0401648"));
        assert_eq!(token.pin_file.as_deref(), Some("/etc/token"));
    }

    #[test]
    fn reads_a_whole_device() {
        let uri = "pkcs11:token=a;serial=b?module-path=/lib/m%26n.so&pin-source=file:///p";
        let token = parse(uri).unwrap();
        assert_eq!(
            token,
            TokenUri {
                label: Some("a".into()),
                serial: Some("b".into()),
                module: Some("/lib/m&n.so".into()),
                pin_file: Some("/p".into()),
            }
        );
    }

    #[test]
    fn refuses_with_a_reason() {
        for (uri, about) in [
            ("token=a", "begins with pkcs11:"),
            ("pkcs11:token=a;token=b", "token stands twice"),
            ("pkcs11:token", "NAME=VALUE"),
            ("pkcs11:token=", "token: expected a value"),
            ("pkcs11:token=%", "percent-encoded"),
            ("pkcs11:token=%2", "percent-encoded"),
            ("pkcs11:token=%zz", "percent-encoded"),
            ("pkcs11:token=%ff", "percent-encoded"),
            ("pkcs11:token=a b", "percent-encoded"),
            ("pkcs11:object=key", "object names a key"),
            ("pkcs11:slot-id=1", "got slot-id"),
            ("pkcs11:token=a?module-name=softhsm2", "module-name"),
            ("pkcs11:token=a?pin-source=|cat%20/etc/pin", "pin-source"),
            ("pkcs11:token=a?pin-source=file:pin", "absolute path"),
            ("pkcs11:token=a?colour=red", "got colour"),
        ] {
            let error = parse(uri).unwrap_err();
            assert!(error.message.contains(about), "{uri}: {error:?}");
        }
    }

    #[test]
    fn never_repeats_a_pin() {
        for uri in [
            "pkcs11:token=a?pin-value=1234",
            "pkcs11:token=a?pin-value=1234%",
            "pkcs11:token=a?pin-source=1234",
            "pkcs11:token=a?pin=1234",
            "pkcs11:pin-value=1234",
            "pkcs11:token=a?1234",
        ] {
            let error = parse(uri).unwrap_err();
            assert!(!format!("{error:?}").contains("1234"), "{error:?}");
        }
    }
}
