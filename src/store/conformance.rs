//! What every store must do, as a test that takes any of them.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use tokio_stream::StreamExt;

use super::{Change, Changes, Cursor, MAX_RECORD, Store, StoreError, Version};

/// Runs the whole pack against a store that is empty and that nobody else
/// uses.
///
/// # Panics
/// Where the store breaks the contract of [`Store`].
pub fn run(store: &dyn Store) {
    wait(first_write_expects_nothing(store));
    wait(only_the_expected_version_is_replaced(store));
    wait(records_come_back_byte_for_byte(store));
    wait(a_record_above_the_bound_changes_nothing(store));
    wait(list_is_sorted_and_complete(store));
    race(&[store]);
    wait(a_watch_sees_what_is_there_and_what_comes(store));
    wait(a_watch_resumes_where_it_stopped(store));
    wait(an_unknown_cursor_starts_over(store));
}

/// Races eight writers on one place, spread over these ways to reach it: the
/// handles of one store that several processes would have. No key set of
/// theirs may be there yet but those of [`run`].
///
/// # Panics
/// Where a version is won twice or never, or where losing is anything but a
/// conflict.
pub fn race(handles: &[&dyn Store]) {
    exactly_one_writer_wins_each_version(handles);
    no_increment_is_lost(handles);
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(future)
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>, there: Option<&Version>) {
    match result {
        Err(StoreError::Conflict { current, .. }) => assert_eq!(current.as_ref(), there),
        other => panic!("expected a conflict, got {other:?}"),
    }
}

async fn first_write_expects_nothing(store: &dyn Store) {
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.load("one").await.unwrap(), None);
    let stranger = Version::from_text("of no store");
    let refused = store.compare_and_swap("one", Some(stranger), b"x").await;
    assert_conflict(refused, None);
    let version = store.compare_and_swap("one", None, b"first").await.unwrap();
    let refused = store.compare_and_swap("one", None, b"again").await;
    assert_conflict(refused, Some(&version));
    let stored = store.load("one").await.unwrap().unwrap();
    assert_eq!((stored.version, &*stored.bytes), (version, &b"first"[..]));
}

async fn only_the_expected_version_is_replaced(store: &dyn Store) {
    let one = store.load("one").await.unwrap().unwrap().version;
    let two = (store
        .compare_and_swap("one", Some(one.clone()), b"second")
        .await)
        .unwrap();
    assert_ne!(one, two);
    let refused = store
        .compare_and_swap("one", Some(one.clone()), b"late")
        .await;
    assert_conflict(refused, Some(&two));
    // The same content again is a new version all the same.
    let three = (store
        .compare_and_swap("one", Some(two.clone()), b"second")
        .await)
        .unwrap();
    assert!(three != two && three != one);
    // A version that went out as text and came back is the same one.
    let told = Version::from_text(three.as_str());
    (store.compare_and_swap("one", Some(told), b"third").await).unwrap();
    assert_eq!(store.load("one").await.unwrap().unwrap().bytes, b"third");
}

async fn records_come_back_byte_for_byte(store: &dyn Store) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let longest = vec![0xa5; MAX_RECORD];
    for (name, record) in [
        ("empty", &b""[..]),
        ("every byte", &every_byte),
        ("longest", &longest),
        ("ключ/../%00", b"x"),
    ] {
        store.compare_and_swap(name, None, record).await.unwrap();
        let stored = store.load(name).await.unwrap().unwrap();
        assert!(stored.bytes == record, "{name} came back changed");
    }
}

async fn a_record_above_the_bound_changes_nothing(store: &dyn Store) {
    let version = store.load("longest").await.unwrap().unwrap().version;
    let record = vec![0; MAX_RECORD + 1];
    let refused = (store
        .compare_and_swap("longest", Some(version.clone()), &record)
        .await)
        .unwrap_err();
    assert!(
        matches!(refused, StoreError::TooLarge { size, .. } if size == MAX_RECORD + 1),
        "{refused}"
    );
    assert_eq!(
        store.load("longest").await.unwrap().unwrap().version,
        version
    );
}

async fn list_is_sorted_and_complete(store: &dyn Store) {
    let names: Vec<String> = (store.list().await.unwrap().into_iter())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        ["empty", "every byte", "longest", "one", "ключ/../%00"]
    );
}

