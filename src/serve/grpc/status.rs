//! The one map from errors to gRPC statuses.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::configuration::ReloadError;
use crate::agent::SignError;
use crate::agent::admin::AdminError;
use crate::policy::{Reason, Refusal};
use crate::time::Span;

/// The `domain` of every `google.rpc.ErrorInfo`.
const DOMAIN: &str = "sealkeeper";

/// The request's fields that a refusal may be about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// `key_set`, `claims`, `alg`, `typ`.
    SignJwt,
    /// `key_set`, `signing_input`.
    SignJws,
    /// `key_set`.
    GetJwks,
}

/// Who can do something about it.
#[derive(Clone, Copy, Debug)]
enum Side {
    /// The request will never succeed as it is.
    Caller,
    /// Trying again may help.
    Service,
}

/// An error as callers see it. Boxed, since most answers are none.
#[derive(Debug)]
pub(super) struct Fault(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    reason: &'static str,
    side: Side,
    message: String,
    rule: Option<String>,
    hint: Option<String>,
    current_kid: Option<String>,
    field: Option<&'static str>,
    retry_after: Option<Duration>,
}

impl Fault {
    fn new(code: Code, reason: &'static str, side: Side, message: String) -> Self {
        Self(Box::new(Parts {
            code,
            reason,
            side,
            message,
            rule: None,
            hint: None,
            current_kid: None,
            field: None,
            retry_after: None,
        }))
    }

    /// A defect of ours.
    pub(super) fn internal(reason: &'static str, message: String) -> Self {
        let fault = Self::new(Code::Internal, reason, Side::Service, message);
        fault.hint("tell the operator: the agent's log has more")
    }

    /// A field of the request that no rule is needed to refuse.
    pub(super) fn field(field: &'static str, message: String, hint: &str) -> Self {
        let mut fault = Self::new(
            Code::InvalidArgument,
            "INVALID_FIELD",
            Side::Caller,
            message,
        );
        fault.0.field = Some(field);
        fault.hint(hint)
    }

