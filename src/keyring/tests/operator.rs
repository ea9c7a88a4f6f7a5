//! What a person asks for.

use super::*;

fn wait_or_activate(bench: &mut Bench, s: i64) -> Option<Time> {
    let before = bench.set.clone();
    let refused = bench.revoke("k1", None, s).unwrap_err();
    assert_eq!(bench.set, before, "a refusal changes nothing");
    match refused {
        OperatorError::NoSafeStandby { safe_at } => safe_at,
        other => panic!("{other}"),
    }
}

#[test]
fn a_safe_standby_takes_over_at_once() {
    let mut bench = Bench::with_standby();
    let revoked = bench.revoke("k1", None, 1130).unwrap();
    assert_eq!(names(&revoked.events), ["revoked", "activated"]);
    assert_eq!(revoked.successor.as_deref(), Some("k3"));
    assert_eq!(revoked.exposure.bounded_until, at(2230));
    assert_eq!(bench.signer(1130), Ok("k3".to_owned()));
    assert_eq!(bench.published(), ["k3"]);
    assert!(!bench.set.by_kid("k3").unwrap().forced);
    assert!(bench.view().revoked.contains("k1"));
    let blocked = BTreeSet::new();
    assert!(!bench.view().may_release("k1", sure(1130), &blocked));
}

#[test]
fn an_early_rotation_goes_to_a_key_made_after_the_revocation() {
    let mut bench = Bench::with_standby();
    bench.run(&[100]);
    bench.revoke("k1", None, 1130).unwrap();
    let events = bench.advance(1130);
    assert_eq!(events, ["destruction-begun", "generation-begun"]);
    // In the same instant: no second one.
    assert_eq!(bench.advance(1130), [""; 0]);
    bench.device(1140);
    bench.observe_all(1150);
    assert_eq!(bench.advance(2170), ["activation-scheduled"]);
    bench.advance(2260);
    assert_eq!(bench.signer(2260), Ok("k4".to_owned()));
    let owes = |bench: &Bench| bench.set.owes_fresh(bench.set.seats.keys().next().unwrap());
    assert!(!owes(&bench), "what was owed is paid");
    assert_eq!(bench.seat().fresh_after, Some(at(1130)), "k3 may return");
    bench.run(&[5295]);
    assert_eq!(bench.half("k3"), Half::Destroying);
    let kept = bench.seat().fresh_after;
    assert_eq!(kept, Some(at(1130)), "a hold may keep it");
    bench.device(5296);
    bench.advance(5296);
    assert_eq!(bench.half("k3"), Half::Destroyed);
    assert_eq!(bench.seat().fresh_after, None);
}

#[test]
fn a_standby_of_before_does_not_count_as_fresh() {
    let mut bench = Bench::rotated();
    bench.revoke("k1", None, 10_002).unwrap();
    let events = bench.advance(10_002);
    assert_eq!(events, ["destruction-begun", "generation-begun"]);
    bench.device(10_002);
    bench.observe_all(10_010);
    // k4, published before, has waited for long enough a little earlier.
    assert_eq!(bench.advance(11_029), [""; 0]);
    assert_eq!(bench.advance(11_030), ["activation-scheduled"]);
    assert_eq!(bench.signer(11_120), Ok("k5".to_owned()));
}

#[test]
fn without_a_safe_standby_the_price_is_chosen() {
    let mut bench = Bench::with_standby();
    assert_eq!(wait_or_activate(&mut bench, 1129), Some(at(1130)));
    // Wait: nothing signs until the standby is safe.
    bench.revoke("k1", Some(Then::Wait), 1000).unwrap();
    let nothing = bench.signer(1000).unwrap_err();
    assert!(
        matches!(nothing, NoSigner::NoneActive { next: None, .. }),
        "{nothing}"
    );
    let events = bench.advance(1040);
    assert!(events.contains(&"activation-scheduled"), "{events:?}");
    assert!(bench.signer(1129).is_err());
    assert_eq!(bench.signer(1130), Ok("k3".to_owned()));

    // Activate: it signs at once, and the record says that it was forced.
    let mut bench = Bench::with_standby();
    let revoked = bench.revoke("k1", Some(Then::Activate), 1000).unwrap();
    assert_eq!(revoked.successor.as_deref(), Some("k3"));
    assert!(bench.set.by_kid("k3").unwrap().forced);
    assert_eq!(bench.signer(1000), Ok("k3".to_owned()));
}