/// Eight threads expect the same version, fifty times.
fn exactly_one_writer_wins_each_version(handles: &[&dyn Store]) {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 50;
    let results: Mutex<Vec<Vec<Result<Version, StoreError>>>> =
        Mutex::new(vec![Vec::new(); ROUNDS]);
    let barrier = Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (results, barrier) = (&results, &barrier);
            let store = handles[writer % handles.len()];
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let loaded = wait(store.load("raced"));
                    // All have loaded before anybody writes.
                    barrier.wait();
                    // Nobody panics here: the others would wait for ever.
                    let result = loaded.and_then(|stored| {
                        let expected = stored.map(|stored| stored.version);
                        let record = writer.to_string();
                        wait(store.compare_and_swap("raced", expected, record.as_bytes()))
                    });
                    results.lock().unwrap()[round].push(result);
                    // All have written before anybody loads.
                    barrier.wait();
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let mut versions = BTreeSet::new();
    for (round, results) in results.iter().enumerate() {
        let (won, lost): (Vec<_>, Vec<_>) = results.iter().partition(|result| result.is_ok());
        assert_eq!(won.len(), 1, "round {round}: {results:?}");
        for result in lost {
            let conflict = matches!(result, Err(StoreError::Conflict { .. }));
            assert!(conflict, "round {round}: {result:?}");
        }
        versions.extend(won.into_iter().flatten().map(Version::as_str));
    }
    assert_eq!(versions.len(), ROUNDS, "a version was used twice");
}

/// Eight threads count together, each retrying what it lost.
fn no_increment_is_lost(handles: &[&dyn Store]) {
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let store = handles[writer % handles.len()];
            scope.spawn(move || {
                for _ in 0..10 {
                    wait(increment(store, "counted"));
                }
            });
        }
    });
    let counted = wait(handles[0].load("counted")).unwrap().unwrap();
    assert_eq!(counted.bytes, b"80");
}

async fn increment(store: &dyn Store, key_set: &str) -> Version {
    loop {
        let stored = store.load(key_set).await.unwrap();
        let (expected, count) = match stored {
            Some(stored) => (
                Some(stored.version),
                String::from_utf8(stored.bytes).unwrap().parse().unwrap(),
            ),
            None => (None, 0),
        };
        let record = (count + 1_u32).to_string();
        match store
            .compare_and_swap(key_set, expected, record.as_bytes())
            .await
        {
            Ok(version) => return version,
            Err(StoreError::Conflict { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

async fn next(changes: &mut Changes) -> Change {
    let change = tokio::time::timeout(Duration::from_secs(20), changes.next());
    change.await.expect("a change in time").unwrap().unwrap()
}

/// Everything that is there, until each key set has been seen at its present
/// version. Returns the last cursor.
async fn catch_up(store: &dyn Store, changes: &mut Changes) -> Cursor {
    let mut missing = store.list().await.unwrap();
    let mut cursor = Cursor::START;
    while !missing.is_empty() {
        let change = next(changes).await;
        let before = missing.len();
        missing
            .retain(|(key_set, version)| (key_set, version) != (&change.key_set, &change.version));
        assert_eq!(missing.len(), before - 1, "unexpected {change:?}");
        cursor = change.cursor;
    }
    cursor
}

async fn a_watch_sees_what_is_there_and_what_comes(store: &dyn Store) {
    let mut changes = store.watch(Cursor::START);
    catch_up(store, &mut changes).await;
    for key_set in ["watched", "counted", "watched"] {
        let version = increment(store, key_set).await;
        let change = next(&mut changes).await;
        assert_eq!((&*change.key_set, change.version), (key_set, version));
    }
}

async fn a_watch_resumes_where_it_stopped(store: &dyn Store) {
    let mut changes = store.watch(Cursor::START);
    let cursor = catch_up(store, &mut changes).await;
    drop(changes);
    increment(store, "counted").await;
    let version = increment(store, "counted").await;
    let mut changes = store.watch(cursor);
    // Nothing older, and two changes of one key set are as good as one.
    let change = next(&mut changes).await;
    assert_eq!((&*change.key_set, change.version), ("counted", version));
    let version = increment(store, "watched").await;
    let change = next(&mut changes).await;
    assert_eq!((&*change.key_set, change.version), ("watched", version));
}

async fn an_unknown_cursor_starts_over(store: &dyn Store) {
    for unknown in ["9223372036854775807", "of no store"] {
        let mut changes = store.watch(Cursor::at(unknown));
        catch_up(store, &mut changes).await;
    }
}
