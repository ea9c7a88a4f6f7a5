//! An agent that runs and does nothing: stopped, frozen, or stuck for good.

use std::path::Path;

use clap::ValueEnum;
use tonic::Status;

use super::output::Failure;
use super::revoke::Args;
use crate::api::client::{self, SILENCE};
use crate::config::Config;

/// How it is ended, by its process id where that is known.
pub(super) fn end_it(socket: &Path) -> String {
    let systemd = "`systemctl kill --signal=KILL sealkeeper` where systemd runs it";
    match client::process_id(socket) {
        Some(id) => format!("`kill -KILL {id}`, or {systemd}"),
        None => systemd.to_owned(),
    }
}

/// Why an order to end `what` was not answered: `words` name it on the command
/// line.
pub(super) fn revoking(config: &Config, status: Status, words: &str, args: &Args) -> Failure {
    if !client::hangs(&status) {
        return status.into();
    }
    let known = match args.dry_run {
        true => "nothing was changed",
        false => {
            "whether the order has reached it is not known, and nothing is known to be blocked"
        }
    };
    let mut offline = format!("sealkeeper keys revoke {words} --offline");
    if args.dry_run {
        offline.push_str(" --dry-run");
    }
    let reason = args.reason.to_possible_value();
    let then = args.then.and_then(|then| then.to_possible_value());
    for (flag, value) in [("reason", reason), ("then", then)] {
        if let Some(value) = value {
            offline.push_str(&format!(" --{flag} {}", value.get_name()));
        }
    }
    let end_it = end_it(&config.serve.admin_socket);
    Failure::not_now(format!("{}; {known}", silent())).hint(format!(
        "end it: {end_it}; then `{offline}`. Where it was started again by then, the same without --offline"
    ))
}

/// That it hangs.
pub(super) fn silent() -> String {
    format!("the agent hangs: its process is there, and gave no sign of life for {SILENCE:?}")
}
