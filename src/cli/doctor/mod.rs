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
mod history;
mod keys;
mod machine;
mod origins;
mod outdated;
mod paths;
mod pins;
mod revoked;
mod rules;
mod sockets;
mod state;
mod tokens;
mod webhooks;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::advice::Advice;
use super::output::{Failure, say};
use super::{compose, differs};
use crate::agent::no_standby;
use crate::config::Config;

/// After a correction that an agent takes over without a restart: of a key
/// set that it knows, anything but the documents that are served of it.
const RELOAD: &str = "then run `sealkeeper config reload`";

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
    /// Findings, by check and of what, whose failure would explain this one.
    explained_by: Vec<(&'static str, String)>,
    /// The failure that does: nothing can be said here before that is mended.
    waits_for: Option<String>,
}

impl Finding {
    /// What was looked at.
    fn about(&self) -> String {
        let about = format!("{} {}", self.check.replace('_', " "), self.of);
        about.trim_end().to_owned()
    }

    /// For people: a consequence is one line.
    fn tell(&self) -> Result<(), Failure> {
        let (level, about) = (self.level.name(), self.about());
        if let Some(cause) = &self.waits_for {
            return say(format!(
                "{level:<4}  {about}: not looked at: first mend {cause}"
            ));
        }
        say(format!("{level:<4}  {about}: {}", self.found))?;
        match &self.hint {
            Some(hint) => say(format!("      hint: {hint}")),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
    /// Would be one of these, and is a consequence of a failure.
    Skip,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
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
            explained_by: Vec::new(),
            waits_for: None,
        });
    }

    /// The finding that was added last is no failure of its own where this
    /// other check failed, before or after it.
    ///
    /// Invariant: no check explains, over any others, itself. Sockets are
    /// explained by the store, a key set by its device and the store, a device
    /// by its parts and the state folder, a store by the state folder.
    fn explained_by(&mut self, check: &'static str, of: impl Into<String>) -> &mut Self {
        if let Some(last) = self.0.last_mut() {
            last.explained_by.push((check, of.into()));
        }
        self
    }

    /// Which failure explains a finding, and is itself explained by none.
    fn cause(&self, finding: &Finding) -> Option<&Finding> {
        let explains = |other: &&Finding| {
            let by = |(check, of): &(&str, String)| *check == other.check && *of == other.of;
            other.level == Level::Fail && finding.explained_by.iter().any(by)
        };
        let cause = self.0.iter().find(explains)?;
        Some(self.cause(cause).unwrap_or(cause))
    }

    /// Takes what follows from another failure out of the failures, so that
    /// what is left is what to mend.
    fn settle(&mut self) {
        let causes: Vec<_> = (self.0.iter())
            .map(|finding| self.cause(finding).map(Finding::about))
            .collect();
        for (finding, cause) in self.0.iter_mut().zip(causes) {
            let Some(cause) = cause.filter(|_| finding.level != Level::Ok) else {
                continue;
            };
            finding.level = Level::Skip;
            finding.hint = Some(format!("mend first: {cause}"));
            finding.waits_for = Some(cause);
        }
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|found| found.level == level).count()
    }

    /// Has each command that is named name the configuration.
    fn advise(&mut self, advice: &Advice) {
        for finding in &mut self.0 {
            finding.found = advice.in_full(&finding.found);
            finding.hint = finding.hint.as_ref().map(|hint| advice.in_full(hint));
        }
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
                    "waits_for": finding.waits_for,
                })
            });
            say(json!({
                "ok": self.count(Level::Fail) == 0,
                "checks": checks.collect::<Vec<_>>(),
            }))?;
        } else {
            // What is read last, and stays on the screen, is what to mend.
            for level in [Level::Ok, Level::Skip, Level::Warn, Level::Fail] {
                let of_level = self.0.iter().filter(|finding| finding.level == level);
                of_level.into_iter().try_for_each(Finding::tell)?;
            }
            let skipped = match self.count(Level::Skip) {
                0 => String::new(),
                skipped => format!(", {skipped} skipped"),
            };
            say(format!(
                "\n{}: {} failed, {}{skipped}",
                counted(self.0.len(), "check"),
                self.count(Level::Fail),
                counted(self.count(Level::Warn), "warning")
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
            "`sealkeeper config check` shows the same; nothing else can be looked at before it loads. Correct the file, then start the agent; one that runs goes on with what it has, and takes the corrected file at `sealkeeper config reload`",
        ),
        Ok(config) => {
            let found = format!(
                "good, with {} and {}",
                counted(config.key_sets.len(), "key set"),
                counted(config.devices.len(), "device")
            );
            report.ok("configuration", path.display().to_string(), found);
            compose::block_on(look(&config, &mut report))?;
        }
    }
    report.settle();
    report.advise(&Advice::of(path));
    report.tell(as_json)
}

/// `1 key`, `2 keys`.
fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// Where the configuration and what is on record do not go together.
fn differences(config: &Config, records: &state::Records, report: &mut Report) {
    for (name, record) in records {
        let Some(wanted) = config.key_sets.get(name) else {
            continue;
        };
        for warning in differs::warnings_of(record, wanted, config) {
            let hint = format!("correct the configuration, {RELOAD}");
            report.warn("configuration", name, warning, hint);
        }
    }
}

/// Tracks for which no standby is made, as the set is full.
fn standbys(config: &Config, records: &state::Records, report: &mut Report) {
    for (name, record) in records {
        let Some(wanted) = config.key_sets.get(name) else {
            continue;
        };
        let plan = wanted.plan(BTreeSet::new());
        for seat in record.seats.keys() {
            let Some(crowd) = record.no_room(seat, &plan) else {
                continue;
            };
            let found = format!("{}: {}", seat.algorithm, no_standby(&crowd));
            let hint = "one is made by itself then; until it is in every cache, `sealkeeper keys revoke` of the active key asks for --then, and nothing rotates. `sealkeeper keys list` has the dates; rotate by hand more rarely, or shorten max_token_lifetime or rollback_window";
            report.warn("standby", name, found, hint);
        }
    }
}

async fn look(config: &Config, report: &mut Report) {
    let records = state::look(config, report).await;
    differences(config, &records, report);
    standbys(config, &records, report);
    history::look(config, &records, report);
    let agent = sockets::look(config, report).await;
    devices::look(config, &records, agent.as_ref(), report).await;
    state::clock(config, &records, agent.as_ref(), report);
    sockets::jwks(config, &records, agent.as_ref(), report).await;
    origins::look(config, &records, agent.is_some(), report).await;
    rules::look(config, report);
    callers::look(config, report);
    webhooks::look(config, report);
}
