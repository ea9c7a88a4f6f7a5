//! Callers that an operator blocked: one synced file, written whole.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Disk, DurableError, PRIVATE, create_dir, sweep, write_atomic};
use crate::policy::CallerId;
use crate::time::Time;

/// A caller that was blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Who.
    pub id: CallerId,
    /// Since when.
    pub since: Time,
    /// Who asked for it.
    pub by: String,
    /// What they noted.
    pub note: String,
}

/// A directory with the list of blocked callers.
#[derive(Clone)]
pub struct BlockList {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// Of this shape; a newer one is refused.
    version: u32,
    blocked: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    since: Time,
    by: String,
    note: String,
}

const VERSION: u32 = 1;

impl BlockList {
    /// Opens the directory, and makes it where there is none. For the one
    /// process that writes to it.
    ///
    /// # Errors
    /// [`DurableError::Io`].
    pub fn open(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Result<Self, DurableError> {
        let dir = dir.into();
        create_dir(&*disk, &dir)?;
        sweep(&*disk, &dir)?;
        let path = dir.join("blocked.json");
        Ok(Self { disk, path })
    }

    /// For whoever only reads, beside the one that writes: makes nothing, and
    /// leaves what is half written alone.
    #[must_use]
    pub fn reading(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        let path = dir.into().join("blocked.json");
        Self { disk, path }
    }

    /// Replaces the list. Durable when it returns.
    ///
    /// # Errors
    /// [`DurableError::Io`]: the list on disk is the old one or the new one,
    /// whole.
    pub fn put(&self, blocked: &[Blocked]) -> Result<(), DurableError> {
        let entries = blocked.iter().map(|entry| Entry {
            id: entry.id.to_string(),
            since: entry.since,
            by: entry.by.clone(),
            note: entry.note.clone(),
        });
        let list = List {
            version: VERSION,
            blocked: entries.collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&list).map_err(|e| DurableError::Refused {
            path: self.path.clone(),
            why: e.to_string(),
        })?;
        bytes.push(b'\n');
        write_atomic(&*self.disk, &self.path, &bytes, PRIVATE)
    }

    /// The list that was put last; empty where none was.
    ///
    /// # Errors
    /// [`DurableError::Io`], and [`DurableError::Damaged`] for what
    /// [`put`](Self::put) does not write: who is blocked is not known then, so
    /// nobody may sign until an operator has looked.
    pub fn load(&self) -> Result<Vec<Blocked>, DurableError> {
        let bytes = match self.disk.read(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bytes => bytes.map_err(DurableError::io("read", &self.path))?,
        };
        let damaged = |why: String| DurableError::Damaged {
            path: self.path.clone(),
            why,
        };
        let list: List = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if list.version != VERSION {
            return Err(damaged(format!(
                "expected version {VERSION}, got {}",
                list.version
            )));
        }
        let entries = list.blocked.into_iter().map(|entry| {
            let id = entry.id.parse();
            Ok(Blocked {
                id: id.map_err(|e: crate::policy::identity::InvalidName| damaged(e.to_string()))?,
                since: entry.since,
                by: entry.by,
                note: entry.note,
            })
        });
        entries.collect()
    }
}

impl fmt::Debug for BlockList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockList").field(&self.path).finish()
    }
}
