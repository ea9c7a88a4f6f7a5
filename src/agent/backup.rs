//! A copy of what the state folder knows of keys, in one file: the records,
//! the revocations, and the last JWKS of each key set.
//!
//! It holds no secret: no PIN, no private key, no token. It is *trusted* as
//! the store is: whoever can change it and have it restored decides what is
//! published, but for what the log and the tombstones say of revocations. Its
//! checksum finds damage, not malice.
//!
//! A backup is as good as the store for as long as no key event follows it:
//! what a record gains without one (ceilings, sightings, the time) is gained
//! again by the agent before it permits anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::record::{Record, RecordError};
use crate::audit::{self, AuditError, KeyEvent};
use crate::durable::{
    Disk, DurableError, LastGood, PRIVATE, Tombstone, Tombstones, create_dir, sync_parent,
};
use crate::store::{Sqlite, Store, StoreError, Version};
use crate::time::Time;

/// The format of the file. A newer one is refused.
const SCHEMA: u32 = 1;

/// Everything that a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// When it was made.
    pub made: Time,
    /// The agent's name among the replicas, where it has one yet.
    pub agent: Option<String>,
    /// Each key set that the store has.
    pub key_sets: BTreeMap<String, KeySetCopy>,
    /// Every revocation on disk.
    pub tombstones: Vec<Tombstone>,
}

/// What a backup holds of one key set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySetCopy {
    /// Under which version the store had it.
    pub version: Version,
    /// The record, as it lay in the store.
    record: String,
    /// How many key events the record knows.
    pub events: u64,
    /// The last good JWKS.
    jwks: Option<String>,
    /// The placeholder.
    placeholder: Option<String>,
}

/// Why there is no backup, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DurableError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] AuditError),
    /// The store has nothing to keep.
    #[error("the store has no record yet: there is nothing to keep")]
    Empty,
    /// A record of the store, or of the backup, is of no use.
    #[error("the record of the key set {key_set:?}: {error}")]
    Record {
        /// Whose it is.
        key_set: String,
        /// What is wrong with it.
        error: RecordError,
    },
    /// The file is not a backup.
    #[error("this is no backup: expected a first line of a backup, got {0}")]
    NoBackup(String),
    /// A newer program wrote it.
    #[error(
        "expected a backup of schema {SCHEMA} or older, got {0}: use the program that wrote it"
    )]
    Newer(u32),
    /// It is not what was written.
    #[error("the backup is damaged: its content does not match its checksum; take another one")]
    Damaged,
}

/// The first line: what follows, and its checksum.
#[derive(Serialize, Deserialize)]
struct Head {
    sealkeeper_backup: u32,
    /// SHA-256 of all that follows this line, in hexadecimal.
    sha256: String,
}

/// What becomes of a key set when a backup is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its record is put in place.
    PutBack {
        /// The key events of the record that is there; none where there is no
        /// record that can be used.
        there: Option<u64>,
        /// Whether the log knows less than the backup: what happened after
        /// the backup is not known then.
        log_is_behind: bool,
    },
    /// The store has a record that is as new.
    Stays,
    /// The backup is too old.
    TooOld {
        /// What the log has, or the store.
        known: u64,
        /// What happened after the backup, as far as the log has it.
        since: Vec<KeyEvent>,
    },
}

/// The folder that a backup is made of, to be read beside an agent that
/// writes to it.
#[derive(Clone, Debug)]
pub struct Folder<'a> {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The state folder.
    pub path: &'a Path,
}

impl Folder<'_> {
    fn store(&self) -> Result<Sqlite, StoreError> {
        Sqlite::open_read_only(self.path.join("keys.sqlite"))
    }

    fn tombstones(&self) -> Tombstones {
        Tombstones::beside(Arc::clone(&self.disk), self.path.join("tombstones"))
    }

    fn last_good(&self) -> LastGood {
        LastGood::beside(Arc::clone(&self.disk), self.path.join("jwks"))
    }

    fn log(&self) -> Result<Vec<KeyEvent>, AuditError> {
        let lines = audit::key_events(&*self.disk, &self.path.join("audit"))?;
        Ok(lines.into_iter().map(|line| line.what).collect())
    }
}

