//! The name that a public key gives itself: RFC 7638, over SHA-256.

use aws_lc_rs::digest;

use super::base64url;
use super::key::{PublicKey, RawKey};

/// The thumbprint: 43 characters of base64url. It is the `kid` of each key
/// that is made here.
///
/// It covers the members of RFC 7638 section 3.2 (RSA, EC) and RFC 8037
/// section 2 (OKP), in lexicographic order and without white space. `alg` is
/// not among them.
#[must_use]
pub fn thumbprint(key: &PublicKey) -> String {
    // A curve's name is its `crv`; neither it nor base64url holds anything
    // that JSON escapes.
    let crv = key.key_type();
    let b64 = |number: &[u8]| base64url::encode(number);
    let required = match key.raw() {
        RawKey::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, b64(e), b64(n)),
        RawKey::Ec { x, y } => format!(
            r#"{{"crv":"{crv}","kty":"EC","x":"{}","y":"{}"}}"#,
            b64(x),
            b64(y)
        ),
        RawKey::Ed25519 { x } => format!(r#"{{"crv":"{crv}","kty":"OKP","x":"{}"}}"#, b64(x)),
    };
    base64url::encode(digest::digest(&digest::SHA256, required.as_bytes()).as_ref())
}
