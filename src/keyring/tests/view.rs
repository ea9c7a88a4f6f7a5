//! What readers see.

use super::*;

fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

#[test]
fn the_active_key_comes_first_and_the_rest_by_age() {
    let mut bench = Bench::with_standby();
    assert_eq!(bench.published(), ["k1", "k3"]);
    bench.run(&[9910, 10_000]);
    assert_eq!(bench.published(), ["k3", "k1"]);
    bench.device(10_000);
    assert_eq!(bench.published(), ["k3", "k1", "k4"]);
    bench.run(&[10_500, 12_000]);
    assert_eq!(
        bench.published(),
        ["k3", "k1", "k4"],
        "stable between events"
    );
}

#[test]
fn during_the_handover_the_old_key_finishes_what_was_begun() {
    let mut bench = Bench::with_standby();
    bench.advance(9910);
    let before = bench.view();
    bench.advance(10_000);
    // By the view of before, which has switched by itself, and by the one
    // after.
    for view in [before, bench.view()] {
        let named = |moment| {
            let keys = view.nameable(moment).unwrap();
            keys.iter().map(|key| key.kid.clone()).collect::<Vec<_>>()
        };
        assert_eq!(named(sure(10_000)), ["k3", "k1"]);
        // R after the switch nobody names it any more ...
        assert_eq!(named(sure(10_030)), ["k3", "k1"]);
        assert_eq!(
            named(Moment::Sure(at(10_030) + Span::from_millis(1))),
            ["k3"]
        );
        // ... and Q later the last signature has left.
        assert!(view.may_release("k1", sure(10_035), &none()));
        let late = Moment::Sure(at(10_035) + Span::from_millis(1));
        assert!(!view.may_release("k1", late, &none()));
        assert!(view.may_release("k3", late, &none()));
    }
}

/// Found by the model: a view knew one key before the active one, and dropped
/// what was accepted with the one before that.
#[test]
fn two_rotations_in_a_row_drop_no_signature_of_the_first() {
    let mut bench = Bench::with_standby();
    bench.plan.timing.signing_deadline = Span::from_secs(120);
    bench.hold("k3", 100);
    bench.advance(100);
    bench.device(100);
    bench.observe_all(101);
    bench.run(&[9910, 10_000]);
    let (algorithm, _) = bench.plan.tracks[0];
    let tick = bench.tick.clone();
    bench.set.release("k3", &anna(), &tick).unwrap();
    let rotated = bench.set.rotate(algorithm, &anna(), &bench.plan, &tick);
    rotated.unwrap();
    bench.advance(10_000);
    let before = bench.view();
    bench.advance(10_060);
    for view in [before, bench.view()] {
        assert_eq!(view.signer(None, sure(10_060)).unwrap().kid, "k3");
        for (kid, last) in [("k1", 10_150), ("k4", 10_210)] {
            assert!(view.may_release(kid, sure(last), &none()), "{kid}");
            assert!(!view.may_release(kid, sure(last + 1), &none()), "{kid}");
        }
        let named = view.nameable(sure(10_061)).unwrap();
        let named: Vec<_> = named.iter().map(|key| key.kid.as_str()).collect();
        assert_eq!(named, ["k3", "k4"]);
    }
}

#[test]
fn a_blocked_key_is_not_released() {
    let bench = Bench::begun();
    assert!(bench.view().may_release("k1", sure(0), &none()));
    let blocked = BTreeSet::from(["k1".to_owned()]);
    assert!(!bench.view().may_release("k1", sure(0), &blocked));
    assert!(
        !bench.view().may_release("k2", sure(0), &none()),
        "the placeholder"
    );
    assert!(!bench.view().may_release("k99", sure(0), &none()));
}

#[test]
fn nothing_is_signed_after_the_lease() {
    let bench = Bench::begun();
    let view = bench.set.view(&bench.plan, Some(at(30)));
    assert!(view.signer(None, sure(30)).is_ok());
    for moment in [sure(31), Moment::Doubtful(at(31))] {
        let over = NoSigner::LeaseEnded(at(30));
        assert_eq!(view.signer(None, moment), Err(over.clone()));
        assert_eq!(view.nameable(moment), Err(over));
        assert!(!view.may_release("k1", moment, &none()));
    }
}

