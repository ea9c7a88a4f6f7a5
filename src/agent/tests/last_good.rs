//! What is on disk for a start without a record.

use std::path::Path;

use super::*;
use crate::durable::Disk;
use crate::store::memory::Fault;

/// The `kid`s of a JWKS on disk.
fn on_disk(bench: &Bench, file: &str) -> Vec<String> {
    let path = Path::new("/jwks").join(file);
    let Ok(bytes) = bench.disk.read(&path) else {
        return Vec::new();
    };
    let set: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let keys = set["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

const SET: &str = "main.jwks.json";
const PLACEHOLDER: &str = "main.placeholder.jwks.json";

#[tokio::test]
async fn the_placeholder_is_kept_from_init_on_and_again_where_it_is_missing() {
    let bench = Bench::begun().await;
    let from_init = on_disk(&bench, PLACEHOLDER);
    let path = Path::new("/jwks").join(PLACEHOLDER);
    bench.disk.remove(&path).unwrap();
    let writer = bench.writer().await;
    assert_eq!(from_init, [placeholder(&writer)]);
    assert_eq!(on_disk(&bench, PLACEHOLDER), from_init);
}

/// Found by review: with every key of the last good set revoked, no set at all
/// was served, and caches never learned of it.
#[tokio::test]
async fn in_the_dark_the_placeholder_takes_the_place_of_all_revoked_keys() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let both = writer.shown();
    let placeholder = placeholder(&writer);
    assert_eq!(both.len(), 2);
    drop(writer);

    bench.store.fail_reads(usize::MAX);
    let mut writer = bench.writer().await;
    assert_eq!(writer.shown(), both, "the last good set");
    writer.order(revoke(&both[0])).await.unwrap();
    assert_eq!(writer.shown(), both[1..]);
    writer.order(revoke(&both[1])).await.unwrap();
    assert_eq!(writer.shown(), std::slice::from_ref(&placeholder));
    // Nor does a name that an operator gets wrong take it away.
    writer.order(revoke(&placeholder)).await.unwrap();
    assert_eq!(writer.shown(), std::slice::from_ref(&placeholder));
    drop(writer);
    let writer = bench.writer().await;
    assert_eq!(writer.shown(), [placeholder]);
}

/// Without a last good set nothing is known of what verifiers hold: the
/// placeholder would take good keys from them.
#[tokio::test]
async fn the_placeholder_does_not_stand_for_a_set_that_is_lost() {
    let bench = Bench::begun().await;
    let path = Path::new("/jwks").join(SET);
    bench.disk.remove(&path).unwrap();
    bench.store.fail_reads(usize::MAX);
    let writer = bench.writer().await;
    assert_eq!(writer.shown(), [""; 0]);
}

/// Found by review: a copy that could not be written was not tried again until
/// the set changed once more.
#[tokio::test]
async fn a_set_that_could_not_be_kept_is_tried_again() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    let before = writer.shown();
    bench.disk.fail_syncs(usize::MAX);
    bench
        .disk
        .remove(&Path::new("/jwks").join(PLACEHOLDER))
        .unwrap();
    writer.kept = Default::default();
    writer.settle().await;
    let after = writer.shown();
    assert_ne!(before, after);
    assert_eq!(on_disk(&bench, SET), before, "the disk refuses");
    bench.disk.fail_syncs(0);
    writer.tick().await;
    assert_eq!(on_disk(&bench, SET), after);
    assert_eq!(on_disk(&bench, PLACEHOLDER), [placeholder(&writer)]);
    // And then it is left in peace.
    let operations = bench.disk.operations().len();
    writer.tick().await;
    assert_eq!(bench.disk.operations().len(), operations);
}

/// What is shown ahead of the store is kept ahead of it too.
#[tokio::test]
async fn an_owed_revocation_leaves_the_kept_set() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let both = writer.shown();
    bench.store.script([Fault::Full, Fault::Full, Fault::Full]);
    writer.order(revoke(&both[0])).await.unwrap();
    assert_eq!(on_disk(&bench, SET), both[1..]);
    writer.tick().await;
    assert_eq!(on_disk(&bench, SET), both[1..]);
}
