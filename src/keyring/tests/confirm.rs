//! A clock that was wrong, and what an operator confirms after it.

use super::*;

/// Ten days after everything else.
const LATER: i64 = 864_000;

impl Bench {
    /// The old clock would read `old`; it is ten days and some later.
    fn confirm(&mut self, old: i64) -> Vec<&'static str> {
        let now = at(LATER + old);
        confirmed(&mut self.set, now, at(old), &self.plan)
    }
}

/// What comes of a confirmation, besides that it is on record.
fn confirmed(set: &mut KeySet, now: Time, expected: Time, plan: &Plan) -> Vec<&'static str> {
    let events = set.confirm_clock(now, expected, &anna(), plan);
    let (first, rest) = events.split_first().unwrap();
    let reading = now;
    assert_eq!(first.what, What::ClockConfirmed { reading, expected });
    assert_eq!((first.at, &first.mandate), (now, &Some(anna())));
    assert!(!first.is_alone());
    names(rest)
}

/// Found by review: a standby that origins had shown for half a minute counted
/// as shown for ten days.
#[test]
fn a_run_of_sightings_that_was_too_short_by_the_old_clock_begins_anew() {
    let mut bench = Bench::with_standby();
    bench.advance(50);
    assert_eq!(bench.confirm(51), [""; 0]);
    // Long overdue by the new clock, and not safe.
    assert_eq!(bench.advance(LATER + 52), [""; 0]);
    assert_eq!(bench.signer(LATER + 52), Ok("k1".to_owned()));
    assert_eq!(bench.advance(LATER + 51 + 1110 - 91), [""; 0]);
    let scheduled = bench.advance(LATER + 51 + 1110 - 90);
    assert_eq!(scheduled, ["activation-scheduled"]);
    bench.advance(LATER + 51 + 1110);
    assert_eq!(bench.phase("k3"), "active");
    // Nor is it "safe" for a revocation before.
    let mut bench = Bench::with_standby();
    bench.advance(50);
    bench.confirm(51);
    let refused = bench.revoke("k1", None, LATER + 52).unwrap_err();
    let safe_at = Some(at(LATER + 51 + 1110));
    assert_eq!(refused, OperatorError::NoSafeStandby { safe_at });
}

#[test]
fn a_run_that_was_long_enough_by_the_old_clock_stands() {
    let mut bench = Bench::with_standby();
    bench.advance(1130);
    bench.confirm(1131);
    assert_eq!(bench.advance(LATER + 1132), ["activation-scheduled"]);
}

/// The agent knows from its boot time that the clock was right all along.
#[test]
fn after_a_clock_that_was_right_no_wait_is_longer() {
    let mut bench = Bench::with_standby();
    bench.advance(50);
    let before = bench.set.clone();
    bench
        .set
        .confirm_clock(at(LATER), at(LATER - 10), &anna(), &bench.plan);
    let high_water = at(LATER);
    assert_eq!(
        bench.set,
        KeySet {
            high_water,
            ..before
        }
    );
}

#[test]
fn a_switch_waits_for_what_was_left_of_its_wait() {
    let mut bench = Bench::with_standby();
    bench.run(&[9910]);
    assert_eq!(bench.confirm(9920), ["activation-scheduled"]);
    let at = LATER + 10_000 + 60;
    assert_eq!(bench.signer(at - 1), Ok("k1".to_owned()));
    bench.advance(at - 1);
    assert_eq!(bench.phase("k3"), "published");
    assert_eq!(bench.signer(at), Ok("k3".to_owned()));
    bench.advance(at);
    assert_eq!(bench.phase("k3"), "active");
    assert_eq!(bench.half("k1"), Half::Present);

    // Readers have switched; the record has not heard of it.
    let mut bench = Bench::with_standby();
    bench.run(&[9910]);
    assert_eq!(bench.confirm(10_001), ["retiring", "activated"]);
    bench.advance(LATER + 10_001 + 35 + 2999);
    assert_eq!(bench.half("k1"), Half::Present, "B counts from now");
}

#[test]
fn the_rollback_window_begins_anew() {
    let mut bench = Bench::rotated();
    bench.advance(10_100);
    bench.confirm(10_200);
    bench.advance(LATER + 10_200 + 2989);
    assert_eq!(bench.half("k1"), Half::Present);
    assert_eq!(bench.phase("k1"), "retiring");
    bench.advance(LATER + 10_200 + 2990);
    assert_eq!(bench.half("k1"), Half::Destroying);
    bench.device(LATER + 10_200 + 2990);
    assert_eq!(bench.signer(LATER + 10_200), Ok("k3".to_owned()));
    // The last use + B + L + S.
    bench.advance(LATER + 10_200 + 4999);
    assert_eq!(bench.phase("k1"), "retiring");
    bench.advance(LATER + 10_200 + 5000);
    assert_eq!(bench.phase("k1"), "retired");
}

