//! The end of the last key of a set: verifiers get a fresh one in the same
//! change, or the placeholder where a device cannot make one in time.

use super::*;
use crate::agent::reader::Dark;
use crate::keyring::Task;
use crate::store::Store;
use crate::store::memory::Fault;

/// How many writes of the record there were.
async fn writes(bench: &Bench) -> u64 {
    let stored = bench.store.load(NAME).await.unwrap().unwrap();
    stored.version.as_str().parse().unwrap()
}

fn generations(bench: &Bench) -> usize {
    let asked = bench.device.asked().into_iter();
    asked
        .filter(|task| matches!(task, Task::Generate { .. }))
        .count()
}

/// One key is left, and none is on its way: the active one was revoked.
async fn one_left(bench: &Bench) -> (Writer, String) {
    let mut writer = bench.writer().await;
    writer.settle().await;
    let active = writer.active();
    writer.order(revoke(&active)).await.unwrap();
    let left = writer.shown();
    assert_eq!(left.len(), 1);
    let kid = left[0].clone();
    assert_ne!(kid, placeholder(&writer));
    (writer, kid)
}

#[tokio::test]
async fn a_fresh_key_takes_its_place_in_one_change() {
    let bench = Bench::begun().await;
    let (mut writer, kid) = one_left(&bench).await;
    bench.device.watch(&writer.reader);
    let before = writes(&bench).await;
    let changed = writer.order(revoke(&kid)).await.unwrap();
    assert!(changed.durable);
    assert_eq!(changed.done.len(), 2, "{:?}", changed.done);
    // While the device was at it, verifiers saw nothing of it.
    assert_eq!(bench.device.seen(), [vec![kid.clone()]]);
    let after = writer.shown();
    assert_eq!(after.len(), 1);
    assert!(after[0] != kid && after[0] != placeholder(&writer));
    // One to ask for it, and one that ends the one key and shows the other.
    assert_eq!(writes(&bench).await, before + 2);
    assert!(writer.owed.is_empty());
    // It was made after the revocation: no other one is needed.
    let made = generations(&bench);
    writer.settle().await;
    assert_eq!(generations(&bench), made);
    assert_eq!(writer.shown(), after);
}

#[tokio::test]
async fn a_key_that_is_on_its_way_is_waited_for() {
    let bench = Bench::begun().await;
    bench.device.be(Mood::Late);
    let mut writer = bench.writer().await;
    writer.tick().await;
    writer.start_intents();
    let kid = writer.active();
    assert_eq!(writer.shown(), std::slice::from_ref(&kid));
    let made = generations(&bench);
    let order = writer.order(revoke(&kid));
    let device = async {
        wait_for(|| generations(&bench) > made).await;
        bench.device.be(Mood::Works);
    };
    let (changed, ()) = tokio::join!(order, device);
    assert!(changed.unwrap().durable);
    assert_eq!(generations(&bench), made + 1, "no second key");
    let after = writer.shown();
    assert!(after.len() == 1 && after[0] != kid && after[0] != placeholder(&writer));
}

/// A failure of before does not count: the device is asked again.
#[tokio::test]
async fn a_device_that_is_back_is_asked_at_once() {
    let bench = Bench::begun().await;
    bench.device.be(Mood::Away);
    let mut writer = bench.writer().await;
    writer.tick().await;
    for _ in 0..12 {
        writer.start_intents();
        if let Some(again) = writer.tasks.wake(tokio::time::Instant::now()) {
            assert!(writer.shown().len() == 1, "{again:?}");
            break;
        }
        let (id, result) = writer.tasks.next().await;
        writer.report(id, result).await;
    }
    bench.device.be(Mood::Works);
    let kid = writer.active();
    writer.order(revoke(&kid)).await.unwrap();
    assert_ne!(writer.shown(), [placeholder(&writer)]);
}

#[tokio::test]
async fn without_a_device_the_placeholder_is_shown_at_once() {
    let bench = Bench::begun().await;
    let (mut writer, kid) = one_left(&bench).await;
    bench.device.be(Mood::Away);
    let began = std::time::Instant::now();
    let changed = writer.order(revoke(&kid)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "it waited");
    assert!(changed.durable);
    assert_eq!(writer.shown(), [placeholder(&writer)]);
    bench.device.be(Mood::Works);
    let mailbox = run_until(writer, |shown| shown.len() == 1).await;
    drop(mailbox);
}

#[tokio::test]
async fn a_device_that_is_late_is_not_waited_for_longer() {
    let bench = Bench::begun().await;
    let (mut writer, kid) = one_left(&bench).await;
    bench.device.be(Mood::Late);
    let began = std::time::Instant::now();
    writer.order(revoke(&kid)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "it waited");
    let placeholder = placeholder(&writer);
    assert_eq!(writer.shown(), std::slice::from_ref(&placeholder));
    // When it comes, it is shown all the same.
    bench.device.be(Mood::Works);
    run_until(writer, |shown| !shown.contains(&placeholder)).await;
}

