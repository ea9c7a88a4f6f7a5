//! Small files that survive a loss of power, and the port through which they
//! reach the disk.
//!
//! A [`Disk`] is the file system with its promises spelled out: nothing is
//! safe until it was synced, neither a file's content nor a name in a
//! directory. The functions here keep the order in which that has to happen.
//! In tests a simulated disk takes the place of the real one and forgets, at a
//! simulated crash, whatever was not synced.
//!
//! The directories are *trusted*: whoever may write to them can undo what they
//! record. They belong to the agent's user with mode 0700, files with 0600.

mod blocked;
mod last_good;
mod os;
#[cfg(any(test, feature = "failpoints"))]
pub mod sim;
mod tombstone;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use blocked::{BlockList, Blocked};
pub use last_good::LastGood;
pub use os::OsDisk;
pub use tombstone::{Tombstone, Tombstones};

/// A file system, reduced to what durable files need. Every call blocks.
///
/// **Contract:** before [`DiskFile::sync`] returns, a file's content may be
/// lost, cut or garbled by a crash; before [`Disk::sync_dir`] returns, each
/// creation, renaming and removal in that directory may be undone, each on its
/// own.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes one directory, for the owner alone.
    ///
    /// # Errors
    /// `AlreadyExists` where there is something; else the file system's.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Whether `path` is a directory.
    fn is_dir(&self, path: &Path) -> bool;

    /// Makes an empty file with these permissions and opens it.
    ///
    /// # Errors
    /// `AlreadyExists` where there is something; else the file system's.
    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that exists, to append to it.
    ///
    /// # Errors
    /// `NotFound` where there is none; else the file system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// `NotFound` where there is none; else the file system's.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The names in a directory, sorted. Names that are not UTF-8 are none of
    /// ours and left out.
    ///
    /// # Errors
    /// `NotFound` where there is no such directory; else the file system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what bore it before.
    ///
    /// # Errors
    /// The file system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// `NotFound` where there is none; else the file system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The file system's; what was not durable before may never become so.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes a lock that ends with the guard or with the process. The lock
    /// file stays, empty.
    ///
    /// # Errors
    /// `WouldBlock` where another holds it; else the file system's.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// A file that grows at its end.
pub trait DiskFile: Send + fmt::Debug {
    /// Writes all of `bytes` at the end.
    ///
    /// # Errors
    /// The file system's; any part of `bytes` may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// The file system's.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Makes the content durable, as fdatasync(2) does.
    ///
    /// # Errors
    /// The file system's. What was written since the last sync may be lost
    /// for good, even if a later sync succeeds: do not try again on this file.
    fn sync(&mut self) -> io::Result<()>;
}

/// A held lock; dropping it lets go.
pub trait Lock: Send + Sync + fmt::Debug {}

/// A file operation that failed, with the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DurableError {
    /// The file system refused.
    #[error("cannot {doing} {path:?}: {source}{}", hint(source))]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// A file of ours does not hold what we write.
    #[error("{path:?} is damaged: {why}; move it out of the directory, and keep it for inspection")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What was to be written is not what belongs there. The caller's fault.
    #[error("refused to write {path:?}: {why}")]
    Refused {
        /// The file; left as it was.
        path: PathBuf,
        /// What is wrong with the content.
        why: String,
    },
}

impl DurableError {
    /// Whether there is no room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use io::ErrorKind as K;
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), K::StorageFull | K::QuotaExceeded))
    }

    /// For `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room",
        io::ErrorKind::PermissionDenied => "; it must belong to the agent's user",
        io::ErrorKind::ReadOnlyFilesystem => "; mount the file system writable",
        _ => "",
    }
}

/// Permissions of every file here unless something else is asked for.
pub const PRIVATE: u32 = 0o600;

/// Ends the name of every file that is not whole yet.
const UNFINISHED: &str = ".tmp";

