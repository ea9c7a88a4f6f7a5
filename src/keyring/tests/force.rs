//! A key that signs before its time, while another one does.

use super::*;
use crate::keyring::Wish;

impl Bench {
    fn force(&mut self, kid: &str, s: i64) -> Result<Vec<Event>, OperatorError> {
        self.tick.now = at(s);
        self.attend();
        self.set.force(kid, &anna(), &self.plan, &self.tick)
    }

    fn wish_to_force(&mut self, s: i64) -> Result<Option<Wish>, OperatorError> {
        self.tick.now = at(s);
        self.attend();
        let track = self.plan.tracks[0].0;
        self.set.wish_to_force(track, &self.plan, &self.tick)
    }
}

fn wish(kid: &str) -> Option<Wish> {
    let kid = kid.to_owned();
    Some(Wish::Force { kid })
}

#[test]
fn it_signs_once_all_agents_can_have_heard_and_no_origin_stops_it() {
    let mut bench = Bench::with_standby();
    assert_eq!(bench.wish_to_force(100), Ok(wish("k3")));
    let events = bench.force("k3", 100).unwrap();
    assert_eq!(names(&events), ["activation-forced"]);
    assert_eq!(
        events[0].what,
        What::ActivationForced { activates: at(160) }
    );
    // One person did what may want two, and it is on record whose order it was.
    assert!(events[0].is_alone());
    assert_eq!(events[0].mandate, Some(anna()));
    assert_eq!(bench.signer(159), Ok("k1".to_owned()));
    // Neither an origin that loses the key nor a tick puts it off.
    bench.lose("a", 110);
    bench.tick.live.clear();
    bench.run(&[110, 120]);
    // Readers switch by themselves.
    assert_eq!(bench.signer(160), Ok("k3".to_owned()));
    assert_eq!(bench.force("k3", 161), Ok(vec![]), "ordered once more");
    let events = bench.advance(165);
    assert_eq!(events, ["retiring", "activated", "generation-begun"]);
    assert!(bench.set.by_kid("k3").unwrap().forced);
    // The key of before is handed over as after any rotation (rule 2).
    let Phase::Retiring { last_sign, .. } = bench.set.by_kid("k1").unwrap().phase else {
        panic!("{}", bench.phase("k1"));
    };
    assert_eq!(last_sign, at(195));
}

#[test]
fn what_every_verifier_holds_is_not_forced() {
    let mut bench = Bench::with_standby();
    // Rule 1 allows it at 1130, and it would be active at once after 60 s.
    assert_eq!(bench.wish_to_force(1069), Ok(wish("k3")));
    assert_eq!(bench.wish_to_force(1070), Ok(None));
    let events = bench.force("k3", 1070).unwrap();
    assert_eq!(names(&events), ["activation-scheduled"]);
    assert!(!events[0].is_alone());
    bench.advance(1130);
    assert!(!bench.set.by_kid("k3").unwrap().forced);
    // Nobody can say so of what a silent origin shows.
    let mut bench = Bench::with_standby();
    bench.tick.live.clear();
    assert_eq!(bench.wish_to_force(5000), Ok(wish("k3")));
}

#[test]
fn one_can_go_back_or_hold_it() {
    let mut bench = Bench::with_standby();
    bench.force("k3", 100).unwrap();
    bench.hold("k3", 120);
    assert_eq!(bench.seat().switch, None);
    bench.run(&[160, 170]);
    assert_eq!(bench.signer(170), Ok("k1".to_owned()));
    // What was forced is over: the next time it waits again.
    bench.set.release("k3", &anna(), &bench.tick).unwrap();
    bench.run(&[180, 300]);
    assert_eq!(bench.signer(300), Ok("k1".to_owned()));

    let mut bench = Bench::rotated();
    bench.force("k4", 10_100).unwrap();
    bench.run(&[10_160]);
    bench.observe_all(10_161);
    bench.rollback("k3", 10_170).unwrap();
    assert_eq!(bench.signer(10_230), Ok("k3".to_owned()));
}

