//! `approvals list`, `approve`, `withdraw`: what waits for a second person.

use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};

use super::advice::Advice;
use super::keys::{date, rfc3339};
use super::output::{Failure, say, table};
use super::{OrderArgs, change, compose};
use crate::api::client;
use crate::api::v1::approvals_client::ApprovalsClient;
use crate::api::v1::{ApproveRequest, ListApprovalsRequest, PendingApproval, WithdrawRequest};

/// What to do with requests.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what waits for a second person.
    List {
        /// The key set; all where absent.
        #[arg(long, value_name = "NAME")]
        key_set: Option<String>,
    },
    /// Agree to what another person asked for: it is done at once.
    Approve {
        /// The request's number.
        number: u64,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Take a request off; nothing happens to the key.
    Withdraw {
        /// The request's number.
        number: u64,
        #[command(flatten)]
        order: OrderArgs,
    },
}

/// Carries out a command through the agent.
pub(super) fn run(config: &Path, command: Command, json: bool) -> Result<(), Failure> {
    let (advice, config) = (Advice::of(config), compose::config(config)?);
    let changed = compose::block_on(async {
        let channel = client::connect(&config.serve.admin_socket).await?;
        let mut agent = ApprovalsClient::new(channel);
        let answer = match command {
            Command::List { key_set } => {
                let key_set = key_set.unwrap_or_default();
                let answer = agent.list_approvals(ListApprovalsRequest { key_set });
                list(&answer.await?.into_inner().pending, json)?;
                return Ok(None);
            }
            Command::Approve { number, order } => {
                let order = Some(change::order(&config, order)?);
                agent.approve(ApproveRequest { order, number }).await?
            }
            Command::Withdraw { number, order } => {
                let order = Some(change::order(&config, order)?);
                agent.withdraw(WithdrawRequest { order, number }).await?
            }
        };
        Ok::<_, Failure>(Some(answer.into_inner()))
    })??;
    match changed {
        Some(changed) => change::tell(&changed, &advice, json),
        None => Ok(()),
    }
}

fn list(pending: &[PendingApproval], as_json: bool) -> Result<(), Failure> {
    if as_json {
        let all: Vec<Value> = pending.iter().map(json_of).collect();
        return say(json!({ "pending": all }));
    }
    if pending.is_empty() {
        return say("nothing waits for a second person");
    }
    let head = [
        "NUMBER", "KEY SET", "WISH", "ABOUT", "ASKED BY", "SINCE", "UNTIL", "NOTE",
    ];
    let rows = pending.iter().map(|request| {
        vec![
            request.number.to_string(),
            request.key_set.clone(),
            request.wish.clone(),
            match request.wish.as_str() {
                "activate" if request.would_sign.is_empty() => {
                    format!("{}, once one is made", request.about)
                }
                "activate" => format!("{}: now {}", request.about, request.would_sign),
                "force" => format!("{}, before its time", request.about),
                _ => request.about.clone(),
            },
            format!("{} ({})", request.person, request.by),
            date(request.since.as_ref()),
            date(request.expires.as_ref()),
            request.note.clone(),
        ]
    });
    say(table(&head, rows))
}

fn json_of(request: &PendingApproval) -> Value {
    json!({
        "number": request.number,
        "key_set": request.key_set,
        "wish": request.wish,
        "about": request.about,
        "would_sign": Some(&request.would_sign).filter(|kid| !kid.is_empty()),
        "by": request.by,
        "person": request.person,
        "note": request.note,
        "since": rfc3339(request.since.as_ref()),
        "expires": rfc3339(request.expires.as_ref()),
    })
}