/// Replaces the content of a file. After a crash at any instant the file is
/// either the old one or the new one, whole.
///
/// # Errors
/// [`DurableError::Io`]. If even the last step failed, the new content is in
/// place but may be gone after a crash.
pub fn write_atomic(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<(), DurableError> {
    let (temporary, mut file) = create_beside(disk, path, mode)?;
    let written = file
        .append(bytes)
        .map_err(DurableError::io("write", &temporary))
        // Without this sync the new name could survive a crash and the
        // content not: an empty file in place of the old one.
        .and_then(|()| file.sync().map_err(DurableError::io("sync", &temporary)))
        .and_then(|()| {
            disk.rename(&temporary, path)
                .map_err(DurableError::io("rename to", path))
        });
    if let Err(e) = written {
        // Best effort: what stays behind is swept at the next start.
        let _ = disk.remove(&temporary);
        return Err(e);
    }
    sync_parent(disk, path)
}

/// A new file beside `path`, under a name that nobody else uses: two writers
/// of one path must not write into each other's file.
fn create_beside(
    disk: &dyn Disk,
    path: &Path,
    mode: u32,
) -> Result<(PathBuf, Box<dyn DiskFile>), DurableError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!(".{name}.{}-{count}{UNFINISHED}", std::process::id());
        let temporary = path.with_file_name(unique);
        match disk.create(&temporary, mode) {
            Ok(file) => return Ok((temporary, file)),
            // Left by a crash of a process that had our id.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(DurableError::io("create", &temporary)(e)),
        }
    }
}

/// Opens a file to append to it; makes it, durably, where there is none.
///
/// # Errors
/// [`DurableError::Io`].
pub fn open_append(
    disk: &dyn Disk,
    path: &Path,
    mode: u32,
) -> Result<Box<dyn DiskFile>, DurableError> {
    match disk.open(path) {
        Ok(file) => return Ok(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(DurableError::io("open", path)(e)),
    }
    let file = disk
        .create(path, mode)
        .map_err(DurableError::io("create", path))?;
    // Content that is synced under a name that is not is lost all the same.
    sync_parent(disk, path)?;
    Ok(file)
}

/// Removes a file; it stays removed after a crash. Removing what is not there
/// is no error, but is made durable too: an earlier try may have got half-way.
///
/// # Errors
/// [`DurableError::Io`].
pub fn remove(disk: &dyn Disk, path: &Path) -> Result<(), DurableError> {
    match disk.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(DurableError::io("remove", path)(e));
        }
        _ => {}
    }
    sync_parent(disk, path)
}

/// Makes a directory and what is missing above it, durably, each for the owner
/// alone. One that exists is left as it is.
///
/// # Errors
/// [`DurableError::Io`].
pub fn create_dir(disk: &dyn Disk, path: &Path) -> Result<(), DurableError> {
    if path.as_os_str().is_empty() || disk.is_dir(path) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dir(disk, parent)?;
    }
    match disk.create_dir(path) {
        // Another process was faster.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && disk.is_dir(path) => {}
        Err(e) => return Err(DurableError::io("make the directory", path)(e)),
        Ok(()) => {}
    }
    sync_parent(disk, path)
}

/// Removes what writers that died left behind. Only the one process that
/// writes to `dir` may do this.
///
/// # Errors
/// [`DurableError::Io`].
pub fn sweep(disk: &dyn Disk, dir: &Path) -> Result<(), DurableError> {
    let names = disk.list(dir).map_err(DurableError::io("list", dir))?;
    for name in names.iter().filter(|name| is_unfinished(name)) {
        let path = dir.join(name);
        disk.remove(&path)
            .map_err(DurableError::io("remove", &path))?;
    }
    Ok(())
}

fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(UNFINISHED)
}

/// Makes the names beside `path` durable.
///
/// # Errors
/// [`DurableError::Io`].
pub fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<(), DurableError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    disk.sync_dir(parent)
        .map_err(DurableError::io("sync the directory", parent))
}

#[cfg(test)]
mod tests;
