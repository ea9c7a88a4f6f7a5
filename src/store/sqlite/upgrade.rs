//! How the file of an older program becomes one of this program.
//!
//! What changes in the *tables* is a step here, with a number of its own. What
//! changes in a *record* is none of the store's business: to it a record is
//! bytes.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use super::super::StoreError;
use super::aside::sync_directory_of;
use super::database::{beside, fault};
use super::failed;

/// What makes schema 2 of schema 1, 3 of 2, and on: SQL, each in turn. There
/// is none yet: the first tables are those of today.
pub(super) const STEPS: &[&str] = &[];

/// The schema that `steps` lead to.
pub(super) const fn newest(steps: &[&str]) -> i64 {
    1 + steps.len() as i64
}

/// Takes a whole file of schema `found` to the newest one, all steps in one
/// transaction, and returns the copy of the file from before.
///
/// A crash before the commit leaves the old store and perhaps a copy of it;
/// the next start makes another copy and begins anew.
pub(super) fn upgrade(
    connection: &mut Connection,
    path: &Path,
    found: i64,
    steps: &[&str],
) -> Result<PathBuf, StoreError> {
    let copy = keep_copy(connection, path, found)?;
    let fault = fault("upgrade", path);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(&fault)?;
    // Another process may have been faster while the copy was made.
    let now: i64 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(&fault)?;
    let done = usize::try_from(now - 1).unwrap_or(steps.len());
    for step in steps.iter().skip(done) {
        transaction.execute_batch(step).map_err(&fault)?;
    }
    transaction
        .pragma_update(None, "user_version", newest(steps).max(now))
        .map_err(&fault)?;
    transaction.commit().map_err(&fault)?;
    tracing::info!(
        ?path,
        ?copy,
        "the store had schema {found}, and has {} now; the copy is from before",
        newest(steps).max(now)
    );
    Ok(copy)
}

/// A whole copy of the file, durable under a name that says its schema and its
/// date: what the older program can go back to.
fn keep_copy(connection: &Connection, path: &Path, schema: i64) -> Result<PathBuf, StoreError> {
    let fault = fault("copy", path);
    let date: String = connection
        .query_row("SELECT strftime('%Y%m%dT%H%M%SZ', 'now')", [], |row| {
            row.get(0)
        })
        .map_err(&fault)?;
    let copy = new_file(path, &format!(".schema-{schema}.{date}"))?;
    // SQLite writes into a file that exists if it is empty; ours is private.
    connection
        .execute("VACUUM INTO ?1", [copy.to_string_lossy()])
        .map_err(&fault)?;
    File::open(&copy)
        .and_then(|file| file.sync_all())
        .map_err(|e| failed("sync the copy of", path, &e))?;
    sync_directory_of(path)?;
    Ok(copy)
}

/// An empty file of its owner alone, `path` with this at its end, or with a
/// number behind where a crash left one.
fn new_file(path: &Path, end: &str) -> Result<PathBuf, StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    for count in 1_u32.. {
        let end = match count {
            1 => end.to_owned(),
            _ => format!("{end}.{count}"),
        };
        let name = beside(path, &end);
        match options.open(&name) {
            Ok(_) => return Ok(name),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("copy", path, &e)),
        }
    }
    unreachable!("there are more numbers than files")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::database::Database;
    use super::*;
    use crate::store::{Sqlite, Store};

    const NEXT: &[&str] = &[
        "ALTER TABLE record ADD COLUMN written TEXT NOT NULL DEFAULT 'before';",
        "CREATE TABLE extra (name TEXT PRIMARY KEY NOT NULL) STRICT;",
    ];

    /// A store with one record, closed.
    async fn filled() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.sqlite");
        let store = Sqlite::open(&path).unwrap();
        store.compare_and_swap("main", None, b"one").await.unwrap();
        (dir, path)
    }

    fn copies(path: &Path) -> Vec<PathBuf> {
        let files = fs::read_dir(path.parent().unwrap()).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        let copies = files.filter(|file| file.to_string_lossy().contains(".schema-1."));
        copies.collect()
    }

    fn load(database: &mut Database) -> Vec<u8> {
        database.load("main").unwrap().unwrap().bytes
    }

    #[tokio::test]
    async fn an_older_store_is_upgraded_once_and_its_copy_is_kept() {
        let (_dir, path) = filled().await;
        for _ in 0..2 {
            let mut database = Database::open_knowing(&path, NEXT).unwrap();
            assert_eq!(load(&mut database), b"one");
            assert_eq!(database.pragma("user_version"), "3");
            // Twice is once.
            assert_eq!(copies(&path).len(), 1);
        }
        let copy = copies(&path).remove(0);
        let mode = fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // The older program refuses what is there, and goes on with the copy.
        let newer = Database::open(&path).unwrap_err();
        let expected = StoreError::Newer {
            path: path.clone(),
            found: 3,
            known: 1,
        };
        assert_eq!(newer, expected);
        assert_eq!(load(&mut Database::open(&copy).unwrap()), b"one");
    }

    #[tokio::test]
    async fn a_step_that_fails_leaves_the_store_as_it_was() {
        let (_dir, path) = filled().await;
        let broken = [NEXT[0], "CREATE TABLE record (again TEXT) STRICT;"];
        Database::open_knowing(&path, &broken).unwrap_err();
        let mut database = Database::open(&path).unwrap();
        assert_eq!(database.pragma("user_version"), "1");
        assert_eq!(load(&mut database), b"one");
        assert_eq!(copies(&path).len(), 1);
        drop(database);
        let mut database = Database::open_knowing(&path, NEXT).unwrap();
        assert_eq!(load(&mut database), b"one");
    }

    #[tokio::test]
    async fn who_only_looks_upgrades_nothing() {
        let (_dir, path) = filled().await;
        let before = fs::read(&path).unwrap();
        let older = Database::open_read_only_knowing(&path, NEXT).unwrap_err();
        let expected = StoreError::Older {
            path: path.clone(),
            found: 1,
            known: 3,
        };
        assert_eq!(older, expected);
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(copies(&path), Vec::<PathBuf>::new());
    }
}
