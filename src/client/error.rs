//! Why there is no signature, as the caller can act on it.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, RpcStatusExt as _, StatusExt as _};

/// Who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request will never succeed as it is.
    Caller,
    /// Trying again later may help.
    Service,
}

/// What the agent, or the way to it, said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The gRPC code.
    pub code: Code,
    /// A stable code of the agent, such as `EXP_TOO_FAR`; none where the agent
    /// was not reached.
    pub reason: Option<String>,
    /// Whose fault it is.
    pub fault: Fault,
    /// The rule that refused, as a path into the agent's configuration.
    pub rule: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// When it makes sense to try again, where the agent said so.
    pub retry_after: Option<Duration>,
    /// Whether trying again does not help before somebody has mended what is
    /// wrong at the agent.
    pub lasting: bool,
    /// For developers. Never a claim or a token.
    pub message: String,
    /// Whether the call did not get through: nobody said anything.
    lost: bool,
}

impl Error {
    pub(super) fn unexpected(what: &str) -> Self {
        Self::local(
            Code::Internal,
            Fault::Service,
            format!("the agent sent {what}"),
        )
    }

    pub(super) fn invalid_claims() -> Self {
        let message = "the claims cannot be written as JSON".to_owned();
        Self {
            reason: Some("INVALID_CLAIMS".to_owned()),
            ..Self::local(Code::InvalidArgument, Fault::Caller, message)
        }
    }

    pub(super) fn ended() -> Self {
        Self {
            lost: true,
            ..Self::local(
                Code::Unavailable,
                Fault::Service,
                "the stream ended".to_owned(),
            )
        }
    }

    pub(super) fn late() -> Self {
        Self::local(
            Code::DeadlineExceeded,
            Fault::Service,
            "the agent did not answer in time".to_owned(),
        )
    }

    fn local(code: Code, fault: Fault, message: String) -> Self {
        Self {
            code,
            reason: None,
            fault,
            rule: None,
            hint: None,
            retry_after: None,
            lasting: false,
            message,
            lost: false,
        }
    }

    /// After how long trying again makes sense, if it does: where the agent
    /// says so, and, after `usual`, where it was not reached.
    pub(super) fn worth_trying_again(&self, usual: Duration) -> Option<Duration> {
        match (self.code, self.retry_after) {
            _ if self.lost => Some(usual),
            (Code::Unavailable | Code::ResourceExhausted, Some(after)) => Some(after),
            _ => None,
        }
    }

    fn with(mut self, details: &ErrorDetails) -> Self {
        self.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let Some(info) = details.error_info() else {
            return self;
        };
        let said = |name: &str| info.metadata.get(name).cloned();
        self.reason = Some(info.reason.clone());
        self.rule = said("rule");
        self.hint = said("hint");
        self.lasting = said("lasting").as_deref() == Some("true");
        if said("fault").as_deref() == Some("caller") {
            self.fault = Fault::Caller;
        }
        self
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let error = Self::local(status.code(), Fault::Service, status.message().to_owned());
        // Only what never came from the agent has a source.
        let timed_out = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
            && status.message() == "Timeout expired";
        if timed_out {
            return Self::late();
        }
        Self {
            lost: status.source().is_some() && details.error_info().is_none(),
            ..error.with(&details)
        }
    }
}

/// Of an item of a batch or a stream.
impl From<tonic_types::Status> for Error {
    fn from(status: tonic_types::Status) -> Self {
        let details = status.get_error_details();
        let code = Code::from(status.code);
        Self::local(code, Fault::Service, status.message).with(&details)
    }
}

/// What happened, and what to do.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.reason {
            write!(f, "{reason}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
