//! `doctor`: what works and what does not, each with a hint. With the agent
//! and without it.
//!
//! It disturbs nothing. While the agent runs, the agent is asked about its
//! devices, and none is opened a second time. Otherwise a device is opened as
//! the agent would, in a process of its own and by the same PIN marker: a PIN
//! that was refused once is not tried again.
//!
//! Why it signs no challenge: every signature is on record, and the record is
//! the agent's. That a private half belongs to its public half was proved when
//! the pair was made, and is proved again with each signature before it is
//! released; here the token's public half is compared with the recorded one.

mod callers;
mod devices;
mod machine;
mod rules;
mod sockets;
mod state;

use std::path::Path;

use serde_json::json;

use super::compose;
use super::output::{Failure, say};
use crate::config::Config;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Finding>);

#[derive(Debug)]
struct Finding {
    level: Level,
    /// The name of the check, for programs.
    check: &'static str,
    /// Which device, key set or file.
    of: String,
    found: String,
    hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl Report {
    fn ok(&mut self, check: &'static str, of: impl Into<String>, found: impl Into<String>) {
        self.add(Level::Ok, check, of.into(), found.into(), None);
    }

    /// Works, and may surprise.
    fn warn(
        &mut self,
        check: &'static str,
        of: impl Into<String>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(
            Level::Warn,
            check,
            of.into(),
            found.into(),
            Some(hint.into()),
        );
    }

    /// Does not work.
    fn fail(
        &mut self,
        check: &'static str,
        of: impl Into<String>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(
            Level::Fail,
            check,
            of.into(),
            found.into(),
            Some(hint.into()),
        );
    }

    fn add(
        &mut self,
        level: Level,
        check: &'static str,
        of: String,
        found: String,
        hint: Option<String>,
    ) {
        self.0.push(Finding {
            level,
            check,
            of,
            found,
            hint,
        });
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|found| found.level == level).count()
    }

    fn tell(&self, as_json: bool) -> Result<(), Failure> {
        if as_json {
            let checks = self.0.iter().map(|finding| {
                json!({
                    "level": finding.level.name(),
                    "check": finding.check,
                    "of": finding.of,
                    "found": finding.found,
                    "hint": finding.hint,
                })
            });
            say(json!({
                "ok": self.count(Level::Fail) == 0,
                "checks": checks.collect::<Vec<_>>(),
            }))?;
        } else {
            for finding in &self.0 {
                let about = format!("{} {}", finding.check.replace('_', " "), finding.of);
                say(format!(
                    "{:<4}  {}: {}",
                    finding.level.name(),
                    about.trim_end(),
                    finding.found
                ))?;
                if let Some(hint) = &finding.hint {
                    say(format!("      hint: {hint}"))?;
                }
            }
            say(format!(
                "\n{} checks: {} failed, {} to look at",
                self.0.len(),
                self.count(Level::Fail),
                self.count(Level::Warn)
            ))?;
        }
        if self.count(Level::Fail) == 0 {
            return Ok(());
        }
        Err(Failure::told())
    }
}

/// Looks at everything; it is an error if something does not work.
pub(super) fn run(path: &Path, as_json: bool) -> Result<(), Failure> {
    let mut report = Report::default();
    match Config::load(path) {
        Err(e) => report.fail(
            "configuration",
            path.display().to_string(),
            e.to_string().trim_end().to_owned(),
            "`sealkeeper config check` shows the same; nothing else can be looked at before it loads",
        ),
        Ok(config) => {
            let key_sets = config.key_sets.len();
            report.ok(
                "configuration",
                path.display().to_string(),
                format!("good, {key_sets} key sets"),
            );
            compose::block_on(look(&config, &mut report))?;
        }
    }
    report.tell(as_json)
}

async fn look(config: &Config, report: &mut Report) {
    let records = state::look(config, report).await;
    let agent = sockets::look(config, report).await;
    devices::look(config, &records, agent.as_ref(), report).await;
    state::clock(config, &records, agent.as_ref(), report);
    sockets::jwks(config, agent.as_ref(), report).await;
    rules::look(config, report);
    callers::look(config, report);
}
