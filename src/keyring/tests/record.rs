//! The value itself: ids, outcomes, and its form in the store.

use super::*;

#[test]
fn an_id_that_is_taken_overwrites_nothing() {
    let mut bench = Bench::begun();
    let before = bench.set.clone();
    bench.tick.now = at(0);
    let events = bench
        .set
        .advance(&bench.plan, &bench.tick, &mut || KeyId([1; 16]));
    assert_eq!(events, []);
    assert_eq!(bench.set.keys, before.keys);

    // Taken once: drawn again.
    let mut drawn = [1, 2, 7].into_iter();
    let mut ids = || KeyId([drawn.next().unwrap(); 16]);
    bench.set.advance(&bench.plan, &bench.tick, &mut ids);
    assert!(bench.set.keys.contains_key(&KeyId([7; 16])));
}

#[test]
fn init_does_not_finish_without_its_keys() {
    let mut bench = Bench::pending();
    let (set, _) = KeySet::genesis("orders", &bench.plan, &bench.tick, &mut || KeyId([1; 16]));
    bench.set = set;
    bench.device(0);
    let ended = bench.set.finish_genesis(&bench.plan, at(0));
    assert_eq!(ended, Err(GenesisError::Unfinished(1)));
}

#[test]
fn an_outcome_must_fit_its_intent() {
    let mut bench = Bench::begun();
    bench.advance(0);
    let intent = *bench.set.intents.keys().next().unwrap();
    let before = bench.set.clone();
    let mut complete = |id, outcome| bench.set.complete(id, outcome, &bench.tick).unwrap_err();
    let unknown = IntentId(999);
    assert_eq!(
        complete(unknown, Outcome::Destroyed),
        UnexpectedOutcome::NoIntent(unknown)
    );
    assert_eq!(
        complete(intent, Outcome::Destroyed),
        UnexpectedOutcome::OtherTask(intent)
    );
    let known = |kid: &str| UnexpectedOutcome::KnownKid {
        kid: kid.to_owned(),
    };
    assert_eq!(complete(intent, made(1)), known("k1"));
    assert_eq!(complete(intent, made(2)), known("k2"), "the placeholder's");
    assert_eq!(bench.set, before, "an error changes nothing");
    // Twice is once.
    bench.set.complete(intent, made(3), &bench.tick).unwrap();
    let again = bench.set.complete(intent, made(3), &bench.tick);
    assert_eq!(again, Err(UnexpectedOutcome::NoIntent(intent)));
}

#[test]
fn a_revoked_key_is_not_made_again() {
    let mut bench = Bench::with_standby();
    bench.revoke("k3", None, 100).unwrap();
    bench.advance(100);
    // Even were the key itself forgotten.
    bench
        .set
        .keys
        .retain(|_, key| key.kid.as_deref() != Some("k3"));
    let mut intents = bench.set.intents.iter();
    let generate = intents.find(|(_, intent)| matches!(intent.task, Task::Generate { .. }));
    let id = *generate.unwrap().0;
    let again = bench.set.complete(id, made(3), &bench.tick);
    let kid = "k3".to_owned();
    assert_eq!(again, Err(UnexpectedOutcome::KnownKid { kid }));
}

/// Busy: a revocation, a hold, a switch ahead, intents, two tracks.
fn busy() -> KeySet {
    let mut bench = Bench::rotated();
    bench.plan.tracks.push((Algorithm::EdDsa, KeyType::Ed25519));
    bench.run(&[10_010]);
    bench.revoke("k1", None, 10_020).unwrap();
    bench.hold("k4", 10_021);
    bench.run(&[10_030]);
    bench.device(10_031);
    bench.observe_all(10_032);
    bench.run(&[11_100, 11_101]);
    assert!(bench.set.seats.values().any(|seat| seat.switch.is_some()));
    bench.set.clone()
}

#[test]
fn a_busy_record_reads_back_from_json() {
    let set = busy();
    let text = serde_json::to_string(&set).unwrap();
    let read: KeySet = serde_json::from_str(&text).unwrap();
    assert_eq!(read, set);
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        text,
        "stable to the byte"
    );
}

