//! A private half that ends before its time.

use std::collections::BTreeMap;

use super::*;
use crate::jose::PublicKey;

/// `k1` in its rollback window, which is open until 13,035; its handover is
/// over at 10,045 by every clock.
fn retiring() -> Bench {
    let mut bench = Bench::rotated();
    bench.run(&[10_045]);
    bench
}

/// Refuses, and changes nothing.
fn refused(bench: &mut Bench, kid: &str, end_rollback: bool, s: i64) -> OperatorError {
    let before = bench.set.clone();
    let refused = bench.destroy(kid, end_rollback, s).unwrap_err();
    assert_eq!(bench.set, before, "a refusal changes nothing");
    refused
}

#[test]
fn a_rollback_window_is_ended_by_name_alone() {
    let mut bench = retiring();
    let kid = || "k1".to_owned();
    let left = Span::from_secs(35);
    assert_eq!(
        refused(&mut bench, "k1", false, 13_000),
        OperatorError::EndsRollback { kid: kid(), left }
    );
    let events = bench.destroy("k1", true, 13_000).unwrap();
    assert_eq!(names(&events), ["destruction-begun"]);
    assert_eq!(events[0].mandate, Some(anna()));
    assert_eq!(bench.half("k1"), Half::Destroying);
    assert_eq!(bench.destroy("k1", true, 13_001), Ok(vec![]), "asked twice");
    assert_eq!(bench.device(13_002), ["destroyed"]);
    assert_eq!(bench.destroy("k1", false, 13_003), Ok(vec![]), "gone");
    // Rule 4, and rule 3: no way back, and its tokens verify.
    let back = bench.rollback("k1", 13_004).unwrap_err();
    assert_eq!(back, OperatorError::DestructionBegun { kid: kid() });
    assert!(bench.published().contains(&kid()));
    bench.run(&[15_044]);
    assert_eq!(bench.phase("k1"), "retiring");
    bench.run(&[15_045]);
    assert_eq!(bench.phase("k1"), "retired");
}

#[test]
fn once_the_window_is_over_nothing_is_given_up() {
    // Held until then: automation has left it alone.
    let mut bench = retiring();
    bench.hold("k1", 10_050);
    bench.run(&[13_035]);
    bench.set.release("k1", &anna(), &bench.tick).unwrap();
    let events = bench.destroy("k1", false, 13_036).unwrap();
    assert_eq!(names(&events), ["destruction-begun"]);
}

#[test]
fn a_handover_is_over_before_a_half_is_destroyed() {
    let mut bench = retiring();
    let (kid, left) = ("k1".to_owned(), Span::from_secs(1));
    assert_eq!(
        refused(&mut bench, "k1", true, 10_044),
        OperatorError::HandingOver { kid, left }
    );
    bench.destroy("k1", true, 10_045).unwrap();
}

#[test]
fn what_signs_or_will_sign_is_not_destroyed() {
    let mut bench = retiring();
    for (kid, phase) in [("k3", "active"), ("k4", "published")] {
        let signs = refused(&mut bench, kid, true, 10_100);
        let kid = kid.to_owned();
        assert_eq!(signs, OperatorError::Signs { kid, phase });
    }
    bench.rollback("k1", 10_100).unwrap();
    let (kid, back) = ("k1".to_owned(), at(10_160));
    assert_eq!(
        refused(&mut bench, "k1", true, 10_110),
        OperatorError::RollsBack { kid, at: back }
    );
}

#[test]
fn a_held_key_and_a_stranger_are_left_alone() {
    let mut bench = retiring();
    bench.hold("k1", 10_050);
    let held = OperatorError::Held {
        kid: "k1".to_owned(),
    };
    assert_eq!(refused(&mut bench, "k1", true, 10_100), held);
    // Forensics: a revocation does not change that.
    bench.revoke("k1", None, 10_110).unwrap();
    assert_eq!(refused(&mut bench, "k1", true, 10_200), held);
    // The placeholder is nobody's key.
    for kid in ["k2", "k99"] {
        let unknown = refused(&mut bench, kid, true, 10_200);
        assert!(
            matches!(unknown, OperatorError::UnknownKid { .. }),
            "{unknown}"
        );
    }
    let imported = bench.set.by_kid("k1").unwrap().id;
    bench
        .set
        .keys
        .get_mut(&imported)
        .unwrap()
        .placements
        .clear();
    assert_eq!(
        refused(&mut bench, "k1", true, 10_200),
        OperatorError::NoPrivateHalf {
            kid: "k1".to_owned()
        }
    );
}

