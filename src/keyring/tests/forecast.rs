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
    let forecast = Forecast::from_genesis("all", &plan, at(0), at(25_000), &mut |_| {}).unwrap();
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
    let forecast = Forecast::of(
        bench.set.clone(),
        &bench.plan,
        at(30),
        at(25_000),
        &mut |_| {},
    );
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

/// A track that comes keeps the next key of another one from nothing.
#[test]
fn agents_look_at_origins_all_the_while() {
    let mut bench = Bench::with_standby();
    let another = Algorithm::Es256;
    bench
        .plan
        .tracks
        .push((another, another.default_key_type()));
    let set = bench.set.clone();
    let forecast = Forecast::of(set, &bench.plan, at(9800), at(12_000), &mut |_| {});
    let next = forecast.lives.iter().find(|life| life.kid == "k3").unwrap();
    assert_eq!(next.active, Some(at(10_000)));
}

/// What ceilings decide is foretold as well: they are raised as by each tick.
#[test]
fn a_ceiling_is_foretold_to_the_millisecond() {
    let mut bench = Bench::with_standby();
    // Nobody goes back, so that the ceiling alone decides.
    bench.plan.timing.rollback_window = Span::from_millis(1);
    bench.plan.timing.max_token_lifetime = Span::from_secs(1_999) + Span::from_millis(3);
    let end = at(9_000);
    let mut tick = bench.tick.clone();
    tick.now = at(30);
    let mut lived = bench.set.clone();
    let mut ids = || KeyId([99; 16]);
    lived.advance(&bench.plan, &tick, &mut ids);
    let mut foretold = lived.clone();
    foretold.raise_ceilings_until(&bench.plan, end);
    loop {
        tick.now = lived.deadline(&bench.plan, &tick);
        if tick.now >= end {
            break;
        }
        lived.advance(&bench.plan, &tick, &mut ids);
    }
    let ceiling = |set: &KeySet| set.by_kid("k1").unwrap().exp_ceiling;
    assert_eq!(ceiling(&foretold), ceiling(&lived));
    assert!(ceiling(&lived) > Some(end));
}

#[test]
fn a_forecast_that_nobody_could_read_says_where_it_ends() {
    let bench = Bench::with_standby();
    let mut steps = 0;
    let years = at(0) + Span::from_days(365 * 90);
    let forecast = Forecast::of(bench.set.clone(), &bench.plan, at(30), years, &mut |_| {
        steps += 1;
    });
    let cut = forecast.cut_short.unwrap();
    assert!(cut > at(100_000_000) && cut < years, "{cut}");
    assert!(forecast.events.last().unwrap().at <= cut);
    assert!(steps > 10_000);
    let short = Forecast::of(bench.set.clone(), &bench.plan, at(30), at(50), &mut |_| {});
    assert_eq!(short.cut_short, None);
}

/// Found by review: it was drawn as one whose private half is there.
#[test]
fn a_private_half_that_is_gone_has_a_date() {
    let mut bench = Bench::with_standby();
    bench.run(&[9910, 10_000, 13_100]);
    bench.device(13_100);
    assert_eq!(bench.phase("k1"), "retiring");
    assert_eq!(bench.half("k1"), Half::Destroyed);
    let set = bench.set.clone();
    let forecast = Forecast::of(set, &bench.plan, at(13_110), at(13_120), &mut |_| {});
    let first = forecast.lives.iter().find(|life| life.kid == "k1").unwrap();
    assert_eq!(first.destroyed, Some(at(10_000 + 35 + 3000)));
}

/// Found by review: it was called `#16520615234437476236`.
#[test]
fn a_key_that_is_being_made_has_a_small_name() {
    let mut bench = Bench::begun();
    bench.advance(10);
    assert!(!bench.set.intents.is_empty());
    let forecast = Forecast::of(bench.set.clone(), &bench.plan, at(10), at(20), &mut |_| {});
    let kids: Vec<&str> = forecast.lives.iter().map(|life| &*life.kid).collect();
    assert!(kids.contains(&"Ed25519 #1"), "{kids:?}");
}

/// What somebody holds does not move, and the forecast ends all the same.
#[test]
fn what_is_held_stays() {
    let mut bench = Bench::with_standby();
    bench.hold("k1", 30);
    let forecast = Forecast::of(
        bench.set.clone(),
        &bench.plan,
        at(31),
        at(100_000),
        &mut |_| {},
    );
    let first = forecast.lives.iter().find(|life| life.kid == "k1").unwrap();
    assert_eq!((first.retiring, first.removed), (None, None));
}