    /// A message of more than `limit` bytes, which nobody has read.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("expected a message of at most {limit} bytes, got a larger one");
        let reason = "MESSAGE_TOO_LARGE";
        let fault = Self::new(Code::InvalidArgument, reason, Side::Caller, message);
        fault.hint(&format!(
            "send at most {limit} bytes in a message; many items go in several batches, or in a stream"
        ))
    }

    /// The edge itself has more requests than it takes; `what` is there.
    pub(super) fn overloaded(what: String) -> Self {
        let message = format!("{what}, and no more are taken");
        let mut fault = Self::new(
            Code::ResourceExhausted,
            "OVERLOADED",
            Side::Service,
            message,
        );
        fault.0.retry_after = Some(Duration::from_millis(100));
        fault.hint("try again after the delay, with fewer requests at a time")
    }

    /// The connection or the server is about to end.
    pub(super) fn going_away() -> Self {
        let message = "this connection is about to end".to_owned();
        let mut fault = Self::new(Code::Unavailable, "GOING_AWAY", Side::Service, message);
        fault.0.retry_after = Some(Duration::ZERO);
        fault.hint("connect again, and send again what was not answered")
    }

    /// When there may be room, where it is room that is missing: not what the
    /// caller itself has used up.
    pub(super) fn room_after(&self) -> Option<Duration> {
        match (self.0.code, self.0.side) {
            (Code::ResourceExhausted, Side::Service) => self.0.retry_after,
            _ => None,
        }
    }

    pub(super) fn is_deadline(&self) -> bool {
        self.0.code == Code::DeadlineExceeded
    }

    /// The reason and whether a rule of policy refused: for the log.
    pub(super) fn refusal(&self) -> Option<(&'static str, &str)> {
        self.0.rule.as_deref().map(|rule| (self.0.reason, rule))
    }

    pub(super) fn sign(error: SignError, call: Call) -> Self {
        let message = error.to_string();
        match error {
            SignError::Refused(refusal) => Self::refused(refusal, call),
            SignError::Unavailable {
                reason,
                retry_after,
                ..
            } => {
                let mut fault = Self::new(Code::Unavailable, reason, Side::Service, message);
                fault.0.retry_after = retry_after;
                fault.hint(match is_lasting(reason) {
                    true => "trying again does not mend it: the operator runs `sealkeeper doctor`",
                    false => "try again; if it stays, the operator runs `sealkeeper doctor`",
                })
            }
            SignError::Overloaded { retry_after, .. } => {
                let mut fault = Self::new(
                    Code::ResourceExhausted,
                    "OVERLOADED",
                    Side::Service,
                    message,
                );
                fault.0.retry_after = Some(retry_after);
                fault.hint("try again after the delay, with fewer requests at a time")
            }
            SignError::Deadline { .. } => {
                Self::new(Code::DeadlineExceeded, "DEADLINE", Side::Service, message)
                    .hint("try again, with a longer deadline if this one is short")
            }
            SignError::Internal { reason, .. } => Self::internal(reason, message),
        }
    }

    fn refused(refusal: Refusal, call: Call) -> Self {
        let Refusal {
            reason,
            rule,
            message,
            hint,
            current_kid,
            retry_after,
        } = refusal;
        let code = match reason {
            Reason::UnknownKeySet => Code::NotFound,
            Reason::NotAllowed | Reason::CallerBlocked => Code::PermissionDenied,
            // Right when the caller looked, and another key since.
            Reason::KidNotActive => Code::FailedPrecondition,
            Reason::RateLimited => Code::ResourceExhausted,
            Reason::MalformedClaims
            | Reason::DuplicateMember
            | Reason::UnknownAlgorithm
            | Reason::TooLarge
            | Reason::ClaimNotAllowed
            | Reason::ExpTooFar
            | Reason::Expired
            | Reason::MalformedSigningInput
            | Reason::HeaderNotAllowed => Code::InvalidArgument,
        };
        let mut fault = Self::new(code, reason.code(), Side::Caller, message);
        fault.0.rule = Some(rule);
        fault.0.field = field(reason, call);
        fault.0.current_kid = current_kid;
        fault.0.retry_after = retry_after.map(Span::to_duration);
        fault.hint(&hint)
    }

    pub(super) fn admin(error: AdminError) -> Self {
        let message = error.to_string();
        let caller = |code, reason| Self::new(code, reason, Side::Caller, message.clone());
        match error {
            AdminError::UnknownKeySet { .. } => caller(Code::NotFound, "UNKNOWN_KEY_SET")
                .about("order.key_set")
                .hint("list the key sets without naming one"),
            AdminError::UnknownKey { .. } => caller(Code::NotFound, "UNKNOWN_KEY")
                .about("kid")
                .hint("give the whole id: `sealkeeper keys list --json` shows it"),
            AdminError::UnknownTrack { .. } => caller(Code::NotFound, "UNKNOWN_ALGORITHM")
                .about("alg")
                .hint("list the key set's keys: each one's alg is its track"),
            AdminError::Changed { .. } => caller(Code::Aborted, "VERSION_CHANGED")
                .about("order.expected_version")
                .hint("look at the key set again, and order again if it still makes sense"),
            AdminError::Refused {
                reason,
                rule,
                hint,
                remaining,
                ..
            } => {
                let mut fault = caller(Code::FailedPrecondition, reason);
                fault.0.rule = Some(rule);
                fault.0.retry_after = remaining;
                fault.hint(&hint)
            }
            AdminError::Unavailable {
                reason,
                retry_after,
                ..
            } => {
                let mut fault = Self::new(Code::Unavailable, reason, Side::Service, message);
                fault.0.retry_after = retry_after;
                fault.hint(match is_lasting(reason) {
                    true => "nothing was changed, and ordering again does not mend it: `sealkeeper doctor` looks for the cause",
                    false => "nothing was changed: order again; if it stays, `sealkeeper doctor` looks for the cause",
                })
            }
            AdminError::Internal { reason, .. } => Self::internal(reason, message),
        }
    }

    pub(super) fn reload(error: ReloadError) -> Self {
        let message = error.to_string();
        let caller = |code, reason| Self::new(code, reason, Side::Caller, message.clone());
        match error {
            ReloadError::Invalid { hint, .. } => {
                caller(Code::InvalidArgument, "INVALID_CONFIGURATION").hint(&hint)
            }
            ReloadError::Changed { .. } => caller(Code::Aborted, "CONFIGURATION_CHANGED")
                .about("expected_digest")
                .hint("look again: `sealkeeper config diff`"),
            ReloadError::SigningWouldStop { .. } => {
                caller(Code::FailedPrecondition, "SIGNING_WOULD_STOP").hint(
                    "nothing was changed; `sealkeeper config reload --even-if-signing-stops` goes ahead all the same",
                )
            }
            ReloadError::Failed { .. } => Self::internal("RELOAD_FAILED", message),
        }
    }

    /// Of a call that only looks.
    pub(super) fn look(error: AdminError) -> Self {
        let passing = matches!(error, AdminError::Unavailable { .. });
        let fault = Self::admin(error);
        match passing {
            true => fault.hint("`sealkeeper doctor` looks for the cause"),
            false => fault,
        }
    }

    fn about(mut self, field: &'static str) -> Self {
        self.0.field = Some(field);
        self
    }

    fn hint(mut self, hint: &str) -> Self {
        self.0.hint = Some(hint.to_owned());
        self
    }

    /// As it goes over the wire.
    pub(super) fn into_status(self) -> Status {
        let parts = *self.0;
        let mut metadata = HashMap::new();
        let fault = match parts.side {
            Side::Caller => "caller",
            Side::Service => "service",
        };
        metadata.insert("fault".to_owned(), fault.to_owned());
        if is_lasting(parts.reason) {
            metadata.insert("lasting".to_owned(), "true".to_owned());
        }
        if let Some(rule) = parts.rule {
            metadata.insert("rule".to_owned(), rule);
        }
        if let Some(hint) = parts.hint {
            metadata.insert("hint".to_owned(), hint);
        }
        if let Some(kid) = parts.current_kid {
            metadata.insert("current_kid".to_owned(), kid);
        }
        let mut details = ErrorDetails::with_error_info(parts.reason, DOMAIN, metadata);
        if let Some(delay) = parts.retry_after {
            details.set_retry_info(Some(delay));
        }
        if let Some(field) = parts.field {
            details.set_bad_request(vec![FieldViolation::new(field, parts.message.as_str())]);
        }
        Status::with_error_details(parts.code, parts.message, details)
    }
}

