//! What the operator reads: tables, JSON, and errors that end with a hint.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use tonic::Code;

use super::advice::Advice;
use super::hangs;
use crate::api::client::{self, ConnectError};

/// How an agent is started.
pub(super) const START: &str =
    "start it: `sealkeeper serve`, or `systemctl start sealkeeper` where systemd runs it";
/// Where an agent that has ended has said why.
pub(super) const WHY_ENDED: &str = "why it ended stands at the end of its log: `journalctl -u sealkeeper` under systemd, else wherever its standard error went";

/// Why a command failed, and what to do.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
    /// The whole of it for people, where they get more than a line.
    shown: Option<String>,
}

impl Failure {
    /// What went wrong, in a line.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The command was understood, and could not be carried out: exit code 1.
    pub(super) fn failed(message: impl fmt::Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
            hint: None,
            shown: None,
        }
    }

    /// The agent or what it works with is not there just now; trying again
    /// may help: exit code 3.
    pub(super) fn not_now(message: impl fmt::Display) -> Self {
        Self {
            code: 3,
            ..Self::failed(message)
        }
    }

    /// The command or the configuration is at fault: exit code 2.
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self {
            code: 2,
            message: message.to_string(),
            hint: None,
            shown: None,
        }
    }

    /// The command has said already what it found, and that was not good:
    /// exit code 1 and no more words.
    pub(super) fn told() -> Self {
        Self::failed("")
    }

    /// What to do about it.
    pub(super) fn hint(self, hint: impl fmt::Display) -> Self {
        Self {
            hint: Some(hint.to_string()),
            ..self
        }
    }

    /// What people read in place of message and hint; it begins with `error:`.
    pub(super) fn shown(self, shown: impl fmt::Display) -> Self {
        Self {
            shown: Some(shown.to_string()),
            ..self
        }
    }

    /// Tells the operator, on standard error.
    pub(super) fn report(&self, json: bool, advice: &Advice) -> ExitCode {
        if self.message.is_empty() {
            return ExitCode::from(self.code);
        }
        let message = advice.in_full(self.message.trim_end());
        let hint = self.hint.as_ref().map(|hint| advice.in_full(hint));
        let mut err = std::io::stderr().lock();
        // Nobody may be listening; the exit code still tells.
        let _ = if json {
            let value = serde_json::json!({ "error": message, "hint": hint });
            writeln!(err, "{value}")
        } else if let Some(shown) = &self.shown {
            writeln!(err, "{}", shown.trim_end())
        } else {
            writeln!(err, "error: {message}").and_then(|()| match hint {
                Some(hint) => writeln!(err, "hint: {hint}"),
                None => Ok(()),
            })
        };
        ExitCode::from(self.code)
    }
}

/// The agent's answer in the operator's words. Details that the agent gives
/// (rule, hint) are kept.
impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        use tonic_types::StatusExt;
        if client::hangs(&status) {
            return Self::not_now(hangs::silent())
                .hint("`sealkeeper doctor` says how to end it; then start it again");
        }
        let details = status.get_error_details();
        let info = details.error_info();
        let reason = info.map(|info| info.reason.clone());
        let lasting = info.is_some_and(|info| info.metadata.contains_key("lasting"));
        let hint = info.and_then(|info| info.metadata.get("hint").cloned());
        let message = match reason {
            Some(reason) => format!("{} ({reason})", status.message()),
            None => format!("{}: {}", status.code(), status.message()),
        };
        let failure = match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted if !lasting => {
                Self::not_now(message)
            }
            _ => Self::failed(message),
        };
        Self { hint, ..failure }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let hint = match &error {
            ConnectError::Unreachable { why, .. } => unreachable_hint(why.kind()),
            _ => "choose another path for the socket".to_owned(),
        };
        Self::not_now(error).hint(hint)
    }
}

fn unreachable_hint(why: ErrorKind) -> String {
    match why {
        ErrorKind::NotFound => {
            return format!(
                "no agent serves there: {START}; or name its configuration with --config"
            );
        }
        // The socket outlives only an agent that had no time to remove it.
        ErrorKind::ConnectionRefused => {
            return format!("the agent is not running, and has ended: {START}; {WHY_ENDED}");
        }
        ErrorKind::PermissionDenied => {
            "you may not open the socket: run this as its owner, or as the agent's user"
        }
        _ => "is the agent running, and may you open its socket?",
    }
    .to_owned()
}

/// Prints a line of the command's own output.
pub(super) fn say(text: impl fmt::Display) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        // `sealkeeper … | head` is no failure.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Failure::failed(format!("standard output: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// Warns on standard error; the command goes on.
pub(super) fn warn(text: impl fmt::Display) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr().lock(), "warning: {text}");
}

/// Rows for people, without lines that a terminal would wrap.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_preset(comfy_table::presets::NOTHING)
        .set_header(head.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}
