//! The state folder: its owner, its space, the store, the log; and the clock,
//! by what they have on record.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Access;

use super::super::init::renamed;
use super::machine::user_name;
use super::sockets::{Agent, cure};
use super::{Report, counted};
use crate::agent;
use crate::audit;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, KeySet};
use crate::durable::{OsDisk, Tombstones};
use crate::keyring::ClockGuard;
use crate::keyring::{self, Genesis};
use crate::store::{BACKUP, REBUILD, Sqlite, Store, StoreError};

/// The name of the checks of the store and of what it holds.
const STORE: &str = "store";
/// Below this a day of signing may fill the disk, or a rotation fail.
const LITTLE_SPACE: u64 = 256 << 20;
/// Below this a write may fail at any instant.
const NO_SPACE: u64 = 4 << 20;
/// A log of more is not read here: it is read whole.
const LARGEST_LOG: u64 = 512 << 20;

/// The key sets that could be read from the store.
pub(super) type Records = BTreeMap<String, keyring::KeySet>;

pub(super) async fn look(config: &Config, report: &mut Report) -> Records {
    let dir = &config.state_dir;
    if !folder(dir, report) {
        return Records::new();
    }
    let log = log(&dir.join("audit"), report);
    tombstones(&dir.join("tombstones"), report);
    store(config, &log, report).await
}

/// Whether there is a folder that can be looked into.
fn folder(dir: &Path, report: &mut Report) -> bool {
    const CHECK: &str = "state_folder";
    let of = dir.display().to_string();
    let meta = match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => {
            let hint = "state_dir must name a folder: correct it, then restart the agent";
            report.fail(CHECK, of, "is no folder", hint);
            return false;
        }
        Err(e) => {
            let hint = "`sealkeeper init` makes it where its user may; or: install -d -m 0700 -o USER. Then start the agent";
            report.fail(CHECK, of, format!("{e}"), hint);
            return false;
        }
    };
    let us = rustix::process::geteuid().as_raw();
    let mode = meta.mode() & 0o7777;
    if us != meta.uid() && us != 0 {
        let found = format!(
            "belongs to {}; you are {}",
            user_name(meta.uid()),
            user_name(us)
        );
        let hint = "run this as its owner, or as root, to look inside";
        report.warn(CHECK, of, found, hint);
        return false;
    }
    if mode & 0o077 != 0 {
        report.warn(
            CHECK,
            &of,
            format!("mode {mode:04o}: others than its owner can enter"),
            format!("chmod 0700 {}", dir.display()),
        );
    }
    if let Err(e) = rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        let hint =
            "is the file system mounted read-only? Once it can be written to, restart the agent";
        report.fail(CHECK, &of, format!("cannot be written to: {e}"), hint);
    }
    match rustix::fs::statvfs(dir).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize)) {
        Ok(left) if left < NO_SPACE => report.fail(
            CHECK,
            of,
            format!("{} MiB left on its file system, {}", left >> 20, mount(dir)),
            format!(
                "nothing is signed that cannot be recorded: free space there; the agent then goes on by itself. {}",
                movable(dir)
            ),
        ),
        Ok(left) if left < LITTLE_SPACE => report.warn(
            CHECK,
            of,
            format!("{} MiB left on its file system, {}", left >> 20, mount(dir)),
            format!("each signature takes some 600 bytes of the audit log. {}", movable(dir)),
        ),
        Ok(left) => report.ok(
            CHECK,
            of,
            format!("owner {}, {} MiB left", user_name(meta.uid()), left >> 20),
        ),
        Err(e) => report.warn(CHECK, of, format!("space: {e}"), "look at `df`"),
    }
    true
}

/// Which files of the state folder may go elsewhere, and which may not.
fn movable(dir: &Path) -> String {
    let whole = dir.display();
    let old = audit::old_segments(&OsDisk, &dir.join("audit"));
    let (Some(first), Some(last)) = (old.first(), old.last()) else {
        return format!("Nothing below {whole} may be deleted or moved");
    };
    let sizes = old.iter().filter_map(|path| path.metadata().ok());
    let size: u64 = sizes.map(|meta| meta.len()).sum();
    let which = match old.len() {
        1 => first.display().to_string(),
        _ => format!("{} to {}", first.display(), last.display()),
    };
    format!(
        "Below {whole} only the {} of the signature log, {} KiB, may be moved to another disk, and kept there: {which}; the agent does not read them again. Leave everything else as it is, the newest signatures-*.log too",
        counted(old.len(), "old segment"),
        size >> 10
    )
}