/// Verifiers hold an `exp` against the true time: what the ceiling says stays
/// true. Nothing is left that a rollback could use.
#[test]
fn without_a_private_half_the_ceiling_decides() {
    let mut bench = Bench::rotated();
    bench.run(&[13_035]);
    bench.device(13_035);
    assert_eq!(bench.half("k1"), Half::Destroyed);
    bench.confirm(13_100);
    bench.advance(LATER + 13_100);
    assert_eq!(bench.phase("k1"), "retired");
}

/// What a clock that was six days ahead dated.
const FAST: i64 = 518_400;

/// Found by review: after it was put right, nothing rotated for six days.
#[test]
fn what_a_fast_clock_dated_is_dated_now() {
    let mut bench = Bench::with_standby();
    bench.advance(1130);
    // From here on the clock is six days ahead: k3 becomes active by it.
    let scheduled = bench.advance(FAST + 10_000);
    assert_eq!(scheduled, ["activation-scheduled"]);
    bench.advance(FAST + 10_100);
    assert_eq!(bench.phase("k3"), "active");
    let (now, fast) = (at(10_200), at(FAST + 10_200));
    bench.set.confirm_clock(now, fast, &anna(), &bench.plan);
    assert_eq!(bench.set.high_water, now);
    for key in bench.set.keys.values() {
        assert!(key.created <= now && key.published <= Some(now), "{key:?}");
        assert!(key.sightings.values().all(|since| *since <= now), "{key:?}");
        match key.phase {
            Phase::Retiring { since, last_sign } => {
                assert!(since <= now);
                assert!(last_sign <= rules::rule_2_last_use(now, &bench.plan.timing));
            }
            Phase::Active { since } => assert!(since <= now),
            _ => {}
        }
    }
    let (seat, _) = bench.set.seats.first_key_value().unwrap();
    let due = bench.set.due(seat, &bench.plan).unwrap();
    assert!(due <= now + bench.plan.timing.rotate_every);
    // Tokens that it dated are about until then: the ceiling stands.
    let old = bench.set.by_kid("k1").unwrap();
    assert!(old.exp_ceiling.unwrap() > at(FAST));
}

/// A switch that the fast clock put six days ahead is found anew, or drawn
/// near where an operator asked for it.
#[test]
fn a_switch_that_a_fast_clock_put_far_ahead_comes_in_time() {
    let mut bench = Bench::with_standby();
    bench.advance(1130);
    assert_eq!(bench.advance(FAST + 10_000), ["activation-scheduled"]);
    let now = at(1_200);
    let events = confirmed(&mut bench.set, now, at(FAST + 10_001), &bench.plan);
    assert_eq!(events, ["activation-cancelled"]);
    assert_eq!(bench.signer(1_201), Ok("k1".to_owned()));
}

/// Found by review: a hold waited for the clock, and what was revoked
/// meanwhile was destroyed as soon as the time was confirmed.
#[test]
fn a_hold_in_doubt_leaves_the_switch_to_whoever_confirms_the_time() {
    for kid in ["k1", "k3"] {
        let mut bench = Bench::with_standby();
        assert_eq!(bench.advance(9_910), ["activation-scheduled"]);
        let switch = bench.seat().switch.clone().unwrap();
        let seats = bench.set.seats.clone();
        // Whatever that clock says: readers may have switched by a better one.
        for estimate in [0, 9_911, 90_000] {
            bench.tick.now = at(estimate);
            let held = bench.set.hold_in_doubt(kid, &anna(), &bench.tick).unwrap();
            assert_eq!(names(&held), ["held"]);
            assert_eq!(bench.set.seats, seats);
        }
        let adoption = bench.plan.timing.adoption;
        let in_time = Time::from_millis(switch.at.as_millis() - adoption.as_millis());
        let mut late = bench.set.clone();
        let too_late = in_time + Span::from_millis(1);
        assert_eq!(
            confirmed(&mut late, too_late, too_late, &bench.plan),
            [""; 0]
        );
        assert_eq!(late.seats, seats);
        let events = confirmed(&mut bench.set, in_time, in_time, &bench.plan);
        assert_eq!(events, ["activation-cancelled"]);
        assert_eq!(bench.seat().switch, None);
    }
}
