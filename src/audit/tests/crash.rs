//! What a crash may take, and what it may not.

use super::*;

/// Cuts the power after each possible number of operations, with every kind
/// of loss, and looks for everything that was reported as recorded.
fn at_every_crash(lie: Option<&str>) -> Result<(), String> {
    for operations in 0.. {
        let disk = SimDisk::new();
        if let Some(what) = lie {
            disk.lie_about(what);
        }
        disk.cut_power_after(operations);
        let mut kept = BTreeMap::new();
        let mut events = Vec::new();
        let mut failed = false;
        match open(&disk) {
            Ok(audit) => {
                for round in 0..6 {
                    let together = [round * 10, round * 10 + 1, round * 10 + 2];
                    let recorded = together.map(|n| (n, audit.record_signing(intent(n))));
                    for (n, recorded) in recorded {
                        match wait(recorded) {
                            Ok(seq) => {
                                kept.insert(seq, intent(n));
                                audit.outcome(seq, released(n));
                            }
                            Err(_) => failed = true,
                        }
                    }
                    match audit.key_event(event(round)) {
                        Ok(_) => events.push(event(round)),
                        Err(_) => failed = true,
                    }
                }
            }
            Err(_) => failed = true,
        }
        for loss in Loss::kinds(20) {
            check_after(&disk.crash(loss), &kept, &events)
                .map_err(|why| format!("{loss:?} after {operations} operations: {why}"))?;
        }
        if !failed {
            assert!(operations > 20, "too few operations to test anything");
            return Ok(());
        }
    }
    unreachable!("ends when nothing fails")
}

fn check_after(
    disk: &SimDisk,
    kept: &BTreeMap<Seq, Intent>,
    events: &[KeyEvent],
) -> Result<(), String> {
    let audit = open(disk).map_err(|e| e.to_string())?;
    let check = |when: &str| {
        let found = signings(disk).map_err(|e| format!("{when}: {e}"))?;
        for (seq, intent) in kept {
            if found.get(seq) != Some(intent) {
                return Err(format!("{when}: line {seq} is lost"));
            }
        }
        Ok(())
    };
    check("at the start")?;
    let found: Vec<KeyEvent> = audit.key_events().into_iter().map(|e| e.what).collect();
    // One that was not reported may be there as well.
    if !found.starts_with(events) {
        return Err(format!("{} events of {} found", found.len(), events.len()));
    }
    let seq = wait(audit.record_signing(intent(999))).map_err(|e| e.to_string())?;
    if kept.keys().any(|kept| *kept >= seq) {
        return Err(format!("number {seq} was used again"));
    }
    check("after the next signature")
}

#[test]
fn every_recorded_signature_and_event_is_there_after_every_crash() {
    at_every_crash(None).unwrap();
}

#[test]
fn the_log_needs_each_of_its_syncs() {
    for sync in [
        "sync /audit/signatures",
        "sync /audit/keys.log",
        "sync-dir /audit",
    ] {
        let found = at_every_crash(Some(sync));
        assert!(found.is_err(), "nothing breaks without {sync:?}");
    }
}

/// Three batches in one file, and where each begins.
fn three_batches() -> (SimDisk, PathBuf, Vec<u8>, Vec<usize>) {
    let disk = SimDisk::new();
    let audit = open_with(&disk, Limits::default()).unwrap();
    let mut starts = Vec::new();
    let path = Path::new(DIR).join("signatures-000000000001.log");
    for n in 0..3 {
        starts.push(disk.read(&path).map_or(0, |bytes| bytes.len()));
        disk.hold_syncs();
        let one = audit.record_signing(intent(n * 10));
        // Three lines that share a batch follow one that has its own.
        disk.wait_for_held_sync();
        let more: Vec<_> = (1..4)
            .map(|m| audit.record_signing(intent(n * 10 + m)))
            .collect();
        disk.release_syncs();
        wait(one).unwrap();
        for recorded in more {
            wait(recorded).unwrap();
        }
    }
    drop(audit);
    let bytes = disk.read(&path).unwrap();
    (disk, path, bytes, starts)
}