/// Nothing signs and the next key turns out stolen as well: the one after it
/// signs as soon as there is one, if whoever ends the second says so.
#[test]
fn the_choice_counts_where_the_next_key_is_revoked_before_it_signs() {
    for (then, signs) in [(Then::Wait, false), (Then::Activate, true)] {
        let mut bench = Bench::with_standby();
        bench.revoke("k1", Some(Then::Wait), 1000).unwrap();
        let revoked = bench.revoke("k3", Some(then), 1001).unwrap();
        assert_eq!(revoked.successor, None);
        assert_eq!(bench.seat().force, signs);
        bench.run(&[1002]);
        bench.device(1003);
        bench.run(&[1010, 1070, 1100]);
        assert_eq!(bench.seat().active.is_some(), signs);
    }
    // Another one is there: it signs at once.
    let mut bench = Bench::with_standby();
    bench.revoke("k1", Some(Then::Wait), 1000).unwrap();
    bench.run(&[1001]);
    bench.device(1002);
    let next = bench.set.keys.values().filter(|key| key.is_published());
    let kids: Vec<_> = next.filter_map(|key| key.kid.clone()).collect();
    let [first, second] = &*kids else {
        panic!("expected two standbys, got {kids:?}")
    };
    let revoked = bench.revoke(first, Some(Then::Activate), 1010).unwrap();
    assert_eq!(revoked.successor.as_ref(), Some(second));
    assert!(bench.set.by_kid(second).unwrap().forced);
}

#[test]
fn a_forced_activation_waits_for_no_origin() {
    let mut bench = Bench::begun();
    assert_eq!(wait_or_activate(&mut bench, 5), None);
    bench.revoke("k1", Some(Then::Activate), 10).unwrap();
    let events = bench.advance(10);
    assert_eq!(events, ["destruction-begun", "generation-begun"]);
    bench.device(15);
    let events = bench.advance(20);
    assert!(events.contains(&"activation-scheduled"), "{events:?}");
    let fixed = bench.seat().switch.clone();
    assert_eq!(fixed.as_ref().unwrap().at, at(80));
    bench.lose("a", 25);
    bench.run(&[30, 40]);
    assert_eq!(bench.seat().switch, fixed, "a tick does not put it off");
    bench.run(&[80]);
    assert_eq!(bench.phase("k3"), "active");
    assert!(bench.set.by_kid("k3").unwrap().forced);
}

#[test]
fn the_last_key_leaves_the_placeholder() {
    let mut bench = Bench::begun();
    bench.revoke("k1", Some(Then::Wait), 10).unwrap();
    assert_eq!(bench.published(), ["k2"]);
    assert_eq!(bench.half("k2"), Half::Destroyed);
    assert!(bench.signer(10).is_err());
    bench.advance(10);
    bench.device(11);
    assert_eq!(bench.published(), ["k3"]);
}

#[test]
fn every_phase_can_be_revoked_once() {
    // Standby.
    let mut bench = Bench::with_standby();
    let revoked = bench.revoke("k3", None, 100).unwrap();
    assert_eq!(names(&revoked.events), ["revoked"]);
    assert_eq!(bench.published(), ["k1"]);
    // Retiring.
    let mut bench = Bench::rotated();
    bench.revoke("k1", None, 10_010).unwrap();
    assert_eq!(bench.published(), ["k3", "k4"]);
    let before = bench.set.clone();
    let again = bench.revoke("k1", None, 12_000).unwrap();
    assert_eq!(
        (again.events, again.exposure.bounded_until),
        (vec![], at(11_110))
    );
    assert_eq!(bench.set, before);
    // Retired.
    let mut bench = Bench::rotated();
    bench.run(&[13_035]);
    bench.device(13_035);
    bench.run(&[15_045]);
    bench.revoke("k1", None, 16_000).unwrap();
    assert_eq!(bench.phase("k1"), "revoked");
    // Never: what is no key of ours, and the placeholder.
    for kid in ["k2", "k99"] {
        let unknown = bench.revoke(kid, None, 16_000).unwrap_err();
        assert!(
            matches!(unknown, OperatorError::UnknownKid { .. }),
            "{unknown}"
        );
    }
}

#[test]
fn a_revocation_meets_a_switch() {
    // The key that is to be active.
    let mut bench = Bench::with_standby();
    bench.advance(9910);
    bench.revoke("k3", None, 9950).unwrap();
    assert_eq!(bench.seat().switch, None);
    assert_eq!(bench.signer(10_000), Ok("k1".to_owned()));
    // The one before it: its successor is safe, and signs now.
    let mut bench = Bench::with_standby();
    bench.advance(9910);
    bench.revoke("k1", None, 9950).unwrap();
    assert_eq!(bench.seat().switch, None);
    assert_eq!(bench.signer(9950), Ok("k3".to_owned()));
    bench.run(&[10_000]);
    assert_eq!(bench.phase("k3"), "active");
    // An origin lost it meanwhile: not safe, yet the switch stands.
    let mut bench = Bench::with_standby();
    bench.advance(9910);
    bench.lose("a", 9980);
    bench.revoke("k1", Some(Then::Wait), 9985).unwrap();
    assert!(bench.signer(9985).is_err());
    assert_eq!(bench.signer(10_000), Ok("k3".to_owned()));
}

