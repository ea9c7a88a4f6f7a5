//! `keys import`: the JWKS of an older system goes on being served.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args as ClapArgs;
use serde_json::json;

use super::output::{Failure, say};
use super::{compose, date};
use crate::agent::{self, ImportFailure};
use crate::api;
use crate::clock::{Clock, SystemClock};
use crate::jose::{Jwk, ServedSet};
use crate::keyring::{ImportError, Mandate};
use crate::observe::{self, Origin};
use crate::time::{Span, Time};

const IF_IN_USE: &str = "stop the agent, import, then start the agent; meanwhile nothing is signed, and nobody serves the JWKS but caches";
/// How long an address may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most keys at a time: verifiers bound the sets that they read.
const MOST: usize = 24;

/// Which keys, and for how long.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The key set; may be left out where only one is configured.
    #[arg(long, value_name = "NAME")]
    key_set: Option<String>,
    /// A JWKS: a file, or an address that begins with https:// or http://.
    #[arg(long, value_name = "FILE|URL")]
    from: String,
    /// Until when tokens of these keys may be good: a date, such as
    /// 2027-01-31 (the midnight, UTC, that begins it), or a time, such as
    /// 2027-01-31T09:30:00Z. They leave the JWKS after it.
    #[arg(long, value_name = "DATE", value_parser = date::instant)]
    until: SystemTime,
    /// A remark, for the log.
    #[arg(long, default_value = "", value_name = "TEXT")]
    note: String,
}

/// Reads the set, and publishes its keys.
pub(super) fn run(path: &Path, args: Args, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(path)?;
    let name = compose::key_set(&config, args.key_set)?;
    let until = until(args.until)?;
    let keys = read(&args.from)?;
    let kids: Vec<String> = keys.iter().map(|jwk| jwk.kid.clone()).collect();
    let uid = rustix::process::geteuid().as_raw();
    let mandate = Mandate {
        by: format!("unix:{uid}"),
        note: args.note,
    };
    compose::block_on(async {
        let context = compose::open(&config, IF_IN_USE)?;
        let wanted = compose::wanted(&config, &name)?;
        let devices = context.devices();
        let imported = agent::import(context, wanted, keys, until, &mandate).await;
        for device in devices {
            device.shut_down().await;
        }
        imported.map_err(|e| failure(&e))
    })??;
    if as_json {
        return say(json!({ "key_set": name, "kids": kids, "until": until.to_string() }));
    }
    for kid in kids {
        say(format!("{kid} verifies until {until}, and never signs"))?;
    }
    say("start the agent; `sealkeeper keys revoke` ends one before its time")
}

/// An id that can be shown: terminals obey some characters, and a line break
/// makes of one answer two.
pub(super) fn plain(kid: &str) -> Result<(), Failure> {
    let shown = !kid.is_empty() && kid.len() <= LONGEST_KID && !kid.chars().any(api::is_control);
    shown.then_some(()).ok_or_else(|| {
        let start: String = kid.chars().take(40).collect();
        Failure::failed(format!(
            "expected a kid of 1 to {LONGEST_KID} bytes without control characters, got {start:?}"
        ))
        .hint("no key was taken in")
    })
}

/// What is left of Kubernetes' 1024 bytes is of no use to people.
const LONGEST_KID: usize = 256;

/// Ten years are enough for any token.
fn until(wanted: SystemTime) -> Result<Time, Failure> {
    let since = wanted.duration_since(SystemTime::UNIX_EPOCH).ok();
    let secs = since.and_then(|since| i64::try_from(since.as_secs()).ok());
    let until = secs.map(Time::from_secs);
    let now = SystemClock::new().read().wall;
    let latest = now + Span::from_days(3653);
    match until {
        Some(until) if until <= latest => Ok(until),
        _ => Err(
            Failure::usage(format!("--until: expected a date before {latest}"))
                .hint("the latest `exp` that the older system gave"),
        ),
    }
}

fn read(from: &str) -> Result<Vec<Jwk>, Failure> {
    let bytes = if from.starts_with("https://") || from.starts_with("http://") {
        let origin = Origin::new("import", from).map_err(Failure::usage)?;
        let answer = compose::block_on(observe::fetch_set(&origin, PATIENCE))?;
        answer.map_err(Failure::failed)?.to_vec()
    } else {
        let path = PathBuf::from(from);
        std::fs::read(&path).map_err(|e| {
            Failure::failed(format!("{from}: {e}")).hint("--from names a file or an address")
        })?
    };
    let served = ServedSet::read(&bytes)
        .map_err(|e| Failure::failed(format!("{from}: {e}")).hint("expected a JWKS"))?;
    // All or none: whoever counts on a key must learn that it is not there.
    if let Some(other) = served.others.first() {
        let kid = other.kid.as_deref().unwrap_or("without a kid");
        let why = format!("{from}: the key {kid}: {}", other.why);
        return Err(Failure::failed(why).hint(
            "no key was imported: each needs a `kid`, an `alg` that is known, and no private part; take what is not wanted out of the file",
        ));
    }
    let keys = served.set.keys;
    let mut seen = BTreeSet::new();
    for key in &keys {
        plain(&key.kid)?;
        if !seen.insert(&key.kid) {
            return Err(Failure::failed(format!("{from}: two keys {:?}", key.kid))
                .hint("no key was imported: verifiers take the first of them, or none"));
        }
    }
    if keys.is_empty() || keys.len() > MOST {
        let found = keys.len();
        return Err(Failure::failed(format!(
            "{from}: expected 1 to {MOST} keys, got {found}"
        )));
    }
    Ok(keys)
}

fn failure(error: &ImportFailure) -> Failure {
    let hint = match error {
        ImportFailure::Record(_) => "`sealkeeper doctor` says what is wrong with the record",
        ImportFailure::Doubt(_) => "start the agent, and `sealkeeper clock confirm`",
        ImportFailure::Store(_) => "nothing was changed",
        ImportFailure::Keyring(e) => match e {
            ImportError::Known { .. } | ImportError::Revoked { .. } => {
                "no key was imported; take this one out of the file"
            }
            ImportError::Over { .. } => "no token of these keys is good any more",
            ImportError::NotBegun(_) => "run `sealkeeper init` first",
            ImportError::NoId { .. } => "try again",
        },
    };
    Failure::failed(error).hint(hint)
}
