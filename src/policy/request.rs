//! What a caller asks for, before anybody believed it.

use std::collections::BTreeSet;
use std::fmt;

use super::identity::{CallerId, Names};
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
        /// Supplementary group ids; empty where they could not be learned for
        /// certain.
        groups: BTreeSet<u32>,
        /// Process id at the time of connecting; for the record only.
        pid: Option<i32>,
    },
    /// The client certificate of a TLS connection, verified when it connected
    /// and since.
    Tls {
        /// What the certificate says of its holder.
        names: Names,
    },
}

impl Caller {
    /// The stable id: what the record and the log call it. Of several names of
    /// a certificate it is the SPIFFE ID, else the first DNS name in
    /// alphabetical order, so that a renewed certificate keeps it.
    #[must_use]
    pub fn id(&self) -> CallerId {
        match self {
            Self::Unix { uid, .. } => CallerId::Unix(*uid),
            Self::Tls { names } => {
                let mut ids = names.ids();
                ids.next().expect("a certificate's names are never none")
            }
        }
    }

    /// Every id that means this caller, [`id`](Self::id) first: who is blocked
    /// by any of them is blocked.
    #[must_use]
    pub fn ids(&self) -> Vec<CallerId> {
        match self {
            Self::Unix { .. } => vec![self.id()],
            Self::Tls { names } => names.ids().collect(),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
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