#[test]
fn a_held_key_is_revoked_and_not_destroyed() {
    let mut bench = Bench::with_standby();
    bench.hold("k3", 50);
    bench.revoke("k3", None, 100).unwrap();
    assert_eq!(bench.published(), ["k1"]);
    bench.run(&[100, 200, 300]);
    assert_eq!(bench.half("k3"), Half::Present);
    bench.set.release("k3", &anna(), &bench.tick).unwrap();
    bench.run(&[400]);
    assert_eq!(bench.half("k3"), Half::Destroying);
}

#[test]
fn a_rollback_goes_back_to_a_retiring_key() {
    let mut bench = Bench::rotated();
    let events = bench.rollback("k1", 10_100).unwrap();
    assert_eq!(names(&events), ["rollback-scheduled"]);
    assert_eq!(bench.rollback("k1", 10_110), Ok(vec![]), "asked twice");
    assert_eq!(bench.signer(10_159), Ok("k3".to_owned()));
    assert_eq!(bench.signer(10_160), Ok("k1".to_owned()));
    let events = bench.advance(10_160);
    assert_eq!(events[..2], ["retiring", "activated"]);
    assert_eq!(
        (bench.phase("k1"), bench.phase("k3")),
        ("active", "retiring")
    );
}

#[test]
fn a_rollback_keeps_the_half_that_it_needs() {
    let mut bench = Bench::rotated();
    bench.rollback("k1", 13_030).unwrap();
    bench.run(&[13_035, 13_080]);
    assert_eq!(bench.half("k1"), Half::Present);
    bench.run(&[13_090]);
    assert_eq!(bench.phase("k1"), "active");
}

/// Found by simulation, twice: the half was destroyed while a replica that had
/// not heard of what overtook the rollback was still to switch to it.
#[test]
fn a_rollback_that_is_overtaken_keeps_the_half_until_all_have_heard() {
    type Overtake = fn(&mut Bench);
    let ways: [(&str, Overtake); 3] = [
        ("a revocation", |bench| {
            let then = Some(Then::Activate);
            bench.revoke("k3", then, 13_040).unwrap();
        }),
        ("a track taken off", |bench| {
            bench.plan.tracks[0].0 = Algorithm::EdDsa;
            bench.advance(13_040);
        }),
        ("a hold", |bench| bench.hold("k3", 13_040)),
    ];
    for (way, overtake) in ways {
        let mut bench = Bench::rotated();
        bench.tick.replica = "two".to_owned();
        bench.rollback("k1", 13_030).unwrap();
        bench.advance(13_031);
        bench.tick.replica = "one".to_owned();
        overtake(&mut bench);
        bench.run(&[13_050, 13_100]);
        assert_eq!(bench.half("k1"), Half::Present, "{way}: two may sign");
        bench.tick.replica = "two".to_owned();
        bench.run(&[13_200, 13_201]);
        assert_eq!(bench.half("k1"), Half::Destroying, "{way}: two has heard");
    }
}

#[test]
fn a_rollback_can_be_refused() {
    let refused = |bench: &mut Bench, kid, s| {
        let before = bench.set.clone();
        let refused = bench.rollback(kid, s).unwrap_err();
        assert_eq!(bench.set, before, "a refusal changes nothing");
        refused
    };
    let mut bench = Bench::rotated();
    let kid = |kid: &str| kid.to_owned();
    let phase = "published";
    let error = refused(&mut bench, "k4", 10_010);
    assert_eq!(
        error,
        OperatorError::NotRetiring {
            kid: kid("k4"),
            phase
        }
    );
    // Too late: destruction has begun.
    bench.run(&[13_035]);
    let error = refused(&mut bench, "k1", 13_036);
    assert_eq!(error, OperatorError::DestructionBegun { kid: kid("k1") });
    // An origin lost it.
    let mut bench = Bench::rotated();
    bench.lose("a", 10_005);
    let error = refused(&mut bench, "k1", 10_010);
    assert_eq!(error, OperatorError::NotObserved { kid: kid("k1") });
    // Either key is held.
    for held in ["k1", "k3"] {
        let mut bench = Bench::rotated();
        bench.hold(held, 10_005);
        let error = refused(&mut bench, "k1", 10_010);
        assert_eq!(error, OperatorError::Held { kid: kid(held) });
    }
    // Another switch is so near that not everybody would hear.
    let mut bench = Bench::rotated();
    bench
        .set
        .rotate(Algorithm::Ed25519, &anna(), &bench.plan, &bench.tick)
        .unwrap();
    assert_eq!(bench.advance(11_100), ["activation-scheduled"]);
    let near = bench.seat().switch.as_ref().unwrap().at;
    assert_eq!(near, at(11_160));
    assert_eq!(
        refused(&mut bench, "k1", 11_131),
        OperatorError::SwitchNear { at: near }
    );
    bench.rollback("k1", 11_130).unwrap();
}

