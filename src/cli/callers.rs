//! `callers list`, `block`, `unblock`.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::CallersCommand;
use super::compose;
use super::keys::{date, rfc3339};
use super::output::{Failure, say, table};
use crate::agent::callers::Callers;
use crate::api::v1::{
    self, BlockCallerRequest, CallerKind, ListCallersRequest, UnblockCallerRequest,
};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::durable::{BlockList, OsDisk};

/// Who calls, and who is blocked: from the state directory and the rules.
pub(super) fn open(config: &Config) -> Result<Arc<Callers>, Failure> {
    let dir = config.state_dir.join("callers");
    let list = BlockList::open(Arc::new(OsDisk), dir).map_err(Failure::failed)?;
    let rules = config.key_sets.values().map(|set| set.rules.clone());
    Ok(Callers::open(
        Arc::new(SystemClock::new()),
        list,
        rules.collect(),
    ))
}

/// Carries out a command through the agent.
pub(super) fn run(config: &Path, command: CallersCommand, json: bool) -> Result<(), Failure> {
    let config = compose::config(config)?;
    match command {
        CallersCommand::List => list(&config, json),
        CallersCommand::Block { id, note } => block(&config, id, note, json),
        CallersCommand::Unblock { id } => unblock(&config, id, json),
    }
}

fn list(config: &Config, as_json: bool) -> Result<(), Failure> {
    let answer = compose::block_on(async {
        let mut admin = compose::admin(config).await?;
        let answer = admin.list_callers(ListCallersRequest {}).await?;
        Ok::<_, Failure>(answer.into_inner())
    })??;
    if as_json {
        let callers: Vec<_> = answer.callers.iter().map(json_of).collect();
        return say(json!({ "callers": callers }));
    }
    let head = [
        "CALLER",
        "KIND",
        "RULES",
        "FIRST SEEN",
        "LAST SEEN",
        "REQUESTS",
        "REFUSED",
        "OPEN",
        "TURNED AWAY",
        "BLOCKED",
    ];
    let rows = answer.callers.iter().map(|caller| {
        vec![
            caller.id.clone(),
            kind(caller.kind()).to_owned(),
            rules(caller),
            date(caller.first_seen.as_ref()),
            date(caller.last_seen.as_ref()),
            caller.requests.to_string(),
            caller.refusals.to_string(),
            caller.open.to_string(),
            caller.turned_away.to_string(),
            caller.block.as_ref().map(blocked).unwrap_or_default(),
        ]
    });
    say(table(&head, rows))
}

fn block(config: &Config, id: String, note: String, as_json: bool) -> Result<(), Failure> {
    let answer = compose::block_on(async {
        let mut admin = compose::admin(config).await?;
        let answer = admin.block_caller(BlockCallerRequest { id, note }).await?;
        Ok::<_, Failure>(answer.into_inner())
    })??;
    let caller = answer.caller.unwrap_or_default();
    if as_json {
        say(json!({
            "caller": json_of(&caller),
            "durable": answer.durable,
            "pending": answer.pending,
        }))?;
    } else {
        say(format!(
            "done:    {} is blocked: its connections have ended, and its requests are refused",
            caller.id
        ))?;
        for pending in &answer.pending {
            say(format!("pending: {pending}"))?;
        }
    }
    if !answer.durable {
        return Err(
            Failure::failed("the block holds in memory, and is not on disk")
                .hint("free the disk, then block again; do not restart the agent before"),
        );
    }
    Ok(())
}

fn unblock(config: &Config, id: String, as_json: bool) -> Result<(), Failure> {
    let answer = compose::block_on(async {
        let mut admin = compose::admin(config).await?;
        let answer = admin.unblock_caller(UnblockCallerRequest { id }).await?;
        Ok::<_, Failure>(answer.into_inner())
    })??;
    let caller = answer.caller.unwrap_or_default();
    if as_json {
        return say(json!({ "caller": json_of(&caller), "was_blocked": answer.was_blocked }));
    }
    match (answer.was_blocked, &caller.block) {
        (_, Some(block)) => say(format!("{} is still blocked as {}", caller.id, block.id)),
        (true, None) => say(format!("done:    {} may call again", caller.id)),
        (false, None) => say(format!("{} was not blocked", caller.id)),
    }
}

fn json_of(caller: &v1::Caller) -> Value {
    json!({
        "id": caller.id,
        "kind": kind(caller.kind()),
        "ids": caller.ids,
        "rules": caller.rules.iter().map(|rule| json!({
            "key_set": rule.key_set,
            "rule": rule.rule,
        })).collect::<Vec<_>>(),
        "first_seen": rfc3339(caller.first_seen.as_ref()),
        "last_seen": rfc3339(caller.last_seen.as_ref()),
        "requests": caller.requests,
        "refusals": caller.refusals,
        "open": caller.open,
        "turned_away": caller.turned_away,
        "block": caller.block.as_ref().map(|block| json!({
            "id": block.id,
            "since": rfc3339(block.since.as_ref()),
            "by": block.by,
            "note": block.note,
            "durable": block.durable,
        })),
    })
}

fn kind(kind: CallerKind) -> &'static str {
    match kind {
        CallerKind::Unspecified => "unknown",
        CallerKind::Unix => "user",
        CallerKind::Spiffe => "spiffe",
        CallerKind::Dns => "dns",
        CallerKind::Group => "group",
        CallerKind::SpiffeBelow => "spiffe prefix",
    }
}

fn rules(caller: &v1::Caller) -> String {
    if caller.rules.is_empty() {
        return "none".to_owned();
    }
    let names = caller.rules.iter();
    let names: Vec<_> = names
        .map(|rule| format!("{}/{}", rule.key_set, rule.rule))
        .collect();
    names.join(", ")
}

fn blocked(block: &v1::Block) -> String {
    let mut text = format!("since {} by {}", date(block.since.as_ref()), block.by);
    if !block.note.is_empty() {
        text.push_str(&format!(": {}", block.note.escape_debug()));
    }
    if !block.durable {
        text.push_str(" (not stored)");
    }
    text
}
