//! JOSE, pure: algorithms, public keys, JWK and JWKS, thumbprints, JWS
//! assembly and parsing, verification.
//!
//! Nothing here holds a private key. Signing happens in a device.

pub mod algorithm;
pub mod key;

pub use algorithm::{Algorithm, KeyType, UnknownAlgorithm};
pub use key::{InvalidKey, PublicKey};
