//! Keys that another tool made, taken over with their `kid`.

use super::*;

fn adoption(kid: &str, n: u8) -> Adoption {
    let Outcome::Generated { public, .. } = made(n) else {
        panic!("a key");
    };
    Adoption {
        kid: kid.to_owned(),
        public,
        former_id: "01".to_owned(),
        label: "legacy".to_owned(),
        mandate: anna(),
    }
}

impl Bench {
    fn adopt(&mut self, adoption: &Adoption, s: i64) -> Result<(IntentId, Vec<Event>), AdoptError> {
        self.tick.now = at(s);
        let drawn = &mut self.drawn;
        let (plan, tick) = (&self.plan, &self.tick);
        (self.set).adopt(Algorithm::Ed25519, adoption, plan, tick, &mut || id(drawn))
    }

    fn taken_over(&mut self, intent: IntentId, adoption: &Adoption, s: i64) -> Vec<Event> {
        self.tick.now = at(s);
        let outcome = Outcome::Generated {
            public: adoption.public.clone(),
            kid: adoption.kid.clone(),
            token: None,
        };
        self.set.complete(intent, outcome, &self.tick).unwrap()
    }

    fn adopted(&mut self, kid: &str, s: i64) -> Vec<Event> {
        let adoption = adoption(kid, 101);
        let (intent, mut events) = self.adopt(&adoption, s).unwrap();
        events.extend(self.taken_over(intent, &adoption, s));
        events
    }
}

#[test]
fn it_is_published_first_and_is_next_by_rule_1() {
    let mut bench = Bench::with_standby();
    let (intent, begun) = bench.adopt(&adoption("legacy", 101), 9000).unwrap();
    assert_eq!(names(&begun), ["adoption-begun"]);
    assert_eq!(begun[0].mandate, Some(anna()));
    assert!(!begun[0].is_alone());
    assert_eq!(bench.published(), ["k1", "k3"]);
    let done = bench.taken_over(intent, &adoption("legacy", 101), 9000);
    assert_eq!(names(&done), ["adopted", "published"]);
    assert_eq!(done[0].mandate, Some(anna()));
    assert!(bench.published().contains(&"legacy".to_owned()));
    // Due at 10,000, when not every verifier can hold it: the one that is
    // ready waits for it, since it was adopted to be used.
    bench.observe_all(9010);
    bench.run(&[9910, 10_000]);
    assert_eq!(bench.signer(10_001), Ok("k1".to_owned()));
    // Seen everywhere since 9010, and rule 1 waits 1110 s.
    bench.run(&[10_031, 10_119]);
    assert_eq!(bench.signer(10_119), Ok("k1".to_owned()));
    bench.run(&[10_120]);
    assert_eq!(bench.signer(10_121), Ok("legacy".to_owned()));
    assert_eq!(bench.phase("k3"), "published");
    // As any other after that: it retires, and its half goes, and no other.
    bench.observe_all(10_200);
    bench.run(&[20_030, 20_120, 23_200]);
    assert_eq!(bench.signer(20_121), Ok("k3".to_owned()));
    assert_eq!(bench.half("legacy"), Half::Destroying);
    assert_eq!(bench.half("k3"), Half::Present);
}

#[test]
fn no_standby_is_made_or_taken_off_for_it() {
    let mut bench = Bench::with_standby();
    bench.adopted("legacy", 100);
    bench.observe_all(110);
    for s in [111, 1000, 5000, 9000] {
        assert!(bench.advance(s).is_empty());
    }
    assert_eq!(bench.published(), ["k1", "k3", "legacy"]);
}

#[test]
fn where_nothing_signs_the_key_that_is_ready_does_not_wait_for_it() {
    let mut bench = Bench::with_standby();
    bench.adopted("legacy", 8000);
    bench.revoke("k1", Some(Then::Activate), 8001).unwrap();
    bench.run(&[8002, 8100]);
    assert_eq!(bench.signer(8101), Ok("k3".to_owned()));
    // And it is never the fresh key that is owed, or comes after it.
    assert!(
        bench
            .set
            .owes_fresh(&bench.set.by_kid("k3").unwrap().seat())
    );
    let after = AdoptError::AfterCompromise {
        algorithm: Algorithm::Ed25519,
    };
    assert_eq!(bench.adopt(&adoption("other", 102), 8200), Err(after));
}

