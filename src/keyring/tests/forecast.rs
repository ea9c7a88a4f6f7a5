//! What is foretold is what happens.

use super::*;

/// Every kind of key has a stand-in.
#[test]
fn a_key_set_of_every_kind_has_a_future() {
    use Algorithm::{EdDsa, Es256, Es384, Es512, Ps256, Rs256};
    let mut plan = Bench::pending().plan;
    plan.tracks = [Rs256, Ps256, Es256, Es384, Es512, EdDsa]
        .map(|algorithm| (algorithm, algorithm.default_key_type()))
        .into();
    let forecast = Forecast::from_genesis("all", &plan, at(0), at(25_000)).unwrap();
    let signs = |algorithm| {
        let lives = forecast.lives.iter();
        lives
            .filter(|life| life.algorithm == Some(algorithm) && life.active.is_some())
            .count()
    };
    for (algorithm, _) in &plan.tracks {
        // At the beginning, after 10,000 s, and after 20,000 s.
        assert_eq!(signs(*algorithm), 3, "{algorithm}");
    }
    assert!(forecast.events.is_sorted_by_key(|event| event.at));
}

/// The same dates as a life that is lived step by step.
#[test]
fn a_life_is_foretold_to_the_millisecond() {
    let bench = Bench::with_standby();
    let forecast = Forecast::of(bench.set.clone(), &bench.plan, at(30), at(25_000));
    let first = forecast.lives.iter().find(|life| life.kid == "k1").unwrap();
    let next = forecast.lives.iter().find(|life| life.kid == "k3").unwrap();
    assert_eq!(next.active, Some(at(10_000)));
    assert_eq!(first.retiring, Some(at(10_000)));
    // Rules 2 to 4, in the numbers of this bench.
    assert_eq!(first.destroyed, Some(at(10_000 + 35 + 3000)));
    let mut lived = Bench::with_standby();
    lived.run(&[9910, 10_000]);
    lived.device(10_000);
    lived.observe_all(10_001);
    let removed = first.removed.unwrap();
    lived.advance_at(just_before(removed));
    assert_eq!(lived.phase("k1"), "retiring");
    lived.advance_at(removed);
    assert_ne!(lived.phase("k1"), "retiring");
    // Nothing of it touched what it was made of.
    assert_eq!(bench.set, Bench::with_standby().set);
}

/// What somebody holds does not move, and the forecast ends all the same.
#[test]
fn what_is_held_stays() {
    let mut bench = Bench::with_standby();
    bench.hold("k1", 30);
    let forecast = Forecast::of(bench.set.clone(), &bench.plan, at(31), at(100_000));
    let first = forecast.lives.iter().find(|life| life.kid == "k1").unwrap();
    assert_eq!((first.retiring, first.removed), (None, None));
}
