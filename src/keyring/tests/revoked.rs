//! Revocations that are ordered again, together, or stored late.

use super::*;

/// Found by review: after `--then wait` no command brought signing back.
#[test]
fn a_revocation_that_is_ordered_again_activates_what_there_is() {
    let mut bench = Bench::with_standby();
    bench.revoke("k1", Some(Then::Wait), 30).unwrap();
    assert!(bench.signer(31).is_err());
    let again = bench.revoke("k1", Some(Then::Wait), 32).unwrap();
    assert_eq!(again.events, []);
    let again = bench.revoke("k1", Some(Then::Activate), 33).unwrap();
    assert_eq!(names(&again.events), ["activated"]);
    assert_eq!(again.events[0].mandate, Some(anna()));
    assert_eq!(again.successor.as_deref(), Some("k3"));
    assert!(bench.set.by_kid("k3").unwrap().forced);
    assert_eq!(bench.signer(33), Ok("k3".to_owned()));
    let again = bench.revoke("k1", Some(Then::Activate), 34).unwrap();
    assert_eq!(again.events, [], "a key signs already");

    // Nothing stands by: the one that comes.
    let mut bench = Bench::begun();
    bench.revoke("k1", Some(Then::Wait), 30).unwrap();
    let again = bench.revoke("k1", Some(Then::Activate), 31).unwrap();
    assert_eq!(names(&again.events), ["successor-forced"]);
    assert!(bench.seat().force);
    bench.advance(32);
    bench.device(33);
    bench.run(&[34, 34 + 60]);
    assert_eq!(bench.signer(94), Ok("k3".to_owned()));
}

/// Found by review: a standby that was to end was activated on the way.
#[test]
fn what_ends_together_ends_in_one_change() {
    let mut bench = Bench::with_standby();
    bench.tick.now = at(2000);
    let both = ["k1", "k3"].map(|kid| (kid.to_owned(), ending(Some(Then::Wait))));
    let all = bench.set.revoke_all(&both.into(), &bench.plan, &bench.tick);
    for (kid, revoked) in all {
        assert_eq!(names(&revoked.unwrap().events), ["revoked"], "{kid}");
    }
    assert!(bench.signer(2000).is_err());
}

/// Found by review: what was said of a standby had another one sign, although
/// of the active key it was said to wait.
#[test]
fn what_is_said_of_the_active_key_holds_of_its_seat() {
    let said = |active, standby| {
        let mut bench = Bench::rotated();
        // A second standby, which verifiers do not hold yet.
        bench.revoke("k1", Some(Then::Wait), 10_002).unwrap();
        bench.advance(10_002);
        bench.device(10_002);
        bench.tick.now = at(10_003);
        let both = [("k3", active), ("k4", standby)];
        let both = both.map(|(kid, then)| (kid.to_owned(), ending(Some(then))));
        bench.set.revoke_all(&both.into(), &bench.plan, &bench.tick);
        bench.signer(10_003).ok()
    };
    assert_eq!(said(Then::Wait, Then::Activate), None);
    let next = Some("k5".to_owned());
    assert_eq!(said(Then::Activate, Then::Wait), next);
}

/// A key that was revoked before and is to have one sign: only where nothing
/// does, and never in spite of what is said of the key that signs.
#[test]
fn what_is_ordered_again_takes_no_place_of_others() {
    let again = || ("k1".to_owned(), ending(Some(Then::Activate)));
    let wait = |kid: &str| (kid.to_owned(), ending(Some(Then::Wait)));
    // Nothing signs: the standby that is left does, not the one that ends.
    let mut bench = Bench::with_standby();
    bench.revoke("k1", Some(Then::Wait), 30).unwrap();
    bench.advance(31);
    bench.device(32);
    bench.tick.now = at(33);
    let both = [again(), wait("k3")];
    bench.set.revoke_all(&both.into(), &bench.plan, &bench.tick);
    assert_eq!(bench.signer(33), Ok("k4".to_owned()));
    // One signs, and ends.
    let mut bench = Bench::rotated();
    bench.revoke("k1", Some(Then::Wait), 10_002).unwrap();
    bench.tick.now = at(10_003);
    let both = [again(), wait("k3")];
    bench.set.revoke_all(&both.into(), &bench.plan, &bench.tick);
    assert!(bench.signer(10_003).is_err());
}

/// Found by review: the reason and the note of a second order were dropped.
#[test]
fn what_is_said_of_a_revocation_later_is_on_record() {
    let mut bench = Bench::with_standby();
    let mut say = |reason, note: &str, s| {
        let mandate = Mandate {
            by: format!("unix:{s}"),
            note: note.to_owned(),
        };
        let ending = Ending {
            reason,
            mandate: mandate.clone(),
            ..ending(Some(Then::Wait))
        };
        bench.tick.now = at(s);
        let revoked = bench.set.revoke("k1", &ending, &bench.plan, &bench.tick);
        for event in &revoked.as_ref().unwrap().events {
            assert_eq!(event.mandate, Some(mandate.clone()));
        }
        let phase = bench.set.by_kid("k1").unwrap().phase.clone();
        let on_record = bench.set.revoked["k1"].clone();
        let since = at(30);
        let reason = on_record.reason;
        assert_eq!(phase, Phase::Revoked { since, reason });
        (names(&revoked.unwrap().events), on_record)
    };
    let (events, first) = say(Reason::Unspecified, "", 30);
    assert_eq!(events, ["revoked"]);
    let same = (vec![], first.clone());
    assert_eq!(say(Reason::Unspecified, "", 31), same, "nothing new");
    // Who ended it, and when, stays; why is known now.
    let (events, second) = say(Reason::Compromised, "ticket 12", 32);
    assert_eq!(events, ["revocation-noted"]);
    let reason = Reason::Compromised;
    assert_eq!(second, Revocation { reason, ..first });
    // A reason on record is not taken back, and the log has what was said.
    for (reason, note) in [(Reason::Unspecified, "13"), (Reason::Superseded, "")] {
        let noted = vec!["revocation-noted"];
        assert_eq!(say(reason, note, 33), (noted, second.clone()));
    }
}

#[test]
fn a_revocation_has_the_date_of_its_order() {
    let mut bench = Bench::with_standby();
    bench.tick.now = at(500);
    let ending = Ending {
        at: Some(at(100)),
        ..ending(Some(Then::Wait))
    };
    let revoked = bench.set.revoke("k1", &ending, &bench.plan, &bench.tick);
    let revoked = revoked.unwrap();
    assert_eq!(revoked.events[0].at, at(100));
    assert_eq!(bench.set.revoked["k1"].at, at(100));
    // Verifiers may have met it until the set changed.
    assert_eq!(revoked.exposure.bounded_until, at(1600));
}
