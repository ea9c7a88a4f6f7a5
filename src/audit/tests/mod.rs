#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod crash;
mod tally;

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::*;
use crate::durable::OsDisk;
use crate::durable::sim::{Loss, SimDisk};

const DIR: &str = "/audit";

/// So small that a few lines fill a segment.
const SMALL: Limits = Limits {
    segment_bytes: 1000,
    waiting: 4096,
};

fn open_with(disk: &SimDisk, limits: Limits) -> Result<Audit, AuditError> {
    Audit::open(Arc::new(disk.clone()), DIR, "agent-1", limits)
}

fn open(disk: &SimDisk) -> Result<Audit, AuditError> {
    open_with(disk, SMALL)
}

fn intent(n: u32) -> Intent {
    Intent {
        at: Time::from_secs(i64::from(n)),
        key_set: "main".into(),
        kid: "kid-1".into(),
        caller: format!("unix:{n}"),
        exp: Some(Time::from_secs(i64::from(n) + 3600)),
        input: InputDigest::of(&n.to_be_bytes()),
    }
}

fn released(n: u32) -> Outcome {
    Outcome {
        at: Time::from_secs(i64::from(n)),
        verdict: Verdict::Released,
    }
}

fn event(n: u32) -> KeyEvent {
    KeyEvent {
        at: Time::from_secs(i64::from(n)),
        key_set: "main".into(),
        number: n.into(),
        event: "published".into(),
        key: format!("{n:032x}"),
        kid: Some(format!("kid-{n}")),
        jwk: Some(serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"})),
        note: None,
        by: Some("unix:7".into()),
        remark: Some("ticket \"12\"".into()),
        alone: n % 2 == 1,
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    std::pin::pin!(future).poll(&mut cx)
}

/// The signing lines on a disk.
fn signings(disk: &SimDisk) -> Result<BTreeMap<Seq, Intent>, AuditError> {
    let lines = signatures(disk, Path::new(DIR))?;
    Ok((lines.into_iter())
        .filter_map(|line| match line.what {
            Entry::Signing(intent) => Some((line.seq, intent)),
            Entry::Outcome { .. } => None,
        })
        .collect())
}

fn segment_names(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list(Path::new(DIR)).unwrap();
    names.retain(|name| name.starts_with("signatures-"));
    names
}

#[test]
fn lines_read_back_as_they_were_written() {
    let disk = SimDisk::new();
    let audit = open(&disk).unwrap();
    let first = wait(audit.record_signing(intent(1))).unwrap();
    let second = wait(audit.record_signing(intent(2))).unwrap();
    audit.outcome(first, released(1));
    let withheld = Outcome {
        at: Time::from_secs(9),
        verdict: Verdict::Withheld {
            reason: "WRONG_SIGNATURE".into(),
        },
    };
    audit.outcome(second, withheld.clone());
    drop(audit);
    let lines = signatures(&disk, Path::new(DIR)).unwrap();
    let what: Vec<Entry> = lines.iter().map(|line| line.what.clone()).collect();
    let outcome = |of, outcome| Entry::Outcome { of, outcome };
    assert_eq!(
        what,
        [
            Entry::Signing(intent(1)),
            Entry::Signing(intent(2)),
            outcome(first, released(1)),
            outcome(second, withheld),
        ]
    );
    let numbers: Vec<u64> = lines.iter().map(|line| line.seq.as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(lines.iter().all(|line| line.agent == "agent-1"));
}

#[test]
fn the_file_is_json_lines_for_other_programs() {
    let disk = SimDisk::new();
    let audit = open(&disk).unwrap();
    wait(audit.record_signing(intent(1))).unwrap();
    audit.key_event(event(1)).unwrap();
    drop(audit);
    let read = |name| {
        let text = disk.read(&Path::new(DIR).join(name)).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };
    let line = read("signatures-000000000001.log");
    assert_eq!((&line["seq"], &line["batch"]), (&1.into(), &1.into()));
    assert_eq!(line["signing"]["caller"], "unix:1");
    // SHA-256 of 00 00 00 01, by another program.
    assert_eq!(
        line["signing"]["input_sha256"],
        "tAcRqIxwOXVvuKc4J-q-LA_loDRsp-ChBK3A_HZPUo0"
    );
    let line = read("keys.log");
    assert_eq!(line["jwk"]["kty"], "OKP");
    assert_eq!(
        (&line["number"], &line["agent"]),
        (&1.into(), &"agent-1".into())
    );
}

#[test]
fn numbers_go_on_after_opening_again() {
    let disk = SimDisk::new();
    let mut last = Seq(0);
    for round in 0..5 {
        let audit = open(&disk).unwrap();
        for n in 0..7 {
            let seq = wait(audit.record_signing(intent(n))).unwrap();
            assert!(seq > last);
            last = seq;
        }
        audit.key_event(event(round)).unwrap();
        let events = audit.key_events();
        assert_eq!(events.len(), round as usize + 1);
        assert_eq!(events.last().unwrap().what, event(round));
    }
    assert_eq!(signings(&disk).unwrap().len(), 35);
    assert!(
        segment_names(&disk).len() > 5,
        "segments are rotated by size"
    );
}

#[test]
fn what_waits_together_shares_one_sync() {
    let disk = SimDisk::new();
    let audit = open_with(&disk, Limits::default()).unwrap();
    let syncs = |disk: &SimDisk| {
        let done = disk.operations();
        done.iter()
            .filter(|op| op.starts_with("sync /audit/signatures"))
            .count()
    };
    disk.hold_syncs();
    let first = audit.record_signing(intent(0));
    disk.wait_for_held_sync();
    // All of these arrive while the disk is busy with the first.
    let rest: Vec<_> = (1..64).map(|n| audit.record_signing(intent(n))).collect();
    disk.release_syncs();
    wait(first).unwrap();
    let mut last = Seq(1);
    for (n, recorded) in (1..).zip(rest) {
        let seq = wait(recorded).unwrap();
        assert!(seq > last, "the order of calls is the order of lines");
        last = seq;
        assert_eq!(signings(&disk).unwrap()[&seq], intent(n));
    }
    assert_eq!(syncs(&disk), 2);
}

#[test]
fn nothing_resolves_before_its_sync() {
    let disk = SimDisk::new();
    let audit = open(&disk).unwrap();
    disk.hold_syncs();
    let mut recorded = Box::pin(audit.record_signing(intent(1)));
    disk.wait_for_held_sync();
    assert!(poll_once(&mut recorded).is_pending());
    disk.release_syncs();
    wait(recorded).unwrap();
}

#[test]
fn sixty_four_recorders_at_once_each_get_a_line_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(Arc::new(OsDisk), dir.path(), "a", SMALL).unwrap();
    let mut recorded: Vec<(Seq, Intent)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|n| {
                let audit = &audit;
                scope.spawn(move || {
                    let record = |m| {
                        let intent = intent(n * 100 + m);
                        let seq = wait(audit.record_signing(intent.clone())).unwrap();
                        audit.outcome(seq, released(m));
                        (seq, intent)
                    };
                    (0..10).map(record).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    assert_eq!(audit.outcomes_lost(), 0);
    drop(audit);
    let lines = signatures(&OsDisk, dir.path()).unwrap();
    assert_eq!(lines.len(), 2 * 640);
    recorded.sort_by_key(|(seq, _)| *seq);
    let found: Vec<(Seq, Intent)> = (lines.into_iter())
        .filter_map(|line| match line.what {
            Entry::Signing(intent) => Some((line.seq, intent)),
            Entry::Outcome { .. } => None,
        })
        .collect();
    assert!(found == recorded, "somebody was told another's number");
}

#[test]
fn an_outcome_alone_is_written_without_a_sync_and_without_a_signature() {
    let disk = SimDisk::new();
    let audit = open(&disk).unwrap();
    let seq = wait(audit.record_signing(intent(1))).unwrap();
    let before = disk.operations();
    audit.outcome(seq, released(1));
    let deadline = Instant::now() + Duration::from_secs(20);
    while signatures(&disk, Path::new(DIR)).unwrap().len() < 2 {
        assert!(Instant::now() < deadline, "the outcome is never written");
        std::thread::yield_now();
    }
    let new = disk.operations().split_off(before.len());
    assert_eq!(new, ["append /audit/signatures-000000000001.log"]);
}

#[test]
fn a_disk_that_hangs_refuses_at_once_when_the_queue_is_full() {
    let disk = SimDisk::new();
    let limits = Limits {
        waiting: 4,
        ..SMALL
    };
    let audit = open_with(&disk, limits).unwrap();
    disk.hold_syncs();
    let first = audit.record_signing(intent(0));
    disk.wait_for_held_sync();
    let queued: Vec<_> = (1..5).map(|n| audit.record_signing(intent(n))).collect();
    let refused = poll_once(audit.record_signing(intent(5)));
    assert!(
        matches!(
            refused,
            Poll::Ready(Err(AuditError::Overloaded { waiting: 4 }))
        ),
        "{refused:?}"
    );
    for n in 0..17 {
        audit.outcome(Seq(1), released(n));
    }
    assert_eq!(audit.outcomes_lost(), 1);
    disk.release_syncs();
    wait(first).unwrap();
    for recorded in queued {
        wait(recorded).unwrap();
    }
    wait(audit.record_signing(intent(6))).unwrap();
    assert_eq!(signings(&disk).unwrap().len(), 6);
}

#[test]
fn a_full_disk_refuses_and_heals_without_a_restart() {
    let disk = SimDisk::new();
    let audit = open_with(&disk, Limits::default()).unwrap();
    let before = wait(audit.record_signing(intent(0))).unwrap();
    audit.key_event(event(0)).unwrap();
    for room in [0, 1, 100, 150] {
        disk.set_free(Some(room));
        for n in 0..20 {
            let full = wait(audit.record_signing(intent(n))).unwrap_err();
            assert!(full.to_string().contains("make room"), "{full}");
        }
        audit.key_event(event(1)).unwrap_err();
    }
    assert_eq!(segment_names(&disk).len(), 1, "failures leave files behind");
    disk.set_free(None);
    let after = wait(audit.record_signing(intent(1))).unwrap();
    audit.key_event(event(1)).unwrap();
    drop(audit);
    for loss in Loss::kinds(20) {
        let disk = disk.crash(loss);
        let audit = open(&disk).unwrap();
        let found = signings(&disk).unwrap();
        assert_eq!((&found[&before], &found[&after]), (&intent(0), &intent(1)));
        let events: Vec<KeyEvent> = audit.key_events().into_iter().map(|e| e.what).collect();
        assert_eq!(events, [event(0), event(1)]);
    }
}

/// The kernel drops what a failed sync should have written and reports
/// success the next time: a second sync of the same file proves nothing.
#[test]
fn after_a_failed_sync_nothing_relies_on_the_same_file() {
    let disk = SimDisk::new();
    let audit = open_with(&disk, Limits::default()).unwrap();
    let mut kept = BTreeMap::new();
    for n in 0..6 {
        if n % 2 == 1 {
            disk.fail_syncs(1);
            wait(audit.record_signing(intent(n))).unwrap_err();
            disk.fail_syncs(1);
            audit.key_event(event(n)).unwrap_err();
        }
        let seq = wait(audit.record_signing(intent(n))).unwrap();
        kept.insert(seq, intent(n));
        audit.key_event(event(n)).unwrap();
    }
    drop(audit);
    for loss in Loss::kinds(50) {
        let disk = disk.crash(loss);
        let audit = open(&disk).unwrap_or_else(|e| panic!("{loss:?}: {e}"));
        let found = signings(&disk).unwrap_or_else(|e| panic!("{loss:?}: {e}"));
        for (seq, intent) in &kept {
            assert_eq!(found.get(seq), Some(intent), "{loss:?}");
        }
        let events: Vec<KeyEvent> = audit.key_events().into_iter().map(|e| e.what).collect();
        assert_eq!(events, (0..6).map(event).collect::<Vec<_>>(), "{loss:?}");
    }
}

#[test]
fn one_agent_writes_to_a_directory() {
    let disk = SimDisk::new();
    let audit = open(&disk).unwrap();
    let refused = open(&disk).unwrap_err();
    assert!(matches!(refused, AuditError::InUse { .. }), "{refused}");
    drop(audit);
    open(&disk).unwrap();
}

#[test]
fn files_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("audit");
    let audit = Audit::open(Arc::new(OsDisk), &dir, "a", SMALL).unwrap();
    wait(audit.record_signing(intent(1))).unwrap();
    audit.key_event(event(1)).unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        seen += 1;
    }
    assert_eq!(seen, 3);
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}
