//! How far a webhook is: one small synced file for each.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::durable::{Disk, DurableError, PRIVATE, create_dir, sweep, write_atomic};
use crate::time::Time;

/// What a webhook's receiver knows, and how it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The number, in the log of key events, up to which nothing is left to
    /// tell.
    pub told: u64,
    /// When it last took one; none where it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Time>,
    /// Since when it takes none; none where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Time>,
    /// Why not. Names no address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// A folder with the progress of each webhook.
#[derive(Clone)]
pub struct ProgressBook {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl fmt::Debug for ProgressBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressBook")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl ProgressBook {
    /// For whoever only reads, beside the one that writes.
    #[must_use]
    pub fn reading(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        Self {
            disk,
            dir: dir.into(),
        }
    }

    pub(super) fn make(&self) -> Result<(), DurableError> {
        create_dir(&*self.disk, &self.dir)?;
        sweep(&*self.disk, &self.dir)
    }

    /// The progress of one; none where it never began.
    ///
    /// # Errors
    /// [`DurableError::Damaged`], [`DurableError::Io`].
    pub fn load(&self, name: &str) -> Result<Option<Progress>, DurableError> {
        let path = self.path(name);
        let bytes = match self.disk.read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(DurableError::io("read", &path))?,
        };
        let progress = serde_json::from_slice(&bytes);
        progress.map(Some).map_err(|e| DurableError::Damaged {
            path,
            why: e.to_string(),
        })
    }

    /// Keeps it. Durable when it returns; blocks.
    ///
    /// # Errors
    /// [`DurableError::Io`]: on disk is what was or what is, whole.
    pub fn put(&self, name: &str, progress: &Progress) -> Result<(), DurableError> {
        let bytes = serde_json::to_vec(progress).expect("numbers and text");
        write_atomic(&*self.disk, &self.path(name), &bytes, PRIVATE)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }
}
