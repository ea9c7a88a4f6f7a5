//! The file and its one table. Everything here blocks.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::super::{REBUILD, StoreError, Stored, Version};
use super::aside::sync_directory_of;
use super::failed;
use super::open_file::OpenFile;
use super::upgrade::{self, STEPS};

/// Says whose file this is, in SQLite's header: `SKst`.
const APPLICATION: i64 = 0x534b_7374;

/// How long to wait for another process that writes.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The tables of schema 1; what came later is a step.
///
/// `version` counts all changes of the store, so it also orders them: a
/// watcher asks for what is above the one that it saw last.
const TABLES: &str = "
    CREATE TABLE record (
        key_set TEXT PRIMARY KEY NOT NULL,
        version INTEGER UNIQUE NOT NULL,
        sum BLOB NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT;
";

/// A version as callers see it.
pub(super) fn version(number: i64) -> Version {
    Version::from_text(&number.to_string())
}

#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    connection: Connection,
    file: OpenFile,
    read_only: bool,
    /// What `PRAGMA data_version` said when `newest` was looked up. It changes
    /// when another connection commits.
    data_version: i64,
    newest: i64,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_knowing(path, STEPS)
    }

    /// The same for a program that has these steps.
    pub(super) fn open_knowing(path: &Path, steps: &[&str]) -> Result<Self, StoreError> {
        if !exists(path)? {
            create(path)?;
        }
        // Before SQLite makes its log and its index with the same permissions.
        for end in ["", "-wal", "-shm"] {
            restrict(&beside(path, end))?;
        }
        let mut database = Self::connect(path, false)?;
        let set = |name: &str, value: &str| {
            (database.connection)
                .pragma_update(None, name, value)
                .map_err(database.fault("set up"))
        };
        // A commit is on the disk when it returns; WAL's default is not.
        set("synchronous", "FULL")?;
        set("journal_size_limit", "4194304")?;
        let found = database.schema(steps)?;
        if found < upgrade::newest(steps) {
            upgrade::upgrade(&mut database.connection, path, found, steps)?;
        }
        Ok(database)
    }

    pub(super) fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        Self::open_read_only_knowing(path, STEPS)
    }

    /// The same for a program that has these steps.
    pub(super) fn open_read_only_knowing(path: &Path, steps: &[&str]) -> Result<Self, StoreError> {
        if !exists(path)? {
            return Err(StoreError::Absent { path: path.into() });
        }
        let database = Self::connect(path, true)?;
        let (found, known) = (database.schema(steps)?, upgrade::newest(steps));
        if found < known {
            return Err(StoreError::Older {
                path: path.into(),
                found,
                known,
            });
        }
        Ok(database)
    }

    /// Opens a file that exists, and looks whether it is ours and whole before
    /// anything is written to it.
    fn connect(path: &Path, read_only: bool) -> Result<Self, StoreError> {
        let access = if read_only {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        };
        let connection =
            Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
                .map_err(fault("open", path))?;
        let database = Self {
            path: path.to_owned(),
            connection,
            file: OpenFile::at(path)?,
            read_only,
            data_version: -1,
            newest: 0,
        };
        // The last connection to close copies the log into the file. That must
        // not happen to a file that turns out to be damaged.
        database.checkpoint_at_close(false)?;
        (database.connection)
            .busy_timeout(MAX_WAIT)
            .map_err(database.fault("set up"))?;
        database.check()?;
        database.checkpoint_at_close(true)?;
        Ok(database)
    }

    fn checkpoint_at_close(&self, on: bool) -> Result<(), StoreError> {
        (self.connection)
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !on)
            .map(|_| ())
            .map_err(self.fault("set up"))
    }

    fn check(&self) -> Result<(), StoreError> {
        let number = |name: &str| {
            (self.connection)
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .map_err(self.fault("read"))
        };
        let application = number("application_id")?;
        if application != APPLICATION {
            return Err(self.damaged(format!(
                "expected application id {APPLICATION:#x}, got {application:#x}"
            )));
        }
        let schema = number("user_version")?;
        if schema < 1 {
            return Err(self.damaged(format!("expected schema 1 or newer, got {schema}")));
        }
        let said: String = (self.connection)
            .pragma_query_value(None, "quick_check", |row| row.get(0))
            .map_err(self.fault("check"))?;
        if said != "ok" {
            return Err(self.damaged(in_a_line(&said)));
        }
        Ok(())
    }

    /// The file's schema; one that `steps` do not reach is refused.
    fn schema(&self, steps: &[&str]) -> Result<i64, StoreError> {
        let found = (self.connection)
            .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
            .map_err(self.fault("read"))?;
        let known = upgrade::newest(steps);
        if found > known {
            return Err(StoreError::Newer {
                path: self.path.clone(),
                found,
                known,
            });
        }
        Ok(found)
    }

    pub(super) fn load(&mut self, key_set: &str) -> Result<Option<Stored>, StoreError> {
        self.file.in_place(&self.path)?;
        let row = (self.connection)
            .prepare_cached("SELECT version, sum, bytes FROM record WHERE key_set = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([key_set], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                    .optional()
            })
            .map_err(self.fault("read"))?;
        let Some((number, kept, bytes)): Option<(i64, Vec<u8>, Vec<u8>)> = row else {
            return Ok(None);
        };
        if kept != sum(key_set, number, &bytes).as_ref() {
            return Err(self.damaged(format!(
                "the record of key set {key_set:?} does not match its checksum"
            )));
        }
        Ok(Some(Stored {
            version: version(number),
            bytes,
        }))
    }

    /// The new version is above `after`, besides all that are there.
    pub(super) fn compare_and_swap(
        &mut self,
        key_set: &str,
        expected: Option<Version>,
        record: &[u8],
        after: i64,
    ) -> Result<Version, StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly {
                path: self.path.clone(),
            });
        }
        self.file.in_place(&self.path)?;
        let fault = fault("write to", &self.path);
        // Takes the write lock at once: a lock taken after reading could meet
        // a record that changed in between.
        let transaction = (self.connection)
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&fault)?;
        let current: Option<i64> = transaction
            .query_row(
                "SELECT version FROM record WHERE key_set = ?1",
                [key_set],
                |row| row.get(0),
            )
            .optional()
            .map_err(&fault)?;
        let current = current.map(version);
        if current != expected {
            return Err(StoreError::Conflict {
                key_set: key_set.to_owned(),
                expected,
                current,
            });
        }
        let newest = transaction
            .query_row(NEWEST, [], |row| row.get::<_, i64>(0))
            .map_err(&fault)?;
        let next = 1 + newest.max(after);
        transaction
            .execute(
                "INSERT OR REPLACE INTO record (key_set, version, sum, bytes) VALUES (?1, ?2, ?3, ?4)",
                params![key_set, next, sum(key_set, next, record).as_ref(), record],
            )
            .map_err(&fault)?;
        transaction.commit().map_err(&fault)?;
        self.newest = next;
        Ok(version(next))
    }

    /// The number of the newest change, by whichever process.
    pub(super) fn newest(&mut self) -> Result<i64, StoreError> {
        self.file.in_place(&self.path)?;
        let data_version = (self.connection)
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .map_err(self.fault("read"))?;
        if data_version != self.data_version {
            self.newest = (self.connection)
                .query_row(NEWEST, [], |row| row.get(0))
                .map_err(self.fault("read"))?;
            self.data_version = data_version;
        }
        Ok(self.newest)
    }

    /// The key sets that changed after change number `seen`, oldest first.
    pub(super) fn changed_since(&self, seen: i64) -> Result<Vec<(String, i64)>, StoreError> {
        (self.connection)
            .prepare_cached(
                "SELECT key_set, version FROM record WHERE version > ?1 ORDER BY version",
            )
            .and_then(|mut statement| {
                statement
                    .query_map([seen], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .map_err(self.fault("read"))
    }

    fn damaged(&self, why: String) -> StoreError {
        damaged(&self.path, why)
    }

    fn fault(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
        fault(doing, &self.path)
    }

    #[cfg(test)]
    pub(super) fn pragma(&self, name: &str) -> String {
        (self.connection)
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| match value {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => panic!("{other:?}"),
            })
            .expect("a valid pragma")
    }

    /// Bounds the file's size, as a full disk does.
    #[cfg(test)]
    pub(super) fn set_room(&self, pages: u32) {
        (self.connection)
            .pragma_update(None, "max_page_count", pages)
            .expect("a valid pragma");
    }
}

const NEWEST: &str = "SELECT coalesce(max(version), 0) FROM record";

/// Guards a record, its key set and its version: a row must not pass for
/// another.
fn sum(key_set: &str, version: i64, bytes: &[u8]) -> digest::Digest {
    let mut of = digest::Context::new(&digest::SHA256);
    of.update(&version.to_be_bytes());
    of.update(&(key_set.len() as u64).to_be_bytes());
    of.update(key_set.as_bytes());
    of.update(bytes);
    of.finish()
}

/// Whether there is a store. Something else in its place is damage.
fn exists(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        // SQLite would take an empty file for a new database. Ours are never
        // empty, for they are made elsewhere and moved into place.
        Ok(found) if found.len() == 0 => Err(damaged(path, "the file is empty".into())),
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let log = beside(path, "-wal");
            // SQLite would play a lost database's log into a new one.
            if log.exists() {
                return Err(StoreError::Damaged {
                    path: path.to_owned(),
                    why: format!("the file is gone, but its log {log:?} is there"),
                    hint: REBUILD,
                });
            }
            Ok(false)
        }
        Err(e) => Err(failed("look for", path, &e)),
    }
}

