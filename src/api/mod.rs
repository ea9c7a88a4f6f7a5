//! The gRPC contracts of `proto/`, as Rust types, and a client's connection.
//!
//! Used by `serve`, `cli` and clients. Nothing below this floor knows these
//! types: what comes in over them becomes a type of the floor that uses it.

use std::fmt;

use crate::time::Time;

pub mod client;

/// `package sealkeeper.v1`: the signer and its administration.
pub mod v1 {
    #![expect(
        missing_docs,
        clippy::allow_attributes,
        reason = "generated from proto/, whose comments are the documentation"
    )]
    tonic::include_proto!("sealkeeper.v1");
}

/// The compiled contracts (`google.protobuf.FileDescriptorSet`, with comments
/// and imports), for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sealkeeper.bin"));

/// An instant, as it goes over the wire.
#[must_use]
pub fn timestamp(time: Time) -> prost_types::Timestamp {
    let ms = time.as_millis().rem_euclid(1000);
    prost_types::Timestamp {
        seconds: time.as_secs(),
        nanos: i32::try_from(ms).unwrap_or(0) * 1_000_000,
    }
}

/// Whether a terminal obeys this character instead of showing it: controls, and
/// what turns the direction of the text around it (Unicode annex 9), so that a
/// remark reads as something else than it says.
#[must_use]
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

// Why: a derived `Debug` would write claims and tokens wherever a message is
// logged, so `build.rs` leaves it out for these four.

impl fmt::Debug for v1::SignJwtRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignJwtRequest")
            .field("key_set", &self.key_set)
            .field("claims", &Redacted(self.claims.len()))
            .field("alg", &self.alg)
            .field("typ", &self.typ)
            .finish()
    }
}

impl fmt::Debug for v1::SignJwtResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignJwtResponse")
            .field("token", &Redacted(self.token.len()))
            .field("kid", &self.kid)
            .field("alg", &self.alg)
            .field("expires", &self.expires)
            .finish()
    }
}

impl fmt::Debug for v1::SignJwsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignJwsRequest")
            .field("key_set", &self.key_set)
            .field("signing_input", &Redacted(self.signing_input.len()))
            .finish()
    }
}

impl fmt::Debug for v1::SignJwsResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignJwsResponse")
            .field("signature", &Redacted(self.signature.len()))
            .field("kid", &self.kid)
            .field("alg", &self.alg)
            .field("expires", &self.expires)
            .finish()
    }
}

/// Shows how long a value is instead of the value.
struct Redacted(usize);

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::v1;

    /// No claim, signing input, token or signature reaches a log through
    /// `Debug`.
    #[test]
    fn debug_shows_no_secret() {
        let planted = "planted-7f3a";
        let shown = [
            format!(
                "{:?}",
                v1::SignJwtRequest {
                    claims: planted.into(),
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                v1::SignJwtResponse {
                    token: planted.into(),
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                v1::SignJwsRequest {
                    signing_input: planted.into(),
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                v1::SignJwsResponse {
                    signature: planted.into(),
                    ..Default::default()
                }
            ),
        ];
        let as_bytes = format!("{:?}", planted.as_bytes());
        for text in shown {
            assert!(text.contains("12 bytes"), "{text}");
            assert!(!text.contains(planted), "{text}");
            assert!(!text.contains(&as_bytes), "{text}");
        }
    }
}
