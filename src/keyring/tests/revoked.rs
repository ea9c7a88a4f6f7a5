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
    let told = ["activation-forced", "activated"];
    assert_eq!(names(&again.events), told);
    assert_eq!(again.events[1].mandate, Some(anna()));
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

/// `k5`, made after the revocation of the standby `k4`, is active since 11,130;
/// `k3` of before is retiring.
fn paid() -> Bench {
    let mut bench = Bench::rotated();
    bench.revoke("k4", None, 10_010).unwrap();
    bench.advance(10_010);
    bench.device(10_010);
    bench.observe_all(10_020);
    bench.run(&[11_040, 11_130]);
    assert_eq!(bench.signer(11_130), Ok("k5".to_owned()));
    bench
}

#[test]
fn no_rollback_goes_behind_a_fresh_key() {
    let refused = |mut bench: Bench, kid: &str, s| {
        let before = bench.set.clone();
        let refused = bench.rollback(kid, s).unwrap_err();
        assert_eq!(bench.set, before, "a refusal changes nothing");
        let (kid, after) = (kid.to_owned(), at(10_010));
        assert_eq!(refused, OperatorError::BeforeRevocation { kid, after });
    };
    refused(paid(), "k3", 11_200);
    // Nor while the fresh key is still to come.
    let mut bench = Bench::rotated();
    bench.revoke("k4", None, 10_010).unwrap();
    refused(bench, "k1", 10_015);
    // Among keys of after it, as ever.
    let mut bench = paid();
    bench.run(&[15_045]);
    bench.device(15_045);
    bench.observe_all(15_050);
    bench.run(&[21_040, 21_130]);
    assert_eq!(bench.seat().fresh_after, None, "nothing of before is left");
    bench.rollback("k5", 21_140).unwrap();
}

/// `k3`, of before, is held; `k1` and `k4` were revoked at 2000, so that nothing
/// signs until `k5`, made after it, may: from 3130 on.
fn nothing_signs() -> Bench {
    let mut bench = Bench::with_standby();
    bench.hold("k3", 50);
    bench.advance(60);
    bench.device(60);
    bench.revoke("k4", None, 2000).unwrap();
    bench.revoke("k1", Some(Then::Wait), 2000).unwrap();
    bench.advance(2000);
    bench.device(2010);
    bench.observe_all(2020);
    assert!(bench.signer(2020).is_err());
    bench
}

#[test]
fn a_released_standby_of_before_signs_until_a_fresh_one_may() {
    let mut bench = nothing_signs();
    bench.set.release("k3", &anna(), &bench.tick).unwrap();
    bench.run(&[2500, 2560]);
    assert_eq!(bench.signer(2560), Ok("k3".to_owned()));
    let seat = bench.set.seats.keys().next().unwrap().clone();
    assert!(bench.set.owes_fresh(&seat), "it pays nothing");
    bench.run(&[3040, 3130]);
    assert_eq!(bench.signer(3130), Ok("k5".to_owned()));
    assert!(!bench.set.owes_fresh(&seat));
    bench.rollback("k3", 3200).unwrap_err();
}

#[test]
fn a_fresh_key_that_is_ready_comes_before_a_released_one() {
    let mut bench = nothing_signs();
    bench.set.release("k3", &anna(), &bench.tick).unwrap();
    assert_eq!(bench.advance(3100), ["activation-scheduled"]);
    bench.run(&[3160]);
    assert_eq!(bench.signer(3160), Ok("k5".to_owned()));
    // A further revocation finds it first as well.
    let mut bench = nothing_signs();
    bench.set.release("k3", &anna(), &bench.tick).unwrap();
    bench.tick.now = at(3200);
    let again = bench.revoke("k1", Some(Then::Activate), 3200).unwrap();
    assert_eq!(again.successor.as_deref(), Some("k5"));
}

#[test]
fn a_released_standby_of_before_is_taken_off() {
    let mut bench = Bench::with_standby();
    bench.hold("k3", 50);
    bench.advance(60);
    bench.device(60);
    bench.observe_all(70);
    let revoked = bench.revoke("k1", None, 2000).unwrap();
    assert_eq!(revoked.successor.as_deref(), Some("k4"));
    bench.advance(2000);
    bench.device(2010);
    bench.observe_all(2020);
    bench.run(&[3040, 3130]);
    assert_eq!(bench.signer(3130), Ok("k5".to_owned()));
    assert_eq!(bench.phase("k3"), "published", "it is held");
    bench.set.release("k3", &anna(), &bench.tick).unwrap();
    let events = bench.advance(3140);
    assert!(events.contains(&"removed"), "it never signed: {events:?}");
    assert_eq!(bench.phase("k3"), "retired");
    bench.device(3140);
    bench.observe_all(3150);
    bench.run(&[13_040, 13_130]);
    assert_eq!(bench.signer(13_130), Ok("k6".to_owned()));
}