/// Where the file system of a folder begins.
fn mount(dir: &Path) -> String {
    let device = |dir: &Path| std::fs::metadata(dir).map(|meta| meta.dev()).ok();
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.into());
    let here = whole.ancestors();
    let last = here
        .take_while(|above| device(above) == device(&whole))
        .last();
    format!("mounted on {}", last.unwrap_or(&whole).display())
}

/// What the log knows of key sets.
struct Log {
    /// How many key events each one has had.
    events: BTreeMap<String, u64>,
    /// Those that have signed.
    signed: BTreeSet<String>,
    /// Whether all of it was read: what it does not know did not happen here.
    whole: bool,
}

impl Log {
    fn events_of(&self, key_set: &str) -> u64 {
        self.events.get(key_set).copied().unwrap_or_default()
    }

    /// What it has of a key set; none where it knows nothing.
    fn has(&self, key_set: &str) -> Option<String> {
        let events = usize::try_from(self.events_of(key_set)).unwrap_or(usize::MAX);
        match events {
            0 => (self.signed.contains(key_set)).then(|| "signatures".to_owned()),
            _ => Some(counted(events, "key event")),
        }
    }
}

/// Reads the log.
fn log(dir: &Path, report: &mut Report) -> Log {
    const CHECK: &str = "audit_log";
    let of = dir.display().to_string();
    let mut log = Log {
        events: BTreeMap::new(),
        signed: BTreeSet::new(),
        whole: true,
    };
    if !dir.exists() {
        return log; // Nothing has begun; the store says so.
    }
    let hint = "keep a copy: what it says of revocations must not be lost. Once it can be read again, restart the agent";
    match audit::key_events(&OsDisk, dir) {
        Ok(lines) => {
            for line in lines {
                let last = log.events.entry(line.what.key_set).or_insert(0);
                *last = line.what.number.max(*last);
            }
        }
        Err(e) => {
            log.whole = false;
            report.fail(CHECK, &of, e.to_string(), hint);
        }
    }
    let size = std::fs::read_dir(dir).map_or(0, |files| {
        files
            .filter_map(|file| Some(file.ok()?.metadata().ok()?.len()))
            .sum::<u64>()
    });
    if size > LARGEST_LOG {
        let found = format!("{} MiB: signatures not read", size >> 20);
        report.ok(CHECK, of, found);
        log.whole = false;
        return log;
    }
    match audit::signatures(&OsDisk, dir) {
        Ok(lines) => {
            let number = counted(lines.len(), "line");
            report.ok(CHECK, of, format!("can be read, {number} on signatures"));
            log.signed = (lines.into_iter())
                .filter_map(|line| match line.what {
                    audit::Entry::Signing(intent) => Some(intent.key_set),
                    audit::Entry::Outcome { .. } => None,
                })
                .collect();
        }
        Err(e) => {
            log.whole = false;
            report.fail(CHECK, of, e.to_string(), hint);
        }
    }
    log
}

fn tombstones(dir: &Path, report: &mut Report) {
    if !dir.exists() {
        return;
    }
    let read = Tombstones::beside(std::sync::Arc::new(OsDisk), dir).all();
    let of = dir.display().to_string();
    match read {
        Ok(stones) => report.ok(
            "tombstones",
            of,
            format!("can be read, {}", counted(stones.len(), "revocation")),
        ),
        Err(e) => report.fail(
            "tombstones",
            of,
            e.to_string(),
            cure("TOMBSTONE_UNREADABLE"),
        ),
    }
}

