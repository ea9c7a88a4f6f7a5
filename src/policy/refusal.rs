//! Why a request was refused, by a code that a program can match.

use std::fmt;

use crate::time::Span;

/// A stable reason code. Each says what about the request is wrong; the
/// refusal's message says it with values, its hint what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No such key set is configured.
    UnknownKeySet,
    /// The key set has no track of this algorithm.
    UnknownAlgorithm,
    /// No rule lets this caller do this.
    NotAllowed,
    /// An operator blocked this caller.
    CallerBlocked,
    /// The claims are not one well-formed JSON object.
    MalformedClaims,
    /// A member stands twice in an object.
    DuplicateMember,
    /// The request is larger than the key set allows.
    TooLarge,
    /// A claim is missing, of the wrong type, or not what the rule demands.
    ClaimNotAllowed,
    /// `exp` is further off than the longest lifetime allows.
    ExpTooFar,
    /// `exp` has passed already.
    Expired,
    /// The signing input is not `b64url(header) "." b64url(payload)`.
    MalformedSigningInput,
    /// A header member that is not allowed, or not what the key demands.
    HeaderNotAllowed,
    /// The signing input names a key that may not sign now.
    KidNotActive,
    /// The caller has used up what the rule grants for now.
    RateLimited,
}

impl Reason {
    /// The code as callers see it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnknownKeySet => "UNKNOWN_KEY_SET",
            Self::UnknownAlgorithm => "UNKNOWN_ALGORITHM",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::CallerBlocked => "CALLER_BLOCKED",
            Self::MalformedClaims => "MALFORMED_CLAIMS",
            Self::DuplicateMember => "DUPLICATE_MEMBER",
            Self::TooLarge => "TOO_LARGE",
            Self::ClaimNotAllowed => "CLAIM_NOT_ALLOWED",
            Self::ExpTooFar => "EXP_TOO_FAR",
            Self::Expired => "EXPIRED",
            Self::MalformedSigningInput => "MALFORMED_SIGNING_INPUT",
            Self::HeaderNotAllowed => "HEADER_NOT_ALLOWED",
            Self::KidNotActive => "KID_NOT_ACTIVE",
            Self::RateLimited => "RATE_LIMITED",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// A rule said no. Holds no claim's value but what the caller must see to
/// mend the request (a date, a length, a name of ours).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The code.
    pub reason: Reason,
    /// The rule that refused, such as `key_set.main.max_token_lifetime`.
    pub rule: String,
    /// What is wrong, with values: `expected X, got Y`.
    pub message: String,
    /// What the caller can do.
    pub hint: String,
    /// For [`Reason::KidNotActive`]: the key to name instead, if one may sign.
    pub current_kid: Option<String>,
    /// For [`Reason::RateLimited`]: the same request is allowed after this
    /// long.
    pub retry_after: Option<Span>,
}

impl Refusal {
    /// A refusal that says no more than every refusal does.
    #[must_use]
    pub fn new(
        reason: Reason,
        rule: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            rule: rule.into(),
            message: message.into(),
            hint: hint.into(),
            current_kid: None,
            retry_after: None,
        }
    }
}
