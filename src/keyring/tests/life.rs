//! What time brings about.

use super::*;

#[test]
fn only_init_activates_an_unobserved_key() {
    let mut bench = Bench::pending();
    let before = bench.set.clone();
    assert_eq!(bench.advance(100_000), [""; 0]);
    assert_eq!(bench.set, before, "a set that has not begun never advances");
    let finish = |bench: &mut Bench| bench.set.finish_genesis(&bench.plan, at(0));
    assert_eq!(finish(&mut bench), Err(GenesisError::Unfinished(2)));

    let made = bench.device(0);
    assert_eq!(made, ["published", "placeholder-made", "destruction-begun"]);
    assert_eq!(finish(&mut bench), Err(GenesisError::Unfinished(1)));
    assert_eq!(bench.device(0), ["destroyed"]);
    assert_eq!(bench.phase("k2"), "placeholder");
    assert_eq!(bench.half("k2"), Half::Destroyed);

    assert_eq!(names(&finish(&mut bench).unwrap()), ["activated"]);
    assert_eq!(bench.published(), ["k1"]);
    assert_eq!(bench.signer(0), Ok("k1".to_owned()));
    let again = finish(&mut bench);
    assert_eq!(again, Err(GenesisError::Done("orders".to_owned())));
}

#[test]
fn a_whole_rotation_to_the_millisecond() {
    let mut bench = Bench::begun();
    assert_eq!(bench.advance(0), ["generation-begun"]);
    assert_eq!(bench.device(5), ["published"]);
    assert_eq!(bench.observe("a", 10), [""; 0]);
    assert_eq!(bench.observe("b", 20), ["observed-everywhere"]);

    assert_eq!(bench.advance_at(just_before(at(9910))), [""; 0]);
    assert_eq!(bench.advance(9910), ["activation-scheduled"]);
    assert_eq!(bench.seat().switch.as_ref().unwrap().at, at(10_000));
    // Readers switch by themselves: nothing is written in between.
    let view = bench.view();
    let signer = |moment| view.signer(None, moment).unwrap().kid.clone();
    assert_eq!(signer(Moment::Sure(just_before(at(10_000)))), "k1");
    assert_eq!(signer(sure(10_000)), "k3");

    let events = bench.advance(10_000);
    assert_eq!(events, ["retiring", "activated", "generation-begun"]);
    assert_eq!(bench.device(10_000), ["published"]);
    bench.observe_all(10_001);

    // The private half goes first: R + Q + B after the switch.
    assert_eq!(bench.advance_at(just_before(at(13_035))), [""; 0]);
    assert_eq!(bench.half("k1"), Half::Present);
    assert_eq!(bench.advance(13_035), ["destruction-begun"]);
    assert_eq!(bench.half("k1"), Half::Destroying);
    assert_eq!(bench.device(13_036), ["destroyed"]);
    assert!(bench.published().contains(&"k1".to_owned()));
    // The public half follows when its last token is dead: + L + S.
    bench.advance_at(just_before(at(15_045)));
    assert_eq!(bench.published(), ["k3", "k1", "k4"]);
    assert_eq!(bench.advance(15_045), ["removed"]);
    assert_eq!(bench.published(), ["k3", "k4"]);
    assert_eq!(bench.phase("k1"), "retired");
}

#[test]
fn ten_rotations_by_deadline_alone() {
    let mut bench = Bench::with_standby();
    let mut activations = Vec::new();
    while bench.tick.now < at(100_500) {
        let deadline = bench.set.deadline(&bench.plan, &bench.tick);
        assert!(deadline > bench.tick.now);
        // Once what was adopted is on record, nothing happens before.
        bench.advance_at(bench.tick.now);
        let before = bench.set.clone();
        assert_eq!(bench.advance_at(just_before(deadline)), [""; 0]);
        bench.set.high_water = before.high_water;
        bench.set.looked.clone_from(&before.looked);
        assert_eq!(bench.set, before, "a step before the deadline");

        let events = bench.advance_at(deadline);
        if events.contains(&"activated") {
            activations.push(deadline);
        }
        let s = bench.tick.now.as_secs() - 1_000_000;
        bench.device(s);
        bench.observe_all(s);
        assert!(
            bench.published().len()
                <= rules::rule_6_set_size(bench.plan.timing.max_token_lifetime, &bench.plan.timing)
        );
    }
    let every_period: Vec<Time> = (1..=10).map(|n| at(n * 10_000)).collect();
    assert_eq!(activations, every_period);
    // Retired keys are remembered for a while.
    assert_eq!(bench.phase("k1"), "forgotten");
    assert_eq!(bench.phase("k3"), "retired");
}

