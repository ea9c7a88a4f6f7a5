//! The commands that are named to an operator, as this operator types them.
//!
//! Whoever gives advice names a command without the configuration: the agent
//! does not know under which path an operator reads it. It is put in here,
//! where everything passes on its way to the operator.

use std::fmt::Display;
use std::path::Path;

use clap::CommandFactory;
use serde_json::Value;

use super::output::{self, Failure};
use super::{CONFIG, CONFIG_ENV, Cli};

/// The program, where advice names one of its commands.
const PROGRAM: &str = "sealkeeper ";

/// What commands need so as to mean the same configuration.
pub(super) struct Advice(Option<String>);

impl Advice {
    /// Names commands as they stand.
    pub(super) const NONE: Self = Self(None);

    /// For a command that reads this configuration.
    pub(super) fn of(config: &Path) -> Self {
        let by_env = std::env::var_os(CONFIG_ENV).is_some_and(|path| path == config.as_os_str());
        // Then every command reads it that is not told otherwise.
        if by_env || config == Path::new(CONFIG) {
            return Self::NONE;
        }
        Self(Some(format!("--config {} ", quoted(config))))
    }

    /// A text in which each command names the configuration.
    pub(super) fn in_full(&self, text: &str) -> String {
        let Some(option) = &self.0 else {
            return text.to_owned();
        };
        let mut full = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(PROGRAM) {
            let (before, after) = rest.split_at(at);
            let (program, after) = after.split_at(PROGRAM.len());
            full += before;
            full += program;
            if begins_a_command(before) && is_command(after) {
                full += option;
            }
            rest = after;
        }
        full + rest
    }

    /// Says a line to people.
    pub(super) fn say(&self, line: impl Display) -> Result<(), Failure> {
        output::say(self.in_full(&line.to_string()))
    }

    /// Says the same to programs, which show parts of it to people.
    pub(super) fn say_json(&self, mut value: Value) -> Result<(), Failure> {
        self.complete(&mut value);
        output::say(value)
    }

    fn complete(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.in_full(text),
            Value::Array(all) => all.iter_mut().for_each(|it| self.complete(it)),
            Value::Object(all) => all.values_mut().for_each(|it| self.complete(it)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Not in the middle of a word or a path, and not what another program starts.
fn begins_a_command(before: &str) -> bool {
    before.ends_with(['`', '(']) || before.is_empty() || before.ends_with(": ")
}

fn is_command(after: &str) -> bool {
    let word = after.split(|c: char| !c.is_ascii_lowercase()).next();
    let word = word.filter(|word| !word.is_empty());
    word.is_some_and(|word| Cli::command().find_subcommand(word).is_some())
}

/// As a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%:=".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_nothing_else_name_the_configuration() {
        let advice = Advice::of(Path::new("/x/a.toml"));
        for (said, full) in [
            (
                "`sealkeeper init`, then",
                "`sealkeeper --config /x/a.toml init`, then",
            ),
            (
                "then run: sealkeeper device unlock hsm; `sealkeeper keys list` shows",
                "then run: sealkeeper --config /x/a.toml device unlock hsm; `sealkeeper --config /x/a.toml keys list` shows",
            ),
            (
                "`systemctl start sealkeeper` where",
                "`systemctl start sealkeeper` where",
            ),
            ("`journalctl -u sealkeeper`", "`journalctl -u sealkeeper`"),
            (
                "/etc/sealkeeper/x is a sealkeeper file",
                "/etc/sealkeeper/x is a sealkeeper file",
            ),
            (
                "what sealkeeper serves: sealkeeper serves it",
                "what sealkeeper serves: sealkeeper serves it",
            ),
        ] {
            assert_eq!(advice.in_full(said), full);
        }
        assert_eq!(
            Advice::NONE.in_full("`sealkeeper init`"),
            "`sealkeeper init`"
        );
        let default = Advice::of(Path::new(CONFIG));
        assert_eq!(default.in_full("`sealkeeper init`"), "`sealkeeper init`");
    }

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-c_1.toml")), "/a/b-c_1.toml");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
