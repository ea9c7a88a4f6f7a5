//! A token that lacks a key that is to sign next.

use super::*;

#[test]
fn a_standby_that_the_token_lacks_gives_way_to_a_new_one() {
    let mut bench = Bench::with_standby();
    bench.tick.now = at(100);
    let lost = bench.set.standby_lost("k3", &bench.plan, &bench.tick);
    assert_eq!(names(&lost), ["lost", "removed"]);
    assert_eq!(bench.half("k3"), Half::Lost);
    // What signs stays, whatever is said of it.
    assert_eq!(bench.set.standby_lost("k1", &bench.plan, &bench.tick), []);
    assert_eq!(bench.advance(101), ["generation-begun"]);
    bench.device(102);
    bench.observe_all(103);
    bench.run(&[9_910, 10_000]);
    assert_eq!(bench.signer(10_000), Ok("k4".to_owned()));
    assert_eq!(bench.half("k3"), Half::Lost, "until somebody has seen it");
    // A revocation finds it no standby, and rollback no way.
    bench.destroy("k3", false, 10_001).unwrap();
    assert_eq!(bench.half("k3"), Half::Destroying);
    bench.device(10_002);
    assert_eq!(bench.half("k3"), Half::Destroyed);
}

#[test]
fn a_revocation_does_not_take_it_for_safe() {
    let mut bench = Bench::with_standby();
    bench.run(&[2000]);
    bench.set.standby_lost("k3", &bench.plan, &bench.tick);
    let refused = bench.revoke("k1", None, 2001).unwrap_err();
    let none = OperatorError::NoSafeStandby { safe_at: None };
    assert_eq!(refused, none);
}

#[test]
fn an_activation_is_taken_back_while_agents_can_hear_of_it() {
    let mut near = Bench::with_standby();
    assert_eq!(near.advance(9_910), ["activation-scheduled"]);
    let switch = near.seat().switch.clone().unwrap();
    let mut late = Bench::with_standby();
    late.advance(9_910);

    near.tick.now = switch.at - near.plan.timing.adoption;
    let lost = near.set.standby_lost("k3", &near.plan, &near.tick);
    assert_eq!(names(&lost), ["activation-cancelled", "lost", "retiring"]);
    assert_eq!(near.seat().switch, None);
    let back = near.rollback("k3", 9_990).unwrap_err();
    assert!(
        matches!(back, OperatorError::DestructionBegun { .. }),
        "{back}"
    );

    late.tick.now = switch.at - late.plan.timing.adoption + Span::from_millis(1);
    assert_eq!(late.set.standby_lost("k3", &late.plan, &late.tick), []);
    assert_eq!(late.seat().switch, Some(switch));
}

#[test]
fn what_is_held_is_left_alone() {
    let mut bench = Bench::with_standby();
    bench.hold("k3", 100);
    assert_eq!(bench.set.standby_lost("k3", &bench.plan, &bench.tick), []);
}