#[tokio::test]
async fn a_store_that_refuses_delays_nothing() {
    for faults in [
        vec![Fault::Full],
        vec![Fault::Full, Fault::Full],
        vec![Fault::None, Fault::Full],
        vec![Fault::None, Fault::Lose, Fault::Lose],
        vec![Fault::Persist],
        vec![Fault::None, Fault::Persist],
    ] {
        let bench = Bench::begun().await;
        let (mut writer, kid) = one_left(&bench).await;
        bench.store.script(faults.clone());
        let changed = writer.order(revoke(&kid)).await.unwrap();
        let shown = writer.shown();
        assert!(!shown.is_empty() && !shown.contains(&kid), "{faults:?}");
        if faults.len() == 2 && faults[1] == Fault::Full && faults[0] == Fault::Full {
            let store = "until the store takes changes again, and a device has made a key";
            assert!(changed.pending.join(" ").contains(store), "{changed:?}");
        }
        // Where the last write happened all the same, the fresh key is there.
        let happened = faults == [Fault::None, Fault::Persist];
        assert_eq!(shown != [placeholder(&writer)], happened, "{faults:?}");
        writer.settle().await;
        assert!(writer.owed.is_empty(), "{faults:?}");
        let shown = writer.shown();
        assert!(!shown.is_empty() && !shown.contains(&kid), "{faults:?}");
        assert_ne!(shown, [placeholder(&writer)], "{faults:?}");
    }
}

#[tokio::test]
async fn while_the_clock_is_in_doubt_nothing_is_made() {
    let bench = Bench::begun().await;
    let (mut writer, kid) = one_left(&bench).await;
    let asked = bench.device.asked().len();
    let year = Span::from_days(365);
    bench.clock.set_wall(bench.clock.read().wall + year);
    writer.tick().await;
    let changed = writer.order(revoke(&kid)).await.unwrap();
    let confirm =
        "until the time is confirmed: `sealkeeper clock confirm --key-set main`, and a device";
    assert!(changed.pending.join(" ").contains(confirm), "{changed:?}");
    assert_eq!(writer.shown(), [placeholder(&writer)]);
    assert_eq!(bench.device.asked().len(), asked);
}

/// Until the store has it, only memory would know: nothing is waited for.
#[tokio::test]
async fn a_revocation_that_is_not_on_disk_waits_for_no_device() {
    let bench = Bench::begun().await;
    let (mut writer, kid) = one_left(&bench).await;
    bench.device.be(Mood::Late);
    bench.disk.fail_syncs(1);
    let before = writes(&bench).await;
    let changed = writer.order(revoke(&kid)).await.unwrap();
    assert!(changed.durable);
    assert_eq!(writer.shown(), [placeholder(&writer)]);
    assert_eq!(writes(&bench).await, before + 1, "the revocation alone");
}

/// The tombstone is there, the intent perhaps: the next start goes on with
/// what it finds.
#[tokio::test]
async fn a_crash_while_the_device_is_at_it_brings_nothing_back() {
    let bench = Bench::begun().await;
    let (mut writer, kid) = one_left(&bench).await;
    bench.device.be(Mood::Late);
    let made = generations(&bench);
    let order = writer.order(revoke(&kid));
    let dies = wait_for(|| generations(&bench) > made);
    tokio::select! {
        _ = order => panic!("the device was late"),
        () = dies => {}
    }
    let context = Arc::downgrade(&writer.context);
    drop(writer);
    wait_for(|| context.strong_count() == 0).await;

    let mut writer = bench.writer().await;
    assert_eq!(writer.shown(), [placeholder(&writer)]);
    bench.device.be(Mood::Works);
    writer.settle().await;
    let shown = writer.shown();
    assert!(!shown.is_empty() && !shown.contains(&kid));
    assert!(!shown.contains(&placeholder(&writer)));
    let set = &writer.held.as_ref().unwrap().record.set;
    assert!(set.revoked.contains_key(&kid));
}

/// Nobody can make a key for a key set that cannot be read.
#[tokio::test]
async fn in_the_dark_nothing_is_made() {
    let bench = Bench::begun().await;
    let (mut writer, kid) = one_left(&bench).await;
    let asked = bench.device.asked().len();
    bench.store.fail_reads(100);
    writer.load().await;
    assert!(matches!(writer.dark, Some(Dark::NoStore(_))));
    writer.order(revoke(&kid)).await.unwrap();
    assert_eq!(bench.device.asked().len(), asked);
    assert!(!writer.shown().contains(&kid));
}

/// Lets the writer work until readers have a set that will do.
async fn run_until(writer: Writer, will_do: impl Fn(&[String]) -> bool) -> mpsc::Sender<Message> {
    let reader = Arc::clone(&writer.reader);
    let (mailbox, inbox) = mpsc::channel(1);
    tokio::spawn(writer.run(inbox));
    wait_for(|| will_do(&shown(&reader))).await;
    mailbox
}
