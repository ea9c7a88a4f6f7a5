//! A compromised key: what its end breaks, and what is said of that before and
//! after.

use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use super::bad_days::{active, at_work};
use super::kills::stays_revoked;
use super::lab::{CALM, Daemon, Lab, ageless, kids, sign, wait_until};

/// Signs so many tokens, and says when the last of them expires.
async fn spend(daemon: &mut Daemon, count: usize) -> i64 {
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    let mut last = 0;
    for n in 0..count {
        let claims = format!("{{\"sub\": \"{n}\"}}");
        let signed = sign(&mut signer, "ES256", &claims).await;
        let expires = signed.expect("it signs").expires;
        last = expires.expect("each token expires").seconds.max(last);
    }
    last
}

fn json(lab: &Lab, args: &[&str]) -> Value {
    let told = lab.ok(&[args, &["--json"]].concat());
    serde_json::from_str(&told).expect("JSON")
}

#[tokio::test]
async fn a_dry_run_says_what_the_order_then_does() {
    let (lab, mut daemon, shown) = at_work().await;
    let kid = active(&lab);
    let standby = shown.iter().find(|shown| **shown != kid).expect("two keys");
    // One token was signed to see that it works.
    let last = spend(&mut daemon, 4).await;

    let list = || ageless(json(&lab, &["keys", "list"]));
    let before = list();
    let told = json(&lab, &["keys", "revoke", &kid, "--dry-run"]);
    assert_eq!(list(), before, "nothing was changed");
    spend(&mut daemon, 1).await;
    assert_eq!(told["dry_run"], true);
    let (impact, notes) = (&told["impact"], told["notes"].to_string());
    assert_eq!(
        (&impact["tokens"], &impact["log_gaps"]),
        (&5.into(), &Value::Array(vec![]))
    );
    let uid = std::fs::metadata(lab.path(".")).expect("our own").uid();
    assert_eq!(impact["callers"][0]["caller"], format!("unix:{uid}"));
    assert_eq!(impact["callers"][0]["tokens"], 5);
    let at = sealkeeper::time::Time::from_secs(last).to_string();
    assert_eq!(
        impact["latest_exp"].as_str().map(|at| &at[..19]),
        Some(&at[..19])
    );
    assert_eq!(impact["latest_exp_from_log"], true);
    assert_eq!(impact["jwks"], Value::from(vec![standby.clone()]));
    // The standby is new: nothing is safe to sign at once.
    assert_eq!(impact["signs"], Value::Null);
    assert_eq!(impact["next"]["kid"], standby.as_str());
    assert!(
        notes.contains("--then wait") && notes.contains("--then activate"),
        "{notes}"
    );
    assert!(impact["unbounded"]["fresh_expected"].is_string());
    let text = lab.ok(&["keys", "revoke", &kid, "--dry-run"]);
    for words in [
        "nothing was changed",
        "6 unexpired",
        "go-oidc, OpenBao",
        "bounded verifiers",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }

    let done = json(&lab, &["keys", "revoke", &kid, "--then", "wait"]);
    let after = &done["impact"];
    assert_eq!(after["tokens"], 6);
    for same in ["jwks", "signs", "placeholder", "callers"] {
        if same != "callers" {
            assert_eq!(after[same], impact[same], "{same}");
        }
    }
    assert_eq!(after["next"]["kid"], impact["next"]["kid"]);
    let pending = done["pending"].to_string();
    assert!(
        pending.contains("go-oidc") && pending.contains("expected to be active at"),
        "{pending}"
    );
    assert!(!daemon_shows(&daemon, &kid).await);
    // Once more: it was revoked before, and what it breaks is the same.
    let again = json(&lab, &["keys", "revoke", &kid, "--dry-run"]);
    assert_eq!(again["impact"]["tokens"], 6);
    assert!(again["notes"].to_string().contains("was revoked before"));
}

async fn daemon_shows(daemon: &Daemon, kid: &str) -> bool {
    super::bad_days::shown(daemon.jwks().await).contains(&kid.to_owned())
}

const MORE: &str = r#"
[key_set.more]
issuer = "https://more.example"
device = "softhsm"
rotate_every = "90d"
adoption = "200ms"
[[key_set.more.track]]
alg = "ES256"
[[key_set.more.rule]]
name = "me"
uid = [0]
operations = ["sign-jwt"]
"#;

/// The ids in the set that verifiers get of a key set.
fn published(lab: &Lab, key_set: &str) -> Vec<String> {
    kids(lab.ok(&["jwks", "--key-set", key_set]).as_bytes())
}

