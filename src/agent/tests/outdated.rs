//! What stands outside the state folder, and says that it is old.

use super::*;
use crate::agent::news::Item;
use crate::agent::outdated::Gate;
use crate::agent::reader::Dark;
use crate::jose::PublicKey;
use crate::keyring::{Holding, KeyId};
use crate::store::Store;

/// A key that nobody here knows.
fn stranger() -> PublicKey {
    let drawn = (0..).find_map(|n| {
        let mut x = [n; 32];
        // Not what the device of these tests makes.
        x[9] = 0xab;
        PublicKey::ed25519(&x).ok()
    });
    drawn.unwrap()
}

/// A device that holds it.
fn holds() -> Item {
    let holding = Holding {
        strange: BTreeMap::from([(KeyId([9; 16]), stranger())]),
        ..Holding::default()
    };
    Item::Holds("hsm".to_owned(), holding)
}

fn shows() -> BTreeSet<Offer> {
    let offer = Offer {
        key: Some(stranger()),
        ..Offer::default()
    };
    [offer].into()
}

#[tokio::test]
async fn what_outsiders_prove_ends_signing_and_no_more() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let (before, stored) = (writer.shown(), bench.store.load(NAME).await.unwrap());
    writer.learn(holds()).await;
    assert!(writer.dark.is_none(), "another agent may share the token");
    // An origin that is not one of the set's proves nothing.
    writer.origin_shows("elsewhere", &shows()).await;
    assert!(writer.dark.is_none());
    writer.origin_shows("web", &shows()).await;
    for _ in 0..2 {
        assert!(matches!(writer.dark, Some(Dark::Outdated { .. })));
        let said = writer.reader.signers().err().unwrap();
        assert_eq!(said.reason(), "RECORD_OUTDATED");
        assert_eq!(writer.shown(), before, "the set is served");
        // No step makes it good again, or changes it.
        writer.tick().await;
    }
    let rotate = writer.order(rotate()).await;
    assert!(rotate.unwrap_err().to_string().contains("older than"));
    assert_eq!(bench.store.load(NAME).await.unwrap(), stored);
    // A restriction holds all the same, across a restart.
    writer.order(revoke(&before[0])).await.unwrap();
    assert_eq!(writer.shown(), before[1..]);
    drop(writer);
    let writer = bench.writer().await;
    assert!(!writer.shown().contains(&before[0]));
}

/// Whoever alters a later answer must not end the signing of an agent that
/// runs.
#[tokio::test]
async fn the_first_answer_of_an_origin_counts_alone() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    writer.origin_shows("web", &BTreeSet::new()).await;
    writer.origin_shows("web", &shows()).await;
    writer.learn(holds()).await;
    assert!(writer.dark.is_none());
    assert!(writer.reader.signers().is_ok());
}

/// Before the device has said what it holds, it is asked to make and to destroy
/// nothing; and once it has, signing has ended before a signature leaves.
#[tokio::test]
async fn a_device_is_listed_before_it_works() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    let devices = BTreeSet::from(["hsm".to_owned()]);
    writer.reader.gate.wait_for(devices);
    writer.origin_shows("web", &shows()).await;
    writer.tick().await;
    assert!(!writer.held.as_ref().unwrap().record.set.intents.is_empty());
    writer.start_intents();
    assert!(!writer.tasks.runs());
    let reader = Arc::clone(&writer.reader);
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    let signature = tokio::spawn(async move {
        let passes = reader.gate.passes("hsm", patience).await;
        (passes, reader.signers().is_err())
    });
    writer.learn(holds()).await;
    assert_eq!(signature.await.unwrap(), (true, true));
}

#[tokio::test]
async fn a_signature_waits_for_its_own_device_and_not_for_ever() {
    let gate = Gate::default();
    assert!(gate.passes("hsm", std::time::Instant::now()).await);
    gate.wait_for(["hsm".to_owned(), "other".to_owned()].into());
    assert!(!gate.passes("hsm", std::time::Instant::now()).await);
    gate.open("other");
    assert!(!gate.passes("hsm", std::time::Instant::now()).await);
    assert!(gate.passes("other", std::time::Instant::now()).await);
    gate.open("hsm");
    assert!(gate.passes("hsm", std::time::Instant::now()).await);
}
