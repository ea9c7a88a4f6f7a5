//! What is left of a key's tokens, by the log.

use super::*;

/// At 10,000, with tokens of an hour.
fn wanted() -> Wanted {
    Wanted {
        key_set: "main".into(),
        kid: "kid-1".into(),
        since: Time::from_secs(10_000 - 3600),
        now: Time::from_secs(10_000),
    }
}

fn record(audit: &Audit, intent: Intent, verdict: Verdict) {
    let at = intent.at;
    let seq = wait(audit.record_signing(intent)).unwrap();
    audit.outcome(seq, Outcome { at, verdict });
}

fn withheld() -> Verdict {
    Verdict::Withheld {
        reason: "WRONG_SIGNATURE".into(),
    }
}

/// Signatures at 6000, 6100 … 9900, by two callers; each fourth is withheld.
fn filled() -> SimDisk {
    let disk = SimDisk::new();
    let audit = open(&disk).unwrap();
    for n in (6000..10_000).step_by(100) {
        let caller = if n % 300 == 0 { "unix:7" } else { "unix:8" };
        let ours = Intent {
            caller: caller.into(),
            ..intent(n)
        };
        let other_kid = Intent {
            kid: "kid-10".into(),
            ..intent(n)
        };
        let other_set = Intent {
            key_set: "more".into(),
            ..intent(n)
        };
        let verdict = match n % 400 {
            0 => withheld(),
            _ => Verdict::Released,
        };
        record(&audit, ours, verdict);
        record(&audit, other_kid, Verdict::Released);
        record(&audit, other_set, Verdict::Released);
    }
    drop(audit);
    assert!(segments::list(&disk, Path::new(DIR)).unwrap().len() > 10);
    disk
}

fn tally_of(disk: &SimDisk) -> Tally {
    open(disk).unwrap().tally(&wanted(), || true)
}

#[test]
fn tokens_that_are_alive_are_counted_for_each_caller() {
    let tally = tally_of(&filled());
    // exp > 10,000 means signed after 6400.
    let alive = (6500..10_000).step_by(100).filter(|n| n % 400 != 0);
    let (sevens, eights): (Vec<u32>, Vec<u32>) = alive.partition(|n| n % 300 == 0);
    let share = |of: &[u32]| Share {
        alive: of.len() as u64,
        latest_exp: of.last().map(|n| Time::from_secs(i64::from(*n) + 3600)),
    };
    let callers = [("unix:7", &sevens), ("unix:8", &eights)];
    let callers = callers.map(|(name, of)| (name.to_owned(), share(of)));
    assert_eq!(tally.callers, callers.into());
    assert_eq!(tally.alive, (sevens.len() + eights.len()) as u64);
    assert_eq!(tally.latest_exp, Some(Time::from_secs(9900 + 3600)));
    assert_eq!((tally.undated, tally.gaps), (0, vec![]));
}

/// Lines of the first logs say nothing of it: then what was signed lately is
/// taken for alive.
#[test]
fn tokens_without_a_date_count_by_when_they_were_signed() {
    let disk = SimDisk::new();
    let audit = open(&disk).unwrap();
    for n in [6399, 6400, 9000] {
        let undated = Intent {
            exp: None,
            ..intent(n)
        };
        record(&audit, undated, Verdict::Released);
    }
    drop(audit);
    let tally = tally_of(&disk);
    assert_eq!((tally.alive, tally.undated), (2, 2));
    assert_eq!(tally.latest_exp, None);
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_counted() {
    let whole = tally_of(&filled()).alive;
    // Moved away.
    let disk = filled();
    let segments = segments::list(&disk, Path::new(DIR)).unwrap();
    let half = segments.len() / 2;
    for (_, path) in &segments[..half] {
        disk.remove(path).unwrap();
    }
    let tally = tally_of(&disk);
    assert!((1..whole).contains(&tally.alive), "{}", tally.alive);
    assert!(tally.gaps[0].contains("were moved away"), "{tally:?}");
    // A line of ours is damaged.
    let disk = filled();
    let (_, path) = &segments::list(&disk, Path::new(DIR)).unwrap()[half];
    let text = String::from_utf8(disk.read(path).unwrap()).unwrap();
    let damaged = text.replacen(
        "\"kid\":\"kid-1\",\"caller\":\"u",
        "\"kid\":\"kid-1\",\"caller\":\"v",
        1,
    );
    assert_ne!(damaged, text);
    disk.remove(path).unwrap();
    let mut file = disk.create(path, 0o600).unwrap();
    file.append(damaged.as_bytes()).unwrap();
    let tally = tally_of(&disk);
    assert_eq!(tally.gaps, ["1 lines are damaged"]);
    assert!((whole - 1..=whole).contains(&tally.alive));
}

#[test]
fn it_ends_with_the_time_that_it_is_given() {
    let disk = filled();
    let mut asked = 0;
    let tally = open(&disk).unwrap().tally(&wanted(), || {
        asked += 1;
        asked < 8
    });
    assert!((1..10).contains(&tally.alive), "{tally:?}");
    assert!(tally.gaps[0].contains("no time"), "{tally:?}");
}

/// What is older than any token that may be alive is not read.
#[test]
fn it_reads_no_more_than_it_must() {
    let disk = filled();
    let late = Wanted {
        since: Time::from_secs(9500),
        ..wanted()
    };
    let mut asked = 0;
    let audit = open(&disk).unwrap();
    let segments = segments::list(&disk, Path::new(DIR)).unwrap().len();
    let tally = audit.tally(&late, || {
        asked += 1;
        true
    });
    assert_eq!(tally.gaps, [""; 0]);
    assert!(asked < segments, "{asked} of {segments}");
}