#[test]
fn an_overdue_rotation_never_shortens_the_wait() {
    let mut bench = Bench::begun();
    bench.advance(0);
    bench.device(0);
    // Nobody looks at the origins for five periods.
    assert_eq!(bench.advance(50_000), [""; 0]);
    assert_eq!(bench.signer(50_000), Ok("k1".to_owned()));
    bench.observe_all(50_000);
    assert_eq!(bench.advance_at(just_before(at(51_020))), [""; 0]);
    assert_eq!(bench.advance(51_020), ["activation-scheduled"]);
    assert_eq!(bench.signer(51_109), Ok("k1".to_owned()));
    assert_eq!(bench.signer(51_110), Ok("k3".to_owned()));
}

#[test]
fn a_dead_origin_blocks_an_activation() {
    let mut bench = Bench::with_standby();
    bench.tick.live.remove("b");
    assert_eq!(bench.advance(20_000), [""; 0]);
    bench.tick.live.insert("b".to_owned());
    assert_eq!(bench.advance(20_001), ["activation-scheduled"]);
    // R for each replica to hear, and as much for the write itself.
    assert_eq!(bench.seat().switch.as_ref().unwrap().at, at(20_061));
}

#[test]
fn a_regression_starts_the_run_anew() {
    let mut bench = Bench::with_standby();
    // The active key's run ends too: a rollback to it would have to wait.
    assert_eq!(bench.lose("b", 9000), ["regressed", "regressed"]);
    assert_eq!(bench.advance(9910), [""; 0]);
    assert_eq!(bench.observe("b", 9950), ["observed-everywhere"]);
    assert_eq!(bench.advance_at(just_before(at(10_970))), [""; 0]);
    assert_eq!(bench.advance(10_970), ["activation-scheduled"]);
    assert_eq!(bench.seat().switch.as_ref().unwrap().at, at(11_060));
}

/// Whoever fetched while nobody looked may lack the key, though the origin
/// shows it before and after. P is 100 s, and so is the patience.
#[test]
fn a_run_that_nobody_watched_starts_anew() {
    let looked = |bench: &Bench, origin: &str| bench.set.looked.get(origin).copied();
    let mut bench = Bench::with_standby();
    bench.observe("a", 9800);
    bench.observe("b", 9800);
    // Not each look is on record, and none is missed by that.
    assert_eq!(bench.look("a", 9849), [""; 0]);
    assert_eq!(looked(&bench, "a"), Some(at(9800)));
    assert_eq!(bench.look("a", 9850), [""; 0]);
    assert_eq!(looked(&bench, "a"), Some(at(9850)));
    // As long as may be, and then longer.
    assert_eq!(bench.look("b", 9900), [""; 0]);
    assert_eq!(bench.look("a", 9905), [""; 0]);
    let gone = at(10_000) + Span::from_millis(1);
    let kids = bench.published().into_iter().collect();
    let events = bench.set.observe("b", &kids, gone, &bench.plan);
    assert_eq!(names(&events), ["unobserved"]);
    let what = What::Unobserved {
        origin: "b".to_owned(),
        since: at(9900),
    };
    assert_eq!(events[0].what, what);
    assert_eq!(bench.advance(10_005), [""; 0]);
    // P + C + S from there.
    let ready = gone + bench.plan.timing.pre_publish();
    assert_eq!(bench.advance(11_030), ["activation-scheduled"]);
    assert_eq!(bench.seat().switch.as_ref().unwrap().at, ready);
}

/// It shows what the record says, or nothing.
#[test]
fn an_agents_own_listener_is_not_watched() {
    let mut bench = Bench::with_standby();
    let own: BTreeSet<String> = [OWN_LISTENER.to_owned()].into();
    bench.plan.origins.clone_from(&own);
    bench.tick.live = own;
    bench.look(OWN_LISTENER, 30);
    assert_eq!(bench.look(OWN_LISTENER, 9900), [""; 0]);
    assert!(!bench.set.looked.contains_key(OWN_LISTENER));
    assert_eq!(bench.advance(9910), ["activation-scheduled"]);
}