/// Whether a fault of the service stays until somebody mends it.
fn is_lasting(reason: &str) -> bool {
    matches!(
        reason,
        "PIN_BLOCKED"
            // Its module or its PIN is not there: a token that was pulled is
            // DEVICE_UNAVAILABLE, and may come back.
            | "DEVICE_UNUSABLE"
            | "DISK_FULL"
            | "KEY_MISSING"
            | "OTHER_TOKEN"
            | "NOT_INITIALIZED"
            | "INIT_UNFINISHED"
            | "RECORD_LOST"
            | "RECORD_UNUSABLE"
            | "RECORD_OUTDATED"
            | "STORE_UNUSABLE"
            | "TOMBSTONE_UNREADABLE"
            | "CLOCK_IN_DOUBT"
    )
}

/// The request's field that a refusal is about, if it is about one.
const fn field(reason: Reason, call: Call) -> Option<&'static str> {
    match (reason, call) {
        (Reason::NotAllowed | Reason::CallerBlocked | Reason::RateLimited, _) => None,
        (Reason::UnknownKeySet, _) | (_, Call::GetJwks) => Some("key_set"),
        (Reason::UnknownAlgorithm, Call::SignJwt) => Some("alg"),
        (Reason::HeaderNotAllowed, Call::SignJwt) => Some("typ"),
        (_, Call::SignJwt) => Some("claims"),
        (_, Call::SignJws) => Some("signing_input"),
    }
}
