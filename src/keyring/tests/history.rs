//! The keys of the past.

use std::collections::BTreeMap;

use super::*;

/// What the log has of some events.
fn told(events: &[Event]) -> Vec<Told> {
    let numbered = (1..).zip(events);
    numbered.map(|(n, event)| Told::of(n, event)).collect()
}

fn kids(history: &History) -> Vec<(&str, Option<Reason>)> {
    let keys = history.keys.iter();
    keys.map(|past| (past.kid.as_str(), past.revoked)).collect()
}

#[test]
fn what_is_in_the_set_is_not_past() {
    let bench = Bench::with_standby();
    let history = bench.set.history(&[], &BTreeMap::new());
    assert_eq!(history, History::default());
}

#[test]
fn a_revoked_key_ends_with_its_revocation() {
    let mut bench = Bench::with_standby();
    let revoked = bench.revoke("k1", Some(Then::Wait), 30).unwrap();
    let log = told(&revoked.events);
    let reason = bench.set.revoked["k1"].reason;
    // Together, and each alone.
    let mut forgotten = bench.set.clone();
    forgotten.keys.clear();
    let mut lost = forgotten.clone();
    lost.revoked.clear();
    for (set, log) in [
        (&bench.set, &log[..]),
        (&bench.set, &[]),
        (&forgotten, &log[..]),
        (&lost, &log[..]),
    ] {
        let history = set.history(log, &BTreeMap::new());
        assert_eq!(kids(&history), [("k1", Some(reason))]);
        assert_eq!(history.keys[0].ended, at(30));
    }
    // Revoked, and nobody has the key any more.
    let history = forgotten.history(&[], &BTreeMap::new());
    assert!(history.keys.is_empty() && history.unknown.contains("k1"));
}

#[test]
fn what_an_operator_said_last_counts() {
    let mut bench = Bench::with_standby();
    let mut log = told(&bench.revoke("k1", Some(Then::Wait), 30).unwrap().events);
    let noted = Told {
        what: What::RevocationNoted {
            reason: Reason::Superseded,
        },
        at: at(50),
        ..log[0].clone()
    };
    log.push(noted);
    let mut lost = bench.set.clone();
    lost.keys.clear();
    lost.revoked.clear();
    let history = lost.history(&log, &BTreeMap::new());
    assert_eq!(kids(&history), [("k1", Some(Reason::Superseded))]);
    assert_eq!(history.keys[0].ended, at(30), "it ended when it ended");
}

/// A store that took no revocation: the disk has it, and the key still seems
/// to sign.
#[test]
fn a_tombstone_ends_a_key() {
    let bench = Bench::with_standby();
    let revocation = Revocation {
        at: at(40),
        reason: Reason::Compromised,
        mandate: Mandate::default(),
    };
    let stones = BTreeMap::from([("k1".to_owned(), revocation)]);
    let history = bench.set.history(&[], &stones);
    assert_eq!(kids(&history), [("k1", Some(Reason::Compromised))]);
    assert_eq!(history.keys[0].ended, at(40));
}

#[test]
fn a_removed_key_is_past_until_it_is_back() {
    let bench = Bench::begun();
    let key = bench.set.by_kid("k1").unwrap();
    let of = |what, s| Event::of(key, at(s), what);
    let begun = Event {
        kid: None,
        public: None,
        ..of(What::GenerationBegun { device: None }, 1)
    };
    let mut events = vec![begun, of(What::Published, 5), of(What::Removed, 90)];
    let mut forgotten = bench.set.clone();
    forgotten.keys.clear();
    let none = BTreeMap::new();
    let history = forgotten.history(&told(&events), &none);
    assert_eq!(kids(&history), [("k1", None)]);
    let past = &history.keys[0];
    assert_eq!((past.made, past.ended), (Some(at(1)), at(90)));
    // The record has the last word: there it signs.
    let history = bench.set.history(&told(&events), &none);
    assert_eq!(history, History::default());
    events.push(of(What::Published, 95));
    let history = forgotten.history(&told(&events), &none);
    assert_eq!(history, History::default());
}