async fn store(config: &Config, log: &Log, report: &mut Report) -> Records {
    let path = config.state_dir.join("keys.sqlite");
    let of = path.display().to_string();
    let mut records = Records::new();
    let store = match Sqlite::open_read_only(&path) {
        Ok(store) => store,
        Err(e) => {
            unreadable(e, config, log, report);
            return records;
        }
    };
    let mut good = true;
    let configured = config.key_sets.keys().cloned().collect();
    let logged = log.events.keys().cloned();
    let left = agent::unnamed(&store, logged, &configured).await;
    let left = left.unwrap_or_default();
    for name in &left {
        let found = "is on record, and the configuration does not name it: its JWKS is not served, and its keys are neither used nor destroyed";
        let hint = "if it was renamed, give it its name back and restart the agent. If its tokens are dead, it only takes room";
        report.warn(STORE, name, found, hint);
    }
    for (name, wanted) in &config.key_sets {
        let found = match store.load(name).await {
            Ok(Some(stored)) => match agent::inspect(&stored.bytes, log.events_of(name)) {
                Ok(set) => {
                    let fault = unfinished(&set, wanted);
                    records.insert(name.clone(), set);
                    fault.map(|(found, hint)| (found, hint.to_owned()))
                }
                Err(e) => {
                    let hint = format!("{}. {BACKUP}", cure("RECORD_UNUSABLE"));
                    Some((e.to_string(), hint))
                }
            },
            Ok(None) => Some(match log.has(name) {
                Some(known) => (
                    format!("its record is lost: the log has {known} of it"),
                    lost(),
                ),
                None if !left.is_empty() => (
                    format!(
                        "has no record, and there is one of {} that the configuration does not name: it looks renamed",
                        left.join(", ")
                    ),
                    renamed(name, &left),
                ),
                None => not_begun(&format!("has no record in {of}"), config, log),
            }),
            Err(StoreError::Damaged { why, hint, .. }) => {
                let hint = format!("{hint}. {BACKUP}");
                Some((format!("its record is damaged: {why}"), hint))
            }
            Err(e) => Some((e.to_string(), cure("STORE_UNAVAILABLE").to_owned())),
        };
        if let Some((found, hint)) = found {
            good = false;
            report.fail(STORE, name, found, hint);
        }
    }
    if good {
        report.ok(
            STORE,
            of,
            format!("opens, with {}", counted(records.len(), "record")),
        );
    }
    records
}

/// There is a store that does not open, or none.
fn unreadable(error: StoreError, config: &Config, log: &Log, report: &mut Report) {
    const LEFT: &str = "nothing is signed, and the last JWKS is still served";
    let of = config.state_dir.join("keys.sqlite").display().to_string();
    match error {
        StoreError::Absent { .. } => {
            let known = config.key_sets.keys().any(|name| log.has(name).is_some());
            let (found, hint) = match known {
                true => ("is gone; the log knows of it".to_owned(), lost()),
                false => not_begun("there is none", config, log),
            };
            report.fail(STORE, of, found, hint);
        }
        StoreError::Damaged { why, hint, .. } => {
            let found = format!("is damaged: {why}");
            report.fail(STORE, of, found, format!("{LEFT}: {hint}. {BACKUP}"));
        }
        e if e.may_pass() => {
            let hint = format!("{LEFT}; once this is mended, the agent goes on by itself");
            report.fail(STORE, of, e.to_string(), hint);
            report.explained_by("state_folder", config.state_dir.display().to_string());
        }
        e => {
            let hint = format!("{LEFT}; once this is mended, restart the agent");
            report.fail(STORE, of, e.to_string(), hint);
        }
    }
}

/// There is no record, and the log knows of none: what was found and what to
/// do.
fn not_begun(found: &str, config: &Config, log: &Log) -> (String, String) {
    if !log.whole {
        return (found.to_owned(), cure("NOT_INITIALIZED").to_owned());
    }
    let hint = format!(
        "`init` begins it: stop the agent, run `sealkeeper init`, and start it again. Only if it has signed before, {} is not its folder or has lost its files: correct state_dir, or put them back",
        config.state_dir.display()
    );
    (format!("{found}, and the log knows nothing of it"), hint)
}

/// What to do where a store was there before.
fn lost() -> String {
    format!("{REBUILD}. {BACKUP}")
}