#[test]
fn every_agent_must_have_left_the_key() {
    let mut bench = retiring();
    let left = bench.set.by_kid("k1").unwrap().left_epoch;
    let other = Replica {
        confirmed: left - 1,
        ..bench.set.replicas["one"].clone()
    };
    bench.set.replicas.insert("two".to_owned(), other);
    let (kid, replica) = ("k1".to_owned(), "two".to_owned());
    assert_eq!(
        refused(&mut bench, "k1", true, 10_100),
        OperatorError::InUse { kid, replica }
    );
    bench.set.replicas.get_mut("two").unwrap().confirmed = left;
    bench.destroy("k1", true, 10_100).unwrap();
}

#[test]
fn what_one_person_did_alone_is_told() {
    let alone = |events: &[Event]| {
        let alone = events.iter().map(|event| event.is_alone());
        alone.collect::<Vec<_>>()
    };
    assert_eq!(
        alone(&retiring().destroy("k1", true, 10_100).unwrap()),
        [true]
    );
    assert_eq!(alone(&retiring().rollback("k1", 10_100).unwrap()), [true]);
    // A standby that is safe takes over by the rules; one that is not, by force.
    let mut bench = Bench::with_standby();
    assert_eq!(
        alone(&bench.revoke("k1", None, 1130).unwrap().events),
        [false; 2]
    );
    let mut bench = Bench::with_standby();
    let forced = bench.revoke("k1", Some(Then::Activate), 1000).unwrap();
    let told = ["revoked", "activation-forced", "activated"];
    assert_eq!(names(&forced.events), told);
    assert_eq!(alone(&forced.events), [false, true, true]);
    // And one that is not even there.
    let mut bench = Bench::begun();
    let forced = bench.revoke("k1", Some(Then::Activate), 30).unwrap();
    assert_eq!(names(&forced.events), ["revoked", "successor-forced"]);
    assert_eq!(alone(&forced.events), [false, true]);
    // Nobody's order.
    let mut bench = retiring();
    bench.tick.now = at(13_035);
    bench.tick.adopted = bench.set.epoch;
    let mut ids = || KeyId([9; 16]);
    let events = bench.set.advance(&bench.plan, &bench.tick, &mut ids);
    assert_eq!(names(&events), ["destruction-begun"]);
    assert_eq!(alone(&events), [false]);
}

/// What nobody saw go is no destruction; it keeps its date, until it is found.
#[test]
fn what_a_recovery_gives_up_is_told_apart() {
    let mut bench = retiring();
    bench.destroy("k1", true, 13_000).unwrap();
    let again = |set: &KeySet, holds: BTreeMap<KeyId, PublicKey>, s: i64| {
        let witnesses = Witnesses {
            record: Some((set.clone(), 0)),
            devices: [("hsm".to_owned(), holds)].into(),
            ..Witnesses::default()
        };
        let lost = Vouched {
            keys_are_lost: true,
            ..Vouched::default()
        };
        let tick = Tick {
            now: at(s),
            ..bench.tick.clone()
        };
        let ids = &mut || KeyId([0xee; 16]);
        let made = recover("orders", &witnesses, lost, &anna(), &bench.plan, &tick, ids);
        made.unwrap().set
    };
    let given_up = |set: &KeySet, kid: &str| {
        let key = set.by_kid(kid).unwrap();
        (key.placements["hsm"], key.given_up.get("hsm").copied())
    };
    let set = again(&bench.set, BTreeMap::new(), 13_100);
    // The device was asked to destroy it, and has not got it.
    assert_eq!(given_up(&set, "k1"), (Half::Destroyed, None));
    let gone = (Half::Destroyed, Some(at(13_100)));
    assert_eq!(given_up(&set, "k3"), gone);
    let set = again(&set, BTreeMap::new(), 13_200);
    assert_eq!(given_up(&set, "k3"), gone, "its date stays");
    let key = set.by_kid("k3").unwrap();
    let found = [(key.id, key.public.clone().unwrap())].into();
    let set = again(&set, found, 13_300);
    assert_eq!(given_up(&set, "k3"), (Half::Destroying, None));
}

