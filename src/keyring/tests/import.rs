//! Keys of an older system beside those of the set.

use super::*;

fn shown(kid: &str, n: u8) -> PublishedKey {
    let Outcome::Generated { public, .. } = made(n) else {
        panic!("a key");
    };
    PublishedKey {
        kid: kid.to_owned(),
        algorithm: Algorithm::Ed25519,
        public,
    }
}

impl Bench {
    fn import(
        &mut self,
        keys: &[PublishedKey],
        until: i64,
        s: i64,
    ) -> Result<Vec<Event>, ImportError> {
        self.tick.now = at(s);
        let drawn = &mut self.drawn;
        let (plan, tick) = (&self.plan, &self.tick);
        (self.set).import(keys, at(until), &anna(), plan, tick, &mut || id(drawn))
    }
}

#[test]
fn they_verify_until_their_date_and_nothing_else_changes() {
    let mut bench = Bench::with_standby();
    let old = [shown("old-1", 101), shown("old-2", 102)];
    let events = bench.import(&old, 20_000, 100).unwrap();
    assert_eq!(names(&events), ["imported"; 2]);
    assert!(events.iter().all(|event| !event.is_alone()));
    assert_eq!(bench.published(), ["k1", "k3", "old-1", "old-2"]);
    // The standby is ours, rotation takes its time, no room is taken.
    bench.run(&[9910, 10_000]);
    bench.device(10_000);
    assert_eq!(bench.signer(10_001), Ok("k3".to_owned()));
    assert!(bench.published().contains(&"k4".to_owned()));
    // S after its last token, and not before.
    bench.advance_at(just_before(at(20_010)));
    assert!(bench.published().contains(&"old-1".to_owned()));
    bench.advance(20_010);
    assert!(!bench.published().contains(&"old-1".to_owned()));
}

#[test]
fn one_that_is_imported_never_signs() {
    let mut bench = Bench::with_standby();
    bench.import(&[shown("old", 101)], 40_000, 100).unwrap();
    bench.revoke("k3", None, 200).unwrap();
    bench.revoke("k1", Some(Then::Activate), 200).unwrap();
    for s in [201, 5000, 20_000, 30_000] {
        bench.observe_all(s);
        bench.advance(s);
        assert_ne!(bench.signer(s).ok().as_deref(), Some("old"));
    }
    assert!(bench.rollback("old", 30_000).is_err());
    assert!(bench.destroy("old", true, 30_000).is_err());
    bench.revoke("old", None, 30_000).unwrap();
    assert!(!bench.published().contains(&"old".to_owned()));
    let again = bench.import(&[shown("old", 101)], 40_000, 30_001);
    let kid = "old".to_owned();
    assert_eq!(again, Err(ImportError::Revoked { kid }));
    // Found by review: nor under another name.
    let renamed = bench.import(&[shown("partner", 101)], 40_000, 30_002);
    let kid = "partner".to_owned();
    assert_eq!(renamed, Err(ImportError::Revoked { kid }));
}

#[test]
fn all_or_none_and_never_for_a_key_of_ours() {
    let mut bench = Bench::with_standby();
    let before = bench.set.clone();
    let known = bench.import(&[shown("old", 101), shown("k1", 102)], 20_000, 100);
    let (kid, phase) = ("k1".to_owned(), "active");
    assert_eq!(known, Err(ImportError::Known { kid, phase }));
    let over = bench.import(&[shown("old", 101)], 100, 100);
    let (now, until) = (at(100), at(100));
    assert_eq!(over, Err(ImportError::Over { now, until }));
    assert_eq!(bench.set, before);
    // Again: more time, never less, and no other key under its kid.
    bench.import(&[shown("old", 101)], 20_000, 100).unwrap();
    assert_eq!(
        bench.import(&[shown("old", 101)], 10_000, 110),
        Ok(Vec::new())
    );
    let more = bench.import(&[shown("old", 101)], 30_000, 120).unwrap();
    assert_eq!(names(&more), ["imported"]);
    assert!(bench.import(&[shown("old", 102)], 50_000, 130).is_err());
    let mut pending = Bench::pending();
    let early = pending.import(&[shown("old", 101)], 20_000, 100);
    assert_eq!(early, Err(ImportError::NotBegun("orders".to_owned())));
}

/// The log alone brings it back, until its date.
#[test]
fn a_lost_record_does_not_end_them() {
    let mut bench = Bench::with_standby();
    let events = bench.import(&[shown("old", 101)], 90_000, 100).unwrap();
    let log = (1..).zip(&events).map(|(n, event)| Told::of(n, event));
    let witnesses = Witnesses {
        log: log.collect(),
        devices: [("hsm".to_owned(), Default::default())].into(),
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
    let key = set.by_kid("old").unwrap();
    assert!(key.is_published() && key.placements.is_empty(), "{key:?}");
    assert!(key.exp_ceiling >= Some(at(90_000)), "{key:?}");
}
