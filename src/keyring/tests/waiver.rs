//! Whom nobody waits for, and for how long.

use super::*;

impl Bench {
    fn waive(&mut self, origin: &str, span: u32, s: i64) -> Result<Vec<Event>, OperatorError> {
        self.tick.now = at(s);
        let span = Span::from_secs(span);
        self.set
            .waive(origin, span, &anna(), &self.plan, &self.tick)
    }

    fn restore(&mut self, origin: &str, s: i64) -> Vec<&'static str> {
        self.tick.now = at(s);
        let done = self.set.restore(origin, &anna(), &self.plan, &self.tick);
        names(&done.unwrap())
    }

    /// With a standby that `a` alone has shown, since 10; `b` is dead.
    fn half_seen() -> Self {
        let mut bench = Self::begun();
        bench.advance(0);
        bench.device(0);
        bench.observe("a", 10);
        bench.tick.live.remove("b");
        bench
    }
}

const DAY: u32 = 86_400;

#[test]
fn a_waived_origin_is_not_waited_for() {
    let mut bench = Bench::half_seen();
    assert_eq!(bench.advance(20_000), [""; 0]);
    let events = bench.waive("b", DAY, 20_001).unwrap();
    let event = &events[0];
    assert_eq!(event.what.name(), "origin-waived");
    assert_eq!(event.mandate, Some(anna()));
    assert!(
        event.is_alone(),
        "a second person is asked, where there are two"
    );
    assert_eq!((&event.kid, &event.public), (&None, &None));
    assert_eq!(bench.advance(20_002), ["activation-scheduled"]);
    assert_eq!(bench.signer(20_062), Ok("k3".to_owned()));
    // Another one is waited for as before.
    let mut bench = Bench::half_seen();
    bench.tick.live = BTreeSet::new();
    bench.waive("b", DAY, 20_001).unwrap();
    assert_eq!(bench.advance(20_002), [""; 0]);
}

/// Rule 1 holds for those that are left.
#[test]
fn a_waiver_shortens_no_wait() {
    let mut bench = Bench::half_seen();
    bench.lose("a", 9_500);
    bench.waive("b", DAY, 9_600).unwrap();
    assert_eq!(bench.advance(20_000), [""; 0]);
    bench.observe("a", 20_000);
    assert_eq!(bench.advance_at(just_before(at(21_020))), [""; 0]);
    assert_eq!(bench.advance(21_020), ["activation-scheduled"]);
}

#[test]
fn an_activation_is_judged_by_the_waivers_of_its_own_instant() {
    // It is due at 10,000, and fixed from 9910 on.
    let mut bench = Bench::half_seen();
    bench.waive("b", 9_990, 0).unwrap();
    assert_eq!(bench.advance(9_910), [""; 0], "over before it");
    let mut bench = Bench::half_seen();
    bench.waive("b", 10_000, 0).unwrap();
    assert_eq!(bench.advance(9_910), [""; 0], "it ends at its instant");
    let mut bench = Bench::half_seen();
    bench.waive("b", 10_001, 0).unwrap();
    assert_eq!(bench.advance(9_910), ["activation-scheduled"]);
    // It ends after the activation was fixed, and takes nothing back.
    assert_eq!(bench.advance(9_960), [""; 0]);
    assert_eq!(bench.signer(10_000), Ok("k3".to_owned()));
    // The wait of those that are left may outlast it.
    let mut bench = Bench::half_seen();
    bench.lose("a", 9_000);
    bench.observe("a", 9_500);
    bench.waive("b", 10_600, 0).unwrap();
    bench.tick.live.insert("b".to_owned());
    assert_eq!(bench.advance(10_525), [""; 0], "active from 10,610 on");
    bench.observe("b", 10_540);
    assert_eq!(bench.advance(10_600), ["waiver-ended"]);
    assert_eq!(bench.advance_at(just_before(at(11_560))), [""; 0]);
    assert_eq!(bench.advance(11_560), ["activation-scheduled"]);
}

#[test]
fn a_waiver_ends_by_itself_and_on_record() {
    let mut bench = Bench::half_seen();
    bench.waive("b", 100, 50).unwrap();
    assert_eq!(bench.advance_at(just_before(at(150))), [""; 0]);
    assert!(bench.set.waivers.contains_key("b"));
    assert!(bench.set.deadline(&bench.plan, &bench.tick) <= at(150));
    assert_eq!(bench.advance(150), ["waiver-ended"]);
    assert!(bench.set.waivers.is_empty());
    assert_eq!(bench.advance(20_000), [""; 0]);
}

