//! `config check`, and through the agent `config diff` and `config reload`.

use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::keys::{date, rfc3339};
use super::output::{Failure, say, table, warn};
use super::{check, compose};
use crate::api::client;
use crate::api::v1::configuration_client::ConfigurationClient;
use crate::api::v1::{
    ConfigurationChange, Consequence, DiffConfigurationRequest, Difference,
    ReloadConfigurationRequest,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the configuration, and print the timeline that it means.
    ///
    /// Where the store can be read, it also warns of what would stop signing
    /// after a restart. Changes nothing.
    Check,
    /// Show what has changed in the file since the agent took it into use, and
    /// what a reload would make of it: which keys, and when.
    ///
    /// The agent reads the file that it was started with. Changes nothing.
    Diff,
    /// Take the file into use as far as that goes without a restart: rules,
    /// tracks, schedules and where the JWKS is observed.
    ///
    /// As SIGHUP does. A file that makes no sense changes nothing.
    Reload {
        /// Go ahead though a key set stops signing.
        #[arg(long)]
        even_if_signing_stops: bool,
        /// Only the very file that `config diff` showed, by its digest.
        #[arg(
            long,
            value_name = "DIGEST",
            default_value = "",
            hide_default_value = true
        )]
        expect: String,
    },
}

/// Carries out a command.
pub(super) fn run(config: &Path, command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Check => check::run(config, json),
        Command::Diff => diff(config, json),
        Command::Reload {
            even_if_signing_stops,
            expect,
        } => reload(config, even_if_signing_stops, expect, json),
    }
}

/// Shows what a reload would do.
fn diff(config: &Path, as_json: bool) -> Result<(), Failure> {
    let change = compose::block_on(async {
        let mut agent = connect(config).await?;
        let answer = agent.diff_configuration(DiffConfigurationRequest {});
        Ok::<_, Failure>(answer.await?.into_inner())
    })??;
    show(config, &change, as_json)
}

/// Does it.
fn reload(
    config: &Path,
    even_if_signing_stops: bool,
    expected_digest: String,
    as_json: bool,
) -> Result<(), Failure> {
    let request = ReloadConfigurationRequest {
        even_if_signing_stops,
        expected_digest,
    };
    let change = compose::block_on(async {
        let mut agent = connect(config).await?;
        let answer = agent.reload_configuration(request);
        Ok::<_, Failure>(answer.await?.into_inner())
    })??;
    show(config, &change, as_json)
}

/// The agent's administration socket. Where it is stands in the file: one that
/// makes no sense is shown here already, with its mistakes.
async fn connect(config: &Path) -> Result<ConfigurationClient<Channel>, Failure> {
    let config = compose::config(config)?;
    let channel = client::connect(&config.serve.admin_socket).await?;
    Ok(ConfigurationClient::new(channel))
}

fn show(config: &Path, change: &ConfigurationChange, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return say(json_of(change));
    }
    let same =
        || Some(std::fs::canonicalize(config).ok()? == std::fs::canonicalize(&change.file).ok()?);
    if same() == Some(false) {
        warn(format!(
            "this agent was started with {}, and reads that file",
            change.file
        ));
    }
    if change.differences.is_empty() {
        return say(format!("{} is in force as it is", change.file));
    }
    let rows = change.differences.iter().map(|difference| {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            difference.setting.clone(),
            text(&difference.before),
            text(&difference.after),
            in_force(change, difference).to_owned(),
        ]
    });
    say(table(&["SETTING", "WAS", "IS", "IN FORCE"], rows))?;
    if !change.consequences.is_empty() {
        say("")?;
        let rows = change.consequences.iter().map(|consequence| {
            vec![
                date(consequence.at.as_ref()),
                consequence.key_set.clone(),
                consequence.what.clone(),
                (consequence.instead_of.as_ref())
                    .map(|_| format!("instead of {}", date(consequence.instead_of.as_ref())))
                    .unwrap_or_default(),
            ]
        });
        say(table(&["AT", "KEY SET", "WHAT", ""], rows))?;
    }
    change.warnings.iter().for_each(warn);
    let by_reload = |difference: &Difference| !difference.needs_restart;
    if !change.reloaded && change.differences.iter().any(by_reload) {
        say(format!(
            "\nto take it into use: sealkeeper config reload --expect {}",
            change.digest
        ))?;
    }
    Ok(())
}

const fn in_force(change: &ConfigurationChange, difference: &Difference) -> &'static str {
    match (difference.needs_restart, change.reloaded) {
        (true, _) => "after a restart",
        (false, true) => "now",
        (false, false) => "after a reload",
    }
}

fn json_of(change: &ConfigurationChange) -> Value {
    let differences = change.differences.iter().map(|difference| {
        json!({
            "setting": difference.setting,
            "before": difference.before,
            "after": difference.after,
            "needs_restart": difference.needs_restart,
        })
    });
    let consequences = change.consequences.iter().map(|consequence| {
        let Consequence {
            key_set,
            what,
            at,
            instead_of,
        } = consequence;
        json!({
            "key_set": key_set,
            "what": what,
            "at": rfc3339(at.as_ref()),
            "instead_of": rfc3339(instead_of.as_ref()),
        })
    });
    json!({
        "file": change.file,
        "digest": change.digest,
        "differences": differences.collect::<Vec<_>>(),
        "consequences": consequences.collect::<Vec<_>>(),
        "warnings": change.warnings,
        "reloaded": change.reloaded,
    })
}