#[test]
fn a_hold_keeps_automation_away() {
    // From the active key: no rotation.
    let mut bench = Bench::with_standby();
    bench.hold("k1", 50);
    bench.run(&[20_000]);
    assert_eq!(bench.seat().switch, None);
    bench.set.release("k1", &anna(), &bench.tick).unwrap();
    assert_eq!(bench.advance(20_001), ["activation-scheduled"]);
    // From a scheduled one: taken back in time, and only then.
    for (s, cancelled) in [(9970, true), (9971, false)] {
        let mut bench = Bench::with_standby();
        bench.advance(9910);
        bench.hold("k3", s);
        assert_eq!(bench.seat().switch.is_none(), cancelled, "at {s}");
    }
    // From a retiring one: neither destroyed nor removed.
    let mut bench = Bench::rotated();
    bench.hold("k1", 10_010);
    bench.run(&[16_000]);
    assert_eq!(
        (bench.phase("k1"), bench.half("k1")),
        ("retiring", Half::Present)
    );
    // From a standby: another one is made.
    let mut bench = Bench::with_standby();
    bench.hold("k3", 50);
    assert_eq!(bench.advance(60), ["generation-begun"]);
    // From a retired one: it is not forgotten.
    let mut bench = Bench::rotated();
    bench.run(&[13_035]);
    bench.device(13_035);
    bench.run(&[15_045]);
    bench.hold("k1", 15_050);
    for n in 2..=12 {
        let s = n * 10_000;
        bench.run(&[s - 90, s]);
        bench.device(s);
        bench.observe_all(s);
        bench.run(&[s + 3035]);
        bench.device(s + 3035);
        bench.run(&[s + 5045]);
    }
    assert_eq!(bench.phase("k3"), "forgotten");
    assert_eq!(bench.phase("k1"), "retired");
}

#[test]
fn a_rotation_can_be_asked_for() {
    let mut bench = Bench::with_standby();
    let unknown = bench
        .set
        .rotate(Algorithm::Es256, &anna(), &bench.plan, &bench.tick);
    assert!(matches!(unknown, Err(OperatorError::UnknownTrack { .. })));
    bench.tick.now = at(500);
    let events = bench
        .set
        .rotate(Algorithm::Ed25519, &anna(), &bench.plan, &bench.tick)
        .unwrap();
    assert_eq!(names(&events), ["rotation-requested"]);
    assert_eq!(
        bench.advance(1039),
        [""; 0],
        "as soon as it is safe, not before"
    );
    assert_eq!(bench.advance(1040), ["activation-scheduled"]);
    assert_eq!(bench.signer(1130), Ok("k3".to_owned()));
    bench.run(&[1130]);
    assert_eq!(bench.seat().rotate_at, None);
}

#[test]
fn every_order_says_who_gave_it() {
    let ordered = |events: &[Event]| {
        assert!(!events.is_empty());
        for event in events {
            assert_eq!(event.mandate, Some(anna()), "{event:?}");
        }
    };
    let mut bench = Bench::with_standby();
    bench.tick.now = at(100);
    let (plan, tick) = (bench.plan.clone(), bench.tick.clone());
    let set = &mut bench.set;
    ordered(&set.hold("k1", &anna(), &plan, &tick).unwrap());
    ordered(&set.release("k1", &anna(), &tick).unwrap());
    ordered(
        &set.rotate(Algorithm::Ed25519, &anna(), &plan, &tick)
            .unwrap(),
    );
    ordered(&bench.revoke("k1", None, 1130).unwrap().events);
    assert_eq!(bench.set.revoked["k1"].mandate, anna());
    ordered(&Bench::rotated().rollback("k1", 10_100).unwrap());
    // Time and devices have no orders.
    bench.tick.adopted = bench.set.epoch;
    let mut ids = || KeyId([9; 16]);
    for event in bench.set.advance(&plan, &bench.tick, &mut ids) {
        assert_eq!(event.mandate, None, "{event:?}");
    }
}

#[test]
fn a_hold_that_is_renewed_keeps_its_date() {
    let mut bench = Bench::with_standby();
    bench.hold("k1", 50);
    let later = Mandate {
        by: "unix:8".to_owned(),
        ..anna()
    };
    bench.tick.now = at(60);
    bench
        .set
        .hold("k1", &later, &bench.plan, &bench.tick)
        .unwrap();
    let hold = bench.set.by_kid("k1").unwrap().hold.clone().unwrap();
    assert_eq!((hold.since, hold.mandate), (at(50), later));
}
