//! The end of the last key of a set.

use std::collections::BTreeMap;

use super::*;

fn only(kid: &str, then: Then) -> BTreeMap<String, Ending> {
    BTreeMap::from([(kid.to_owned(), ending(Some(then)))])
}

impl Bench {
    fn prepare(&mut self, kid: &str, s: i64) -> Result<(Replacement, Vec<Event>), NotReplaced> {
        self.tick.now = at(s);
        let drawn = &mut self.drawn;
        self.set
            .prepare_replacement(kid, &self.plan, &self.tick, &mut || id(drawn))
    }

    fn replace(
        &mut self,
        kid: &str,
        then: Then,
        replacement: Replacement,
        s: i64,
    ) -> Result<Revoked, NotReplaced> {
        self.tick.now = at(s);
        self.made += 1;
        let made = (replacement, made(self.made));
        self.set
            .replace_last(kid, &only(kid, then), made, &self.plan, &self.tick)
    }
}

#[test]
fn which_key_is_the_last() {
    let bench = Bench::begun();
    assert!(bench.set.is_last("k1"));
    assert!(!bench.set.is_last("k2"), "the placeholder");
    assert!(!bench.set.is_last("k9"), "no key of ours");
    let mut bench = Bench::with_standby();
    assert!(!bench.set.is_last("k1"), "there is a standby");
    bench.revoke("k1", Some(Then::Wait), 100).unwrap();
    assert!(!bench.set.is_last("k1"), "out of the set already");
    assert!(bench.set.is_last("k3"));
}

#[test]
fn a_fresh_key_enters_as_the_last_one_leaves() {
    let mut bench = Bench::begun();
    let before = bench.view();
    let (replacement, events) = bench.prepare("k1", 10).unwrap();
    assert_eq!(names(&events), ["generation-begun"]);
    assert_eq!(bench.view(), before, "nobody sees anything of it");
    let revoked = bench.replace("k1", Then::Wait, replacement, 12).unwrap();
    assert_eq!(names(&revoked.events), ["published", "revoked"]);
    assert_eq!(revoked.exposure.bounded_until, at(1112));
    assert_eq!(bench.published(), ["k3"]);
    assert!(bench.signer(12).is_err(), "the operator chose to wait");
    // It is the key that rule 5 asks for: no other one is made.
    assert_eq!(bench.advance(12), ["destruction-begun"]);
    bench.observe_all(20);
    bench.run(&[1040, 1130]);
    assert_eq!(bench.phase("k3"), "active");
    assert_eq!(bench.seat().fresh_after, None);
}

#[test]
fn a_fresh_key_signs_at_once_where_that_was_asked() {
    let mut bench = Bench::begun();
    let (replacement, _) = bench.prepare("k1", 10).unwrap();
    let revoked = bench
        .replace("k1", Then::Activate, replacement, 12)
        .unwrap();
    assert_eq!(
        names(&revoked.events),
        ["published", "revoked", "activation-forced", "activated"]
    );
    assert_eq!(bench.signer(12), Ok("k3".to_owned()));
    assert!(bench.set.by_kid("k3").unwrap().forced);
    assert_eq!(bench.seat().fresh_after, None);
}

/// It is shown as soon as it is there, and does not count as made after the
/// compromise.
#[test]
fn a_key_that_is_on_its_way_is_waited_for() {
    let mut bench = Bench::begun();
    bench.advance(0);
    let before = bench.set.clone();
    let (replacement, events) = bench.prepare("k1", 10).unwrap();
    assert_eq!((&bench.set, events), (&before, vec![]), "no second one");
    bench.replace("k1", Then::Wait, replacement, 12).unwrap();
    assert_eq!(bench.published(), ["k3"]);
    let events = bench.advance(12);
    assert_eq!(events, ["destruction-begun", "generation-begun"]);

    // One that another replica makes is not ours to wait for.
    let mut bench = Bench::begun();
    bench.advance(0);
    bench.tick.replica = "two".to_owned();
    let (_, events) = bench.prepare("k1", 10).unwrap();
    assert_eq!(names(&events), ["generation-begun"]);
}

#[test]
fn the_last_key_of_a_track_that_was_taken_off_is_replaced_in_another() {
    let mut bench = Bench::begun();
    bench.plan.tracks = vec![(Algorithm::EdDsa, KeyType::Ed25519)];
    let (replacement, _) = bench.prepare("k1", 10).unwrap();
    bench.replace("k1", Then::Wait, replacement, 12).unwrap();
    let algorithm = bench.set.by_kid("k3").unwrap().algorithm;
    assert_eq!(algorithm, Algorithm::EdDsa);
    assert_eq!(bench.published(), ["k3"]);
    bench.plan.tracks.clear();
    let none = bench.prepare("k3", 20).unwrap_err();
    assert_eq!(none, NotReplaced::NoneToMake("orders".to_owned()));
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut bench = Bench::begun();
    let (replacement, _) = bench.prepare("k1", 10).unwrap();
    let before = bench.set.clone();
    let unknown = bench.replace("k9", Then::Wait, replacement, 12);
    assert!(
        matches!(
            unknown,
            Err(NotReplaced::Refused(OperatorError::UnknownKid { .. }))
        ),
        "{unknown:?}"
    );
    let known = (replacement, made(1));
    let known = bench.set.replace_last(
        "k1",
        &only("k1", Then::Wait),
        known,
        &bench.plan,
        &bench.tick,
    );
    assert!(
        matches!(
            known,
            Err(NotReplaced::Unexpected(UnexpectedOutcome::KnownKid { .. }))
        ),
        "{known:?}"
    );
    assert_eq!(bench.set, before);
}

/// What a crash after the first step leaves: the revocation comes by itself,
/// and the key that was on its way with it.
#[test]
fn a_replacement_that_is_not_finished_is_no_harm() {
    let mut bench = Bench::begun();
    bench.prepare("k1", 10).unwrap();
    bench.revoke("k1", Some(Then::Wait), 11).unwrap();
    assert_eq!(bench.published(), ["k2"], "the placeholder");
    bench.device(12);
    assert_eq!(bench.published(), ["k3"]);
}

/// Ends the standby and then the active key, and has the next one forced, with
/// or without a replacement that was asked for and not made. Says how many
/// keys a start publishes at once.
fn all_ended(bench: &mut Bench, asked: bool) -> usize {
    bench.revoke("k3", Some(Then::Activate), 30).unwrap();
    if asked {
        bench.prepare("k1", 31).unwrap();
    }
    bench.revoke("k1", Some(Then::Activate), 32).unwrap();
    assert_eq!(bench.published(), ["k2"], "the placeholder");
    bench.advance(40);
    bench.device(41);
    bench.published().len()
}

#[test]
fn after_the_end_of_all_keys_a_seat_gets_one_and_then_its_standby() {
    let mut bench = Bench::with_standby();
    assert_eq!(all_ended(&mut bench, false), 1);
    bench.run(&[42, 42 + 60]);
    bench.device(103);
    assert_eq!(bench.published(), ["k4", "k5"]);
    assert_eq!(bench.signer(103), Ok("k4".to_owned()));
    bench.advance(104);
    bench.device(105);
    assert_eq!(bench.published().len(), 2, "and no more");
}

/// Why nobody asks for a replacement without a device to make it: one that was
/// not made in time is older than the revocation, by the record, and no fresh
/// key (rule 5). It is one too many.
#[test]
fn a_replacement_that_was_not_made_is_one_key_too_many() {
    let mut bench = Bench::with_standby();
    assert_eq!(all_ended(&mut bench, true), 2);
}
