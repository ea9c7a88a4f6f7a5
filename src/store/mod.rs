//! One versioned record for each key set, changed only by compare-and-swap.
//!
//! A record is opaque here: bytes in, the same bytes out. What they mean, and
//! which version of a program may read them, is the agent's business; the
//! store has a schema number of its own for its own tables.
//!
//! The store is *trusted* for what it holds and *not* trusted to hold the
//! newest: whoever can replace it can bring back an older record. The audit
//! log and the tombstones are what notices.

#[cfg(any(test, feature = "failpoints"))]
pub mod conformance;
mod counted;
#[cfg(any(test, feature = "failpoints"))]
pub mod memory;
pub mod sqlite;
mod unusable;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_stream::Stream;

pub use counted::Counted;
pub use sqlite::{Sqlite, put_aside};
pub use unusable::Unusable;

/// The longest record, in bytes. Every store can hold one of this size.
pub const MAX_RECORD: usize = 1 << 20;

/// What an operator does whose store is lost, damaged, or too old.
pub const REBUILD: &str = "stop the agent; `sealkeeper restore --from FILE` puts your newest backup in place, and `sealkeeper recover` makes the record again where there is none or it is refused: from the device, the log, the last JWKS and the public origins; then start the agent again";

/// Where a backup comes from.
pub const BACKUP: &str = "A backup is what `sealkeeper backup --to FILE` wrote, also while the agent ran. It is taken if no key has changed since (audit/keys.log has a line for each change), and refused if one has, since it may not know of a revocation";

/// A place for records.
///
/// **Contract.** Once a write has returned its version, the record survives a
/// loss of power. After any error but [`StoreError::Conflict`] and
/// [`StoreError::TooLarge`] a write may or may not have happened, and so it is
/// when its future is dropped: load to find out. Versions of one key set are
/// never used twice.
///
/// Why boxed futures: a store that many agents share is a network client, so
/// the port is asynchronous, and the agent holds it as `dyn Store`. An
/// adapter that blocks brings a thread of its own.
pub trait Store: Send + Sync + fmt::Debug {
    /// The record of a key set, or nothing where none was ever written.
    ///
    /// # Errors
    /// [`StoreError`], but no [`StoreError::Conflict`].
    fn load<'a>(&'a self, key_set: &'a str) -> Pending<'a, Option<Stored>>;

    /// Writes `record` if the version is still the `expected` one; `None`
    /// expects that there is no record yet. Returns the new version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with the version that is there, and nothing
    /// was written; else any [`StoreError`].
    fn compare_and_swap<'a>(
        &'a self,
        key_set: &'a str,
        expected: Option<Version>,
        record: &'a [u8],
    ) -> Pending<'a, Version>;

    /// The key sets that have a record, sorted by name.
    ///
    /// # Errors
    /// [`StoreError`], but no [`StoreError::Conflict`].
    fn list(&self) -> Pending<'_, Vec<(String, Version)>>;

    /// Every key set that changed after `since`, then each change as it
    /// happens, whoever makes it. Several changes of one key set may arrive as
    /// one. A cursor that the store does not know, for it was replaced by an
    /// older copy, starts over: each key set arrives once.
    ///
    /// After an error the stream ends; watch again from the last cursor.
    fn watch(&self, since: Cursor) -> Changes;
}

/// What [`Store`] returns, in time.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What [`Store::watch`] returns.
pub type Changes = Pin<Box<dyn Stream<Item = Result<Change, StoreError>> + Send>>;

/// Which state of a record this is. Only equality means anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(Arc<str>);

impl Version {
    /// A version as a store wrote it, for one that went to an operator and
    /// came back.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// For logs, answers and the audit log.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A record as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What the next write has to expect.
    pub version: Version,
    /// The record, byte for byte.
    pub bytes: Vec<u8>,
}

/// How far a watcher has seen. Opaque; survives a restart of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(Option<Arc<str>>);

impl Cursor {
    /// Nothing was seen yet.
    pub const START: Self = Self(None);

    fn at(position: impl fmt::Display) -> Self {
        Self(Some(position.to_string().into()))
    }

    /// For stores that count changes: how many were seen. What is not such a
    /// count was not written by that store, and counts as nothing seen.
    fn count(&self) -> i64 {
        let position = self.0.as_deref().unwrap_or_default();
        position.parse().unwrap_or(0)
    }
}

/// A key set changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key set.
    pub key_set: String,
    /// Its version now.
    pub version: Version,
    /// Where to go on watching.
    pub cursor: Cursor,
}

/// Why the store did not do it, by what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another writer was faster, or the caller is behind. Load and decide
    /// anew.
    #[error(
        "key set {key_set:?} has changed: expected {}, got {}",
        shown(expected),
        shown(current)
    )]
    Conflict {
        /// The key set.
        key_set: String,
        /// What the caller expected.
        expected: Option<Version>,
        /// What is there.
        current: Option<Version>,
    },
    /// The caller's fault; nothing was written.
    #[error(
        "the record of key set {key_set:?} is too large: expected at most {MAX_RECORD} bytes, got {size}"
    )]
    TooLarge {
        /// The key set.
        key_set: String,
        /// The record's length in bytes.
        size: usize,
    },
    /// What is there is not what was written. It is left as it is; only an
    /// operator can mend it.
    #[error("the store {path:?} is damaged: {why}; {hint}")]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// A newer program wrote the store.
    #[error(
        "the store {path:?} has schema {found}, this program knows up to {known}; run the newer program; the copy from before the upgrade is refused if a key has moved since"
    )]
    Newer {
        /// The store's file.
        path: PathBuf,
        /// The schema that the store has.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// An older program wrote the store, and the caller only looks.
    #[error(
        "the store {path:?} has schema {found}, this program has {known}; start the agent once: it upgrades the store, and keeps a copy"
    )]
    Older {
        /// The store's file.
        path: PathBuf,
        /// The schema that the store has.
        found: i64,
        /// The schema of this program.
        known: i64,
    },
    /// There is no store, and the caller must not make one.
    #[error("there is no store at {path:?}; start the agent once, or correct the path")]
    Absent {
        /// Where it should be.
        path: PathBuf,
    },
    /// The store was opened to be read.
    #[error("the store {path:?} was opened read-only")]
    ReadOnly {
        /// The store's file.
        path: PathBuf,
    },
    /// No room left. The record before is intact; heals when there is room.
    #[error("no room to write to the store {path:?}; make room on its file system")]
    Full {
        /// The store's file.
        path: PathBuf,
    },
    /// Others hold the store, or too many requests wait. Try again.
    #[error("the store {path:?} is busy: {why}; try again")]
    Busy {
        /// The store's file.
        path: PathBuf,
        /// Who is in the way.
        why: String,
    },
    /// The store failed otherwise, or could not be reached.
    #[error("cannot {doing} the store {path:?}: {why}")]
    Failed {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The store's file.
        path: PathBuf,
        /// What the store said.
        why: String,
    },
}

impl StoreError {
    /// Whether it may be gone without anybody mending the store itself.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Full { .. } | Self::Busy { .. } | Self::Failed { .. }
        )
    }
}

fn shown(version: &Option<Version>) -> String {
    match version {
        Some(version) => format!("version {version}"),
        None => "no record".into(),
    }
}
