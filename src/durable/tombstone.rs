//! Revoked keys, one synced file each, beside the store and independent of it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::{Disk, DurableError, PRIVATE, create_dir, is_unfinished, sweep, write_atomic};
use crate::keyring::{Mandate, Reason, Then};
use crate::time::Time;

/// A key that was revoked, and when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// The key set.
    pub key_set: String,
    /// The key's id.
    pub kid: String,
    /// When it was revoked.
    pub at: Time,
    /// Why; the first tombstones did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What is to sign, where somebody chose; the first tombstones did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Then>,
    /// At whose wish; the first tombstones did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandate: Option<Mandate>,
}

impl Tombstone {
    /// What is on disk once this was put where there was a first one.
    fn after(&self, first: Option<Self>) -> Self {
        let Some(first) = first else {
            return self.clone();
        };
        let said = self.mandate.clone();
        let noted = said.clone().filter(|mandate| !mandate.note.is_empty());
        Self {
            at: first.at,
            reason: match (self.reason, first.reason) {
                (Some(reason), Some(first)) => Some(reason.or(first)),
                (reason, first) => reason.or(first),
            },
            then: self.then.or(first.then),
            mandate: noted.or(first.mandate).or(said),
            ..self.clone()
        }
    }
}

/// A directory of tombstones. A revoked key stays blocked even where the store
/// refused to record it, was lost, or was restored from an older copy.
///
/// Files are never removed: a revoked key never comes back.
#[derive(Clone)]
pub struct Tombstones {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Tombstones {
    /// Opens the directory, and makes it where there is none. For the one
    /// process that writes to it.
    ///
    /// # Errors
    /// [`DurableError::Io`].
    pub fn open(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Result<Self, DurableError> {
        let dir = dir.into();
        create_dir(&*disk, &dir)?;
        sweep(&*disk, &dir)?;
        Ok(Self { disk, dir })
    }

    /// For whoever only reads, beside the process that writes.
    pub fn beside(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self { disk, dir }
    }

    /// Blocks a key for ever. Durable when it returns. Putting one again keeps
    /// the first instant, and of the rest what is said last.
    ///
    /// # Errors
    /// [`DurableError::Io`]: it may or may not be on disk; put it again.
    pub fn put(&self, stone: &Tombstone) -> Result<(), DurableError> {
        let path = self.dir.join(file_name(stone));
        match self.disk.read(&path) {
            // What is there may never have been synced: the process that wrote
            // it may have died before. So it is written anew, unless damaged.
            Ok(bytes) => {
                let first = parse(&path, &bytes).ok();
                self.write(&path, &stone.after(first))
            }
            Err(_) => self.write(&path, stone),
        }
    }

    /// All that were put, in the order of key sets and key ids.
    ///
    /// # Errors
    /// [`DurableError::Io`], and [`DurableError::Damaged`] where a file does
    /// not hold what [`put`](Self::put) writes: which key it blocks is not
    /// known then, so nothing may sign until an operator has looked.
    pub fn all(&self) -> Result<Vec<Tombstone>, DurableError> {
        let names = match self.disk.list(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(DurableError::io("list", &self.dir))?,
        };
        let mut stones = names
            .iter()
            .filter(|name| !is_unfinished(name))
            .map(|name| {
                let path = self.dir.join(name);
                let bytes = self
                    .disk
                    .read(&path)
                    .map_err(DurableError::io("read", &path))?;
                parse(&path, &bytes)
            })
            .collect::<Result<Vec<_>, _>>()?;
        stones.sort();
        Ok(stones)
    }

    fn write(&self, path: &Path, stone: &Tombstone) -> Result<(), DurableError> {
        let mut bytes = serde_json::to_vec(stone).map_err(|e| DurableError::Refused {
            path: path.to_owned(),
            why: e.to_string(),
        })?;
        bytes.push(b'\n');
        write_atomic(&*self.disk, path, &bytes, PRIVATE)
    }
}

impl fmt::Debug for Tombstones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tombstones").field(&self.dir).finish()
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Tombstone, DurableError> {
    let damaged = |why: String| DurableError::Damaged {
        path: path.to_owned(),
        why,
    };
    let stone: Tombstone = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    let expected = file_name(&stone);
    if path.file_name().is_some_and(|name| name == &*expected) {
        Ok(stone)
    } else {
        Err(damaged(format!(
            "key {:?} of key set {:?} belongs in {expected}",
            stone.kid, stone.key_set
        )))
    }
}

/// SHA-256 in hexadecimal, for a key id may hold any character and have any
/// length. The key set goes in too: an imported key id, such as `1`, may stand
/// in two sets, and only one of them was revoked.
fn file_name(stone: &Tombstone) -> String {
    let mut of = digest::Context::new(&digest::SHA256);
    of.update(&(stone.key_set.len() as u64).to_be_bytes());
    of.update(stone.key_set.as_bytes());
    of.update(stone.kid.as_bytes());
    let hex = of.finish();
    let hex = hex.as_ref().iter().map(|byte| format!("{byte:02x}"));
    hex.chain([".json".to_owned()]).collect()
}
