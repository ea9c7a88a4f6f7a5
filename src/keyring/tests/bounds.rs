//! Bounds that a configuration lowers hold on for what was fetched before.

use super::*;

/// Rule 1 waits 111 s by these numbers, and 1110 s by those of before.
fn lower(bench: &mut Bench) {
    let timing = &mut bench.plan.timing;
    timing.verifier_cache = Span::from_secs(100);
    timing.propagation = Span::from_secs(10);
    timing.skew = Span::from_secs(1);
    timing.max_age = Span::from_secs(60);
    timing.cdn_stale = Span::from_secs(40);
    assert_eq!(timing.check(), []);
}

fn lowered(bench: &Bench) -> Option<(Span, Time)> {
    let lowered = bench.set.lowered(&bench.plan)?;
    Some((lowered.bounds.pre_publish(), lowered.until))
}

/// The standby is in every origin since 20, and somebody wants it at 100.
#[test]
fn a_verifier_that_fetched_before_keeps_the_set_for_as_long_as_it_was_told() {
    let mut bench = Bench::with_standby();
    lower(&mut bench);
    bench.advance(100);
    assert_eq!(lowered(&bench), Some((Span::from_secs(1110), at(1210))));
    bench.rotate(200);
    assert_eq!(bench.next_activation(), Some(at(1130)), "20 + P + C + S");
    // A key that is seen later waits until nobody goes by the old numbers.
    for sighting in bench.standby_sightings() {
        *sighting = at(1150);
    }
    assert_eq!(bench.next_activation(), Some(at(1261)), "by those of now");
    for sighting in bench.standby_sightings() {
        *sighting = at(1000);
    }
    assert_eq!(
        bench.next_activation(),
        Some(at(1210)),
        "the end of the old"
    );
    bench.advance(1210);
    assert_eq!(lowered(&bench), None);
}

#[test]
fn a_revoked_key_is_trusted_for_as_long_as_by_the_old_bounds() {
    let mut bench = Bench::with_standby();
    lower(&mut bench);
    // Before any step with the new numbers, and after one.
    for advanced in [false, true] {
        let mut set = bench.set.clone();
        if advanced {
            bench.advance(100);
            set = bench.set.clone();
        }
        bench.tick.now = at(110);
        let ending = Ending {
            reason: Reason::Compromised,
            then: Some(Then::Wait),
            at: None,
            mandate: Mandate::default(),
        };
        let revoked = set.revoke("k1", &ending, &bench.plan, &bench.tick);
        assert_eq!(revoked.unwrap().exposure.bounded_until, at(1210));
    }
}

#[test]
fn a_lowering_is_seen_across_a_restart_and_only_once() {
    let mut bench = Bench::with_standby();
    let stored = serde_json::to_string(&bench.set).unwrap();
    bench.set = serde_json::from_str(&stored).unwrap();
    lower(&mut bench);
    bench.advance(300);
    bench.advance(400);
    assert_eq!(lowered(&bench), Some((Span::from_secs(1110), at(1410))));
    let stored = serde_json::to_string(&bench.set).unwrap();
    assert_eq!(serde_json::from_str::<KeySet>(&stored).unwrap(), bench.set);
}

#[test]
fn each_lowering_has_an_end_of_its_own() {
    let mut bench = Bench::with_standby();
    lower(&mut bench);
    bench.advance(100);
    // Lower still, late: what was fetched at 1200 is kept until 1311.
    bench.plan.timing.verifier_cache = Span::from_secs(10);
    bench.plan.timing.max_age = Span::from_secs(10);
    bench.plan.timing.cdn_stale = Span::ZERO;
    bench.advance(1200);
    assert_eq!(lowered(&bench), Some((Span::from_secs(1110), at(1311))));
    // What is raised holds at once; what was longer still holds beside it.
    bench.plan.timing.verifier_cache = Span::from_secs(2000);
    bench.advance(1250);
    assert_eq!(lowered(&bench), Some((Span::from_secs(1110), at(1311))));
    bench.advance(1311);
    assert_eq!(lowered(&bench), None);
}

#[test]
fn a_record_of_before_takes_what_it_finds() {
    let mut bench = Bench::with_standby();
    let mut old = serde_json::to_value(&bench.set).unwrap();
    old.as_object_mut().unwrap().remove("bounds").unwrap();
    bench.set = serde_json::from_value(old).unwrap();
    assert_eq!(lowered(&bench), None);
    bench.advance(100);
    lower(&mut bench);
    bench.advance(200);
    assert_eq!(lowered(&bench), Some((Span::from_secs(1110), at(1310))));
}

#[test]
fn a_clock_that_was_wrong_gives_the_old_bounds_no_other_end() {
    let lowered_at = |now: i64, expected: i64| {
        let mut bench = Bench::with_standby();
        lower(&mut bench);
        bench.advance(100);
        bench
            .set
            .confirm_clock(at(now), at(expected), &anna(), &bench.plan);
        lowered(&bench).unwrap().1
    };
    // It was fast by a day: what it dated is dated now at the latest.
    assert_eq!(lowered_at(-500, 150), at(610));
    // It was slow: the wait begins anew.
    assert_eq!(lowered_at(90_000, 150), at(91_110));
    // It was right.
    assert_eq!(lowered_at(150, 150), at(1210));
}

impl Bench {
    fn rotate(&mut self, now: i64) {
        self.tick.now = at(now);
        let (plan, mandate) = (&self.plan, Mandate::default());
        let asked = self
            .set
            .rotate(Algorithm::Ed25519, &mandate, plan, &self.tick);
        asked.unwrap();
    }

    /// When the standby is active, as people are told.
    fn next_activation(&self) -> Option<Time> {
        let active = self.set.by_kid("k1").unwrap();
        self.set.outlook(active, &self.plan).retires
    }

    fn standby_sightings(&mut self) -> impl Iterator<Item = &mut Time> {
        let standby = self.set.keys.values_mut();
        let standby = standby.filter(|key| key.kid.as_deref() == Some("k3"));
        standby.flat_map(|key| key.sightings.values_mut())
    }
}
