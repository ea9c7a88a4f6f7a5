//! Two people.

use super::*;
use crate::keyring::{MOST_REQUESTS, Wish};

const DAY: Span = Span::from_secs(86_400);

fn ben() -> Mandate {
    Mandate {
        by: "ben".to_owned(),
        note: String::new(),
    }
}

fn rollback() -> Wish {
    Wish::Rollback {
        kid: "k1".to_owned(),
    }
}

impl Bench {
    fn ask(&mut self, wish: &Wish, s: i64) -> Result<Option<u64>, OperatorError> {
        self.tick.now = at(s);
        let by = (&anna(), "anna");
        let asked = self.set.request(wish, by, DAY, &self.plan, &self.tick);
        asked.map(|(number, _)| number)
    }

    fn agree(&mut self, number: u64, by: &Mandate, s: i64) -> Result<Vec<Event>, OperatorError> {
        self.tick.now = at(s);
        let person = if *by == anna() { "anna" } else { "ben" };
        self.set
            .approve(number, (by, person), &self.plan, &self.tick)
    }
}

#[test]
fn a_second_person_agrees_and_it_is_done() {
    let mut bench = Bench::rotated();
    let before = bench.seat().clone();
    let number = bench.ask(&rollback(), 11_130).unwrap().unwrap();
    assert_eq!(*bench.seat(), before, "a wish changes nothing");
    let same = OperatorError::SamePerson {
        person: "anna".to_owned(),
    };
    assert_eq!(bench.agree(number, &anna(), 11_131), Err(same));
    // Found by review: the configuration gave the account another name.
    let by = (&anna(), "carl");
    let renamed = bench.set.approve(number, by, &bench.plan, &bench.tick);
    assert!(matches!(renamed, Err(OperatorError::SamePerson { .. })));
    let events = bench.agree(number, &ben(), 11_132).unwrap();
    assert_eq!(names(&events), ["approved", "rollback-scheduled"]);
    // In the name of who asked, with who agreed; nobody did it alone.
    let done = &events[1];
    assert_eq!(done.mandate.as_ref().unwrap().by, anna().by);
    assert_eq!(done.second.as_deref(), Some("ben"));
    assert!(!done.is_alone());
    assert!(bench.seat().switch.as_ref().unwrap().rollback);
    // Once.
    let gone = OperatorError::UnknownRequest { number };
    assert_eq!(bench.agree(number, &ben(), 11_133), Err(gone));
}

#[test]
fn what_nobody_agrees_to_in_time_is_forgotten() {
    let mut bench = Bench::rotated();
    bench.plan.timing.rollback_window = Span::from_days(9);
    let number = bench.ask(&rollback(), 11_130).unwrap().unwrap();
    let over = 11_130 + 86_400;
    // Before anybody has looked, too.
    let mut late = Bench {
        set: bench.set.clone(),
        ..Bench::rotated()
    };
    let gone = OperatorError::UnknownRequest { number };
    assert_eq!(late.agree(number, &ben(), over), Err(gone.clone()));
    bench.tick.now = at(over - 1);
    assert!(bench.set.deadline(&bench.plan, &bench.tick) <= at(over));
    let events = bench.advance(over);
    assert!(events.contains(&"request-expired"), "{events:?}");
    assert_eq!(bench.agree(number, &ben(), over), Err(gone));
}

#[test]
fn a_wish_is_held_against_the_rules_when_it_is_made_and_when_it_is_granted() {
    let mut bench = Bench::rotated();
    let wish = Wish::Rollback {
        kid: "k3".to_owned(),
    };
    assert!(matches!(
        bench.ask(&wish, 11_130),
        Err(OperatorError::NotRetiring { .. })
    ));
    let number = bench.ask(&rollback(), 11_130).unwrap().unwrap();
    bench.hold("k1", 11_131);
    let refused = bench.agree(number, &ben(), 11_132);
    assert!(matches!(refused, Err(OperatorError::Held { .. })));
    // It waits on.
    bench.set.release("k1", &anna(), &bench.tick).unwrap();
    bench.agree(number, &ben(), 11_133).unwrap();
}