/// The first records said of a hold only that there is one, and of a revocation
/// not at whose wish it was.
#[test]
fn a_record_of_the_first_form_is_read() {
    let mut set = busy();
    let mut old = serde_json::to_value(&set).unwrap();
    for key in old["keys"].as_object_mut().unwrap().values_mut() {
        let key = key.as_object_mut().unwrap();
        let hold = key.remove("hold").unwrap();
        key.insert("held".to_owned(), (!hold.is_null()).into());
    }
    for revocation in old["revoked"].as_object_mut().unwrap().values_mut() {
        let revocation = revocation.as_object_mut().unwrap();
        revocation.remove("by").unwrap();
        revocation.remove("note").unwrap();
    }
    let unknown = Mandate::default();
    for key in set.keys.values_mut() {
        key.hold = key.hold.as_ref().map(|_| Hold {
            since: Time::default(),
            mandate: unknown.clone(),
        });
    }
    assert!(set.keys.values().any(Key::is_held));
    for revocation in set.revoked.values_mut() {
        revocation.mandate = unknown.clone();
    }
    let read: KeySet = serde_json::from_value(old).unwrap();
    assert_eq!(read, set);
}

#[test]
fn a_record_names_no_private_member() {
    fn members(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (name, value) in map {
                    found.insert(name.clone());
                    members(value, found);
                }
            }
            serde_json::Value::Array(list) => list.iter().for_each(|v| members(v, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    members(&serde_json::to_value(busy()).unwrap(), &mut found);
    assert!(found.contains("public"));
    // RFC 7518, sections 6.2.2, 6.3.2 and 6.4.
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert!(!found.contains(private), "{private}");
    }
}

#[test]
fn a_confirmed_clock_may_be_earlier_than_the_record() {
    let mut bench = Bench::with_standby();
    bench.run(&[5000]);
    let before = bench.set.clone();
    bench
        .set
        .confirm_clock(at(100), at(100), &anna(), &bench.plan);
    assert_eq!(bench.set.high_water, at(100));
    // Or the next start would doubt the clock again.
    assert!(bench.set.is_worth_storing(&before, &bench.plan));
    bench.run(&[200]);
    assert_eq!(bench.set.high_water, at(200));
}

#[test]
fn a_task_is_for_the_token_that_holds_the_key_and_a_new_key_for_the_latest() {
    let mut bench = Bench::with_standby();
    let device = bench.plan.device.clone();
    let ids: Vec<KeyId> = bench.set.keys.keys().copied().collect();
    let ask = |key: KeyId, destroy: bool| match destroy {
        true => Task::Destroy {
            key,
            device: device.clone(),
        },
        false => Task::Generate {
            key,
            device: device.clone(),
        },
    };
    // Of the first records it is not known.
    assert_eq!(bench.set.token_for(&ask(ids[0], true)), None);
    assert_eq!(bench.set.token_for(&ask(KeyId([9; 16]), false)), None);

    let published = bench.set.keys.values().filter(|key| key.is_published());
    let mut published: Vec<(Time, KeyId)> = published.map(|key| (key.created, key.id)).collect();
    published.sort();
    let [(_, old), (_, new)] = published[..] else {
        panic!("two keys: {published:?}");
    };
    for (id, token) in [(old, "A"), (new, "B")] {
        let key = bench.set.keys.get_mut(&id).unwrap();
        key.tokens.insert(device.clone(), token.to_owned());
    }
    assert_eq!(bench.set.token_for(&ask(old, true)), Some("A"));
    assert_eq!(bench.set.token_for(&ask(new, true)), Some("B"));
    assert_eq!(bench.set.token_for(&ask(KeyId([9; 16]), false)), Some("B"));
    // What is gone from a token says nothing of where the next belongs.
    let key = bench.set.keys.get_mut(&new).unwrap();
    key.placements.insert(device.clone(), Half::Destroyed);
    assert_eq!(bench.set.token_for(&ask(KeyId([9; 16]), false)), Some("A"));
}

#[test]
fn a_key_remembers_the_token_that_holds_it() {
    let mut bench = Bench::begun();
    bench.advance(0);
    let intent = *bench.set.intents.keys().next().unwrap();
    let Outcome::Generated { public, kid, .. } = made(3) else {
        panic!("a key");
    };
    let outcome = Outcome::Generated {
        public,
        kid: kid.clone(),
        token: Some("A".to_owned()),
    };
    bench.set.complete(intent, outcome, &bench.tick).unwrap();
    let key = bench.set.by_kid(&kid).unwrap();
    assert_eq!(key.tokens[&bench.plan.device], "A");
}
