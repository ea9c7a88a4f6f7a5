//! Base64url as JOSE writes it: unpadded and canonical (RFC 7515 section 2,
//! RFC 4648 sections 3.5 and 5).
//!
//! Invariant: each byte string has one text that is accepted. A second
//! spelling of a token would be a second token to whoever compares texts.

use base64ct::{Base64UrlUnpadded, Encoding};

/// A text that is not unpadded, canonical base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected unpadded base64url without spare bits, got something else")]
pub struct NotBase64Url;

/// The text of `bytes`.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// The bytes of `text`.
///
/// # Errors
/// [`NotBase64Url`] for padding, white space, other alphabets, impossible
/// lengths, and spare bits that are not zero.
pub fn decode(text: impl AsRef<[u8]>) -> Result<Vec<u8>, NotBase64Url> {
    let text = text.as_ref();
    let mut bytes = vec![0; text.len() / 4 * 3 + 3];
    let len = Base64UrlUnpadded::decode(text, &mut bytes)
        .map_err(|_| NotBase64Url)?
        .len();
    bytes.truncate(len);
    Ok(bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7515_appendix_c() {
        let bytes = [3, 236, 255, 224, 193];
        assert_eq!(encode(&bytes), "A-z_4ME");
        assert_eq!(decode("A-z_4ME").unwrap(), bytes);
        assert_eq!(decode("").unwrap(), b"");
    }

    #[test]
    fn each_byte_string_has_one_text() {
        // Each text of up to three characters over the alphabet and its
        // neighbours: what is accepted is what we would write.
        let alphabet = b"AQgwBEIZaz09-_+/=. \n\0\x80\xff";
        let mut texts = vec![vec![]];
        for _ in 0..3 {
            let longer = texts
                .iter()
                .flat_map(|t: &Vec<u8>| alphabet.iter().map(move |c| [&t[..], &[*c]].concat()))
                .collect::<Vec<_>>();
            texts.extend(longer);
        }
        let mut accepted = 0;
        for text in texts {
            if let Ok(bytes) = decode(&text) {
                assert_eq!(encode(&bytes).as_bytes(), text);
                accepted += 1;
            }
        }
        assert!(accepted > 100, "got {accepted}");
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in ["A-z_4ME=", "A-z_4MF", "A+z/4ME", "A-z_4ME ", "A", "A-z_4"] {
            assert_eq!(decode(text), Err(NotBase64Url), "{text:?}");
        }
    }
}
