#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;
use tokio_stream::StreamExt;

use super::super::conformance;
use super::*;

/// A directory, and a place in it for a store.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    (dir, path)
}

/// A store with one record, closed.
async fn filled(path: &Path) -> Version {
    let store = Sqlite::open(path).unwrap();
    let version = store.compare_and_swap("main", None, b"the record").await;
    version.unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Tries to open; the file must stay byte for byte what it was.
fn open_untouched(path: &Path) -> StoreError {
    let before = fs::read(path).unwrap();
    let error = Sqlite::open(path).unwrap_err();
    Sqlite::open_read_only(path).unwrap_err();
    assert!(fs::read(path).unwrap() == before, "the file was written to");
    error
}

#[test]
fn sqlite_conforms() {
    let (_dir, path) = place();
    conformance::run(&Sqlite::open(path).unwrap());
}

#[test]
fn writers_in_several_processes_race_as_those_in_one_do() {
    let (_dir, path) = place();
    let handles = [(); 4].map(|()| Sqlite::open(&path).unwrap());
    conformance::race(&handles.each_ref().map(|handle| handle as &dyn Store));
}

#[tokio::test]
async fn a_record_survives_closing_and_opening() {
    let (dir, path) = place();
    let version = filled(&path).await;
    let store = Sqlite::open(&path).unwrap();
    let stored = store.load("main").await.unwrap().unwrap();
    assert_eq!(
        (stored.version, &*stored.bytes),
        (version, &b"the record"[..])
    );
    drop(store);
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "creation left something behind");
}

#[tokio::test]
async fn the_file_and_its_log_are_the_owners_alone() {
    let (_dir, path) = place();
    filled(&path).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let store = Sqlite::open(&path).unwrap();
    let version = store.load("main").await.unwrap().unwrap().version;
    store
        .compare_and_swap("main", Some(version), b"x")
        .await
        .unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&path.with_file_name("state.db-wal")), 0o600);
}

#[tokio::test]
async fn every_commit_is_synced_before_it_returns() {
    let (_dir, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let (synchronous, journal) = store
        .run(|database| {
            let ask = |name| database.pragma(name);
            Ok((ask("synchronous"), ask("journal_mode")))
        })
        .await
        .unwrap();
    // 2 is FULL (https://www.sqlite.org/pragma.html#pragma_synchronous).
    assert_eq!((&*synchronous, &*journal), ("2", "wal"));
}

#[tokio::test]
async fn damage_anywhere_is_found_at_opening_and_left_alone() {
    let (_dir, path) = place();
    filled(&path).await;
    let intact = fs::read(&path).unwrap();
    let mut header = intact.clone();
    header[..16].fill(b'?');
    let mut page = intact.clone();
    page[4096..4196].fill(0xff);
    for (what, content) in [
        ("empty", &b""[..]),
        ("half", &intact[..intact.len() / 2]),
        ("header", &header),
        ("page", &page),
        (
            "text",
            b"this is not a database, it is a letter to somebody else",
        ),
    ] {
        fs::write(&path, content).unwrap();
        let error = open_untouched(&path);
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{what}: {error}"
        );
        assert!(
            error
                .to_string()
                .contains("`sealkeeper restore --from FILE`"),
            "{error}"
        );
    }
    fs::write(&path, b"").unwrap();
    let error = open_untouched(&path);
    assert!(error.to_string().contains("the file is empty"), "{error}");
    fs::write(&path, intact).unwrap();
    Sqlite::open(&path).unwrap();
}

