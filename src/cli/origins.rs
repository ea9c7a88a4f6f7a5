//! `origins list`, `waive`, `restore`.

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::advice::Advice;
use super::keys::{date, rfc3339, told};
use super::output::{Failure, say, table};
use super::{OrderArgs, change, compose};
use crate::api::v1::{self, GetHealthRequest, RestoreOriginRequest, WaiveOriginRequest, Wrong};
use crate::config::Config;
use crate::keyring::among;
use crate::observe::Origin;

#[derive(Debug, Subcommand)]
pub(super) enum OriginsCommand {
    /// List where verifiers get each JWKS, what is wrong there, and what is
    /// waived.
    List {
        /// The key set; all where absent.
        #[arg(long, value_name = "NAME")]
        key_set: Option<String>,
    },
    /// Activate keys without waiting for an address that verifiers use, for a
    /// while.
    ///
    /// Verifiers that ask there may meet the id of a key that they do not
    /// hold. The address is watched all the same, and counts again by itself.
    /// Where every address is waived, the agent's own listener must show a key
    /// before it is activated.
    Waive {
        #[command(flatten)]
        order: OrderArgs,
        /// The address, as it is configured or in another spelling.
        url: String,
        /// For how long: at most 90 days.
        #[arg(long = "for", value_name = "SPAN", default_value = "7d", value_parser = humantime::parse_duration)]
        span: Duration,
        /// Why, for the record and the log.
        #[arg(long, value_name = "TEXT")]
        note: String,
    },
    /// Wait for a waived address again.
    Restore {
        #[command(flatten)]
        order: OrderArgs,
        /// The address, as it is configured or in another spelling.
        url: String,
    },
}

/// Carries out a command through the agent.
pub(super) fn run(path: &Path, command: OriginsCommand, as_json: bool) -> Result<(), Failure> {
    let (advice, config) = (Advice::of(path), compose::config(path)?);
    let changed = match command {
        OriginsCommand::List { key_set } => return list(&config, key_set.as_deref(), as_json),
        OriginsCommand::Waive {
            order,
            url,
            span,
            note,
        } => compose::block_on(async {
            let mut admin = compose::admin(&config).await?;
            let order = change::order(&config, order)?;
            let request = WaiveOriginRequest {
                origin: named(&config, &order.key_set, url),
                order: Some(order),
                span: prost_types::Duration::try_from(span).ok(),
                note,
            };
            Ok::<_, Failure>(admin.waive_origin(request).await?.into_inner())
        })??,
        OriginsCommand::Restore { order, url } => compose::block_on(async {
            let mut admin = compose::admin(&config).await?;
            let order = change::order(&config, order)?;
            let request = RestoreOriginRequest {
                origin: named(&config, &order.key_set, url),
                order: Some(order),
            };
            Ok::<_, Failure>(admin.restore_origin(request).await?.into_inner())
        })??,
    };
    change::tell(&changed, &advice, as_json)
}

/// As it is configured, where it leads to the same place. What is not, the
/// agent refuses; and it may still have a waiver of what was.
fn named(config: &Config, key_set: &str, url: String) -> String {
    let Ok(wanted) = Origin::new(&url, &url) else {
        return url;
    };
    let set = config.key_sets.get(key_set);
    let mut origins = set.into_iter().flat_map(|set| &set.observe);
    let found = origins.find(|origin| origin.spelling() == wanted.spelling());
    found.map_or(url, |origin| origin.name().to_owned())
}

fn list(config: &Config, key_set: Option<&str>, as_json: bool) -> Result<(), Failure> {
    if let Some(name) = key_set {
        compose::key_set(config, Some(name.to_owned()))?;
    }
    let answer = compose::block_on(async {
        let mut admin = compose::admin(config).await?;
        Ok::<_, Failure>(admin.get_health(GetHealthRequest {}).await?.into_inner())
    })??;
    let sets = answer.key_sets.iter();
    let sets: Vec<_> = sets
        .filter(|set| key_set.is_none_or(|name| name == set.name))
        .collect();
    if as_json {
        let sets = sets.iter().map(|set| {
            let origins: Vec<Value> = set.origins.iter().map(json_of).collect();
            json!({ "name": set.name, "origins": origins })
        });
        return say(json!({ "key_sets": sets.collect::<Vec<_>>() }));
    }
    let rows = sets.iter().flat_map(|set| {
        set.origins.iter().map(|origin| {
            vec![
                set.name.clone(),
                origin.name.clone(),
                date(origin.answered.as_ref()),
                found(origin),
                origin.waiver.as_ref().map(waived).unwrap_or_default(),
            ]
        })
    });
    say(table(
        &["KEY SET", "ORIGIN", "ANSWERED", "WRONG", "WAIVED"],
        rows,
    ))
}

fn found(origin: &v1::Origin) -> String {
    let wrong = origin.wrong.iter().map(|wrong| {
        let (kid, detail) = (&wrong.kid, &wrong.detail);
        let text = match wrong.what() {
            Wrong::Lacks => format!("lacks {kid}"),
            Wrong::Lags => format!("does not show {kid} yet"),
            Wrong::ShowsRevoked => format!("shows the revoked {kid} {detail}"),
            Wrong::Impostor => format!("under {kid} stands {detail}"),
            Wrong::Unspecified => kid.clone(),
        };
        format!("{}{}", text.trim_end(), among(&wrong.addresses))
    });
    let silence = Some(&origin.why).filter(|why| !why.is_empty()).cloned();
    let all: Vec<_> = silence.into_iter().chain(wrong).collect();
    match all.is_empty() {
        true => "-".to_owned(),
        false => all.join("; "),
    }
}

fn waived(waiver: &v1::Waiver) -> String {
    let until = date(waiver.until.as_ref());
    format!("until {until}{}", told(&waiver.by, &waiver.note))
}

fn json_of(origin: &v1::Origin) -> Value {
    let wrong = origin.wrong.iter().map(|wrong| {
        json!({
            "kid": wrong.kid,
            "what": match wrong.what() {
                Wrong::Lacks => "lacks_key",
                Wrong::Lags => "lags",
                Wrong::ShowsRevoked => "shows_revoked",
                Wrong::Impostor => "impostor",
                Wrong::Unspecified => "unknown",
            },
            "page": wrong.page,
            "detail": wrong.detail,
            "addresses": wrong.addresses,
        })
    });
    json!({
        "name": origin.name,
        "url": origin.url,
        "answered": rfc3339(origin.answered.as_ref()),
        "why": Some(&origin.why).filter(|why| !why.is_empty()),
        "silent": origin.silent,
        "wrong": wrong.collect::<Vec<_>>(),
        "waiver": origin.waiver.as_ref().map(|waiver| json!({
            "since": rfc3339(waiver.since.as_ref()),
            "until": rfc3339(waiver.until.as_ref()),
            "by": waiver.by,
            "note": waiver.note,
        })),
    })
}