#[test]
fn what_is_restored_counts_from_its_own_sightings() {
    let mut bench = Bench::half_seen();
    bench.waive("b", DAY, 0).unwrap();
    assert_eq!(bench.advance(9_910), ["activation-scheduled"]);
    // In time for every replica to hear.
    let restored = bench.restore("b", 9_960);
    assert_eq!(restored, ["origin-restored", "activation-cancelled"]);
    assert_eq!(bench.signer(10_000), Ok("k1".to_owned()));
    bench.tick.live.insert("b".to_owned());
    bench.observe("b", 10_000);
    assert_eq!(bench.advance_at(just_before(at(11_020))), [""; 0]);
    assert_eq!(bench.advance(11_020), ["activation-scheduled"]);
    // Too late: it goes on, and that is told.
    let mut bench = Bench::half_seen();
    bench.waive("b", DAY, 0).unwrap();
    bench.advance(9_910);
    assert_eq!(bench.restore("b", 9_980), ["origin-restored"]);
    assert_eq!(bench.set.activations_unseen_by("b"), [at(10_000)]);
    assert_eq!(bench.restore("b", 9_981), [""; 0], "once");
}

/// Waivers say whom nobody waits for, never that nobody looks.
#[test]
fn where_all_are_waived_the_agents_own_listener_shows_the_key() {
    let mut bench = Bench::begun();
    bench.advance(0);
    bench.device(0);
    bench.tick.live = BTreeSet::new();
    bench.waive("a", DAY, 5).unwrap();
    bench.waive("b", DAY, 5).unwrap();
    assert_eq!(bench.advance(20_000), [""; 0]);
    bench.tick.live.insert(OWN_LISTENER.to_owned());
    assert_eq!(bench.advance(20_001), [""; 0], "not seen yet");
    assert_eq!(bench.observe(OWN_LISTENER, 20_010), ["observed-everywhere"]);
    assert_eq!(bench.advance_at(just_before(at(21_030))), [""; 0]);
    assert_eq!(bench.advance(21_030), ["activation-scheduled"]);
}

#[test]
fn a_waiver_that_makes_no_sense_is_refused() {
    let mut bench = Bench::half_seen();
    let mut refused = |origin: &str, span| bench.waive(origin, span, 5).unwrap_err();
    assert!(matches!(
        refused("c", DAY),
        OperatorError::UnknownOrigin { .. }
    ));
    assert_eq!(refused(OWN_LISTENER, DAY), OperatorError::OwnListener);
    for span in [0, 90 * DAY + 1] {
        assert!(matches!(
            refused("b", span),
            OperatorError::WaiverSpan { .. }
        ));
    }
    bench.waive("b", 90 * DAY, 5).unwrap();
    // The latest wish holds.
    bench.waive("b", 60, 6).unwrap();
    assert_eq!(bench.set.waivers["b"].until, at(66));
}

/// A revocation takes the standby that those who are left have held for long
/// enough.
#[test]
fn an_emergency_waits_for_nobody_who_is_waived() {
    let mut bench = Bench::half_seen();
    assert!(bench.revoke("k1", None, 5_000).is_err());
    bench.waive("b", DAY, 5_000).unwrap();
    let revoked = bench.revoke("k1", None, 5_001).unwrap();
    assert_eq!(revoked.successor.as_deref(), Some("k3"));
}

#[test]
fn what_is_to_come_is_told_with_the_waivers_that_hold_then() {
    let mut bench = Bench::half_seen();
    let unseen = |bench: &Bench| {
        let key = bench.set.by_kid("k1").unwrap();
        bench.set.waits_for(key, &bench.plan, &BTreeSet::new())
    };
    let b = Wait::Unseen {
        origin: "b".to_owned(),
        kid: "k3".to_owned(),
    };
    assert_eq!(unseen(&bench), Some(b.clone()));
    bench.waive("b", 5_000, 5).unwrap();
    assert_eq!(unseen(&bench), Some(b), "over before it is due");
    bench.waive("b", DAY, 5).unwrap();
    assert_eq!(unseen(&bench), None);
}

#[test]
fn a_record_of_before_has_none_and_one_with_waivers_reads_back() {
    let mut bench = Bench::half_seen();
    let text = serde_json::to_string(&bench.set).unwrap();
    assert!(!text.contains("waivers"), "{text}");
    assert_eq!(serde_json::from_str::<KeySet>(&text).unwrap(), bench.set);
    bench.waive("b", DAY, 5).unwrap();
    let text = serde_json::to_string(&bench.set).unwrap();
    assert_eq!(serde_json::from_str::<KeySet>(&text).unwrap(), bench.set);
}
