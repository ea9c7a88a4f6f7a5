//! What fails, and is tried again.

use super::log::Log;
use super::*;
use crate::agent::admin::{KeyPhase, PrivateHalf};
use crate::agent::news::{Answers, Item};
use crate::agent::reader::Dark;
use crate::durable::Disk;
use crate::keyring::Doubt;
use crate::store::Store;

/// Found by review: what the log refused once was offered again only with the
/// next change of the record.
#[tokio::test]
async fn the_outbox_is_offered_again_until_the_log_takes_it() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let before = writer.logged_events().len();
    // No sync of a file succeeds: the store is in memory, and takes the order.
    bench.disk.fail_syncs(usize::MAX);
    let kid = writer.active();
    for note in ["one", "two"] {
        let (kid, note) = (kid.clone(), note.to_owned());
        writer.order(Change::Hold { kid, note }).await.unwrap();
    }
    writer.tick().await;
    assert_eq!(writer.logged_events().len(), before, "the log refuses");
    bench.disk.fail_syncs(0);
    // Nothing changes but that the log works again.
    for _ in 0..3 {
        writer.tick().await;
    }
    let check = |events: &[KeyEvent]| {
        let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "each once, in order");
        let new = events[before..].iter();
        let remarks: Vec<&str> = new.filter_map(|e| e.remark.as_deref()).collect();
        assert_eq!(remarks, ["one", "two"]);
    };
    check(&writer.logged_events());
    // Neither does a restart write any of them twice.
    drop(writer);
    let mut writer = bench.writer().await;
    writer.settle().await;
    check(&writer.logged_events());
}

/// Found by review: the set fell back to the copy on disk, which may be older
/// than what verifiers were shown, or not there.
#[tokio::test]
async fn in_the_dark_readers_keep_the_set_that_they_have() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let before = writer.shown();
    assert_eq!(before.len(), 2);
    // The folder with the last good copy is lost.
    for name in bench.disk.list("/jwks".as_ref()).unwrap() {
        let path = std::path::Path::new("/jwks").join(name);
        bench.disk.remove(&path).unwrap();
    }
    let stored = bench.store.load(NAME).await.unwrap().unwrap();
    let damage = bench
        .store
        .compare_and_swap(NAME, Some(stored.version), b"{}");
    damage.await.unwrap();
    writer.load().await;
    assert!(matches!(writer.dark, Some(Dark::BadRecord(_))));
    assert_eq!(writer.shown(), before);
    assert!(writer.reader.signers().is_err());
    // What is revoked from now on leaves it all the same.
    writer.order(revoke(&before[1])).await.unwrap();
    assert_eq!(writer.shown(), before[..1]);
    assert!(writer.reader.signers().is_err());
}

/// A record that was good once says which keys may be revoked, and not that
/// anything may be signed.
#[tokio::test]
async fn a_revocation_does_not_bring_signing_back() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let before = writer.shown();
    let stray = std::path::Path::new("/tombstones/stray");
    crate::durable::write_atomic(&bench.disk, stray, b"", 0o600).unwrap();
    writer.load().await;
    assert!(matches!(writer.dark, Some(Dark::BadTombstone(_))));
    assert!(writer.reader.signers().is_err());
    writer.order(revoke(&before[0])).await.unwrap();
    assert_eq!(writer.shown(), before[1..]);
    assert!(writer.reader.signers().is_err());
    // It is carried out once the tombstones can be read.
    bench.disk.remove(stray).unwrap();
    writer.settle().await;
    assert!(writer.reader.signers().is_ok() && writer.owed.is_empty());
    assert!(!writer.shown().contains(&before[0]));
}

/// Found by review: the writer forgot a task that had panicked, and its intent
/// was never carried out.
#[tokio::test]
async fn a_device_task_that_panicked_is_tried_again() {
    let bench = Bench::begun().await;
    let writer = bench.writer().await;
    let reader = Arc::clone(&writer.reader);
    assert_eq!(shown(&reader).len(), 1);
    let asked = bench.device.asked().len();
    bench.device.be(Mood::Panics);
    let (mailbox, inbox) = mpsc::channel(1);
    let writer = tokio::spawn(writer.run(inbox));
    wait_for(|| bench.device.asked().len() >= asked + 2).await;
    bench.device.be(Mood::Works);
    wait_for(|| shown(&reader).len() == 2).await;
    drop(mailbox);
    writer.await.unwrap();
}

