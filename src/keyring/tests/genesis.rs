//! A beginning that is cut short, and goes on under another configuration.

use super::*;

/// What devices are asked: `generate hsm`, `destroy hsm`.
fn tasks(bench: &Bench) -> Vec<String> {
    let tasks = bench.set.intents.values().map(|intent| &intent.task);
    let words = tasks.map(|task| {
        let verb = match task {
            Task::Generate { .. } => "generate",
            Task::Destroy { .. } => "destroy",
        };
        format!("{verb} {}", task.device())
    });
    words.collect()
}

fn resume(bench: &mut Bench, s: i64) -> Vec<&'static str> {
    bench.tick.now = at(s);
    let mut ids = (100..).map(|n| KeyId([n; 16]));
    let mut draw = || ids.next().unwrap();
    names(
        &bench
            .set
            .resume_genesis(&bench.plan, &bench.tick, &mut draw),
    )
}

fn finish(bench: &mut Bench) -> Result<Vec<Event>, GenesisError> {
    bench.set.finish_genesis(&bench.plan, at(100))
}

#[test]
fn what_was_begun_is_not_begun_again() {
    for made in 0..3 {
        let mut bench = Bench::pending();
        for _ in 0..made {
            bench.device(0);
        }
        let before = bench.set.clone();
        assert_eq!(resume(&mut bench, 50), [""; 0]);
        assert_eq!(bench.set, before);
    }
    let mut bench = Bench::begun();
    bench.plan.tracks[0].0 = Algorithm::EdDsa;
    assert_eq!(resume(&mut bench, 50), [""; 0], "it has begun");
}

/// Found by review: `init` said that the set had begun, and nothing signed.
#[test]
fn it_begins_with_the_tracks_of_now() {
    let mut bench = Bench::pending();
    bench.device(0);
    bench.device(0);
    bench.plan.tracks[0].0 = Algorithm::EdDsa;
    assert_eq!(finish(&mut bench), Err(GenesisError::Unfinished(1)));
    let events = resume(&mut bench, 50);
    let given_up = ["removed", "destruction-begun", "removed"];
    assert_eq!(events[..3], given_up, "the key and the placeholder");
    assert_eq!(events[3..], ["generation-begun"; 2]);
    bench.device(60);
    bench.device(60);
    assert_eq!(names(&finish(&mut bench).unwrap()), ["activated"]);
    assert_eq!(bench.published(), ["k3"]);
    assert_eq!(bench.signer(100), Ok("k3".to_owned()));
    let placeholder = bench.set.placeholder.unwrap();
    assert_eq!(bench.set.keys[&placeholder].algorithm, Algorithm::EdDsa);

    let mut bench = Bench::pending();
    bench.device(0);
    bench.plan.tracks.push((Algorithm::EdDsa, KeyType::Ed25519));
    assert_eq!(resume(&mut bench, 50), ["generation-begun"]);
    bench.device(60);
    assert_eq!(names(&finish(&mut bench).unwrap()), ["activated"; 2]);
}

#[test]
fn it_begins_on_the_device_of_now() {
    let mut bench = Bench::pending();
    bench.plan.device = "new".to_owned();
    resume(&mut bench, 50);
    assert_eq!(
        tasks(&bench),
        ["destroy hsm", "destroy hsm", "generate new", "generate new"]
    );
    // The old device may never answer again.
    for (id, intent) in bench.set.intents.clone() {
        if intent.task.device() == "new" {
            bench.complete(id, &intent.task, 60);
        }
    }
    assert_eq!(finish(&mut bench), Err(GenesisError::Unfinished(1)));
    for (id, intent) in bench.set.intents.clone() {
        if intent.task.device() == "new" {
            bench.complete(id, &intent.task, 60);
        }
    }
    assert_eq!(names(&finish(&mut bench).unwrap()), ["activated"]);
    assert_eq!(tasks(&bench), ["destroy hsm", "destroy hsm"]);
}

#[test]
fn a_key_that_was_revoked_before_the_beginning_is_made_anew() {
    let mut bench = Bench::pending();
    bench.device(0);
    bench.device(0);
    bench.revoke("k1", None, 10).unwrap();
    assert_eq!(finish(&mut bench), Err(GenesisError::Unfinished(1)));
    assert_eq!(resume(&mut bench, 50), ["generation-begun"]);
    bench.device(60);
    finish(&mut bench).unwrap();
    assert_eq!(bench.signer(100), Ok("k3".to_owned()));
    assert_eq!(
        bench.seat().fresh_after,
        None,
        "it is younger than the order"
    );
}