/// One of SQLite's files, by the end of its name.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Makes a store beside its place and moves it there when it is whole and
/// durable. A crash leaves no store, or a complete empty one.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let temporary = create_beside(path)?;
    let made = fill(&temporary).and_then(|()| {
        match fs::hard_link(&temporary, path) {
            // Another process was faster, and its store is as good.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked.map_err(|e| failed("create", path, &e)),
        }
    });
    // A name that stays behind is a nuisance, no harm.
    let _ = fs::remove_file(&temporary);
    made?;
    sync_directory_of(path)
}

/// An empty file under a name that nobody else uses. SQLite gives its log and
/// its index the permissions of the file.
fn create_beside(path: &Path) -> Result<PathBuf, StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    for count in 0_u64.. {
        let unique = format!(".{name}.{}-{count}.tmp", std::process::id());
        let temporary = path.with_file_name(unique);
        match options.open(&temporary) {
            Ok(_) => return Ok(temporary),
            // Somebody else's, or left by a crash.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("create", path, &e)),
        }
    }
    unreachable!("there are more numbers than files")
}

/// Writes an empty store into an empty file, and syncs it.
fn fill(path: &Path) -> Result<(), StoreError> {
    let fault = fault("create", path);
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(&fault)?;
    let script = format!(
        "PRAGMA journal_mode = DELETE;
         PRAGMA synchronous = EXTRA;
         PRAGMA application_id = {APPLICATION};
         BEGIN;
         {TABLES}
         PRAGMA user_version = 1;
         COMMIT;"
    );
    connection.execute_batch(&script).map_err(&fault)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(&fault)?;
    if mode != "wal" {
        return Err(failed(
            "create",
            path,
            &format!("expected journal mode wal, got {mode}; it belongs on a local disk"),
        ));
    }
    // Closing the last connection copies the log into the file and removes it.
    connection.close().map_err(|(_, e)| fault(e))?;
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| failed("sync", path, &e))
}