/// In the dark a name cannot be checked. Once it can, the order is at its end.
#[tokio::test]
async fn a_key_that_the_record_does_not_know_is_not_owed_for_ever() {
    let bench = Bench::begun().await;
    bench.store.fail_reads(1);
    let mut writer = bench.writer().await;
    writer.order(revoke("no key of ours")).await.unwrap();
    assert_eq!(writer.owed.len(), 1);
    let before = writer.shown();
    writer.settle().await;
    assert!(writer.held.is_some() && writer.owed.is_empty());
    assert!(writer.shown().len() > before.len());
}

/// A guard that read the clock while nothing was on record had nothing to hold
/// it against, and later only what had passed since.
#[tokio::test]
async fn a_gap_is_seen_though_the_record_comes_late() {
    let bench = Bench::begun().await;
    let stored = bench.store.load(NAME).await.unwrap().unwrap();
    let replace = |version, bytes: Vec<u8>| {
        let store = bench.store.clone();
        async move { store.compare_and_swap(NAME, version, &bytes).await.unwrap() }
    };
    let damaged = replace(Some(stored.version), b"{}".to_vec()).await;
    // Another start of the machine: nothing but the record tells.
    bench.clock.advance(Span::from_days(365));
    bench.clock.set_boot(Span::from_secs(20));
    let mut writer = bench.writer().await;
    assert!(matches!(writer.dark, Some(Dark::BadRecord(_))));
    writer.tick().await;
    writer.order(revoke("not-on-record")).await.unwrap();
    replace(Some(damaged), stored.bytes).await;
    writer.load().await;
    assert!(matches!(writer.guard.doubt(), Some(Doubt::Gap { .. })));
}

/// Found by review: whoever restarted the agent had a clock that nobody had
/// vouched for believed.
#[tokio::test]
async fn a_restart_ends_no_doubt() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let day = Span::from_days(1);
    bench.clock.set_wall(bench.clock.read().wall + day);
    writer.tick().await;
    assert!(writer.guard.doubt().is_some());
    drop(writer);
    let mut writer = bench.writer().await;
    writer.tick().await;
    assert!(writer.guard.doubt().is_some());
    drop(writer);
    // Nor does a machine that starts anew.
    bench.clock.set_boot(Span::from_secs(20));
    let mut writer = bench.writer().await;
    writer.tick().await;
    let doubt = writer.guard.doubt();
    assert!(matches!(doubt, Some(Doubt::Unconfirmed { .. })));
    let reading = bench.clock.read().wall;
    let confirm = confirm(reading);
    writer.order(confirm).await.unwrap();
    drop(writer);
    let mut writer = bench.writer().await;
    writer.tick().await;
    assert_eq!(writer.guard.doubt(), None);
}

/// Found by review: the first doubt was an error line, and a restart in doubt
/// said nothing. Each says what is to be confirmed, and how.
#[tokio::test]
async fn each_start_in_doubt_says_what_to_confirm() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let expected = bench.clock.read().wall;
    let wall = expected + Span::from_days(1);
    bench.clock.set_wall(wall);
    let told_once = |log: &Log, expected: Time, wall: Time| {
        let instants = format!("expected about {expected}, got {wall}");
        let command = "`sealkeeper clock confirm --key-set main`";
        let all = log.lines(&["CLOCK_IN_DOUBT"]);
        assert_eq!(all.len(), 1, "{:?}", log.lines(&[]));
        let parts = ["ERROR", &instants, command];
        assert!(parts.iter().all(|part| all[0].contains(part)), "{all:?}");
        instants
    };
    let (log, guard) = Log::listen();
    writer.tick().await;
    writer.tick().await;
    told_once(&log, expected, wall);
    drop((writer, guard));
    // The instants are those of now: what is to be confirmed.
    let hour = Span::from_hours(1);
    bench.clock.advance(hour);
    let (expected, wall) = (expected + hour, wall + hour);
    let (log, _guard) = Log::listen();
    let mut writer = bench.writer().await;
    writer.tick().await;
    writer.tick().await;
    let instants = told_once(&log, expected, wall);
    let told = writer.status().unwrap().clock_doubt.unwrap();
    assert!(told.contains(&instants), "{told}");
}