/// What keeps a record from signing.
fn unfinished(set: &keyring::KeySet, wanted: &KeySet) -> Option<(String, &'static str)> {
    if matches!(set.genesis, Genesis::Pending { .. }) {
        let found = "its `init` was not finished".to_owned();
        return Some((found, cure("INIT_UNFINISHED")));
    }
    let dark = wanted.tracks.iter().find(|(algorithm, _)| {
        let mut seats = set.seats.iter();
        !seats.any(|(id, seat)| id.algorithm == *algorithm && seat.active.is_some())
    });
    let (algorithm, _) = dark?;
    Some((
        format!("no {algorithm} key is active"),
        cure("NO_ACTIVE_KEY"),
    ))
}

/// The clock, against what is on record, or as the agent judges it.
pub(super) fn clock(
    config: &Config,
    records: &Records,
    agent: Option<&Agent>,
    report: &mut Report,
) {
    const CHECK: &str = "clock";
    const HINT: &str = "compare `date -u` with a clock that you trust; if this one is right, `sealkeeper clock confirm --key-set NAME` while the agent runs, which then goes on by itself";
    let clock = SystemClock::new();
    let (reading, boot_id) = (clock.read(), clock.boot_id());
    let mut good = true;
    for (name, set) in &config.key_sets {
        let judged = agent.and_then(|agent| agent.key_sets.iter().find(|set| set.name == *name));
        let doubt = match (judged, records.get(name)) {
            (Some(judged), _) => judged.clock_in_doubt.then(|| {
                format!(
                    "{}; the agent activates, retires and destroys nothing",
                    judged.clock_doubt
                )
            }),
            (None, Some(record)) => {
                let (wall, boot, high_water) = (reading.wall, reading.boot, record.high_water);
                // What an agent of this machine would begin with.
                let notes = record.replicas.values().filter_map(|it| it.clock.as_ref());
                let mut guard = (notes.clone().find(|note| note.boot_id == boot_id))
                    .or(notes.clone().find(|note| note.doubted))
                    .map_or_else(ClockGuard::default, |note| {
                        ClockGuard::resume(note, &boot_id, wall, boot, high_water)
                    });
                let read = guard.read(wall, boot, high_water, &set.timing);
                read.err().map(|doubt| doubt.to_string())
            }
            (None, None) => None,
        };
        if let Some(doubt) = doubt {
            good = false;
            report.fail(CHECK, name, doubt, HINT);
        }
    }
    match synchronized() {
        Some(false) => report.warn(
            CHECK,
            "",
            format!("{}, and nothing keeps it right", reading.wall),
            "start a time service, such as systemd-timesyncd or chrony",
        ),
        kept if good => {
            let kept = if kept.is_some() {
                "synchronised"
            } else {
                "whether it is synchronised is not known"
            };
            report.ok(CHECK, "", format!("{}, {kept}", reading.wall));
        }
        _ => {}
    }
}

/// Whether the kernel's clock is synchronised, where systemd can tell.
fn synchronized() -> Option<bool> {
    let output = std::process::Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(std::process::Stdio::null())
        .output()
        .ok()?;
    match output.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::unwrap_used, reason = "a test may panic")]
    fn only_old_segments_of_the_log_may_be_moved() {
        let dir = tempfile::tempdir().unwrap();
        let audit = dir.path().join("audit");
        std::fs::create_dir(&audit).unwrap();
        let whole = dir.path().display();
        let nothing = format!("Nothing below {whole} may be deleted or moved");
        assert_eq!(movable(dir.path()), nothing);
        for name in ["keys.log", "signatures-000000000031.log"] {
            std::fs::write(audit.join(name), [0; 2048]).unwrap();
            assert_eq!(movable(dir.path()), nothing);
        }
        for name in ["signatures-000000000001.log", "signatures-000000000017.log"] {
            std::fs::write(audit.join(name), [0; 2048]).unwrap();
        }
        let said = movable(dir.path());
        let which = format!(
            "only the 2 old segments of the signature log, 4 KiB, may be moved to another disk, and kept there: {0}/signatures-000000000001.log to {0}/signatures-000000000017.log;",
            audit.display()
        );
        assert!(said.contains(&which), "{said}");
        assert!(!said.contains("31.log"), "{said}");
    }

    #[test]
    fn a_folder_is_on_the_file_system_that_is_mounted_above_it() {
        assert_eq!(mount(Path::new("/proc/self/fd")), "mounted on /proc");
    }
}
