//! A record that is made anew from what is left.

use std::collections::BTreeMap;

use super::*;

/// A key of before a move is on the device on which it was made, whichever the
/// configuration names now.
#[test]
fn the_log_alone_knows_the_device_of_a_key() {
    let mut bench = Bench::begun();
    let key = bench.set.by_kid("k1").unwrap().clone();
    let made = |device: Option<&str>| {
        let device = device.map(str::to_owned);
        let begun = Event {
            kid: None,
            public: None,
            ..Event::of(&key, at(0), What::GenerationBegun { device })
        };
        [begun, Event::of(&key, at(1), What::Published)]
    };
    bench.plan.device = "new".to_owned();
    let again = |device: Option<&str>, devices: &[&str]| {
        let log = (1..).zip(made(device));
        let held = [(key.id, key.public.clone().unwrap())];
        let answered = devices.iter().map(|name| match *name {
            "hsm" => ("hsm".to_owned(), held.clone().into()),
            other => (other.to_owned(), BTreeMap::new()),
        });
        let witnesses = Witnesses {
            log: log.map(|(n, event)| Told::of(n, &event)).collect(),
            devices: answered.collect(),
            ..Witnesses::default()
        };
        let (vouched, ids) = (Vouched::default(), &mut || KeyId([0xee; 16]));
        let (plan, tick) = (&bench.plan, &bench.tick);
        let made = recover("orders", &witnesses, vouched, &anna(), plan, tick, ids);
        made.map(|made| made.set.by_kid("k1").unwrap().placements.clone())
    };
    let there = |device: &str| BTreeMap::from([(device.to_owned(), Half::Present)]);
    assert_eq!(again(Some("hsm"), &["hsm", "new"]), Ok(there("hsm")));
    // The old one is away: that the new one does not hold it says nothing.
    assert_eq!(again(Some("hsm"), &["new"]), Ok(there("hsm")));
    // A log of before: where it was made, as far as anybody can tell.
    assert_eq!(again(None, &["hsm", "new"]), Ok(there("hsm")));
    let missing = again(None, &["new"]);
    assert_eq!(missing, Err(RecoverError::KeysMissing(1)));
}