/// It leapt while the agent was down, by less than a start alone doubts.
#[tokio::test]
async fn a_step_between_two_processes_is_seen() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    drop(writer);
    let day = Span::from_days(1);
    bench.clock.set_wall(bench.clock.read().wall + day);
    let mut writer = bench.writer().await;
    writer.tick().await;
    assert!(matches!(
        writer.guard.doubt(),
        Some(Doubt::LeaptForward { .. })
    ));
}

/// Found by review: nothing could be held in doubt, and a key that was revoked
/// then was destroyed with the confirmation.
#[tokio::test]
async fn a_key_is_held_while_the_clock_is_in_doubt() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let kid = writer.active();
    bench
        .clock
        .set_wall(bench.clock.read().wall + Span::from_days(1));
    writer.tick().await;
    writer.order(revoke(&kid)).await.unwrap();
    let note = "forensics".to_owned();
    let hold = Change::Hold {
        kid: kid.clone(),
        note,
    };
    let held = writer.order(hold).await.unwrap();
    let pending = held.pending.join(" ");
    let command = "`sealkeeper clock confirm --key-set main`";
    assert!(held.durable && pending.contains(command), "{held:?}");
    // What permits waits, and says what for.
    for change in [Change::Release { kid: kid.clone() }, rotate()] {
        let refused = writer.order(change).await.unwrap_err();
        let AdminError::Refused { reason, hint, .. } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(reason, "CLOCK_IN_DOUBT");
        assert!(hint.contains(command), "{hint}");
    }
    let reading = bench.clock.read().wall;
    let confirm = confirm(reading);
    writer.order(confirm).await.unwrap();
    writer.settle().await;
    let key = writer.held.as_ref().unwrap().record.set.by_kid(&kid);
    let key = key.unwrap();
    assert!(matches!(key.phase, Phase::Revoked { .. }));
    assert!(key.has_private_half(), "it was destroyed");
}

/// Found by review: what a device was still to make was said to be there.
#[tokio::test]
async fn a_key_that_is_not_made_yet_has_no_private_half() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.tick().await;
    // Ids are random, and so is the order of the keys.
    let half = |writer: &Writer, phase: KeyPhase| {
        let keys = writer.status().unwrap().keys;
        let mut keys = keys.into_iter().filter(|key| key.phase == phase);
        keys.next()
            .map(|key| (key.private_half, key.placements[0].state.clone()))
    };
    let present = Some((PrivateHalf::Present, "present".to_owned()));
    let wanted = Some((PrivateHalf::Wanted, "wanted".to_owned()));
    assert_eq!(half(&writer, KeyPhase::Generating), wanted);
    assert_eq!(half(&writer, KeyPhase::Active), present);
    writer.settle().await;
    assert_eq!(half(&writer, KeyPhase::Generating), None);
    assert_eq!(half(&writer, KeyPhase::Published), present);
}

/// Found by review: the answer was "done", and the key was activated.
#[tokio::test]
async fn a_hold_that_comes_too_late_says_so() {
    let adoption = Timing::default().adoption;
    // The switch lies twice that far ahead, and is taken back until once.
    let second = Span::from_secs(1);
    for (pause, late) in [(adoption, false), (adoption + second, true)] {
        let bench = Bench::begun().await;
        let mut writer = bench.writer().await;
        writer.settle().await;
        let seen = Answers {
            all: writer.served(),
            latest: writer.served(),
        };
        let timing = Timing::default();
        let looks = timing.pre_publish().as_millis() / timing.patience().as_millis() + 1;
        for _ in 0..=looks {
            bench.clock.advance(timing.patience());
            let seen = Item::Seen("web".to_owned(), seen.clone());
            writer.learn(seen).await;
        }
        let rotate = rotate();
        writer.order(rotate).await.unwrap();
        writer.settle().await;
        bench.clock.advance(pause);
        let note = String::new();
        let kid = writer.kids(|phase| matches!(phase, Phase::Published { .. }));
        let kid = kid[0].clone();
        let held = writer.order(Change::Hold { kid, note }).await.unwrap();
        assert_eq!(held.pending.len(), usize::from(late), "{held:?}");
        if late {
            assert!(held.pending[0].contains("too near"), "{held:?}");
        } else {
            assert_eq!(held.done.len(), 2, "{held:?}");
        }
    }
}
