//! What is said of the future: no date that the rules forbid, and for each that
//! has passed what it waits for.

use super::*;

impl Bench {
    fn outlook(&self, kid: &str) -> Outlook {
        self.set.outlook(self.set.by_kid(kid).unwrap(), &self.plan)
    }

    fn wait(&self, kid: &str) -> Option<Wait> {
        let key = self.set.by_kid(kid).unwrap();
        self.set.waits_for(key, &self.plan, &BTreeSet::new())
    }
}

/// Found by review: after a revocation the successor's own end was announced
/// for the instant of the revocation.
#[test]
fn after_a_revocation_no_rotation_is_announced_before_rule_1() {
    let mut bench = Bench::with_standby();
    bench.advance(5000);
    bench.revoke("k1", None, 5000).unwrap();
    assert_eq!(bench.signer(5000).unwrap(), "k3");
    // The standby of then is younger than the revocation.
    assert_eq!(bench.outlook("k3").retires, Some(at(5000 + 1110)));
    assert_eq!(bench.wait("k3"), Some(Wait::NoSuccessor));
    bench.advance(5001);
    let device = "hsm".to_owned();
    assert_eq!(bench.wait("k3"), Some(Wait::Generation { device }));
    bench.device(5050);
    assert_eq!(bench.outlook("k3").retires, Some(at(5050 + 1110)));
    bench.observe_all(5100);
    let until = at(5100 + 1110);
    assert_eq!(bench.outlook("k3").retires, Some(until));
    let kid = "k4".to_owned();
    assert_eq!(bench.wait("k3"), Some(Wait::Rule1 { until, kid }));
    // It happens then.
    bench.run(&[5100 + 1110 - 90, 5100 + 1110]);
    assert_eq!(bench.signer(5100 + 1110).unwrap(), "k4");
}

#[test]
fn where_nothing_is_active_the_standby_has_its_date() {
    let mut bench = Bench::with_standby();
    bench.advance(500);
    assert_eq!(bench.outlook("k3").activates, None, "k1 is active");
    bench.revoke("k1", Some(Then::Wait), 500).unwrap();
    assert_eq!(bench.outlook("k3").activates, Some(at(20 + 1110)));
    let (until, kid) = (at(20 + 1110), "k3".to_owned());
    assert_eq!(bench.wait("k3"), Some(Wait::Rule1 { until, kid }));
    bench.lose("a", 600);
    let (origin, kid) = ("a".to_owned(), "k3".to_owned());
    assert_eq!(bench.wait("k3"), Some(Wait::Unseen { origin, kid }));
}

/// Found by review: in an outage nothing was said of the key that ends it.
#[test]
fn where_nothing_is_active_the_key_to_come_has_its_date() {
    for (then, date) in [(Then::Wait, at(501 + 1110)), (Then::Activate, at(501))] {
        let mut bench = Bench::begun();
        bench.advance(0);
        bench.device(0);
        for kid in ["k3", "k1"] {
            bench.revoke(kid, Some(then), 500).unwrap();
        }
        bench.advance(501);
        let mut keys = bench.set.keys.values();
        let coming = keys.find(|key| key.kid.is_none()).unwrap();
        let outlook = bench.set.outlook(coming, &bench.plan);
        assert_eq!(outlook.activates, Some(date), "{then:?}");
        let wait = bench.set.waits_for(coming, &bench.plan, &BTreeSet::new());
        let device = "hsm".to_owned();
        assert_eq!(wait, Some(Wait::Generation { device }));
        // There is nothing to order where it was ordered already.
        let way_out = bench.set.emptied_by(&coming.seat()).is_some();
        assert_eq!(way_out, then == Then::Wait);
    }
}

#[test]
fn a_rotation_that_is_late_says_why() {
    let mut bench = Bench::with_standby();
    bench.advance(9000);
    assert_eq!(bench.wait("k1"), None, "only for its time");
    let unseen = |origin: &str| Wait::Unseen {
        origin: origin.to_owned(),
        kid: "k3".to_owned(),
    };
    bench.lose("b", 9001);
    assert_eq!(bench.wait("k1"), Some(unseen("b")));
    bench.observe("b", 9002);
    // Seen, and it has fallen silent.
    let key = bench.set.by_kid("k1").unwrap();
    let silent = BTreeSet::from(["a".to_owned()]);
    let wait = bench.set.waits_for(key, &bench.plan, &silent);
    let origin = "a".to_owned();
    assert_eq!(wait, Some(Wait::Silent { origin }));
    // Whoever lacks the key comes first, silent or not.
    bench.lose("b", 9002);
    let key = bench.set.by_kid("k1").unwrap();
    let wait = bench.set.waits_for(key, &bench.plan, &silent);
    assert_eq!(wait, Some(unseen("b")));
    bench.hold("k3", 9003);
    assert_eq!(bench.wait("k1"), Some(Wait::Hold("k3".to_owned())));
    bench.hold("k1", 9004);
    assert_eq!(bench.wait("k1"), Some(Wait::Hold("k1".to_owned())));
}