/// What is promised of the way back is what the order for it does.
#[test]
fn the_way_back_is_the_one_that_a_rollback_takes() {
    let way = |bench: &Bench, next: &str, s: i64| {
        let next = bench.set.by_kid(next).unwrap().id;
        let way = bench.set.way_back(next, at(s), &bench.plan, &bench.tick);
        way.map(|(before, way)| (bench.set.keys[&before].kid.clone().unwrap(), way))
    };
    // A key that every verifier holds: at once, until its half is gone.
    let mut bench = Bench::rotated();
    bench.force("k4", 10_100).unwrap();
    let (from, until) = (at(10_160), at(13_195));
    let open = ("k3".to_owned(), WayBack::Open { from, until });
    assert_eq!(way(&bench, "k4", 10_160), Some(open));
    bench.run(&[10_160, 13_194]);
    let mut late = bench.set.clone();
    bench.rollback("k3", 13_194).unwrap();
    bench.tick.now = until;
    late.advance(&bench.plan, &bench.tick, &mut || KeyId([9; 16]));
    let gone = late.rollback("k3", &anna(), &bench.plan, &bench.tick);
    assert!(matches!(gone, Err(OperatorError::DestructionBegun { .. })));

    // One that verifiers hold later, as it was seen just now.
    let mut bench = Bench::with_standby();
    bench.force("k3", 100).unwrap();
    let Some((_, WayBack::Open { from, .. })) = way(&bench, "k3", 160) else {
        panic!("{:?}", way(&bench, "k3", 160));
    };
    assert!(from > at(160), "{from}");
    bench.run(&[160]);
    bench.observe_all(161);
    bench
        .rollback("k1", from.as_secs() - at(0).as_secs())
        .unwrap();

    // Nobody knows when, where an origin does not show it.
    let mut bench = Bench::with_standby();
    bench.lose("a", 90);
    let Some((kid, WayBack::Unseen { origins, .. })) = way(&bench, "k3", 160) else {
        panic!("{:?}", way(&bench, "k3", 160));
    };
    assert_eq!((kid.as_str(), origins), ("k1", vec!["a".to_owned()]));
    // It is gone before verifiers hold it.
    let mut bench = Bench::with_standby();
    bench.plan.timing.rollback_window = Span::from_secs(1);
    assert_eq!(way(&bench, "k3", 160).unwrap().1, WayBack::TooLate);
    // Rule 5: the one that signs now was made before a revocation.
    let mut bench = Bench::rotated();
    bench.revoke("k3", None, 11_130).unwrap();
    bench.advance(11_130);
    bench.device(11_131);
    bench.force("k5", 11_140).unwrap();
    let (kid, refused) = way(&bench, "k5", 11_200).unwrap();
    assert_eq!(kid, "k4");
    let WayBack::Refused(why) = refused else {
        panic!("{refused:?}")
    };
    bench.run(&[11_200]);
    assert_eq!(bench.rollback("k4", 11_210), Err(why));
    // Nothing signs: there is nothing to go back to.
    let mut bench = Bench::with_standby();
    bench.revoke("k1", Some(Then::Wait), 100).unwrap();
    assert_eq!(way(&bench, "k3", 160), None);
}

#[test]
fn a_key_of_before_a_revocation_is_not_forced_in_front_of_one_that_signs() {
    let mut bench = Bench::rotated();
    // k4 is the standby; k1, which retires, is ended.
    bench.revoke("k1", None, 10_002).unwrap();
    let refused = bench.force("k4", 10_003);
    assert!(matches!(
        refused,
        Err(OperatorError::BeforeRevocation { .. })
    ));
    bench.advance(10_003);
    let none = OperatorError::NoStandby {
        algorithm: Algorithm::Ed25519,
    };
    assert_eq!(bench.wish_to_force(10_004), Err(none));
    // The one that was made for it is.
    bench.device(10_005);
    assert_eq!(bench.wish_to_force(10_006), Ok(wish("k5")));
    bench.force("k5", 10_006).unwrap();
    bench.run(&[10_066]);
    assert_eq!(bench.signer(10_066), Ok("k5".to_owned()));
}

