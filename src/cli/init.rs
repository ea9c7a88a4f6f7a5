//! `init`: genesis, with progress.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::compose;
use super::output::{Failure, say};
use crate::agent::{self, InitError, Progress};
use crate::store::REBUILD;

const IF_IN_USE: &str = "stop the agent, run `sealkeeper init` again, then start the agent; meanwhile nothing is signed";

/// Begins one key set, or all that have not begun. `not_renamed` says that
/// none of them is one of before under another name.
pub(super) fn run(
    path: &Path,
    key_set: Option<&str>,
    not_renamed: bool,
    as_json: bool,
) -> Result<(), Failure> {
    let config = compose::config(path)?;
    let configured: BTreeSet<String> = config.key_sets.keys().cloned().collect();
    let configured = (!not_renamed).then_some(&configured);
    let names: Vec<String> = match key_set {
        Some(name) => vec![compose::key_set(&config, Some(name.to_owned()))?],
        None => config.key_sets.keys().cloned().collect(),
    };
    let mut begun = 0;
    for name in &names {
        let made = compose::block_on(async {
            let context = compose::open(&config, IF_IN_USE)?;
            let wanted = compose::wanted(&config, name)?;
            let devices = context.devices();
            let result = with_progress(context, wanted, configured, as_json).await;
            for device in devices {
                device.shut_down().await;
            }
            Ok::<_, Failure>(result)
        })??;
        match made {
            Ok(kids) => {
                begun += 1;
                if as_json {
                    say(json!({ "key_set": name, "kids": kids }))?;
                } else {
                    let keys = if kids.len() == 1 { "key" } else { "keys" };
                    say(format!(
                        "key set {name} has begun with {} {keys}",
                        kids.len()
                    ))?;
                }
            }
            // Asked for by name it is a mistake; asked for all, it is done.
            Err(InitError::Done(_)) if key_set.is_none() && names.len() > 1 => {}
            Err(e) => return Err(failure(&e)),
        }
    }
    if begun == 0 {
        return Err(Failure::failed("every key set has begun already"));
    }
    Ok(())
}

async fn with_progress(
    context: agent::Context,
    wanted: agent::Wanted,
    configured: Option<&BTreeSet<String>>,
    quiet: bool,
) -> Result<Vec<String>, InitError> {
    let bar = ProgressBar::with_draw_target(
        None,
        if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        },
    );
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(120));
    let result = agent::init(context, wanted, configured, |progress| match progress {
        Progress::Generating { algorithm, device } => {
            bar.set_message(format!("{algorithm}: the device {device} is making a key"));
        }
        Progress::Generated { kid, placeholder } => {
            bar.println(if placeholder {
                format!("  made {kid}, the placeholder; its private half is destroyed at once")
            } else {
                format!("  made {kid}")
            });
        }
        Progress::Left { key, device, error } => bar.println(format!(
            "  left the key {key} on the device {device}: {error}. The agent destroys it once that device is configured and answers"
        )),
    })
    .await;
    bar.finish_and_clear();
    result
}

fn failure(error: &InitError) -> Failure {
    let hint = match error {
        InitError::Done(_) => "`sealkeeper keys list` shows its keys",
        InitError::Device { .. } => "`init` goes on where it stopped once the device answers",
        InitError::Lost(_) => {
            return Failure::failed(error).hint(REBUILD);
        }
        InitError::Renamed { key_set, left } => {
            return Failure::failed(error).hint(renamed(key_set, left));
        }
        InitError::BadRecord(_) | InitError::Store(_) | InitError::Unexpected(_) => {
            "nothing was changed beyond what is in the record; look at the message above"
        }
    };
    Failure::failed(error).hint(hint)
}

/// What to do about a key set without a record, where there are those `left`
/// that the configuration does not name.
pub(super) fn renamed(key_set: &str, left: &[String]) -> String {
    let names = left.join(" or ");
    format!(
        "give it its name back in the configuration, [key_set.{}], and start the agent: the store, the log and the address of the JWKS know a key set by its name. Only if {key_set:?} never was {names}: `sealkeeper init --key-set {key_set} --not-renamed` begins it",
        left.first().map_or("NAME", String::as_str),
    )
}
