//! Whether those who are to be told of key events take them.

use std::sync::Arc;

use super::Report;
use crate::cli::webhooks::folder;
use crate::config::Config;
use crate::durable::OsDisk;
use crate::observe::{self, Trust};
use crate::webhook::{Progress, ProgressBook, SecretError, Secrets, Webhook};

const CHECK: &str = "webhook";

pub(super) fn look(config: &Config, report: &mut Report) {
    let book = ProgressBook::reading(Arc::new(OsDisk), folder(config));
    for (name, hook) in &config.webhooks {
        match Secrets::read(&hook.secret) {
            // Given to the service alone: not looked at.
            Ok(_) | Err(SecretError::NoCredentials { .. }) => {}
            Err(e) => {
                let hint = "nothing is told before there is one; it is read anew each time";
                report.fail(CHECK, name, e.to_string(), hint);
                continue;
            }
        }
        if let Trust::Roots(path) = &hook.trust
            && let Err(e) = observe::check_roots(path)
        {
            let hint = "the receiver cannot be believed: put the PEM file there, or take `ca` off where the system's roots will do";
            report.fail(CHECK, name, e.to_string(), hint);
            continue;
        }
        match book.load(name) {
            Ok(progress) => told(hook, progress, report),
            Err(e) => {
                let hint = "the agent begins with what happens from its next start on; delete the file, and tell the receiver what it may have missed";
                report.fail(CHECK, name, e.to_string(), hint);
            }
        }
    }
}

fn told(hook: &Webhook, progress: Option<Progress>, report: &mut Report) {
    let Webhook { name, .. } = hook;
    match progress {
        Some(Progress {
            failing: Some(since),
            why,
            ..
        }) => {
            let found = format!("takes no key event since {since}: {why}");
            let hint = format!(
                "what waits is tried again for days; `sealkeeper webhooks test {name}` says what comes back now"
            );
            report.fail(CHECK, name, found, hint);
        }
        Some(Progress {
            answered: Some(at), ..
        }) => report.ok(CHECK, name, format!("took a key event last at {at}")),
        _ => report.ok(
            CHECK,
            name,
            format!("nothing was told yet; `sealkeeper webhooks test {name}` tries it"),
        ),
    }
}