#[test]
fn an_activation_is_taken_back_while_every_replica_can_hear() {
    let mut bench = Bench::with_standby();
    bench.advance(9910);
    bench.lose("a", 9960);
    assert_eq!(bench.advance(9970), ["activation-cancelled"]);
    assert_eq!(bench.signer(10_000), Ok("k1".to_owned()));

    let mut bench = Bench::with_standby();
    bench.advance(9910);
    bench.lose("a", 9960);
    assert_eq!(bench.advance_at(at(9970) + Span::from_millis(1)), [""; 0]);
    assert_eq!(bench.signer(10_000), Ok("k3".to_owned()));
}

/// Its run of sightings began anew: whoever fetched meanwhile lacks the key.
#[test]
fn an_activation_is_taken_back_though_the_origin_shows_the_key_again() {
    let mut bench = Bench::with_standby();
    bench.advance(9910);
    bench.lose("a", 9960);
    bench.observe("a", 9961);
    assert_eq!(bench.advance(9965), ["activation-cancelled"]);
    assert_eq!(bench.advance(10_981), ["activation-scheduled"]);
    assert_eq!(bench.seat().switch.as_ref().unwrap().at, at(11_071));
}

/// A reload may say that verifiers keep a set for longer than was thought.
#[test]
fn an_activation_is_taken_back_when_caches_turn_out_longer() {
    let mut bench = Bench::with_standby();
    bench.advance(9910);
    bench.plan.timing.verifier_cache = Span::from_secs(10_000);
    assert_eq!(bench.advance(9920), ["activation-cancelled"]);
    assert_eq!(bench.signer(10_000), Ok("k1".to_owned()));
}

/// Active since Monday 1970-01-12 13:46:40, due on Sunday 1970-02-01: on the
/// Thursday before at 02:00, which is 1,426,400 s later.
#[test]
fn a_window_is_kept_and_where_it_was_missed_the_key_grows_no_older() {
    let windowed = || {
        let mut bench = Bench::with_standby();
        bench.plan.timing.rotate_every = Span::from_days(20);
        bench.plan.timing.window = "Thu 02:00-05:00 UTC".parse().ok();
        bench
    };
    let switch = |bench: &Bench| bench.seat().switch.as_ref().map(|switch| switch.at);
    let mut bench = windowed();
    assert_eq!(bench.advance_at(just_before(at(1_426_310))), [""; 0]);
    assert_eq!(bench.advance(1_426_310), ["activation-scheduled"]);
    assert_eq!(switch(&bench), Some(at(1_426_400)));
    // Down until it is open.
    let mut bench = windowed();
    assert_eq!(bench.advance(1_430_000), ["activation-scheduled"]);
    assert_eq!(switch(&bench), Some(at(1_430_060)));
    // Down until it has closed: when the key is due.
    let mut bench = windowed();
    assert_eq!(bench.advance(1_437_200), [""; 0]);
    assert_eq!(bench.advance(20 * 86_400 - 90), ["activation-scheduled"]);
    assert_eq!(switch(&bench), Some(at(20 * 86_400)));
    // Down for longer: as soon as it is safe, whatever the hour.
    let mut bench = windowed();
    assert_eq!(bench.advance(21 * 86_400), ["activation-scheduled"]);
    assert_eq!(switch(&bench), Some(at(21 * 86_400 + 60)));
    // An operator does not wait for it.
    let mut bench = windowed();
    bench
        .set
        .rotate(Algorithm::Ed25519, &anna(), &bench.plan, &bench.tick)
        .unwrap();
    assert_eq!(bench.advance(5000), ["activation-scheduled"]);
}

#[test]
fn a_removal_makes_room_in_the_same_step() {
    let mut bench = Bench::rotated();
    // A third published key is one too many for these numbers.
    bench.hold("k4", 10_002);
    assert_eq!(
        rules::rule_6_set_size(bench.plan.timing.max_token_lifetime, &bench.plan.timing),
        3
    );
    bench.run(&[13_035]);
    let events = bench.advance(15_045);
    assert_eq!(events, ["removed", "generation-begun"]);
}