impl Backup {
    /// Reads what there is, also while an agent runs.
    ///
    /// Each record is read in one piece, and the revocations after it: the
    /// backup may know of more revocations than its records, never of fewer.
    ///
    /// # Errors
    /// [`BackupError`]; a record that cannot be used is no backup.
    pub async fn take(folder: &Folder<'_>, now: Time) -> Result<Self, BackupError> {
        let store = folder.store()?;
        let last_good = folder.last_good();
        let mut key_sets = BTreeMap::new();
        for (name, _) in store.list().await? {
            let Some(stored) = store.load(&name).await? else {
                continue;
            };
            let (record, text) = read(&name, stored.bytes)?;
            let text_of = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let copy = KeySetCopy {
                version: stored.version,
                record: text,
                events: record.events,
                jwks: last_good.load(&name)?.map(text_of),
                placeholder: last_good.load_placeholder(&name)?.map(text_of),
            };
            key_sets.insert(name, copy);
        }
        if key_sets.is_empty() {
            return Err(BackupError::Empty);
        }
        let agent = folder.disk.read(&folder.path.join("agent-id"));
        let agent = agent.ok().and_then(|name| String::from_utf8(name).ok());
        Ok(Self {
            made: now,
            agent: agent.map(|name| name.trim().to_owned()),
            key_sets,
            tombstones: folder.tombstones().all()?,
        })
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = serde_json::to_vec(self).expect("every map has keys that are text");
        body.push(b'\n');
        let head = Head {
            sealkeeper_backup: SCHEMA,
            sha256: sum(&body),
        };
        let mut bytes = serde_json::to_vec(&head).expect("two plain members");
        bytes.push(b'\n');
        bytes.extend(body);
        bytes
    }

    /// Reads a file, and checks all of it.
    ///
    /// # Errors
    /// [`BackupError::NoBackup`], [`BackupError::Newer`],
    /// [`BackupError::Damaged`], [`BackupError::Record`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BackupError> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (head, body) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        let head: Head = serde_json::from_slice(head).map_err(|_| {
            let start: String = String::from_utf8_lossy(head).chars().take(40).collect();
            BackupError::NoBackup(format!("{start:?}"))
        })?;
        if head.sealkeeper_backup > SCHEMA {
            return Err(BackupError::Newer(head.sealkeeper_backup));
        }
        if head.sealkeeper_backup < 1 || head.sha256 != sum(body) {
            return Err(BackupError::Damaged);
        }
        let backup: Self = serde_json::from_slice(body).map_err(|_| BackupError::Damaged)?;
        for (name, copy) in &backup.key_sets {
            read(name, copy.record.clone().into_bytes())?;
        }
        Ok(backup)
    }

    /// Writes it where nothing is, for its owner alone. Durable when it
    /// returns. A crash leaves part of a file, which its checksum tells.
    ///
    /// # Errors
    /// [`BackupError::Disk`], also where there is a file already.
    pub fn write(&self, disk: &dyn Disk, path: &Path) -> Result<(), BackupError> {
        let mut file = disk
            .create(path, PRIVATE)
            .map_err(DurableError::io("create", path))?;
        let written = file
            .append(&self.to_bytes())
            .map_err(DurableError::io("write", path))
            .and_then(|()| file.sync().map_err(DurableError::io("sync", path)))
            .and_then(|()| sync_parent(disk, path));
        if let Err(e) = written {
            // Best effort: half a backup is worth nothing.
            let _ = disk.remove(path);
            return Err(e.into());
        }
        Ok(())
    }

    /// What restoring it would do to each of its key sets. Changes nothing.
    ///
    /// # Errors
    /// [`BackupError::Log`]: without the log nobody knows what a backup does
    /// not know.
    pub async fn fates(&self, folder: &Folder<'_>) -> Result<BTreeMap<String, Fate>, BackupError> {
        let log = folder.log()?;
        let store = folder.store().ok();
        let mut fates = BTreeMap::new();
        for (name, copy) in &self.key_sets {
            let there = match &store {
                Some(store) => store.load(name).await.ok().flatten(),
                None => None,
            };
            let there = there.and_then(|stored| Record::from_bytes(&stored.bytes).ok());
            let there = there.map(|record| record.events);
            fates.insert(name.clone(), copy.fate(name, there, &log)?);
        }
        Ok(fates)
    }

    /// Puts back what [`Backup::fates`] says is put back, and every revocation
    /// that the backup knows of. The caller keeps all others from the folder.
    ///
    /// Revocations come first: after a crash on the way, what was put back
    /// knows of them all, and doing it again does the rest.
    ///
    /// # Errors
    /// [`BackupError`]; doing it again does the rest.
    pub async fn put_back(
        &self,
        folder: &Folder<'_>,
        fates: &BTreeMap<String, Fate>,
    ) -> Result<(), BackupError> {
        let disk = || Arc::clone(&folder.disk);
        create_dir(&*folder.disk, folder.path)?;
        let tombstones = Tombstones::open(disk(), folder.path.join("tombstones"))?;
        for stone in &self.tombstones {
            tombstones.put(stone)?;
        }
        let last_good = LastGood::open(disk(), folder.path.join("jwks"))?;
        let store = Sqlite::open(folder.path.join("keys.sqlite"))?;
        for (name, copy) in &self.key_sets {
            if !matches!(fates.get(name), Some(Fate::PutBack { .. })) {
                continue;
            }
            // What is there is newer, and the agent leaves out what was
            // revoked since.
            if let (Some(jwks), Ok(None)) = (&copy.jwks, last_good.load(name)) {
                last_good.put(name, jwks.as_bytes())?;
            }
            if let (Some(jwks), Ok(None)) = (&copy.placeholder, last_good.load_placeholder(name)) {
                last_good.put_placeholder(name, jwks.as_bytes())?;
            }
            let expected = store.load(name).await?.map(|stored| stored.version);
            let record = copy.record.as_bytes();
            store
                .put_back(name, expected, record, &copy.version)
                .await?;
        }
        Ok(())
    }
}

