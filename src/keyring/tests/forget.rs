//! The record stays small.

use super::*;

/// One period: the next key becomes active, the one before it goes its way.
fn period(bench: &mut Bench, s: i64) {
    bench.run(&[s - 90, s]);
    bench.device(s);
    bench.observe_all(s);
    bench.run(&[s + 3035]);
    bench.device(s + 3035);
    bench.run(&[s + 5045]);
}

fn bytes(bench: &Bench) -> usize {
    serde_json::to_vec(&bench.set).unwrap().len()
}

#[test]
fn the_record_does_not_grow_with_time() {
    let mut bench = Bench::with_standby();
    let mut sizes = Vec::new();
    for n in 1..=60 {
        period(&mut bench, n * 10_000);
        sizes.push(bytes(&bench));
        // Eight retired ones, the placeholder, who signs, the standby.
        assert!(bench.set.keys.len() <= 11, "{}", bench.set.keys.len());
    }
    assert_eq!(bench.phase("k1"), "forgotten");
    // Numbers get longer.
    assert!(sizes[59] <= sizes[19] + 50, "{sizes:?}");
}

#[test]
fn revoked_keys_are_forgotten_and_their_names_are_not() {
    let mut bench = Bench::with_standby();
    let mut sizes = Vec::new();
    for n in 1..=40 {
        let s = n * 10_000;
        period(&mut bench, s);
        let kid = bench.signer(s + 5045).unwrap();
        bench.revoke(&kid, Some(Then::Wait), s + 5050).unwrap();
        bench.run(&[s + 5050]);
        bench.device(s + 5050);
        bench.observe_all(s + 5051);
        bench.run(&[s + 6070, s + 6161]);
        sizes.push(bytes(&bench));
        assert!(bench.set.keys.len() <= 8 + 8 + 4, "at {n}");
    }
    assert_eq!(bench.set.revoked.len(), 40);
    let first = bench
        .set
        .revoked
        .keys()
        .find(|kid| bench.set.by_kid(kid).is_none());
    let first = first.expect("a revoked key that is forgotten").clone();
    assert!(bench.view().revoked.contains(&first));
    // What is left of each: its name, when, why, and by whom.
    let each = (sizes[39] - sizes[19]) / 20;
    assert!(each <= 150, "{each} bytes for each revocation: {sizes:?}");
    // Whoever asks once more is told what was told the first time.
    let before = bench.set.clone();
    let again = bench.revoke(&first, None, 500_000).unwrap();
    assert_eq!(again.events, []);
    assert_eq!(bench.set, before);
}

#[test]
fn a_key_is_not_forgotten_while_its_private_half_may_be_there() {
    let mut bench = Bench::with_standby();
    for n in 1..=12 {
        let s = n * 10_000;
        let kid = bench.signer(s).unwrap();
        bench.revoke(&kid, Some(Then::Wait), s).unwrap();
        // The device makes what it is asked for, and destroys nothing.
        bench.run(&[s]);
        bench.tick.now = at(s);
        for (id, intent) in bench.set.intents.clone() {
            if matches!(intent.task, Task::Generate { .. }) {
                bench.made += 1;
                let outcome = made(bench.made);
                bench.set.complete(id, outcome, &bench.tick).unwrap();
            }
        }
        bench.observe_all(s + 1);
        bench.run(&[s + 1021, s + 1111]);
    }
    let revoked = bench.set.keys.values();
    let revoked = revoked.filter(|key| matches!(key.phase, Phase::Revoked { .. }));
    assert_eq!(revoked.count(), 12);
}

#[test]
fn old_notes_are_left_to_the_log() {
    let mut bench = Bench::begun();
    for n in 0..100 {
        let revocation = Revocation {
            at: at(-n),
            reason: Reason::Superseded,
            mandate: anna(),
        };
        bench.set.revoked.insert(format!("old-{n}"), revocation);
    }
    bench.run(&[0]);
    let noted = |n: i64| {
        !bench.set.revoked[&format!("old-{n}")]
            .mandate
            .note
            .is_empty()
    };
    assert!((0..64).all(noted));
    assert!(!(64..100).any(noted));
    assert_eq!(bench.set.revoked["old-99"].mandate.by, "unix:7");
}
