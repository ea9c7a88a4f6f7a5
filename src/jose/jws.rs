//! Compact JWS: putting one together, and taking one apart without a doubt
//! about what it says (RFC 7515 sections 3.1, 5 and 7.1).

use std::fmt;

use serde::Serialize;

use super::algorithm::{Algorithm, UnknownAlgorithm};
use super::base64url;
use super::json::{self, JsonError};

/// A protected header as the agent writes it: `alg`, `kid`, `typ`, in this
/// order, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Header {
    /// The `alg`.
    #[serde(rename = "alg")]
    pub algorithm: Algorithm,
    /// The name of the key that signs.
    pub kid: String,
    /// The kind of token, such as `at+jwt` (RFC 8725 section 3.11).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
}

impl Header {
    /// The JSON text: the same bytes for the same header.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings always have a JSON form")
    }
}

/// What is signed: `b64url(header) "." b64url(payload)` (RFC 7515 section
/// 5.1), always ASCII.
#[must_use]
pub fn signing_input(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut text = base64url::encode(&header.to_json());
    text.push('.');
    text.push_str(&base64url::encode(payload));
    text.into_bytes()
}

/// The token: `signing_input "." b64url(signature)`.
///
/// # Errors
/// [`InvalidJws::NotAscii`] for a signing input that was neither made by
/// [`signing_input`] nor read by [`SigningInput::parse`].
pub fn compact(signing_input: &[u8], signature: &[u8]) -> Result<String, InvalidJws> {
    let input = std::str::from_utf8(signing_input)
        .ok()
        .filter(|text| text.is_ascii())
        .ok_or(InvalidJws::NotAscii)?;
    Ok([input, ".", &base64url::encode(signature)].concat())
}

/// A protected header that somebody else wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedHeader {
    /// The `alg`.
    pub algorithm: Algorithm,
    /// The `kid`, if there is one.
    pub kid: Option<String>,
    /// The `typ`, if there is one.
    pub typ: Option<String>,
    /// The names of all other members, in the order of the text. `crit` is
    /// among them: nothing critical is understood here.
    pub others: Vec<String>,
}

/// A signing input, taken apart. `Debug` shows no payload.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningInput {
    /// The protected header.
    pub header: ParsedHeader,
    /// The payload's bytes, whatever they are.
    pub payload: Vec<u8>,
}

/// A compact JWS, taken apart; its signature is not verified. `Debug` shows no
/// payload.
#[derive(Clone, PartialEq, Eq)]
pub struct CompactJws<'a> {
    /// What the signature is about, verbatim.
    pub signing_input: &'a [u8],
    /// The protected header.
    pub header: ParsedHeader,
    /// The payload's bytes, whatever they are.
    pub payload: Vec<u8>,
    /// The signature's bytes.
    pub signature: Vec<u8>,
}

/// Why a text is not a JWS, or one that means different things to different
/// readers. The text's author is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJws {
    /// More bytes than the caller of the parser allows.
    #[error("expected at most {max} bytes, got {got}")]
    TooLong {
        /// How many are allowed.
        max: usize,
        /// How many there are.
        got: usize,
    },
    /// Too many or too few dots.
    #[error("expected {expected} parts between dots, got {got}")]
    Parts {
        /// Two for a signing input, three for a token.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// Bytes that no base64url has.
    #[error("expected base64url and dots, got other bytes")]
    NotAscii,
    /// Padded, not canonical, or no base64url at all.
    #[error("expected unpadded, canonical base64url in the {part}, got something else")]
    Encoding {
        /// `header`, `payload` or `signature`.
        part: &'static str,
    },
    /// The header is not one JSON object with unambiguous members.
    #[error("header: {0}")]
    HeaderJson(#[from] JsonError),
    /// The header names no algorithm.
    #[error("expected a header with \"alg\", got none")]
    NoAlgorithm,
    /// A header member that must be a string is something else.
    #[error("expected a string in the header's {name:?}, got something else")]
    HeaderMember {
        /// `alg`, `kid` or `typ`.
        name: &'static str,
    },
    /// The header names an algorithm that is not used here: `none`, for one.
    #[error("header: {0}")]
    UnknownAlgorithm(#[from] UnknownAlgorithm),
}

impl SigningInput {
    /// Reads `b64url(header) "." b64url(payload)` of at most `max_bytes`.
    ///
    /// # Errors
    /// [`InvalidJws`].
    pub fn parse(text: &[u8], max_bytes: usize) -> Result<Self, InvalidJws> {
        let [header, payload] = parts(text, max_bytes)?;
        Ok(Self {
            header: ParsedHeader::parse(header)?,
            payload: decoded(payload, "payload")?,
        })
    }
}

impl<'a> CompactJws<'a> {
    /// Reads a compact JWS of at most `max_bytes`.
    ///
    /// # Errors
    /// [`InvalidJws`].
    pub fn parse(token: &'a [u8], max_bytes: usize) -> Result<Self, InvalidJws> {
        let [header, payload, signature] = parts(token, max_bytes)?;
        Ok(Self {
            signing_input: &token[..header.len() + 1 + payload.len()],
            header: ParsedHeader::parse(header)?,
            payload: decoded(payload, "payload")?,
            signature: decoded(signature, "signature")?,
        })
    }
}

impl ParsedHeader {
    fn parse(text: &[u8]) -> Result<Self, InvalidJws> {
        let text = decoded(text, "header")?;
        let (mut alg, mut kid, mut typ) = (None, None, None);
        let mut others = Vec::new();
        for (name, value) in json::members(&text)? {
            let (slot, name) = match name.as_str() {
                "alg" => (&mut alg, "alg"),
                "kid" => (&mut kid, "kid"),
                "typ" => (&mut typ, "typ"),
                _ => {
                    others.push(name);
                    continue;
                }
            };
            *slot = Some(json::string(value).ok_or(InvalidJws::HeaderMember { name })?);
        }
        Ok(Self {
            algorithm: alg.ok_or(InvalidJws::NoAlgorithm)?.parse()?,
            kid,
            typ,
            others,
        })
    }
}

impl fmt::Debug for SigningInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningInput")
            .field("header", &self.header)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish()
    }
}

impl fmt::Debug for CompactJws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompactJws")
            .field("header", &self.header)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("signature", &format_args!("{} bytes", self.signature.len()))
            .finish_non_exhaustive()
    }
}

/// Splits at the dots, after looking at the length.
fn parts<const N: usize>(text: &[u8], max_bytes: usize) -> Result<[&[u8]; N], InvalidJws> {
    if text.len() > max_bytes {
        return Err(InvalidJws::TooLong {
            max: max_bytes,
            got: text.len(),
        });
    }
    let got = 1 + text.iter().filter(|byte| **byte == b'.').count();
    let mut parts = text.split(|byte| *byte == b'.');
    let split = [(); N].map(|()| parts.next().unwrap_or_default());
    if got != N {
        return Err(InvalidJws::Parts { expected: N, got });
    }
    Ok(split)
}

fn decoded(text: &[u8], part: &'static str) -> Result<Vec<u8>, InvalidJws> {
    base64url::decode(text).map_err(|_| InvalidJws::Encoding { part })
}

#[cfg(test)]
mod tests;