#[test]
fn wishes_do_not_pile_up() {
    let mut bench = Bench::rotated();
    let first = bench.ask(&rollback(), 11_130).unwrap();
    assert_eq!(bench.ask(&rollback(), 11_131).unwrap(), first);
    let request = bench.set.requests[&first.unwrap()].clone();
    for number in 100..100 + MOST_REQUESTS as u64 {
        bench.set.requests.insert(number, request.clone());
    }
    bench.set.requests.remove(&first.unwrap());
    bench.set.requests.values_mut().for_each(|request| {
        request.wish = Wish::Destroy {
            kid: "k1".to_owned(),
            end_rollback: true,
        };
    });
    bench.tick.now = at(11_132);
    let by = (&ben(), "ben");
    let asked = bench
        .set
        .request(&rollback(), by, DAY, &bench.plan, &bench.tick);
    assert_eq!(asked.unwrap_err(), OperatorError::TooManyRequests);
    bench
        .set
        .withdraw_request(100, &ben(), &bench.plan, &bench.tick)
        .unwrap();
    let asked = bench
        .set
        .request(&rollback(), by, DAY, &bench.plan, &bench.tick);
    assert_eq!(names(&asked.unwrap().1), ["approval-requested"]);
}

/// Found by review: the second person asked once more, and each of the two
/// requests waited for the other's word.
#[test]
fn the_same_wish_of_another_person_is_the_same_request() {
    let mut bench = Bench::rotated();
    let first = bench.ask(&rollback(), 11_130).unwrap().unwrap();
    let by = (&ben(), "ben");
    let asked = bench
        .set
        .request(&rollback(), by, DAY, &bench.plan, &bench.tick);
    assert_eq!(asked.unwrap(), (Some(first), Vec::new()));
    assert_eq!(bench.set.requests.len(), 1);
    bench.agree(first, &ben(), 11_131).unwrap();
}

/// Nobody is asked for what is done, by another request or otherwise.
#[test]
fn a_wish_that_came_true_is_withdrawn() {
    let mut bench = Bench::rotated();
    let first = bench.ask(&rollback(), 11_130).unwrap().unwrap();
    let request = bench.set.requests[&first].clone();
    bench.set.requests.insert(77, request.clone());
    let events = bench.agree(first, &ben(), 11_131).unwrap();
    let expected = ["approved", "rollback-scheduled", "request-withdrawn"];
    assert_eq!(names(&events), expected);
    assert!(bench.set.requests.is_empty());
    bench.set.requests.insert(78, request);
    let events = bench.advance(11_132);
    assert!(events.contains(&"request-withdrawn"), "{events:?}");

    let mut bench = Bench::begun();
    bench.advance(0);
    bench.device(5);
    bench.revoke("k1", Some(Then::Wait), 10).unwrap();
    let wish = Wish::Activate {
        kid: "k1".to_owned(),
    };
    bench.ask(&wish, 11).unwrap().unwrap();
    assert!(!bench.advance(12).contains(&"request-withdrawn"));
    assert!(bench.set.would_sign(&wish).is_some());
    bench.revoke("k1", Some(Then::Activate), 13).unwrap();
    assert!(bench.advance(14).contains(&"request-withdrawn"));

    // By time: a standby that was to be forced, a half that was to be destroyed.
    let mut bench = Bench::with_standby();
    let force = Wish::Force {
        kid: "k3".to_owned(),
    };
    bench.ask(&force, 9000).unwrap().unwrap();
    bench.plan.two_people = true;
    assert!(!bench.advance(9001).contains(&"request-withdrawn"));
    assert!(bench.advance(9910).contains(&"request-withdrawn"));
    bench.run(&[10_000]);
    let destroy = Wish::Destroy {
        kid: "k1".to_owned(),
        end_rollback: true,
    };
    bench.ask(&destroy, 10_100).unwrap().unwrap();
    assert!(!bench.advance(10_101).contains(&"request-withdrawn"));
    let events = bench.advance(13_035);
    assert_eq!(events, ["destruction-begun", "request-withdrawn"]);
}

/// The next key before its time: asked for after the revocation, which waits
/// for nobody.
#[test]
fn a_forced_activation_takes_two() {
    let mut bench = Bench::begun();
    bench.advance(0);
    bench.device(5);
    bench.revoke("k1", Some(Then::Wait), 10).unwrap();
    let wish = Wish::Activate {
        kid: "k1".to_owned(),
    };
    let number = bench.ask(&wish, 11).unwrap().unwrap();
    assert_eq!(bench.seat().active, None);
    let events = bench.agree(number, &ben(), 12).unwrap();
    assert!(events.iter().all(|event| !event.is_alone()), "{events:?}");
    assert!(names(&events).contains(&"activated"), "{events:?}");
    // What nobody revoked leaves no place to fill.
    let other = Wish::Activate {
        kid: "k9".to_owned(),
    };
    assert!(matches!(
        bench.ask(&other, 13),
        Err(OperatorError::UnknownKid { .. })
    ));
}

