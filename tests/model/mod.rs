//! Every state of small worlds: what random life may miss.
//!
//! A world has one or two agents, a store, a device, one or two origins, an
//! operator, and every verifier that there may be. Time passes in units, and
//! each wait is one unit or a few. The agents ask the same keyring and the same
//! store port as the program does; what a device, an origin, a network or an
//! operator may do next is tried, each in turn, from every state that can be
//! reached, until there is no new one. Each promise is looked at in each.
//!
//! Time has no end in it: what lies so far back that it decides nothing is the
//! same however far ([`record`]). The end is a number of keys: the device makes
//! three, so that the set goes through two rotations, and the fourth never
//! comes.
//!
//! What breaks prints the shortest way there.

mod action;
mod ask;
mod clock;
mod explore;
mod facts;
mod frame;
mod hash;
mod instance;
mod lab;
mod port;
mod promises;
mod record;
mod verifiers;
mod weakened;
mod world;

use std::time::Instant;

use explore::explore;
use instance::Instance;

/// Visits the whole of an instance, which has so many states: fewer would mean
/// that something no longer happens in it.
fn visit(inst: &Instance, states: usize) {
    let refused = inst.plan.timing.check();
    assert_eq!(
        refused,
        [],
        "{}: no configuration would hold this",
        inst.name
    );
    let visited = wholly(inst);
    assert_eq!(
        visited, states,
        "{} has another number of states than before; if that is as it should be, write it down here",
        inst.name
    );
}

/// Visits the whole of an instance, and says how many states it has.
fn wholly(inst: &Instance) -> usize {
    let begun = Instant::now();
    match explore(inst) {
        Ok(visited) => {
            println!("{}: {visited} in {:?}", inst.name, begun.elapsed());
            visited.states
        }
        Err(violation) => panic!("{}:\n{violation}", inst.name),
    }
}

#[test]
fn fleet() {
    visit(&Instance::fleet(), 289_826);
}

#[test]
fn late_fleet() {
    visit(&Instance::late_fleet(), 10_928);
}

#[test]
fn slow_writes() {
    visit(&Instance::slow_writes(), 835_152);
}

#[test]
fn origins() {
    visit(&Instance::origins(), 33_013);
}

#[test]
fn waived() {
    visit(&Instance::waived(), 102_578);
}

#[test]
fn out_of_sight() {
    visit(&Instance::out_of_sight(), 47_174);
}

#[test]
fn operator() {
    visit(&Instance::operator(), 352_748);
}

#[test]
fn operated_fleet() {
    visit(&Instance::operated_fleet(), 905_577);
}

#[test]
fn clocks() {
    visit(&Instance::clocks(), 23_528);
}

#[test]
fn no_way_back() {
    visit(&Instance::no_way_back(), 3_917);
}

#[test]
fn hard_limit() {
    visit(&Instance::hard_limit(), 894);
}

/// Rule 7 is one of the configuration alone: it is not loaded, or it holds.
#[test]
fn stale_network() {
    let inst = Instance::stale_network();
    if inst.plan.timing.check().is_empty() {
        wholly(&inst);
    }
}

#[test]
fn overtaken() {
    visit(&Instance::overtaken(), 29_797);
}
