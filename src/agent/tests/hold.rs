//! A hold, and a destruction that has begun.

use super::*;
use crate::keyring::{Half, Task};
use crate::store::Store;

/// A key that was revoked while its device is away: the destruction is on
/// record, was tried, and is tried again.
async fn pending() -> (Bench, Writer, String) {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let kid = writer.kids(|phase| matches!(phase, Phase::Published { .. }));
    let kid = kid[0].clone();
    bench.device.be(Mood::Away);
    writer.order(revoke(&kid)).await.unwrap();
    writer.tick().await;
    assert_eq!(half(&writer, &kid), Half::Destroying);
    fails(&mut writer, &kid).await;
    (bench, writer, kid)
}

/// The device is asked for what is on record, and fails.
async fn fails(writer: &mut Writer, kid: &str) {
    writer.start_intents();
    while writer.tasks.runs() {
        let (id, result) = writer.tasks.next().await;
        result.as_ref().unwrap_err();
        writer.report(id, result).await;
    }
    assert_eq!(half(writer, kid), Half::Destroying);
}

fn half(writer: &Writer, kid: &str) -> Half {
    let set = &writer.held.as_ref().unwrap().record.set;
    set.by_kid(kid).unwrap().placements["hsm"]
}

fn hold(kid: &str, note: &str) -> Change {
    Change::Hold {
        kid: kid.to_owned(),
        note: note.to_owned(),
    }
}

fn names(writer: &Writer, kid: &str) -> Vec<String> {
    let events = writer.logged_events().into_iter();
    let of_it = events.filter(|event| event.kid.as_deref() == Some(kid));
    of_it.map(|event| event.event).collect()
}

#[tokio::test]
async fn a_hold_takes_back_a_destruction_that_no_device_has_carried_out() {
    let (bench, mut writer, kid) = pending().await;
    let told = writer.order(hold(&kid, "forensics")).await.unwrap();
    assert!(told.pending[0].contains("had begun"), "{told:?}");
    let waits = |told: &Changed| {
        let mut next = told.key_set.next.iter();
        let of_it = next.find(|event| event.kid.as_ref() == Some(&kid));
        of_it.and_then(|event| event.waits_for.clone())
    };
    let why = waits(&told).unwrap();
    assert!(why.contains("still holds the private half"), "{why}");
    fails(&mut writer, &kid).await;

    bench.device.be(Mood::Works);
    writer.tasks.forget_all_failures();
    writer.settle().await;
    assert_eq!(half(&writer, &kid), Half::Present);
    assert!(names(&writer, &kid).ends_with(&["held", "destruction-stopped"].map(str::to_owned)));
    assert_eq!(
        waits(&writer.order(hold(&kid, "still")).await.unwrap()),
        None
    );

    // It goes on where it was.
    let release = Change::Release { kid: kid.clone() };
    writer.order(release).await.unwrap();
    writer.settle().await;
    assert_eq!(half(&writer, &kid), Half::Destroyed);
    let told = writer.order(hold(&kid, "too late")).await.unwrap();
    assert!(told.done[1].contains("destroyed before"), "{told:?}");
}

/// The agent died after the device had done it.
#[tokio::test]
async fn a_hold_that_came_too_late_says_so() {
    let (bench, mut writer, kid) = pending().await;
    bench.device.be(Mood::Works);
    let set = writer.held.as_ref().unwrap().record.set.clone();
    let task = set.intents.values().next().unwrap().task.clone();
    assert!(matches!(task, Task::Destroy { .. }));
    bench.device.hands()(task, false).await.unwrap();

    writer.order(hold(&kid, "forensics")).await.unwrap();
    writer.tasks.forget_all_failures();
    writer.settle().await;
    assert_eq!(half(&writer, &kid), Half::Destroyed);
    assert!(names(&writer, &kid).ends_with(&["held", "destroyed"].map(str::to_owned)));
}

/// Another agent stores the hold: this one has not heard of it when its device
/// is back.
#[tokio::test]
async fn the_hold_that_counts_is_the_one_in_the_store() {
    let (bench, mut writer, kid) = pending().await;
    let stored = bench.store.load(NAME).await.unwrap().unwrap();
    let mut record = super::super::record::Record::from_bytes(&stored.bytes).unwrap();
    let tick = writer.tick_for(Time::from_secs(1_800_000_000));
    let events = record
        .set
        .hold(&kid, &Default::default(), &writer.plan, &tick);
    record.post(events.unwrap());
    let bytes = record.to_bytes();
    let version = Some(stored.version);
    bench
        .store
        .compare_and_swap(NAME, version, &bytes)
        .await
        .unwrap();

    bench.device.be(Mood::Works);
    writer.tasks.forget_all_failures();
    // By what this writer still has, at first.
    writer.settle().await;
    assert_eq!(half(&writer, &kid), Half::Present);
}

/// It was released while the device was asked: the destruction goes on.
#[tokio::test]
async fn a_release_in_the_meantime_resumes_it() {
    let (bench, mut writer, kid) = pending().await;
    writer.order(hold(&kid, "forensics")).await.unwrap();
    bench.device.be(Mood::Late);
    writer.tasks.forget_all_failures();
    writer.start_intents();
    let asked = bench.device.asked().len();
    wait_for_asked(&bench, asked + 1).await;
    let release = Change::Release { kid: kid.clone() };
    writer.order(release).await.unwrap();
    bench.device.be(Mood::Works);
    writer.settle().await;
    assert_eq!(half(&writer, &kid), Half::Destroyed);
    assert!(!names(&writer, &kid).contains(&"destruction-stopped".to_owned()));
}

async fn wait_for_asked(bench: &Bench, many: usize) {
    wait_for(|| bench.device.asked().len() >= many).await;
}
