//! Commands that change a key set, through the agent.

use std::io::{IsTerminal, Write};
use std::path::Path;

use prost_types::Timestamp;
use serde_json::json;

use super::advice::Advice;
use super::compose;
use super::impact;
use super::keys;
use super::kid;
use super::output::Failure;
use super::{KeysCommand, OrderArgs};
use crate::api::v1::{
    ChangeResponse, ConfirmClockRequest, DestroyKeyRequest, HoldKeyRequest, Order,
    ReleaseKeyRequest, RollbackKeyRequest,
};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;

/// `keys rollback`, `destroy`, `hold`, `release`.
pub(super) fn keys(config: &Path, command: KeysCommand, as_json: bool) -> Result<(), Failure> {
    let (advice, config) = (Advice::of(config), compose::config(config)?);
    let changed = compose::block_on(async {
        let mut admin = compose::admin(&config).await?;
        let answer = match command {
            // Answered by `keys::list`, `show::run`, `rotate::run`, `revoke::run`
            // and `import::run`.
            KeysCommand::List { .. }
            | KeysCommand::History { .. }
            | KeysCommand::Show { .. }
            | KeysCommand::Revoke(_)
            | KeysCommand::Rotate(_)
            | KeysCommand::Import(_)
            | KeysCommand::Adopt(_) => {
                return Ok(None);
            }
            KeysCommand::Rollback { order, kid } => {
                let order = self::order(&config, order)?;
                let kid = kid::resolve(&config, &order.key_set, kid, false).await?;
                admin
                    .rollback_key(RollbackKeyRequest {
                        order: Some(order),
                        kid,
                    })
                    .await?
            }
            KeysCommand::Destroy {
                order,
                kid,
                end_rollback,
                note,
                yes,
            } => {
                let order = self::order(&config, order)?;
                let kid = kid::resolve(&config, &order.key_set, kid, false).await?;
                if !yes {
                    confirm(
                        &format!("Destroy the private half of {kid} for ever?"),
                        as_json,
                    )?;
                }
                admin
                    .destroy_key(DestroyKeyRequest {
                        order: Some(order),
                        kid,
                        end_rollback,
                        note,
                    })
                    .await?
            }
            KeysCommand::Hold { order, kid, note } => {
                let order = self::order(&config, order)?;
                let kid = kid::resolve(&config, &order.key_set, kid, false).await?;
                admin
                    .hold_key(HoldKeyRequest {
                        order: Some(order),
                        kid,
                        note,
                    })
                    .await?
            }
            KeysCommand::Release { order, kid } => {
                let order = self::order(&config, order)?;
                let kid = kid::resolve(&config, &order.key_set, kid, false).await?;
                admin
                    .release_key(ReleaseKeyRequest {
                        order: Some(order),
                        kid,
                    })
                    .await?
            }
        };
        Ok::<_, Failure>(Some(answer.into_inner()))
    })??;
    changed.map_or(Ok(()), |changed| tell(&changed, &advice, as_json))
}

/// `clock confirm`.
pub(super) fn confirm_clock(
    config: &Path,
    order: OrderArgs,
    note: String,
    json: bool,
) -> Result<(), Failure> {
    let (advice, config) = (Advice::of(config), compose::config(config)?);
    let changed = compose::block_on(async {
        let mut admin = compose::admin(&config).await?;
        let order = self::order(&config, order)?;
        let now = SystemClock::new().read().wall;
        let reading = Timestamp {
            seconds: now.as_secs(),
            nanos: 0,
        };
        let request = ConfirmClockRequest {
            order: Some(order),
            reading: Some(reading),
            note,
        };
        Ok::<_, Failure>(admin.confirm_clock(request).await?.into_inner())
    })??;
    tell(&changed, &advice, json)
}

/// Whether somebody sits at a terminal.
pub(super) fn is_answered() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks whoever sits at the terminal.
pub(super) fn confirm(question: &str, as_json: bool) -> Result<(), Failure> {
    let (mut asks, answers) = (std::io::stderr(), std::io::stdin());
    if as_json || !is_answered() {
        return Err(Failure::usage("there is no way back from this")
            .hint("--yes says that it is meant; on a terminal you are asked"));
    }
    let failed = |e: std::io::Error| Failure::failed(format!("the terminal: {e}"));
    write!(asks, "{question} [y/N] ").map_err(failed)?;
    let mut answer = String::new();
    answers.read_line(&mut answer).map_err(failed)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::failed("nothing was changed").hint("answer y to go on"))
}

pub(super) fn order(config: &Config, args: OrderArgs) -> Result<Order, Failure> {
    let request_id = match args.request_id {
        Some(id) => id,
        None => compose::random_name()?,
    };
    Ok(Order {
        request_id,
        key_set: compose::key_set(config, args.key_set)?,
        expected_version: args.expected_version,
    })
}

/// What a running agent did.
pub(super) fn tell(
    changed: &ChangeResponse,
    advice: &Advice,
    as_json: bool,
) -> Result<(), Failure> {
    show(changed, advice, as_json)?;
    changed.durable.then_some(()).ok_or_else(in_memory)
}

/// What was done with no agent running.
pub(super) fn tell_offline(
    changed: &ChangeResponse,
    advice: &Advice,
    as_json: bool,
) -> Result<(), Failure> {
    show(changed, advice, as_json)?;
    changed.durable.then_some(()).ok_or_else(nowhere)
}

fn show(changed: &ChangeResponse, advice: &Advice, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return advice.say_json(json!({
            "done": changed.done,
            "pending": changed.pending,
            "trusted_until": changed.trusted_until.as_ref().map(|at| keys::date(Some(at))),
            "durable": changed.durable,
            "acted_alone": Some(&changed.acted_alone).filter(|by| !by.is_empty()),
            "impact": changed.impact.as_ref().map(impact::json_of),
            "key_set": changed.key_set.as_ref().map(keys::json_of),
        }));
    }
    for done in &changed.done {
        advice.say(format!("done:    {done}"))?;
    }
    if let Some(at) = &changed.trusted_until {
        advice.say(format!(
            "until:   {} bounded verifiers may still trust the key",
            keys::date(Some(at))
        ))?;
    }
    if let Some(impact) = &changed.impact {
        impact::tell(impact, advice)?;
    }
    for pending in &changed.pending {
        advice.say(format!("pending: {pending}"))?;
    }
    if !changed.acted_alone.is_empty() {
        advice.say(format!(
            "alone:   {} did this, which may want a second person: the log says so",
            changed.acted_alone
        ))?;
    }
    Ok(())
}

/// What holds in memory alone is not done.
pub(super) fn in_memory() -> Failure {
    Failure::failed("the change holds in memory, and is not on disk yet: it ends with the agent")
        .hint("do not stop or restart the agent; make room, and it is written within seconds: `sealkeeper doctor` names it until then. Where it was restarted before, order it again")
}

/// No agent runs that would know of it, and the disk took nothing.
pub(super) fn nowhere() -> Failure {
    Failure::failed("nothing of it is on disk, and no agent runs that would know it: the next start signs again")
        .hint("make room on the file system of state_dir, and order it again before the agent starts")
}