#[test]
fn in_doubt_no_switch_comes_true_and_no_handover_goes_on() {
    let mut bench = Bench::with_standby();
    bench.advance(9910);
    let doubtful = |s| Moment::Doubtful(at(s));
    let view = bench.view();
    assert_eq!(view.signer(None, doubtful(20_000)).unwrap().kid, "k1");
    bench.advance(10_000);
    let view = bench.view();
    assert_eq!(view.nameable(doubtful(10_000)).unwrap().len(), 1);
    assert!(!view.may_release("k1", doubtful(10_000), &none()));
    assert!(view.may_release("k3", doubtful(10_000), &none()));
}

#[test]
fn the_hard_limit_stops_signing_where_that_was_asked() {
    let mut bench = Bench::begun();
    assert_eq!(
        bench.signer(99_000),
        Ok("k1".to_owned()),
        "a page stops nothing"
    );
    bench.plan.timing.hard_limit = HardLimit::Stop(Span::from_secs(500));
    assert_eq!(bench.signer(10_499), Ok("k1".to_owned()));
    let stopped = bench.signer(10_500).unwrap_err();
    assert!(matches!(stopped, NoSigner::Overdue { since, .. } if since == at(10_500)));
    // A clock in doubt cannot tell.
    assert!(
        bench
            .view()
            .signer(None, Moment::Doubtful(at(10_500)))
            .is_ok()
    );
}

#[test]
fn the_hard_limit_counts_from_the_schedule() {
    let mut bench = Bench::with_standby();
    bench.plan.timing.hard_limit = HardLimit::Stop(Span::from_secs(500));
    bench.revoke("k3", None, 100).unwrap();
    assert_eq!(
        bench.signer(5000),
        Ok("k1".to_owned()),
        "no older than it should be"
    );
}

#[test]
fn no_cache_outlives_the_next_removal() {
    let mut bench = Bench::rotated();
    let max_age = |bench: &Bench, s| bench.view().max_age(at(s)).as_secs();
    assert_eq!(bench.view().removals, [at(15_045)]);
    assert_eq!(max_age(&bench, 10_000), 600);
    assert_eq!(max_age(&bench, 15_000), 45);
    assert_eq!(max_age(&bench, 15_044), 1);
    // A key that is held is not about to go.
    bench.hold("k1", 12_000);
    assert_eq!(max_age(&bench, 16_000), 600);
}

#[test]
fn caches_are_short_while_a_revocation_is_on_its_way() {
    let mut bench = Bench::rotated();
    let max_age = |bench: &Bench, s| bench.view().max_age(at(s)).as_secs();
    bench.revoke("k3", None, 11_200).unwrap();
    assert_eq!(max_age(&bench, 11_200), 60);
    // P + C later no bounded verifier has the key.
    assert_eq!(max_age(&bench, 12_299), 60);
    assert_eq!(max_age(&bench, 12_300), 600);
    // Never longer than was configured.
    bench.plan.timing.max_age = Span::from_secs(20);
    assert_eq!(max_age(&bench, 11_200), 20);
}

/// Found by review: while a removal was overdue, no verifier could keep the
/// set, and all asked for it again and again.
#[test]
fn a_removal_that_is_overdue_bounds_no_cache_and_hides_none() {
    let mut view = Bench::rotated().view();
    let max_age = |view: &View, s| view.max_age(at(s)).as_secs();
    assert_eq!(max_age(&view, 15_045), 600);
    assert_eq!(max_age(&view, 90_000), 600);
    view.removals.push(at(15_500));
    for now in 14_000..15_500 {
        let next = if now < 15_045 { 15_045 } else { 15_500 };
        assert_eq!(max_age(&view, now), (next - now).min(600), "{now}");
    }
}

#[test]
fn a_track_that_is_not_there_is_said_to_be_so() {
    let bench = Bench::begun();
    let view = bench.view();
    let nothing = view.signer(Some(Algorithm::Es256), sure(0));
    assert_eq!(nothing, Err(NoSigner::NoTrack(Algorithm::Es256)));
}