#[test]
fn a_private_half_that_is_late_says_why() {
    let mut bench = Bench::rotated();
    bench.advance(10_002);
    assert_eq!(bench.wait("k1"), None);
    let over = bench.outlook("k1").destroyed.unwrap();
    // Another agent signs from the record, and has not heard of the change.
    let late = Replica {
        confirmed: 0,
        seen: at(0),
        clock: None,
    };
    bench.set.replicas.insert("two".to_owned(), late);
    bench.advance_at(over);
    assert_eq!(bench.wait("k1"), Some(Wait::Replica("two".to_owned())));
    bench.set.replicas.remove("two");
    bench.advance_at(over);
    let device = "hsm".to_owned();
    assert_eq!(bench.wait("k1"), Some(Wait::Destruction { device }));
}

/// The seat after rotations that came quickly, and when that is.
fn full(bench: &mut Bench) -> (SeatId, i64) {
    let seat = bench.set.seats.keys().next().unwrap().clone();
    assert_eq!(bench.set.no_room(&seat, &bench.plan), None, "there is one");
    let mut now = 1131;
    while bench.set.no_room(&seat, &bench.plan).is_none() {
        assert!(now < 20_000, "rule 6 allows three keys");
        bench.tick.now = at(now);
        let set = &mut bench.set;
        set.rotate(Algorithm::Ed25519, &anna(), &bench.plan, &bench.tick)
            .unwrap();
        bench.run(&[now, now + 61]);
        bench.device(now + 61);
        bench.observe_all(now + 62);
        now += 1200;
    }
    (seat, now)
}

/// It is said that no standby is made, why, and until when.
#[test]
fn a_full_set_says_until_when_there_is_no_standby() {
    let mut bench = Bench::with_standby();
    let (seat, now) = full(&mut bench);
    let crowd = bench.set.no_room(&seat, &bench.plan).unwrap();
    assert_eq!((crowd.published, crowd.allowed), (3, 3));
    let leaves = bench.outlook("k1").removed;
    assert_eq!(crowd.until, leaves, "the oldest leaves");
    let active = bench.signer(now).unwrap();
    assert_eq!(bench.wait(&active), Some(Wait::Room(crowd)));
    // It holds: nothing is made before, and one is asked for then.
    let until = crowd.until.unwrap();
    let making = |bench: &Bench| {
        bench
            .set
            .keys
            .values()
            .filter(|key| key.is_coming())
            .count()
    };
    bench.advance_at(just_before(until));
    let before = making(&bench);
    bench.advance_at(until);
    assert_eq!(making(&bench), before + 1);
    assert_eq!(bench.set.no_room(&seat, &bench.plan), None);
}

#[test]
fn a_full_set_has_no_date_where_every_key_that_might_leave_is_held() {
    let mut bench = Bench::with_standby();
    let (seat, now) = full(&mut bench);
    bench.hold("k1", now);
    let crowd = bench.set.no_room(&seat, &bench.plan).unwrap();
    assert_eq!(crowd.until, bench.outlook("k3").removed);
    bench.hold("k3", now);
    let crowd = bench.set.no_room(&seat, &bench.plan).unwrap();
    assert_eq!(crowd.until, None);
}

/// The price of a forced activation: until then its tokens may be refused.
#[test]
fn a_forced_key_is_held_by_all_when_rule_1_says_so() {
    let mut bench = Bench::with_standby();
    let until = |bench: &Bench, s| {
        let key = bench.set.by_kid("k3").unwrap();
        bench.set.held_by_all(key, &bench.plan, at(s))
    };
    // From when the last origin showed it, whenever that is asked.
    assert_eq!(until(&bench, 30), at(20 + 1110));
    assert_eq!(until(&bench, 500), at(20 + 1110));
    // To force it brings that no nearer.
    bench.revoke("k1", Some(Then::Activate), 600).unwrap();
    assert_eq!(bench.signer(600), Ok("k3".to_owned()));
    assert!(bench.set.by_kid("k3").unwrap().forced);
    assert_eq!(until(&bench, 600), at(20 + 1110));
    // An origin that lost it may show it from now on, at best.
    bench.lose("b", 700);
    assert_eq!(until(&bench, 701), at(701 + 1110));
}