#[test]
fn what_is_known_or_was_revoked_is_refused() {
    let mut bench = Bench::with_standby();
    let before = bench.set.clone();
    let kid = "k1".to_owned();
    let phase = "active";
    assert_eq!(
        bench.adopt(&adoption("k1", 101), 100),
        Err(AdoptError::Known { kid, phase })
    );
    let kid = "k3".to_owned();
    let mut same = adoption("mine", 101);
    same.public = before.by_kid("k3").unwrap().public.clone().unwrap();
    assert_eq!(bench.adopt(&same, 100), Err(AdoptError::SameKey { kid }));
    assert_eq!(bench.set, before);
    // Twice, before the device has done it.
    let (intent, _) = bench.adopt(&adoption("legacy", 101), 100).unwrap();
    let kid = "legacy".to_owned();
    let phase = "generating";
    assert_eq!(
        bench.adopt(&adoption("legacy", 102), 101),
        Err(AdoptError::Known { kid, phase })
    );
    bench.taken_over(intent, &adoption("legacy", 101), 110);
    bench.revoke("legacy", None, 120).unwrap();
    let kid = "legacy".to_owned();
    assert_eq!(
        bench.adopt(&adoption("legacy", 102), 130),
        Err(AdoptError::Revoked { kid })
    );
    let mut pending = Bench::pending();
    assert_eq!(
        pending.adopt(&adoption("legacy", 101), 100),
        Err(AdoptError::NotBegun("orders".to_owned()))
    );
    let mut bench = Bench::with_standby();
    bench.plan.tracks = vec![(Algorithm::Es256, KeyType::P256)];
    let algorithm = Algorithm::Ed25519;
    assert_eq!(
        bench.adopt(&adoption("legacy", 101), 100),
        Err(AdoptError::NoTrack { algorithm })
    );
}

/// What the device refuses, or the configuration wants no more, leaves no
/// order to destroy what somebody else may sign with.
#[test]
fn one_that_is_given_up_is_left_as_it_was() {
    let mut bench = Bench::with_standby();
    let before = bench.set.clone();
    let (intent, _) = bench.adopt(&adoption("legacy", 101), 100).unwrap();
    let events = bench.set.give_up_adoption(intent, &bench.tick);
    assert_eq!(names(&events), ["generation-abandoned"]);
    assert_eq!(bench.set.keys, before.keys);
    assert!(bench.set.intents.is_empty());

    let (_, begun) = bench.adopt(&adoption("legacy", 101), 100).unwrap();
    let id = begun[0].key;
    bench.plan.tracks = vec![(Algorithm::Es256, KeyType::P256)];
    bench.advance(110);
    let mut tasks = bench.set.intents.values().map(|intent| &intent.task);
    assert!(!tasks.any(|task| task.key() == id));
    assert!(!bench.set.keys.contains_key(&id));
}

#[test]
fn the_device_must_show_the_key_that_was_meant() {
    let mut bench = Bench::with_standby();
    let (intent, _) = bench.adopt(&adoption("legacy", 101), 100).unwrap();
    let before = bench.set.clone();
    let Outcome::Generated { public, .. } = made(102) else {
        panic!("a key");
    };
    let kid = "legacy".to_owned();
    let outcome = Outcome::Generated {
        public,
        kid: kid.clone(),
        token: None,
    };
    let refused = bench.set.complete(intent, outcome, &bench.tick);
    assert_eq!(refused, Err(UnexpectedOutcome::OtherKey { kid }));
    assert_eq!(bench.set, before);
}

/// The log and the device bring it back, as what it was.
#[test]
fn a_lost_record_does_not_end_it() {
    let mut bench = Bench::with_standby();
    let events = bench.adopted("legacy", 100);
    let key = bench.set.by_kid("legacy").unwrap().clone();
    let log = (1..).zip(&events).map(|(n, event)| Told::of(n, event));
    let held = [(key.id, key.public.clone().unwrap())].into();
    let witnesses = Witnesses {
        log: log.collect(),
        devices: [("hsm".to_owned(), held)].into(),
        ..Witnesses::default()
    };
    let recovered = recover(
        "orders",
        &witnesses,
        Vouched::default(),
        &anna(),
        &bench.plan,
        &bench.tick,
        &mut || KeyId([0xee; 16]),
    );
    let set = recovered.unwrap().set;
    let again = set.by_kid("legacy").unwrap();
    assert_eq!((&again.phase, again.created), (&key.phase, key.created));
    assert_eq!(again.adopted, key.adopted);
    assert_eq!(again.placements, key.placements);
}
