//! `backup` and `restore`: one file, out of the state folder and into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::compose;
use super::output::{Failure, say, warn};
use crate::agent::{Backup, BackupError, Fate, Folder};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::durable::{OsDisk, write_atomic};
use crate::store::{Sqlite, StoreError, put_aside};

const IF_IN_USE: &str =
    "stop the agent, restore, then start the agent; meanwhile nothing is signed";

/// How many key events are told one by one.
const TOLD: usize = 10;

/// What is to be restored.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// A file that `backup` wrote.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Only check the file, and say what restoring it would do.
    #[arg(long)]
    check: bool,
    /// Restore though the log is lost too: you assert that no key was revoked
    /// after the backup was made.
    #[arg(long)]
    without_log: bool,
}

fn folder(config: &Config) -> Folder<'_> {
    Folder {
        disk: Arc::new(OsDisk),
        path: &config.state_dir,
    }
}

/// Writes a backup.
pub(super) fn backup(path: &Path, to: &Path, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(path)?;
    let now = SystemClock::new().read().wall;
    let taken = compose::block_on(Backup::take(&folder(&config), now))?;
    let taken = taken.map_err(failure)?;
    taken.write(&OsDisk, to).map_err(|e| {
        let hint = "--to names a new file in a folder that you may write to";
        Failure::failed(e).hint(hint)
    })?;
    if as_json {
        return say(describe(to, &taken));
    }
    say(format!("{} holds", to.display()))?;
    tell(&taken)?;
    say("it is as good as the store until a key changes")
}

/// Checks a backup, and puts it in place.
pub(super) fn restore(path: &Path, args: &RestoreArgs, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(path)?;
    let read = |e: std::io::Error| Failure::failed(format!("{}: {e}", args.from.display()));
    let bytes = std::fs::read(&args.from)
        .map_err(|e| read(e).hint("--from names a file that `sealkeeper backup` wrote"))?;
    let backup = Backup::from_bytes(&bytes).map_err(failure)?;
    if !as_json {
        say(format!("{} of {}:", args.from.display(), backup.made))?;
        tell(&backup)?;
    }
    let folder = folder(&config);
    let fates = compose::block_on(backup.fates(&folder))?.map_err(failure)?;
    let refused = refused(&fates, args.without_log);
    if !as_json {
        for (name, fate) in &fates {
            say(format!("key set {name}: {}", sentence(fate)))?;
        }
    }
    for name in backup.key_sets.keys() {
        if !config.key_sets.contains_key(name) {
            warn(format!("no key set {name:?} is configured"));
        }
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    let aside = match args.check {
        true => None,
        false => carry_out(&config, &backup, args.without_log)?,
    };
    if as_json {
        let mut said = describe(&args.from, &backup);
        let checked = fates.iter().map(|(name, fate)| {
            json!({
                "key_set": name,
                "fate": name_of(fate),
                "says": sentence(fate),
                "configured": config.key_sets.contains_key(name),
            })
        });
        said["checked"] = checked.collect();
        let fates = fates.iter();
        let fates = fates.map(|(name, fate)| (name.clone(), json!(name_of(fate))));
        said["restored"] = json!(!args.check);
        said["fates"] = Value::Object(fates.collect());
        said["put_aside"] = json!(aside);
        return say(said);
    }
    if let Some(aside) = aside {
        say(format!("what was there is kept as {}", aside.display()))?;
    }
    match args.check {
        true => say("nothing was changed"),
        false => say("restored; start the agent"),
    }
}

/// Puts it in place, with everybody else kept from the folder. What was found
/// before that is found once more: an agent may have run meanwhile.
fn carry_out(
    config: &Config,
    backup: &Backup,
    without_log: bool,
) -> Result<Option<PathBuf>, Failure> {
    let state = &config.state_dir;
    compose::make_state_dir(state)?;
    let name = state.join("agent-id");
    if let (Some(agent), false) = (&backup.agent, name.exists()) {
        // A new name would leave the old one in the record, and a destruction
        // would wait for it.
        write_atomic(&OsDisk, &name, agent.as_bytes(), 0o600).map_err(Failure::failed)?;
    }
    let (_name, _alone) = compose::alone(config, IF_IN_USE)?;
    let folder = folder(config);
    compose::block_on(async {
        let fates = backup.fates(&folder).await.map_err(failure)?;
        if let Some(refused) = refused(&fates, without_log) {
            return Err(refused);
        }
        let store = state.join("keys.sqlite");
        let aside = match Sqlite::open(&store) {
            Err(StoreError::Damaged { .. }) => {
                let now = SystemClock::new().read().wall;
                Some(put_aside(&store, now).map_err(Failure::failed)?)
            }
            Err(e) => return Err(Failure::failed(e)),
            Ok(_) => None,
        };
        backup.put_back(&folder, &fates).await.map_err(failure)?;
        Ok(aside)
    })?
}

/// Why it must not be restored.
fn refused(fates: &BTreeMap<String, Fate>, without_log: bool) -> Option<Failure> {
    let too_old = fates.iter().find_map(|(name, fate)| match fate {
        Fate::TooOld { .. } => Some(name),
        _ => None,
    });
    if let Some(name) = too_old {
        let message = format!(
            "the backup is too old: keys of {name} have changed since, and it does not know how"
        );
        return Some(Failure::failed(message).hint(
            "restore a newer one; or `sealkeeper recover` makes the record again from the log, the device and the last JWKS",
        ));
    }
    let behind = fates.values().any(|fate| {
        let behind =
            |fate: &Fate| matches!(fate, Fate::PutBack { log_is_behind, .. } if *log_is_behind);
        behind(fate)
    });
    if behind && !without_log {
        let message = "the log knows less than the backup: nobody can tell what happened after it";
        return Some(Failure::failed(message).hint(
            "put the folder `audit` back, if you have it; if it is lost, and no key was revoked after the backup was made, --without-log restores it",
        ));
    }
    let all_stay = fates.values().all(|fate| *fate == Fate::Stays);
    all_stay.then(|| {
        Failure::failed("the store has each record of the backup, as new or newer")
            .hint("there is nothing to restore")
    })
}

const fn name_of(fate: &Fate) -> &'static str {
    match fate {
        Fate::PutBack { .. } => "put-back",
        Fate::Stays => "stays",
        Fate::TooOld { .. } => "too-old",
    }
}

