//! A key set gets another name, another issuer, or loses its rules in the
//! configuration: the price is named before it is paid, and `init` does not
//! begin anew what verifiers know.

use std::fs;

use super::backup::{fails, lose_store};
use super::bad_days::{active, shown, signs};
use super::lab::{CALM, Lab};
use super::recover::{at_work, still_shows};

/// `main` becomes `orders`, and nothing else changes.
fn rename(lab: &Lab, from: &str, to: &str) {
    let path = lab.path("sealkeeper.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    let text = text.replace(&format!("key_set.{from}"), &format!("key_set.{to}"));
    fs::write(path, text).expect("the configuration");
}

fn said(lab: &Lab, args: &[&str]) -> String {
    let output = lab.run(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[tokio::test]
async fn a_key_set_that_was_renamed_is_not_begun_anew() {
    let (lab, mut daemon, before) = at_work(CALM).await;
    let signing = active(&lab);
    rename(&lab, "main", "orders");
    for command in [
        &["config", "diff"][..],
        &["config", "reload"],
        &["config", "check"],
    ] {
        let told = said(&lab, command);
        assert!(told.contains("key set main: it is "), "{command:?}: {told}");
        assert!(told.contains("`init`"), "{command:?}: {told}");
    }
    daemon.kill();

    let told = said(&lab, &["doctor"]);
    for line in [
        "warn  store main: is on record, and the configuration does not name it",
        "fail  store orders: has no record, and there is one of main",
        "[key_set.main]",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let objects = lab.objects_in_token();
    let lost = [false, true];
    for lost in lost {
        // Without a store the log remembers it.
        let kept = lab.path("kept.sqlite");
        let store = lab.path("state/keys.sqlite");
        if lost {
            fs::copy(&store, &kept).expect("a copy");
            lose_store(&lab);
        }
        let told = fails(&lab.run(&["init"]));
        assert!(told.contains("there is one of main"), "{told}");
        assert!(told.contains("[key_set.main]"), "{told}");
        assert!(told.contains("--not-renamed"), "{told}");
        assert_eq!(lab.objects_in_token(), objects, "no key was made");
        if lost {
            lose_store(&lab);
            fs::copy(&kept, &store).expect("it is back");
        }
    }

    rename(&lab, "orders", "main");
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert_eq!(active(&lab), signing);
    still_shows(&daemon, &before).await;
    daemon.kill();
    // Another one in its place, which was never this one.
    rename(&lab, "main", "orders");
    let told = lab.ok(&["init", "--not-renamed"]);
    assert!(told.contains("key set orders has begun"), "{told}");
    assert!(!said(&lab, &["doctor"]).contains("fail  store"), "it began");
}

#[tokio::test]
async fn what_another_issuer_and_no_rules_cost_is_said_before() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let daemon = lab.serve().await;
    assert!(!shown(daemon.jwks().await).is_empty());
    lab.amend("https://lab.example", "https://new.example");
    let told = said(&lab, &["config", "diff"]);
    for part in [
        "have the issuer \"https://new.example\"",
        "expects \"https://lab.example\" refuses them",
    ] {
        assert!(told.contains(part), "{told}");
    }
    lab.amend("https://new.example", "https://lab.example");
    let path = lab.path("sealkeeper.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    let (without, _) = text
        .split_once("[[key_set.main.rule]]")
        .expect("it has a rule");
    fs::write(&path, without).expect("the configuration");
    let told = said(&lab, &["config", "diff"]);
    assert!(told.contains("nobody may sign"), "{told}");
    assert!(!told.contains("have the issuer"), "{told}");
    fs::write(&path, text).expect("the configuration");
    let told = said(&lab, &["config", "diff"]);
    assert!(told.contains("is in force as it is"), "{told}");
}