#[tokio::test]
async fn a_damaged_record_is_found_by_its_checksum_and_others_load() {
    let (_dir, path) = place();
    filled(&path).await;
    let store = Sqlite::open(&path).unwrap();
    store
        .compare_and_swap("other", None, b"fine")
        .await
        .unwrap();
    drop(store);
    let change = |sql| {
        let connection = Connection::open(&path).unwrap();
        connection.execute(sql, []).unwrap();
    };
    change("UPDATE record SET bytes = x'00' WHERE key_set = 'main'");
    let store = Sqlite::open(&path).unwrap();
    let error = store.load("main").await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(store.load("other").await.unwrap().unwrap().bytes, b"fine");
    drop(store);
    // An intact row that took another's name is damage too.
    change("DELETE FROM record WHERE key_set = 'main'");
    change("UPDATE record SET key_set = 'main'");
    let store = Sqlite::open(&path).unwrap();
    let error = store.load("main").await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_lost_file_with_its_log_still_there_is_damage() {
    let (_dir, path) = place();
    let store = Sqlite::open(&path).unwrap();
    store.compare_and_swap("main", None, b"x").await.unwrap();
    // As after a crash: the log holds what the file does not yet.
    let log = fs::read(path.with_file_name("state.db-wal")).unwrap();
    drop(store);
    fs::remove_file(&path).unwrap();
    fs::write(path.with_file_name("state.db-wal"), log).unwrap();
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_a_hint() {
    let (_dir, path) = place();
    filled(&path).await;
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    let error = open_untouched(&path);
    assert!(
        matches!(
            error,
            StoreError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("run the newer program"),
        "{error}"
    );
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let (_dir, path) = place();
    let connection = Connection::open(&path).unwrap();
    connection.execute("CREATE TABLE theirs (x)", []).unwrap();
    drop(connection);
    let error = open_untouched(&path);
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn reading_only_sees_the_writers_changes_and_writes_nothing() {
    let (_dir, path) = place();
    let absent = Sqlite::open_read_only(&path).unwrap_err();
    assert!(matches!(absent, StoreError::Absent { .. }), "{absent}");
    assert!(!path.exists());
    let version = filled(&path).await;
    // Without a writer, then beside one.
    let reader = Sqlite::open_read_only(&path).unwrap();
    assert_eq!(
        reader.list().await.unwrap(),
        [("main".into(), version.clone())]
    );
    let writer = Sqlite::open(&path).unwrap();
    let swapped = writer.compare_and_swap("main", Some(version), b"new").await;
    let version = swapped.unwrap();
    assert_eq!(reader.load("main").await.unwrap().unwrap().bytes, b"new");
    let refused = reader
        .compare_and_swap("main", Some(version), b"mine")
        .await;
    assert!(
        matches!(refused, Err(StoreError::ReadOnly { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_heals() {
    let (_dir, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let version = store.compare_and_swap("main", None, b"old").await.unwrap();
    let room = |pages| {
        store.run(move |database| {
            database.set_room(pages);
            Ok(())
        })
    };
    room(8).await.unwrap();
    let record = vec![1; MAX_RECORD];
    let full = (store
        .compare_and_swap("main", Some(version.clone()), &record)
        .await)
        .unwrap_err();
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    assert_eq!(store.load("main").await.unwrap().unwrap().bytes, b"old");
    room(100_000).await.unwrap();
    (store.compare_and_swap("main", Some(version), &record).await).unwrap();
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_yet_is_opened_in_time() {
    let (dir, _) = place();
    let folder = dir.path().join("not mounted yet");
    let path = folder.join("state.db");
    Sqlite::open(&path).unwrap_err();
    let store = Sqlite::open_in_time(&path).unwrap();
    let mut changes = store.watch(Cursor::START);
    let error = store.load("main").await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    fs::create_dir(&folder).unwrap();
    assert_eq!(store.load("main").await.unwrap(), None);
    store.compare_and_swap("main", None, b"x").await.unwrap();
    let change = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
    assert_eq!(change.unwrap().unwrap().unwrap().key_set, "main");
}

#[test]
fn a_damaged_store_is_not_opened_in_time() {
    let (_dir, path) = place();
    fs::write(&path, b"").unwrap();
    let error = Sqlite::open_in_time(&path).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// Found by an operator: what SQLite says of each page filled the terminal.
#[tokio::test]
async fn what_is_said_of_damaged_pages_is_one_line() {
    let (_dir, path) = place();
    let store = Sqlite::open(&path).unwrap();
    store.compare_and_swap("main", None, b"x").await.unwrap();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    bytes.iter_mut().skip(4096).for_each(|byte| *byte ^= 0x5a);
    fs::write(&path, bytes).unwrap();
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{beside}", path.display()));
    }
    let said = Sqlite::open(&path).unwrap_err().to_string();
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in ["is damaged: Tree ", " more faults; stop the agent"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn a_writer_that_holds_the_store_makes_it_busy_for_a_bounded_time() {
    let (_dir, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let busy = store
        .compare_and_swap("main", None, b"x")
        .await
        .unwrap_err();
    assert!(matches!(busy, StoreError::Busy { .. }), "{busy}");
    other.execute_batch("ROLLBACK").unwrap();
    store.compare_and_swap("main", None, b"x").await.unwrap();
}

#[tokio::test]
async fn a_watch_sees_the_changes_of_other_processes() {
    let (_dir, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let mut changes = store.watch(Cursor::START);
    let foreign = Sqlite::open(&path).unwrap();
    let mut version = None;
    for record in [b"one", b"two"] {
        let written = foreign.compare_and_swap("main", version, record).await;
        let change = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
        let change = change.unwrap().unwrap().unwrap();
        version = Some(written.unwrap());
        assert_eq!(
            ("main", &version),
            (&*change.key_set, &Some(change.version))
        );
    }
}

#[tokio::test]
async fn a_watcher_that_sleeps_misses_no_key_set() {
    let (_dir, path) = place();
    let store = Sqlite::open(&path).unwrap();
    let mut changes = store.watch(Cursor::START);
    let names: Vec<String> = (0..3 * MAX_LAG).map(|n| format!("set-{n:03}")).collect();
    for name in &names {
        store.compare_and_swap(name, None, b"x").await.unwrap();
    }
    for name in &names {
        let change = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
        assert_eq!(&change.unwrap().unwrap().unwrap().key_set, name);
    }
}

#[test]
fn two_processes_that_create_at_once_share_one_store() {
    let (_dir, path) = place();
    let stores: Vec<Sqlite> = std::thread::scope(|scope| {
        let opening: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| database::create(&path)))
            .collect();
        for thread in opening {
            thread.join().unwrap().unwrap();
        }
        (0..2).map(|_| Sqlite::open(&path).unwrap()).collect()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        stores[0]
            .compare_and_swap("main", None, b"x")
            .await
            .unwrap();
        assert!(stores[1].load("main").await.unwrap().is_some());
    });
}

/// What is written to a file that was removed is gone with the process.
#[tokio::test]
async fn a_file_that_was_removed_or_replaced_takes_no_write() {
    let (dir, path) = place();
    let version = filled(&path).await;
    let store = Sqlite::open(&path).unwrap();
    let away = dir.path().join("away");
    fs::rename(&path, &away).unwrap();
    let write = || store.compare_and_swap("main", Some(version.clone()), b"more");
    let said = write().await.unwrap_err();
    assert!(said.may_pass(), "{said}");
    assert!(said.to_string().contains("was removed"), "{said}");
    store.load("main").await.unwrap_err();
    fs::copy(&away, &path).unwrap();
    let said = write().await.unwrap_err().to_string();
    assert!(said.contains("another file was put in its place"), "{said}");
    // It is back, and nothing was written meanwhile.
    fs::rename(&away, &path).unwrap();
    assert_eq!(store.load("main").await.unwrap().unwrap().version, version);
    write().await.unwrap();
}
