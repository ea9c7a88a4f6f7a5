//! JOSE, pure: algorithms, public keys, JWK and JWKS, thumbprints, JWS
//! assembly and parsing, verification.
//!
//! Nothing here holds a private key. Signing happens in a device.

pub mod algorithm;
pub mod base64url;
pub mod diagnose;
pub mod json;
pub mod jwk;
pub mod jws;
pub mod key;
pub mod offer;
mod thumbprint;
pub mod verify;

pub use algorithm::{Algorithm, KeyType, UnknownAlgorithm};
pub use jwk::{InvalidJwk, Jwk, JwkSet, ServedSet};
pub use jws::{CompactJws, Header, InvalidJws, ParsedHeader, SigningInput, compact, signing_input};
pub use key::{InvalidKey, PublicKey, RawKey};
pub use offer::{Difference, Offer, Unfit};
pub use thumbprint::thumbprint;
pub use verify::{BadSignature, TokenFault, UnusableKey, VerifiedToken, Verifier, verify_token};
