//! What cannot be used makes room for what can, and is kept.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::super::StoreError;
use super::database::beside;
use super::failed;
use crate::time::Time;

/// Gives the files of a store other names: `keys.sqlite.before-MS`, with its
/// `-wal` and `-shm`. Nobody may have it open. Returns the new name of the
/// file itself.
///
/// A crash on the way leaves some of them under their old names; doing it
/// again moves those.
///
/// # Errors
/// [`StoreError::Failed`].
pub fn put_aside(path: &Path, now: Time) -> Result<PathBuf, StoreError> {
    let aside = beside(path, &format!(".before-{}", now.as_millis()));
    // The file first: a log without its file is damage, and no empty store is
    // made beside it.
    for end in ["", "-wal", "-shm"] {
        let (from, to) = (beside(path, end), beside(&aside, end));
        match fs::rename(&from, &to) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(failed("move", path, &e));
            }
            _ => {}
        }
    }
    sync_directory_of(path)?;
    Ok(aside)
}

/// Makes the names beside `path` durable.
pub(super) fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| failed("sync the directory of", path, &e))
}
