//! Which file is open: one that was removed takes every write, and loses it
//! once it is closed.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::StoreError;
use super::failed;

const REMOVED: &str = "its file was removed while the agent has it open, and what is written to it now is lost: stop the agent, then `sealkeeper restore --from FILE` or `sealkeeper recover`";
const REPLACED: &str = "another file was put in its place while the agent has it open, and what is written to the open one is lost: stop the agent, and start it with the right file in place";

/// A file by its file system and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFile {
    device: u64,
    number: u64,
}

impl OpenFile {
    /// The one to which a path leads.
    pub(super) fn at(path: &Path) -> Result<Self, StoreError> {
        let found = fs::metadata(path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => failed("use", path, &REMOVED),
            _ => failed("look at", path, &e),
        })?;
        Ok(Self {
            device: found.dev(),
            number: found.ino(),
        })
    }

    /// Whether the path still leads to it.
    ///
    /// # Errors
    /// It does not. That may pass: somebody puts it back.
    pub(super) fn in_place(self, path: &Path) -> Result<(), StoreError> {
        match Self::at(path)? == self {
            true => Ok(()),
            false => Err(failed("use", path, &REPLACED)),
        }
    }
}
