//! `ListCallers`, `BlockCaller`, `UnblockCaller`.

use std::sync::Arc;

use tracing::info;

use super::desk::timestamp;
use super::status::Fault;
use crate::agent::callers::{CallerKind, CallerStatus, Callers};
use crate::api::v1;
use crate::policy::{Caller, CallerId};

/// The longest note, in bytes.
const MAX_NOTE: usize = 1024;

pub(super) fn list(callers: &Callers) -> v1::ListCallersResponse {
    v1::ListCallersResponse {
        callers: callers.list().into_iter().map(status).collect(),
    }
}

pub(super) async fn block(
    callers: &Arc<Callers>,
    by: Caller,
    request: v1::BlockCallerRequest,
) -> Result<v1::BlockCallerResponse, Fault> {
    let id = id(&request.id)?;
    if request.note.len() > MAX_NOTE {
        return Err(Fault::field(
            "note",
            format!(
                "expected at most {MAX_NOTE} bytes, got {}",
                request.note.len()
            ),
            "shorten the note",
        ));
    }
    // To its end, even if the operator's connection ends first.
    let callers = Arc::clone(callers);
    let blocked = tokio::spawn(async move { callers.block(id, &by, request.note).await });
    let blocked = blocked
        .await
        .map_err(|e| Fault::internal("BLOCK_FAILED", format!("the block holds in memory: {e}")))?;
    let mut pending = Vec::new();
    if let Some(why) = blocked.why {
        pending.push(format!(
            "the block holds until the agent ends, and is not stored: {why}; block again to store it"
        ));
    }
    Ok(v1::BlockCallerResponse {
        caller: Some(status(blocked.caller)),
        durable: blocked.durable,
        pending,
    })
}

pub(super) async fn unblock(
    callers: &Arc<Callers>,
    by: Caller,
    request: v1::UnblockCallerRequest,
) -> Result<v1::UnblockCallerResponse, Fault> {
    let id = id(&request.id)?;
    let (all, wanted) = (Arc::clone(callers), id.clone());
    let unblocked = tokio::spawn(async move { all.unblock(&wanted, &by).await });
    let was_blocked = unblocked
        .await
        .map_err(|e| Fault::internal("UNBLOCK_FAILED", e.to_string()))?
        .map_err(Fault::admin)?;
    if !was_blocked {
        info!(caller = %id, "was not blocked");
    }
    Ok(v1::UnblockCallerResponse {
        caller: Some(status(callers.status(&id))),
        was_blocked,
    })
}

fn id(text: &str) -> Result<CallerId, Fault> {
    text.parse()
        .map_err(|error: crate::policy::identity::InvalidName| {
            let hint = "list the callers: their ids stand there";
            Fault::field("id", error.to_string(), hint)
        })
}

fn status(status: CallerStatus) -> v1::Caller {
    let kind = match status.kind {
        CallerKind::Unix => v1::CallerKind::Unix,
        CallerKind::Spiffe => v1::CallerKind::Spiffe,
        CallerKind::Dns => v1::CallerKind::Dns,
        CallerKind::Group => v1::CallerKind::Group,
        CallerKind::SpiffeBelow => v1::CallerKind::SpiffeBelow,
    };
    v1::Caller {
        id: status.id,
        kind: kind.into(),
        ids: status.ids.iter().map(ToString::to_string).collect(),
        rules: status
            .rules
            .into_iter()
            .map(|rule| v1::RuleName {
                key_set: rule.key_set,
                rule: rule.rule,
            })
            .collect(),
        first_seen: status.first_seen.map(timestamp),
        last_seen: status.last_seen.map(timestamp),
        requests: status.requests,
        refusals: status.refusals,
        open: status.open,
        turned_away: status.turned_away,
        block: status.block.map(|block| v1::Block {
            since: Some(timestamp(block.since)),
            by: block.by,
            note: block.note,
            id: block.id.to_string(),
            durable: status.block_is_durable,
        }),
    }
}
