//! `webhooks test`, and the webhooks of an agent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use clap::Subcommand;
use serde_json::json;

use super::compose;
use super::output::{Failure, say};
use crate::audit::Audit;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::durable::OsDisk;
use crate::metrics::Metrics;
use crate::webhook::{Ports, PostError, ProgressBook, SecretError, Webhooks};

#[derive(Debug, Subcommand)]
pub(super) enum WebhooksCommand {
    /// Send a signed event that did not happen, and say what came back.
    ///
    /// From this process, with the configuration as it is now: the agent need
    /// not run. Whoever runs it must be able to read the secret.
    Test {
        /// The webhook, as it is configured.
        name: String,
    },
}

/// Carries out a command.
pub(super) fn run(path: &Path, command: WebhooksCommand, as_json: bool) -> Result<(), Failure> {
    let WebhooksCommand::Test { name } = command;
    let config = compose::config(path)?;
    let hook = config.webhooks.get(&name).ok_or_else(|| {
        let known: Vec<&str> = config.webhooks.keys().map(String::as_str).collect();
        let failure = Failure::usage(format!("no webhook {name:?} is configured"));
        match known.is_empty() {
            true => failure.hint("[webhook.NAME] in the configuration names a receiver"),
            false => failure.hint(format!("one of: {}", known.join(", "))),
        }
    })?;
    let began = Instant::now();
    let now = SystemClock::new().read().wall;
    let status = compose::block_on(hook.test(now))?.map_err(|e| {
        let hint = match e {
            PostError::Secret(SecretError::NoCredentials { .. }) => {
                "the service alone has it: as root, with CREDENTIALS_DIRECTORY=/run/credentials/sealkeeper.service in the environment"
            }
            _ => "the receiver's log may say more; the agent goes on trying whatever waits",
        };
        match e {
            PostError::Unreachable { .. } | PostError::Slow { .. } => Failure::not_now(e),
            e => Failure::failed(e),
        }
        .hint(hint)
    })?;
    let took = began.elapsed().as_millis();
    if as_json {
        return say(json!({
            "webhook": name,
            "status": status.as_u16(),
            "milliseconds": u64::try_from(took).unwrap_or(u64::MAX),
        }));
    }
    say(format!("{name} answered {status} within {took} ms"))
}

/// The folder in which an agent keeps how far its webhooks are.
pub(super) fn folder(config: &Config) -> std::path::PathBuf {
    config.state_dir.join("webhooks")
}

/// Starts those of an agent; nothing where none is configured.
pub(super) fn start(
    config: &Config,
    audit: Arc<Audit>,
    metrics: &Metrics,
) -> Result<Option<Webhooks>, Failure> {
    if config.webhooks.is_empty() {
        return Ok(None);
    }
    let book = ProgressBook::open(Arc::new(OsDisk), folder(config)).map_err(Failure::failed)?;
    let issuers = config.key_sets.iter();
    let issuers: BTreeMap<_, _> = issuers
        .map(|(name, set)| (name.clone(), set.rules.issuer().to_owned()))
        .collect();
    let ports = Ports {
        audit,
        book,
        clock: Arc::new(SystemClock::new()),
        metrics: metrics.clone(),
        issuers,
    };
    Ok(Some(Webhooks::start(
        config.webhooks.values().cloned(),
        ports,
    )))
}