fn replace(disk: &SimDisk, path: &Path, content: &[u8]) {
    crate::durable::write_atomic(disk, path, content, 0o600).unwrap();
}

#[test]
fn a_torn_end_is_cut_off_and_reported() {
    let (disk, path, bytes, starts) = three_batches();
    // Any cut within the last batch.
    let whole_lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    for cut in starts[2] + 1..bytes.len() {
        replace(&disk, &path, &bytes[..cut]);
        let audit = open(&disk).unwrap();
        let expected = whole_lines(&bytes[..cut]);
        assert_eq!(signings(&disk).unwrap().len(), expected, "cut at {cut}");
        let torn = !bytes[..cut].ends_with(b"\n");
        assert_eq!(audit.torn().len(), usize::from(torn), "cut at {cut}");
    }
}

#[test]
fn a_garbled_last_batch_is_a_crash_even_in_its_middle() {
    let (disk, path, mut bytes, _) = three_batches();
    let lines: Vec<usize> = (0..bytes.len()).filter(|n| bytes[*n] == b'\n').collect();
    // The last batch is lines 10 to 12; its second line never reached the disk.
    let (start, end) = (lines[9] + 1, lines[10]);
    bytes[start..end].fill(0);
    replace(&disk, &path, &bytes);
    let audit = open(&disk).unwrap();
    assert_eq!(audit.torn()[0].offset, start);
    assert_eq!(audit.torn()[0].bytes, bytes.len() - start);
    assert_eq!(signings(&disk).unwrap().len(), 10);
    assert!(wait(audit.record_signing(intent(99))).unwrap() > Seq(10));
}

#[test]
fn damage_to_what_was_durable_is_an_error_that_says_where() {
    let (disk, path, bytes, starts) = three_batches();
    let lines: Vec<usize> = (0..bytes.len()).filter(|n| bytes[*n] == b'\n').collect();
    // Any bit of any byte of any line before the last batch.
    for at in (0..lines[8]).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        replace(&disk, &path, &damaged);
        match open(&disk) {
            Err(AuditError::Damaged { line, offset, .. }) => {
                let expected = lines.iter().filter(|end| **end < at).count();
                assert_eq!(line, expected + 1, "byte {at}");
                assert!(offset <= at && at <= lines[expected], "byte {at}");
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    // A line that was taken out, and one that was doubled.
    let second = lines[0] + 1..lines[1] + 1;
    let without = [&bytes[..second.start], &bytes[second.end..]].concat();
    let twice = [&bytes[..second.end], &bytes[second.start..]].concat();
    for content in [without, twice] {
        replace(&disk, &path, &content);
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, AuditError::Damaged { .. }), "{error}");
    }
    assert_eq!(starts.len(), 3);
}

#[test]
fn a_damaged_key_event_is_an_error() {
    let disk = SimDisk::new();
    let audit = open(&disk).unwrap();
    for n in 0..3 {
        audit.key_event(event(n)).unwrap();
    }
    drop(audit);
    let path = Path::new(DIR).join("keys.log");
    let bytes = disk.read(&path).unwrap();
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    replace(&disk, &path, &damaged);
    let error = open(&disk).unwrap_err();
    assert!(
        matches!(error, AuditError::Damaged { line: 2, .. }),
        "{error}"
    );
    // A torn last event was never reported: it goes, the others stay.
    replace(&disk, &path, &bytes[..bytes.len() - 5]);
    let audit = open(&disk).unwrap();
    assert_eq!((audit.key_events().len(), audit.torn().len()), (2, 1));
    audit.key_event(event(7)).unwrap();
    drop(audit);
    let audit = open(&disk).unwrap();
    assert_eq!(audit.key_events()[2].what, event(7));
}