#[tokio::test]
async fn every_key_of_a_device_ends_with_one_command() {
    // A forced activation lies twice as far ahead as agents take to hear of it.
    let calm = format!("{CALM}\nadoption = \"200ms\"");
    let lab = Lab::new(&calm, &["ES256", "RS256"]);
    lab.amend("[key_set.main]", &format!("{MORE}\n[key_set.main]"));
    lab.init();
    let mut daemon = lab.serve().await;
    let sets = ["main", "more"];
    wait_until(async || sets.map(|set| published(&lab, set).len()) == [4, 2]).await;
    let before: Vec<String> = sets.iter().flat_map(|set| published(&lab, set)).collect();
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    sign(&mut signer, "ES256", "{}").await.expect("it signs");

    let all = |device| {
        let words = ["keys", "revoke", "--all", "--device", device];
        let how = ["--reason", "compromised", "--then", "activate"];
        [&words[..], &how[..]].concat()
    };
    let unknown = lab.run(&all("nosuch"));
    assert_eq!(unknown.status.code(), Some(1));
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(said.contains("one of: softhsm"), "{said}");

    let told = json(&lab, &all("softhsm"));
    let keys = told["keys"].as_array().expect("keys");
    let ended: Vec<&str> = keys.iter().filter_map(|key| key["kid"].as_str()).collect();
    let mut expected: Vec<&str> = before.iter().map(String::as_str).collect();
    let mut sorted = ended.clone();
    expected.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    let tokens: u64 = keys
        .iter()
        .filter_map(|key| key["impact"]["tokens"].as_u64())
        .sum();
    assert_eq!(tokens, 1, "{told}");
    assert_eq!(told["still_made_there"], Value::from(sets.to_vec()));
    // Whatever stands in a set now was made after that, and soon signs.
    for set in sets {
        let shown = published(&lab, set);
        assert!(
            !shown.is_empty() && shown.iter().all(|kid| !before.contains(kid)),
            "{set}"
        );
    }
    wait_until(async || {
        let signed = sign(&mut signer, "ES256", "{}").await;
        signed.is_ok_and(|signed| !before.contains(&signed.kid))
    })
    .await;
    // The private halves go, too.
    wait_until(async || {
        let listing = json(&lab, &["keys", "list", "--all"]);
        let sets = listing["key_sets"].as_array().expect("key sets").iter();
        let mut keys = sets.flat_map(|set| set["keys"].as_array().expect("keys"));
        let gone = |key: &Value| key["private_half"] == "destroyed" && key["phase"] == "revoked";
        before
            .iter()
            .all(|kid| keys.clone().any(|key| key["kid"] == kid.as_str()))
            && keys.all(|key| !before.iter().any(|kid| key["kid"] == kid.as_str()) || gone(key))
    })
    .await;
}

fn revoke_offline(lab: &Lab, kid: &str) -> std::process::Output {
    let words = ["keys", "revoke", kid, "--offline", "--then", "activate"];
    lab.run(
        &[
            &words[..],
            &["--reason", "compromised", "--note", "ticket 12"],
        ]
        .concat(),
    )
}

/// Found by review: of the last key it said that nothing signs, and that
/// verifiers get the placeholder.
#[tokio::test]
async fn a_dry_run_of_the_last_key_says_what_takes_its_place() {
    // A forced activation lies twice as far ahead as agents take to hear of it.
    let lab = Lab::new(&format!("{CALM}\nadoption = \"200ms\""), &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    super::bad_days::signs(&mut daemon).await;
    wait_until(async || published(&lab, "main").len() == 2).await;
    let both = published(&lab, "main");
    for then in ["activate", "wait"] {
        let ends = [
            "keys", "revoke", "--all", "--device", "softhsm", "--then", then,
        ];
        let told = json(&lab, &[&ends[..], &["--dry-run"]].concat());
        for key in told["keys"].as_array().expect("keys") {
            let impact = &key["impact"];
            assert_eq!(impact["fresh_enters"], true, "{told}");
            assert_eq!(impact["placeholder"], false, "{told}");
            assert_eq!(impact["unbounded"]["fresh_active"], then == "activate");
            assert_eq!(impact["next"]["at"].is_string(), then == "wait", "{told}");
        }
    }
    let ends = [
        "keys", "revoke", "--all", "--device", "softhsm", "--then", "activate",
    ];
    let text = lab.ok(&[&ends[..], &["--dry-run"]].concat());
    assert!(
        text.contains("signs:   a key that is made in the same change"),
        "{text}"
    );
    assert!(
        text.contains("jwks:    a key that is made in the same change"),
        "{text}"
    );
    // And so it is.
    json(&lab, &ends);
    let now = published(&lab, "main");
    assert!(
        !now.is_empty() && now.iter().all(|kid| !both.contains(kid)),
        "{now:?}"
    );
    wait_until(async || lab.keys().iter().any(|key| key["phase"] == "active")).await;
}

/// Found by review: a whole id is of one key set, and who it is of was asked.
#[tokio::test]
async fn a_whole_id_says_which_key_set_is_meant() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.amend("[key_set.main]", &format!("{MORE}\n[key_set.main]"));
    lab.init();
    let mut daemon = lab.serve().await;
    wait_until(async || published(&lab, "more").len() == 2).await;
    let ids = published(&lab, "more");
    let dry = lab.ok(&["keys", "revoke", &ids[0], "--dry-run"]);
    assert!(dry.contains("nothing was changed"), "{dry}");
    lab.ok(&["keys", "revoke", &ids[0], "--then", "wait"]);
    assert!(!published(&lab, "more").contains(&ids[0]));
    // One that has left the set, too; a start of an id may be of any.
    let again = lab.ok(&["keys", "revoke", &ids[0], "--then", "wait"]);
    assert!(again.contains("was revoked before"), "{again}");
    let start = lab.run(&["keys", "revoke", &ids[1][..8], "--then", "wait"]);
    assert_eq!(start.status.code(), Some(2), "{start:?}");
    daemon.kill();
    lab.ok(&["keys", "revoke", &ids[1], "--then", "wait", "--offline"]);
}

