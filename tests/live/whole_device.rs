//! Every key of a device ends: thought of, with the agent dead, and what a hold
//! keeps of one.

use serde_json::Value;

use super::bad_days::{active, at_work, shown, signs};
use super::lab::{CALM, Lab, ageless, wait_until};

fn json(lab: &Lab, args: &[&str]) -> Value {
    let told = lab.ok(&[args, &["--json"]].concat());
    serde_json::from_str(&told).expect("JSON")
}

fn all<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["keys", "revoke", "--all", "--device", "softhsm"], more].concat()
}

#[tokio::test]
async fn a_dry_run_of_a_whole_device_changes_nothing() {
    let (lab, daemon, before) = at_work().await;
    let list = || ageless(json(&lab, &["keys", "list", "--all"]));
    let listed = list();
    let objects = lab.objects_in_token();
    let dry = |then| all(&["--then", then, "--dry-run"]);

    let wait = lab.ok(&dry("wait"));
    let activate = lab.ok(&dry("activate"));
    for kid in &before {
        assert!(wait.contains(kid) && activate.contains(kid), "{wait}");
    }
    assert!(wait.contains("nothing was changed"), "{wait}");
    let price = "--then wait: nothing is signed in its track";
    assert!(wait.contains(price), "{wait}");
    assert!(!wait.contains("--then activate: for"), "{wait}");
    let price = "--then activate: for ";
    assert!(activate.contains(price), "{activate}");
    assert!(activate.contains("(rule 1)"), "{activate}");

    let told = json(&lab, &dry("wait"));
    assert_eq!(told["dry_run"], true);
    assert_eq!(told["device"], "softhsm");
    let keys = told["keys"].as_array().expect("keys");
    let mut kids: Vec<&str> = keys.iter().filter_map(|key| key["kid"].as_str()).collect();
    kids.sort_unstable();
    let mut expected: Vec<&str> = before.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(kids, expected);
    assert!(keys.iter().all(|key| key["impact"].is_object()), "{told}");

    assert_eq!(list(), listed);
    assert_eq!(shown(daemon.jwks().await), before);
    assert_eq!(lab.objects_in_token(), objects);
}