/// Nobody but the owner: whoever writes here can change what is published.
fn restrict(path: &Path) -> Result<(), StoreError> {
    let error = |e| failed("restrict the permissions of", path, &e);
    let mode = match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(error)?.permissions().mode() & 0o777,
    };
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(
        ?path,
        "the store was open to others with mode {mode:o}; now 600"
    );
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(error)
}

fn damaged(path: &Path, why: String) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        why,
        hint: REBUILD,
    }
}

/// The first fault of a `quick_check`, which writes a heading and a line for
/// each: the cure of one is the cure of all.
fn in_a_line(said: &str) -> String {
    let mut faults = said.lines().filter(|line| !line.starts_with("***"));
    let first = faults.next().unwrap_or(said).trim();
    match faults.count() {
        0 => first.to_owned(),
        1 => format!("{first}, and 1 more fault"),
        more => format!("{first}, and {more} more faults"),
    }
}

/// Classes SQLite's errors by what can be done about them
/// (<https://www.sqlite.org/rescode.html>).
pub(super) fn fault(doing: &'static str, path: &Path) -> impl Fn(rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    move |error| {
        let path = path.clone();
        // SQLite names this one after what it did: it gives its index of the
        // log room before it uses it.
        if extended_code(&error) == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) {
            return StoreError::Full { path };
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                damaged(&path, error.to_string())
            }
            Some(ErrorCode::DiskFull) => StoreError::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy {
                path,
                why: format!("another process held it for {MAX_WAIT:?}"),
            },
            Some(ErrorCode::ReadOnly) => StoreError::ReadOnly { path },
            // A column of another type than ours: somebody else wrote it.
            None => damaged(&path, error.to_string()),
            Some(_) => failed(doing, &path, &error),
        }
    }
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|e| e.extended_code)
}

/// The number of a version that a store of this kind gave; 0 for another.
pub(super) fn number(version: &Version) -> i64 {
    version.as_str().parse().unwrap_or(0)
}
