//! What is wrong with the command line itself, for people and for programs.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde_json::json;

use super::advice::Advice;
use super::output::{Failure, say};

/// Whether JSON is asked for, by a command line that may make no sense: after
/// `--` nothing is a flag any more.
pub(super) fn asks_for_json(args: impl IntoIterator<Item = OsString>) -> bool {
    let flags = args.into_iter().take_while(|arg| arg != "--");
    { flags }.any(|arg| arg == "--json")
}

/// Answers what is no command: a mistake, or a question for help.
pub(super) fn report(error: &Error, as_json: bool) -> ExitCode {
    let code = if error.use_stderr() { 2 } else { 0 };
    if !as_json {
        // A reader that went away is no reason to fail.
        let _ = error.print();
        if let Some(hint) = hint(error) {
            let _ = writeln!(std::io::stderr(), "hint: {hint}");
        }
        return ExitCode::from(code);
    }
    let text = error.render().to_string();
    let answer = match error.kind() {
        ErrorKind::DisplayVersion => json!({ "version": env!("CARGO_PKG_VERSION") }),
        ErrorKind::DisplayHelp => json!({ "help": text.trim_end() }),
        _ => return mistake(&text, hint(error)).report(true, &Advice::NONE),
    };
    match say(answer) {
        Ok(()) => ExitCode::from(code),
        Err(failure) => failure.report(true, &Advice::NONE),
    }
}

/// A mistake, from the text that people get: the error, then in paragraphs of
/// their own what may have been meant and how the command is used.
fn mistake(text: &str, hint: Option<&str>) -> Failure {
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ").trim().to_owned()
    });
    let message = paragraphs.next().unwrap_or_default();
    let hints = hint.map(str::to_owned).into_iter();
    let paragraphs = paragraphs.map(|paragraph| paragraph.trim_end_matches('.').to_owned());
    let paragraphs = paragraphs.filter(|paragraph| !paragraph.is_empty());
    let hints: Vec<String> = hints.chain(paragraphs).collect();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    Failure::usage(message).hint(hints.join("; "))
}

/// What to give where an option is missing, or its value makes no sense, and
/// the name of it does not say.
fn hint(error: &Error) -> Option<&'static str> {
    let about = |part: &str| match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => arg.contains(part),
        Some(ContextValue::Strings(all)) => all.iter().any(|arg| arg.contains(part)),
        _ => false,
    };
    match error.kind() {
        ErrorKind::MissingRequiredArgument if about("--note") => {
            Some("--note 'WHY' says why, to those who read the record and the log later")
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if about("<SPAN>") => {
            Some("a span is a number with its unit, such as 30m, 36h, or 7d")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_asked_for_by_a_flag_and_not_by_a_value() {
        let asks = |line: &str| asks_for_json(line.split(' ').map(OsString::from));
        assert!(asks("sealkeeper --json nosuch"));
        assert!(asks("sealkeeper keys list --nosuch --json"));
        assert!(!asks("sealkeeper sign -- --json"));
        assert!(!asks("sealkeeper keys list --jsonx"));
    }
}