/// Found by use: the start made one key more than a track needs.
#[tokio::test]
async fn a_whole_device_ends_with_the_agent_dead() {
    // A forced activation lies twice as far ahead as agents take to hear of it.
    let lab = Lab::new(&format!("{CALM}\nadoption = \"200ms\""), &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let before = shown(daemon.jwks().await);
    let signing = active(&lab);
    daemon.kill();
    let objects = lab.objects_in_token();
    let ends = all(&["--offline", "--then", "activate"]);
    let dry = lab.ok(&[&ends[..], &["--dry-run"]].concat());
    assert!(dry.contains("nothing was changed"), "{dry}");

    let begun = || {
        let log = std::fs::read_to_string(lab.path("state/audit/keys.log")).expect("the log");
        log.matches("generation-begun").count()
    };
    let before_it = begun();
    assert!(before_it > 0);
    let told = json(&lab, &ends);
    // What is asked for before the end and made after it is no fresh key.
    assert_eq!(begun(), before_it, "no device can make one");
    let keys = told["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 2, "{told}");
    for key in keys {
        assert_eq!(key["error"], Value::Null, "{told}");
        assert!(key["pending"].to_string().contains("no agent runs"));
    }
    // Found by use: the standby ends first, while the record still has the
    // other one active, and "had nothing to do" was said of the order.
    assert!(!told.to_string().contains("had nothing to do"), "{told}");
    let counts = format!("counts at the end of {signing}, which signs no more");
    assert!(keys[0]["pending"].to_string().contains(&counts), "{told}");
    assert_eq!(lab.objects_in_token(), objects, "there is no device");

    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let now = shown(daemon.jwks().await);
    assert!(now.iter().all(|kid| !before.contains(kid)), "{now:?}");
    assert!(!before.contains(&active(&lab)));
    // One that signs and one that stands by, and of the others nothing is left.
    wait_until(async || {
        let left = lab.objects_in_token();
        left.len() == 2 && left.keys().all(|id| !objects.contains_key(id))
    })
    .await;
    let listing = json(&lab, &["keys", "list", "--all"]);
    let keys = listing["key_sets"][0]["keys"].as_array().expect("keys");
    let made = keys.iter().filter(|key| {
        let kid = key["kid"].as_str().unwrap_or_default();
        key["phase"] != "placeholder" && !before.iter().any(|old| old == kid)
    });
    assert_eq!(made.count(), 2, "{keys:#?}");
}

/// Found by review: nothing was ended, though the JWKS on disk names the keys.
#[tokio::test]
async fn a_whole_device_ends_though_the_record_is_lost() {
    for offline in [false, true] {
        let (lab, mut daemon, before) = at_work().await;
        daemon.kill();
        for file in ["keys.sqlite", "keys.sqlite-wal", "keys.sqlite-shm"] {
            let _ = std::fs::remove_file(lab.path("state").join(file));
        }
        let mut how = vec!["--then", "activate"];
        let daemon = match offline {
            true => {
                how.push("--offline");
                None
            }
            false => Some(lab.serve().await),
        };
        let mut sorted = before.clone();
        sorted.sort();
        let kids = |told: &Value| -> Vec<String> {
            let keys = told["keys"].as_array().expect("keys").iter();
            let mut kids: Vec<String> = keys
                .map(|key| key["kid"].as_str().expect("a kid").to_owned())
                .collect();
            kids.sort();
            kids
        };
        let dry = json(&lab, &[&all(&how)[..], &["--dry-run"]].concat());
        assert_eq!(kids(&dry), sorted, "{dry}");
        for key in dry["keys"].as_array().expect("keys") {
            assert!(
                key["notes"].to_string().contains("by the last JWKS"),
                "{dry}"
            );
            assert_eq!(key["impact"]["placeholder"], true, "{dry}");
        }
        let told = json(&lab, &all(&how));
        assert_eq!(kids(&told), sorted, "{told}");
        for key in told["keys"].as_array().expect("keys") {
            assert_eq!(
                (&key["error"], &key["durable"]),
                (&Value::Null, &true.into())
            );
            let pending = key["pending"].to_string();
            assert!(
                pending.contains("by the last JWKS") && pending.contains("is not known"),
                "{told}"
            );
        }
        let stones = std::fs::read_dir(lab.path("state/tombstones")).expect("tombstones");
        assert_eq!(stones.count(), before.len());
        let on_disk = std::fs::read_to_string(lab.path("state/jwks/main.jwks.json"));
        let on_disk = on_disk.expect("the last good set");
        assert!(before.iter().all(|kid| !on_disk.contains(kid)), "{on_disk}");
        if let Some(daemon) = &daemon {
            let now = shown(daemon.jwks().await);
            assert!(now.iter().all(|kid| !before.contains(kid)), "{now:?}");
        }
        // No placeholder is taken for a key.
        let again = lab.run(&all(&how));
        assert_eq!(again.status.code(), Some(1));
    }
}

#[tokio::test]
async fn the_half_of_a_held_key_is_kept_until_it_is_released() {
    let (lab, _daemon, _) = at_work().await;
    let kid = active(&lab);
    let objects = lab.objects_in_token();
    lab.ok(&["keys", "hold", &kid]);
    let told = lab.ok(&["keys", "revoke", &kid, "--then", "wait"]);
    let kept = format!("is kept until `sealkeeper keys release {kid}`");
    assert!(told.contains(&kept), "{told}");
    let half = || {
        let mut keys = lab.keys().into_iter();
        let key = keys.find(|key| key["kid"] == *kid).expect("the key");
        key["private_half"].clone()
    };
    // The next key is made; what was there is there.
    wait_until(async || lab.objects_in_token().len() == 3).await;
    let there = lab.objects_in_token();
    assert!(objects.keys().all(|id| there.contains_key(id)));
    assert_eq!(half(), "present");
    lab.ok(&["keys", "release", &kid]);
    wait_until(async || half() == "destroyed").await;
    let left = lab.objects_in_token();
    let gone = objects.keys().filter(|id| !left.contains_key(*id));
    assert_eq!(gone.count(), 1);
}