/// Whom nobody waits for is for two to say as well.
#[test]
fn a_waiver_takes_two() {
    let mut bench = Bench::with_standby();
    let wish = Wish::Waive {
        origin: "b".to_owned(),
        span: DAY,
    };
    let number = bench.ask(&wish, 10).unwrap().unwrap();
    assert!(bench.set.waivers.is_empty());
    let events = bench.agree(number, &ben(), 11).unwrap();
    assert_eq!(names(&events), ["approved", "origin-waived"]);
    assert!(events.iter().all(|event| !event.is_alone()), "{events:?}");
    assert!(bench.set.waivers.contains_key("b"));
    let nowhere = Wish::Waive {
        origin: "c".to_owned(),
        span: DAY,
    };
    assert!(matches!(
        bench.ask(&nowhere, 12),
        Err(OperatorError::UnknownOrigin { .. })
    ));
}

/// Found by review: one person alone had the private half destroyed, by
/// revoking the key.
#[test]
fn the_private_half_of_a_revoked_key_waits_for_a_second_person() {
    let mut alone = Bench::with_standby();
    alone.revoke("k1", Some(Then::Activate), 2_000).unwrap();
    assert!(alone.advance(2_001).contains(&"destruction-begun"));

    let mut bench = Bench::with_standby();
    bench.plan.two_people = true;
    bench.revoke("k1", Some(Then::Activate), 2_000).unwrap();
    assert!(!bench.published().contains(&"k1".to_owned()));
    assert!(!bench.advance(2_001).contains(&"destruction-begun"));
    assert_eq!(bench.half("k1"), Half::Present);
    let wish = Wish::Destroy {
        kid: "k1".to_owned(),
        end_rollback: false,
    };
    // No agent has said yet that it signs no more with the key: that ends.
    let number = bench.ask(&wish, 2_001).unwrap().unwrap();
    assert_eq!(bench.set.asked_to_destroy("k1"), Some(number));
    bench.advance(2_002);
    let events = bench.agree(number, &ben(), 2_003).unwrap();
    assert_eq!(names(&events), ["approved", "destruction-begun"]);
    assert_eq!(events[1].second.as_deref(), Some("ben"));
    assert_eq!(bench.half("k1"), Half::Destroying);
}

#[test]
fn where_nobody_agrees_a_revoked_half_ends_as_if_the_key_had_retired() {
    let mut bench = Bench::with_standby();
    bench.plan.two_people = true;
    bench.revoke("k1", Some(Then::Activate), 2_000).unwrap();
    bench.advance(2_001);
    let timing = &bench.plan.timing;
    let over = rules::rule_4_destruction(rules::rule_2_last_use(at(2_000), timing), timing);
    let key = bench.set.by_kid("k1").unwrap();
    assert_eq!(bench.set.kept_for_second(key, &bench.plan), Some(over));
    assert_eq!(bench.set.outlook(key, &bench.plan).destroyed, Some(over));
    assert!(
        !bench
            .advance_at(just_before(over))
            .contains(&"destruction-begun")
    );
    assert!(bench.set.deadline(&bench.plan, &bench.tick) <= over);
    // Not while somebody holds it.
    let mut held = Bench {
        set: bench.set.clone(),
        plan: bench.plan.clone(),
        ..Bench::with_standby()
    };
    held.set
        .hold("k1", &anna(), &held.plan, &held.tick)
        .unwrap();
    assert!(!held.advance_at(over).contains(&"destruction-begun"));
    assert!(bench.advance_at(over).contains(&"destruction-begun"));
    // One person is enough again: nothing is waited for.
    let mut one = held;
    one.set.release("k1", &anna(), &one.tick).unwrap();
    one.tick.now = just_before(over);
    one.plan.two_people = false;
    assert!(
        one.advance_at(just_before(over))
            .contains(&"destruction-begun")
    );
}

/// A revocation gives no half a longer life than it had.
#[test]
fn a_retiring_half_ends_when_it_was_to_end() {
    let mut bench = Bench::rotated();
    bench.plan.two_people = true;
    let last_sign = match bench.set.by_kid("k1").unwrap().phase {
        Phase::Retiring { last_sign, .. } => last_sign,
        _ => panic!("expected a retiring key"),
    };
    // The record has both instants, each under a name of its own.
    let reads_back = |set: &KeySet| {
        let record = serde_json::to_vec(set).unwrap();
        assert_eq!(serde_json::from_slice::<KeySet>(&record).unwrap(), *set);
    };
    reads_back(&bench.set);
    let over = rules::rule_4_destruction(last_sign, &bench.plan.timing);
    bench.tick.now = just_before(over);
    bench
        .set
        .revoke("k1", &ending(None), &bench.plan, &bench.tick)
        .unwrap();
    assert!(
        !bench
            .advance_at(just_before(over))
            .contains(&"destruction-begun")
    );
    assert!(bench.advance_at(over).contains(&"destruction-begun"));
    reads_back(&bench.set);
}
