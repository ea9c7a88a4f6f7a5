//! That the model can fail: worlds in which something takes longer than the
//! agents were told, or in which a safeguard is gone. Each must break a promise.

use sealkeeper::time::Span;

use super::explore::explore;
use super::instance::{Instance, World};
use super::record::UNIT;

/// What breaks in a world that is not as the plan has it.
fn breaks(inst: Instance, weaken: impl Fn(&mut World), expected: &str) {
    let mut inst = inst;
    weaken(&mut inst.world);
    match explore(&inst) {
        Ok(visited) => panic!("nothing breaks: {visited}"),
        Err(violation) => {
            println!("{violation}");
            let what = &violation.what;
            assert!(
                what.contains(expected),
                "expected {expected:?}, got {what:?}"
            );
        }
    }
}

/// Two agents that hear of everything: where no wait but one is missing.
fn fleet() -> Instance {
    Instance {
        absent: 0,
        ..Instance::fleet()
    }
}

fn longer(span: &mut Span) {
    *span = *span + UNIT;
}

const UNCHECKED: &str = "cannot check a token";

#[test]
fn a_set_that_takes_longer_to_spread() {
    breaks(
        fleet(),
        |world| longer(&mut world.timing.propagation),
        UNCHECKED,
    );
}

#[test]
fn verifiers_that_keep_the_set_for_longer() {
    breaks(
        fleet(),
        |world| longer(&mut world.timing.verifier_cache),
        UNCHECKED,
    );
}

#[test]
fn clocks_that_differ_by_more() {
    breaks(fleet(), |world| longer(&mut world.timing.skew), UNCHECKED);
}

#[test]
fn tokens_that_live_longer() {
    let weaken = |world: &mut World| {
        // One unit more is what nobody used: the last token is accepted Q
        // before the last signature leaves.
        world.timing.max_token_lifetime = UNIT.times(3);
        world.ceilings = false;
    };
    breaks(fleet(), weaken, UNCHECKED);
}

#[test]
fn agents_that_hear_of_a_change_later() {
    let weaken = |world: &mut World| longer(&mut world.timing.adoption);
    breaks(fleet(), weaken, "after its handover began");
}

#[test]
fn signatures_that_take_longer() {
    let weaken = |world: &mut World| longer(&mut world.timing.signing_deadline);
    breaks(fleet(), weaken, "accepted, and dropped");
}

#[test]
fn operators_who_want_to_go_back_for_longer() {
    let weaken = |world: &mut World| longer(&mut world.timing.rollback_window);
    breaks(Instance::operator(), weaken, "end of its rollback window");
}

#[test]
fn origins_that_nobody_asks() {
    breaks(fleet(), |world| world.observes = false, UNCHECKED);
}

#[test]
fn agents_that_sign_on_without_the_store() {
    let weaken = |world: &mut World| world.leases = false;
    breaks(Instance::fleet(), weaken, "signs with");
}

#[test]
fn a_store_that_does_not_compare() {
    let weaken = |world: &mut World| world.compares = false;
    let inst = Instance {
        absent: 0,
        ..Instance::slow_writes()
    };
    breaks(inst, weaken, UNCHECKED);
}