#[test]
fn what_cannot_be_forced_is_refused() {
    let mut bench = Bench::rotated();
    for kid in ["k1", "k9"] {
        bench.tick.now = at(10_100);
        bench.attend();
        let before = bench.set.clone();
        let refused = bench.force(kid, 10_100).unwrap_err();
        assert!(
            matches!(
                refused,
                OperatorError::NotStandby { .. } | OperatorError::UnknownKid { .. }
            ),
            "{refused}"
        );
        assert_eq!(bench.set, before);
    }
    // While another change of the key is too near to be taken back.
    bench.rollback("k1", 11_130).unwrap();
    let near = OperatorError::SwitchNear { at: at(11_190) };
    assert_eq!(bench.force("k4", 11_161), Err(near));
    // Before that, the last order counts.
    bench.force("k4", 11_160).unwrap();
    bench.run(&[11_190, 11_220]);
    assert_eq!(bench.signer(11_220), Ok("k4".to_owned()));
    // What an operator holds is left alone, whichever of the two it is.
    for held in ["k1", "k3"] {
        let mut bench = Bench::with_standby();
        bench.hold(held, 90);
        let kid = held.to_owned();
        assert_eq!(bench.force("k3", 100), Err(OperatorError::Held { kid }));
    }
}

#[test]
fn where_nothing_signs_it_signs_at_once_or_when_it_is_made() {
    let mut bench = Bench::with_standby();
    bench.revoke("k1", Some(Then::Wait), 1000).unwrap();
    let again = Wish::Activate {
        kid: "k1".to_owned(),
    };
    assert_eq!(bench.wish_to_force(1010), Ok(Some(again.clone())));
    bench.tick.now = at(1010);
    let granted = bench.set.grant(&again, &anna(), &bench.plan, &bench.tick);
    let told = ["activation-forced", "activated"];
    assert_eq!(names(&granted.unwrap()), told);
    assert_eq!(bench.signer(1010), Ok("k3".to_owned()));
    // A track of which no key was ever active.
    let mut bench = Bench::with_standby();
    bench.plan.tracks.push((Algorithm::Es256, KeyType::P256));
    bench.run(&[100]);
    bench.device(101);
    bench.tick.now = at(102);
    let new = bench
        .set
        .wish_to_force(Algorithm::Es256, &bench.plan, &bench.tick);
    let Ok(Some(new)) = new else {
        panic!("{new:?}")
    };
    let events = bench.set.grant(&new, &anna(), &bench.plan, &bench.tick);
    assert_eq!(names(&events.unwrap()), told);
    assert!(bench.set.by_kid(new.about()).unwrap().forced);
}

#[test]
fn a_clock_that_is_confirmed_keeps_the_order() {
    let mut bench = Bench::with_standby();
    bench.force("k3", 100).unwrap();
    let events = bench
        .set
        .confirm_clock(at(110), at(110), &anna(), &bench.plan);
    assert!(!names(&events).contains(&"activation-cancelled"));
    assert!(bench.seat().switch.as_ref().unwrap().forced);
}

/// Found by the model: the key whose activation was fixed already left as one
/// that had signed, and whoever named it got tokens that no verifier knew.
#[test]
fn what_was_to_be_active_instead_hands_nothing_over() {
    let mut bench = Bench::with_standby();
    bench.revoke("k1", Some(Then::Wait), 1000).unwrap();
    bench.run(&[1001]);
    bench.device(1001);
    bench.run(&[1041]);
    assert_eq!(bench.seat().switch.as_ref().unwrap().at, at(1130));
    bench.force("k4", 1050).unwrap();
    bench.run(&[1050]);
    // It may be on its way out of caches: it stays in the set for a while.
    assert_eq!(bench.phase("k3"), "retiring");
    assert!(bench.published().contains(&"k3".to_owned()));
    let view = bench.view();
    let named = view.nameable(sure(1051)).unwrap();
    let named: Vec<&str> = named.iter().map(|key| key.kid.as_str()).collect();
    assert_eq!(named, ["k4"]);
}
