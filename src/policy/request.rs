//! What a caller asks for, before anybody believed it.

use std::fmt;

use crate::jose::Algorithm;

/// Who asks, as the kernel or the TLS layer vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caller {
    /// The peer credentials of a Unix socket, taken when it connected
    /// (`SO_PEERCRED`, unix(7)).
    Unix {
        /// Effective user id.
        uid: u32,
        /// Effective group id.
        gid: u32,
        /// Process id at the time of connecting; for the record only.
        pid: Option<i32>,
    },
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, .. } => write!(f, "uid:{uid}"),
        }
    }
}

/// Claims in, token out. `Debug` shows no claims.
#[derive(Clone)]
pub struct JwtRequest {
    /// The key set to sign for.
    pub key_set: String,
    /// The track to sign with; the key set's default track where absent.
    pub algorithm: Option<Algorithm>,
    /// The header's `typ`; the rule's default where absent.
    pub typ: Option<String>,
    /// A JSON object, UTF-8.
    pub claims: Vec<u8>,
}

/// A signing input in, a signature out. `Debug` shows no input.
#[derive(Clone)]
pub struct JwsRequest {
    /// The key set to sign for.
    pub key_set: String,
    /// `b64url(header) "." b64url(payload)` (RFC 7515 section 5.1).
    pub signing_input: Vec<u8>,
}

impl fmt::Debug for JwtRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtRequest")
            .field("key_set", &self.key_set)
            .field("algorithm", &self.algorithm)
            .field("typ", &self.typ)
            .field("claims", &format_args!("{} bytes", self.claims.len()))
            .finish()
    }
}

impl fmt::Debug for JwsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwsRequest")
            .field("key_set", &self.key_set)
            .field(
                "signing_input",
                &format_args!("{} bytes", self.signing_input.len()),
            )
            .finish()
    }
}
