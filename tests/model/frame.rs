//! That the frame of a record decides nothing: random walks on which a record
//! is kept in it, and beside it as the program would have it.

use sealkeeper::keyring::KeySet;
use sealkeeper::time::Time;

use super::action::Action;
use super::ask::Ask;
use super::clock::Clock;
use super::instance::Instance;
use super::lab::Lab;
use super::record::{NOW, UNIT};
use super::world::State;
use crate::simulation::random::Random;

#[test]
fn the_frame_decides_nothing() {
    for inst in [
        Instance::fleet(),
        Instance::origins(),
        Instance::waived(),
        Instance::out_of_sight(),
        Instance {
            budget: 6,
            ..Instance::operator()
        },
        Instance {
            budget: 6,
            ..Instance::operated_fleet()
        },
    ] {
        let mut lab = Lab::new(&inst);
        let mut random = Random::new(20_260_101);
        let steps: usize = (0..150).map(|_| walk(&mut lab, &mut random)).sum();
        assert!(steps > 1000, "{}: {steps} steps compared", inst.name);
    }
}

/// How many changes of the record were the same both ways.
fn walk(lab: &mut Lab, random: &mut Random) -> usize {
    let mut state = State::beginning(lab).expect("a beginning");
    let mut plain = lab.set(state.record).clone();
    let (mut passed, mut compared) = (0, 0);
    for _ in 0..120 {
        // Time passes more often than anybody does what he may.
        let action = match random.chance(250) {
            true => Action::Pass,
            false => *random.pick(&state.actions(lab)).expect("time may pass"),
        };
        if publishes_with_another(action, &plain, NOW + UNIT.times(passed)) {
            continue;
        }
        let Ok(Some(next)) = state.after(lab, action) else {
            continue;
        };
        if action == Action::Pass {
            passed += 1;
        }
        if let Some((r, ask)) = step_of(action, lab) {
            let (fronts, now) = (next.seen(lab), NOW + UNIT.times(passed));
            let changed = lab
                .change(&plain, (r, ask), Clock::RIGHT, fronts, now)
                .expect("it holds");
            compared += 1;
            plain = changed.map_or(plain, |(set, _)| set);
        }
        let framed: &KeySet = lab.set(next.record);
        let settled = lab.frame.settle(plain.clone(), UNIT.times(passed));
        assert_eq!(settled, *framed, "{}: after {action}", lab.inst.name);
        state = next;
    }
    compared
}

/// Of two keys that are published in one instant the one with the lower id
/// goes first, and ids are random; in the frame it is the one that was reported
/// first. Both orders are explored.
fn publishes_with_another(action: Action, plain: &KeySet, now: Time) -> bool {
    let reports = matches!(action, Action::Step(_, Ask::Report(_)));
    let mut published = plain.keys.values().filter_map(|key| key.published);
    reports && published.any(|at| at >= now)
}

fn step_of(action: Action, lab: &Lab) -> Option<(usize, Ask)> {
    match action {
        Action::Step(r, ask) => Some((r, ask)),
        Action::Regress(..) => Some((0, Ask::Observe(lab.inst.origin_mask()))),
        _ => None,
    }
}
