//! State that an older program wrote: this one reads it, and what it makes of
//! it is pinned.
//!
//! `tests/fixtures/first` is the state of the first program that ran: a store,
//! its log of key events, a tombstone. It had rotated once; one key is held,
//! one revoked, one retired. It is never written anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealkeeper::agent;
use sealkeeper::audit;
use sealkeeper::durable::{OsDisk, Tombstones};
use sealkeeper::store::{Sqlite, Store};

/// What this program makes of it. `SEALKEEPER_BLESS=1` writes it anew, which
/// is right only where the record gained something that an older program may
/// pass over; where it may not, the record needs a new schema number.
const PINNED: &str = "tests/fixtures/first/record-now.json";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[tokio::test]
async fn the_first_state_is_read_and_means_what_it_meant() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("keys.sqlite");
    fs::copy(fixture("tests/fixtures/first/keys.sqlite"), &path).expect("the store");
    let log = audit::key_events(&OsDisk, &fixture("tests/fixtures/first")).expect("its log");
    let last = log.last().expect("events").what.number;
    assert_eq!(last, 26);

    let store = Sqlite::open(&path).expect("it opens");
    let stored = store.load("main").await.expect("it reads");
    let stored = stored.expect("a record");
    let set = agent::inspect(&stored.bytes, last).expect("it is understood");
    // A lost event is noticed, as ever.
    agent::inspect(&stored.bytes, last + 1).expect_err("an old copy");

    let mut now = serde_json::to_string_pretty(&set).expect("JSON");
    now.push('\n');
    let pinned = fixture(PINNED);
    if std::env::var_os("SEALKEEPER_BLESS").is_some() {
        fs::write(&pinned, &now).expect("the pinned record");
    }
    let pinned = fs::read_to_string(&pinned).expect("the pinned record");
    assert_eq!(now, pinned, "the record changed its form: see PINNED");

    // The tombstone of before said neither why nor at whose wish.
    let stones = dir.path().join("tombstones");
    fs::create_dir(&stones).expect("a folder");
    for entry in fs::read_dir(fixture("tests/fixtures/first/tombstones")).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), stones.join(entry.file_name())).expect("a tombstone");
    }
    let stones = Tombstones::open(Arc::new(OsDisk), stones).expect("they are there");
    let stones = stones.all().expect("they are read");
    let revoked: Vec<&String> = set.revoked.keys().collect();
    assert_eq!(stones.iter().map(|s| &s.kid).collect::<Vec<_>>(), revoked);

    // Written and read again it is the same.
    let version = store
        .compare_and_swap("main", Some(stored.version), &stored.bytes)
        .await
        .expect("it is written");
    let again = store.load("main").await.expect("it reads").expect("it");
    assert_eq!((again.version, again.bytes), (version, stored.bytes));
}