impl KeySetCopy {
    fn fate(&self, name: &str, there: Option<u64>, log: &[KeyEvent]) -> Result<Fate, BackupError> {
        let mine = || log.iter().filter(|event| event.key_set == name);
        let logged = mine().map(|event| event.number).max().unwrap_or(0);
        let known = logged.max(there.unwrap_or(0));
        if known > self.events {
            let since = mine().filter(|event| event.number > self.events);
            return Ok(Fate::TooOld {
                known,
                since: since.cloned().collect(),
            });
        }
        if there == Some(self.events) {
            return Ok(Fate::Stays);
        }
        let (record, _) = read(name, self.record.clone().into_bytes())?;
        // What the log did not have yet travels in the record.
        let on_their_way = record.outbox.iter().filter(|event| event.number > logged);
        let on_their_way = u64::try_from(on_their_way.count()).unwrap_or(u64::MAX);
        Ok(Fate::PutBack {
            there,
            log_is_behind: logged.saturating_add(on_their_way) < self.events,
        })
    }
}

/// A record that can be used, and its text.
fn read(key_set: &str, bytes: Vec<u8>) -> Result<(Record, String), BackupError> {
    let wrong = |error| BackupError::Record {
        key_set: key_set.to_owned(),
        error,
    };
    let record = Record::from_bytes(&bytes).map_err(wrong)?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|e| wrong(RecordError::Malformed(e.to_string())))?;
    Ok((record, text))
}

/// SHA-256 in hexadecimal.
fn sum(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    hex.collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn backup() -> Backup {
        Backup {
            made: Time::from_secs(1_000_000),
            agent: Some("one".to_owned()),
            key_sets: BTreeMap::new(),
            tombstones: Vec::new(),
        }
    }

    #[test]
    fn each_changed_byte_is_noticed() {
        let bytes = backup().to_bytes();
        assert_eq!(Backup::from_bytes(&bytes).unwrap(), backup());
        let head = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let read = Backup::from_bytes(&changed);
            assert!(read.is_err(), "byte {at} of {head}: {read:?}");
        }
        for end in 0..bytes.len() {
            Backup::from_bytes(&bytes[..end]).unwrap_err();
        }
    }

    #[test]
    fn a_newer_backup_and_another_file_are_refused() {
        let text = String::from_utf8(backup().to_bytes()).unwrap();
        let newer = text.replace(r#""sealkeeper_backup":1"#, r#""sealkeeper_backup":2"#);
        let refused = Backup::from_bytes(newer.as_bytes()).unwrap_err();
        assert!(matches!(refused, BackupError::Newer(2)), "{refused}");
        for other in ["", "SQLite format 3\0", "{}", "[]\n{}"] {
            let refused = Backup::from_bytes(other.as_bytes()).unwrap_err();
            assert!(matches!(refused, BackupError::NoBackup(_)), "{refused}");
        }
    }

    #[test]
    fn it_is_written_over_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let disk = crate::durable::OsDisk;
        backup().write(&disk, &path).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        let again = backup().write(&disk, &path).unwrap_err();
        assert!(again.to_string().contains("cannot create"), "{again}");
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(Backup::from_bytes(&bytes).unwrap(), backup());
    }
}