/// What a device does that is asked by the record of now to destroy keys.
fn asked(bench: &mut Bench, there: bool, s: i64) -> Vec<&'static str> {
    bench.tick.now = at(s);
    let mut done = Vec::new();
    let destroys = |task: &Task| matches!(task, Task::Destroy { .. });
    let mut intents = bench.set.intents.clone();
    intents.retain(|_, intent| destroys(&intent.task));
    for (id, intent) in intents {
        let outcome = match (bench.set.holds_back(&intent.task), there) {
            (true, true) => Outcome::Kept,
            _ => Outcome::Destroyed,
        };
        done.extend(names(
            &bench.set.complete(id, outcome, &bench.tick).unwrap(),
        ));
    }
    done
}

#[test]
fn a_hold_stops_a_destruction_that_has_begun() {
    let begun = || {
        let mut bench = retiring();
        bench.destroy("k1", true, 13_000).unwrap();
        bench.hold("k1", 13_001);
        bench
    };
    let mut bench = begun();
    let held = refused(&mut bench, "k1", true, 13_002);
    assert!(matches!(held, OperatorError::Held { .. }), "{held}");
    assert_eq!(asked(&mut bench, true, 13_003), ["destruction-stopped"]);
    assert_eq!(bench.half("k1"), Half::Present);
    assert!(bench.set.intents.is_empty(), "nothing more is asked of it");
    bench.run(&[13_100, 14_000, 20_000]);
    assert_eq!(bench.half("k1"), Half::Present);
    // And released, it goes when it is due, which it is.
    bench.set.release("k1", &anna(), &bench.tick).unwrap();
    assert_eq!(bench.advance(20_001)[0], "destruction-begun");

    // The device had done it: the hold came too late.
    let mut late = begun();
    assert_eq!(asked(&mut late, false, 13_003), ["destroyed"]);
    assert_eq!(late.half("k1"), Half::Destroyed);

    // Released before the device answered: it is destroyed as it was to be.
    let mut released = begun();
    let intent = *released.set.intents.keys().next().unwrap();
    released.set.release("k1", &anna(), &released.tick).unwrap();
    let kept = released.set.complete(intent, Outcome::Kept, &released.tick);
    assert_eq!(kept, Ok(Vec::new()));
    assert_eq!(released.half("k1"), Half::Destroying);
    assert_eq!(asked(&mut released, true, 13_004), ["destroyed"]);
}

/// Rule 5: nobody goes back to a key of before a compromise, though a hold
/// stopped its destruction.
#[test]
fn a_half_that_a_hold_kept_does_not_come_back_after_a_compromise() {
    let mut bench = retiring();
    bench.destroy("k1", true, 13_000).unwrap();
    // Each other key of before, so that none but this one might come back.
    bench.revoke("k4", None, 13_001).unwrap();
    bench.revoke("k3", Some(Then::Wait), 13_001).unwrap();
    bench.advance(13_002);
    let fresh: Vec<IntentId> = bench.set.intents.keys().copied().collect();
    for id in fresh {
        let task = bench.set.intents[&id].task.clone();
        if matches!(task, Task::Generate { .. }) {
            bench.complete(id, &task, 13_003);
        }
    }
    bench.observe_all(13_004);
    // The key of after the compromise signs: what is owed to it is paid.
    bench.tick.now = at(13_005);
    let (plan, tick) = (&bench.plan, &bench.tick);
    bench.set.force("k5", &anna(), plan, tick).unwrap();
    bench.run(&[13_100, 13_200, 13_300, 13_400]);
    let active = bench.seat().active.map(|id| bench.set.keys[&id].created);
    assert!(active > Some(at(13_001)), "{active:?}");
    assert_eq!(bench.half("k1"), Half::Destroying);
    bench.hold("k1", 13_401);
    asked(&mut bench, true, 13_402);
    assert_eq!(bench.half("k1"), Half::Present);
    bench.set.release("k1", &anna(), &bench.tick).unwrap();
    let back = bench.rollback("k1", 13_403).unwrap_err();
    assert!(
        matches!(back, OperatorError::BeforeRevocation { .. }),
        "{back}"
    );
}