fn sentence(fate: &Fate) -> String {
    match fate {
        Fate::PutBack { there, .. } => match there {
            None => "its record is put back; the store has none that can be used".to_owned(),
            Some(there) => {
                format!("its record is put back; that of the store knows {there} key events")
            }
        },
        Fate::Stays => "the record of the store is as new, and stays".to_owned(),
        Fate::TooOld { known, since } => {
            let mut said = format!("refused: {known} key events are known");
            let left = since.len().saturating_sub(TOLD);
            for event in &since[left..] {
                let kid = event.kid.as_deref().unwrap_or(&event.key);
                said += &format!("\n  after the backup: {} {} {kid}", event.at, event.event);
            }
            if left > 0 {
                said += &format!("\n  and {left} before these");
            }
            said
        }
    }
}

fn tell(backup: &Backup) -> Result<(), Failure> {
    for (name, copy) in &backup.key_sets {
        say(format!("  key set {name} after {} key events", copy.events))?;
    }
    match backup.tombstones.len() {
        0 => Ok(()),
        1 => say("  1 revocation"),
        more => say(format!("  {more} revocations")),
    }
}

fn describe(file: &Path, backup: &Backup) -> Value {
    let sets = backup.key_sets.iter().map(|(name, copy)| {
        json!({ "name": name, "events": copy.events, "version": copy.version.as_str() })
    });
    json!({
        "file": file,
        "made": backup.made.to_string(),
        "key_sets": sets.collect::<Vec<_>>(),
        "revocations": backup.tombstones.len(),
    })
}

fn failure(error: BackupError) -> Failure {
    let hint = match &error {
        BackupError::Store(StoreError::Absent { .. }) | BackupError::Empty => {
            "`sealkeeper init` begins a key set"
        }
        BackupError::Store(_) | BackupError::Record { .. } => {
            "`sealkeeper doctor` says what is wrong with the store"
        }
        BackupError::Log(_) => {
            "without the log nobody knows which keys were revoked: keep a copy of it, and look at the line that is named"
        }
        BackupError::Disk(_) => "run this as the agent's user, or as root",
        BackupError::NoBackup(_) => "name a file that `sealkeeper backup --to FILE` wrote",
        BackupError::Newer(_) | BackupError::Damaged => "nothing was changed",
    };
    Failure::failed(error).hint(hint)
}