#[test]
fn a_half_lives_until_every_replica_has_left_it() {
    let mut bench = Bench::rotated();
    bench.tick.replica = "two".to_owned();
    bench.tick.now = at(10_000);
    bench.tick.adopted = 1;
    bench
        .set
        .advance(&bench.plan, &bench.tick, &mut || KeyId([99; 16]));
    bench.tick.replica = "one".to_owned();
    assert_eq!(bench.advance(14_000), [""; 0]);
    bench.tick.replica = "two".to_owned();
    assert_eq!(bench.advance(14_001), ["destruction-begun"]);
}

#[test]
fn ceilings_are_raised_before_they_are_needed() {
    let mut bench = Bench::begun();
    let ceiling = |bench: &Bench| bench.set.by_kid("k1").unwrap().exp_ceiling.unwrap();
    // L and half of the wait of rule 1.
    assert_eq!(ceiling(&bench), at(2555));
    bench.advance_at(at(277));
    assert_eq!(ceiling(&bench), at(2555));
    bench.advance_at(at(278));
    assert_eq!(ceiling(&bench), at(2833));
    // A longer lifetime raises it at once, a shorter one never lowers it.
    bench.plan.timing.max_token_lifetime = Span::from_secs(3000);
    bench.advance_at(at(279));
    assert_eq!(ceiling(&bench), at(3834));
    bench.plan.timing.max_token_lifetime = Span::from_secs(10);
    bench.advance_at(at(280));
    assert_eq!(ceiling(&bench), at(3834));
    assert_eq!(
        bench.set.by_kid("k1").unwrap().longest_lifetime,
        Span::from_secs(3000)
    );
}

#[test]
fn a_timestamp_on_its_own_is_worth_a_write_now_and_then() {
    let mut bench = Bench::with_standby();
    bench.run(&[100, 100]);
    let before = bench.set.clone();
    bench.set.high_water = at(6349);
    assert!(!bench.set.is_worth_storing(&before, &bench.plan));
    bench.set.high_water = at(6350);
    assert!(bench.set.is_worth_storing(&before, &bench.plan));
    let mut bench = Bench::with_standby();
    let before = bench.set.clone();
    bench.lose("a", 30);
    assert!(bench.set.is_worth_storing(&before, &bench.plan));
}

#[test]
fn an_agent_in_doubt_is_waited_for_too() {
    let mut bench = Bench::begun();
    assert!(bench.set.replicas.contains_key("one"), "init signs from it");
    // It reads the record, and says so without a step.
    let two = Tick {
        replica: "two".to_owned(),
        adopted: bench.set.epoch,
        ..bench.tick.clone()
    };
    let before = bench.set.clone();
    bench.set.join(&two);
    assert_eq!(bench.set.replicas["two"].confirmed, before.epoch);
    assert!(bench.set.is_worth_storing(&before, &bench.plan));
    bench.revoke("k1", Some(Then::Wait), 10).unwrap();
    bench.run(&[10, 11, 12]);
    assert_eq!(bench.half("k1"), Half::Present);
}

/// Found by the simulation: an answer that the store did not take counted as a
/// sign of life, while the run of sightings on record went back to before a gap
/// in which the origin had gone back.
#[test]
fn an_answer_that_is_not_on_record_has_nothing_activated() {
    let mut bench = Bench::with_standby();
    bench.run(&[9000]);
    // Nobody looks at `a` for longer than propagation; then it answers, and
    // that gets nowhere.
    bench.tick.now = at(9910);
    bench.set.looked.insert("b".to_owned(), at(9910));
    let step = |bench: &mut Bench| {
        let mut none = || panic!("no key is asked for");
        names(&bench.set.advance(&bench.plan, &bench.tick, &mut none))
    };
    assert_eq!(step(&mut bench), [""; 0]);
    // On record, the wait there begins anew.
    assert_eq!(bench.look("a", 9920), ["unobserved"]);
    bench.tick.now = at(9920);
    assert_eq!(step(&mut bench), [""; 0]);
    assert_eq!(bench.advance(9920 + 1110 - 90), ["activation-scheduled"]);
}