/// The set that is on disk, for a start without a store or a file server.
fn on_disk(lab: &Lab) -> Vec<String> {
    let set = std::fs::read(lab.path("state/jwks/main.jwks.json"));
    kids(&set.expect("the last good set"))
}

#[tokio::test]
async fn a_key_is_revoked_with_the_agent_dead() {
    let (lab, mut daemon, shown) = at_work().await;
    let kid = active(&lab);
    let beside = revoke_offline(&lab, &kid);
    assert_eq!(beside.status.code(), Some(1));
    let said = String::from_utf8_lossy(&beside.stderr);
    assert!(
        said.contains("an agent is running") && said.contains("leave out --offline"),
        "{said}"
    );
    assert_eq!(active(&lab), kid, "nothing was changed");
    daemon.kill();

    let dry = lab.ok(&["keys", "revoke", &kid[..8], "--offline", "--dry-run"]);
    assert!(
        dry.contains("nothing was changed") && dry.contains("1 unexpired"),
        "{dry}"
    );
    assert!(on_disk(&lab).contains(&kid));
    let no_such = lab.run(&["keys", "revoke", "nonsense", "--offline"]);
    assert!(String::from_utf8_lossy(&no_such.stderr).contains("no key has the id"));

    let done = revoke_offline(&lab, &kid);
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert!(
        told.contains("was revoked (compromised) and has left the set"),
        "{told}"
    );
    assert!(told.contains("no agent runs"), "{told}");
    let left: Vec<String> = shown.into_iter().filter(|shown| *shown != kid).collect();
    assert_eq!(on_disk(&lab), left);

    let mut daemon = lab.serve().await;
    stays_revoked(&lab, &mut daemon, &kid).await;
    let key = lab
        .keys()
        .into_iter()
        .find(|key| key["kid"] == kid.as_str());
    let revocation = key.expect("it is listed")["revocation"].clone();
    assert_eq!(revocation["reason"], "compromised");
    assert_eq!(revocation["note"], "ticket 12");
    let uid = std::fs::metadata(lab.path(".")).expect("our own").uid();
    assert_eq!(revocation["by"], format!("unix:{uid}"));
}

/// What the store cannot take, the tombstone and the set on disk have.
#[tokio::test]
async fn a_key_is_revoked_with_the_agent_dead_and_the_store_gone() {
    let (lab, mut daemon, _) = at_work().await;
    let kid = active(&lab);
    daemon.kill();
    let database = lab.path("state/keys.sqlite");
    let files = ["keys.sqlite", "keys.sqlite-wal", "keys.sqlite-shm"];
    let whole = files.map(|file| {
        let path = lab.path("state").join(file);
        let bytes = std::fs::read(&path).ok();
        let _ = std::fs::remove_file(&path);
        (path, bytes)
    });
    std::fs::write(&database, vec![0x5a; 8192]).expect("damage");
    let done = revoke_offline(&lab, &kid);
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert!(told.contains("is blocked and has left the set"), "{told}");
    assert!(told.contains("the store, which cannot be read"), "{told}");
    assert!(!on_disk(&lab).contains(&kid));
    let stones = std::fs::read_dir(lab.path("state/tombstones")).expect("tombstones");
    assert_eq!(stones.count(), 1);
    // A start without a store serves what is left; with it again, the record
    // has it too.
    let mut daemon = lab.serve().await;
    assert!(!daemon_shows(&daemon, &kid).await);
    daemon.kill();
    for (path, bytes) in whole {
        let _ = std::fs::remove_file(&path);
        if let Some(bytes) = bytes {
            std::fs::write(path, bytes).expect("the copy");
        }
    }
    let mut daemon = lab.serve().await;
    stays_revoked(&lab, &mut daemon, &kid).await;
}
