//! Two people: what one asks for, another one agrees to.

use std::process::{Command, Output};

use serde_json::Value;

use super::lab::{CALM, Lab, QUICK, wait_until};

/// Accounts of two people, and one of nobody.
const ANNA: u32 = 71_001;
const BEN: u32 = 71_002;
const NOBODY: u32 = 71_003;

/// A laboratory that other users may enter, with two people in it.
fn two_people(schedule: &str) -> Lab {
    let lab = Lab::new(schedule, &["ES256"]);
    lab.amend(
        "[serve]",
        &format!(
            "[person.anna]\nuid = [{ANNA}]\n[person.ben]\nuid = [{BEN}]\n[serve]\nadmin_socket_mode = \"0660\""
        ),
    );
    lab.amend(
        "device = \"softhsm\"\n",
        "device = \"softhsm\"\napprovals = 2\n",
    );
    lab.open_to_others();
    lab
}

/// Runs a command as another user.
fn run_as(lab: &Lab, uid: u32, args: &[&str]) -> Output {
    // In our own group, which the socket is for. The program is opened first:
    // the way to it may be closed to others.
    let drop =
        "exec 3<\"$0\"; exec setpriv --reuid \"$1\" --clear-groups -- /proc/self/fd/3 \"${@:2}\"";
    Command::new("bash")
        .args([
            "-c",
            drop,
            env!("CARGO_BIN_EXE_sealkeeper"),
            &uid.to_string(),
        ])
        .args(args)
        .env("SEALKEEPER_CONFIG", lab.path("sealkeeper.toml"))
        .output()
        .expect("the program under test")
}

/// Only root can be two people, one after the other.
fn can_be_others() -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        eprintln!("not tried: it takes root to come as other users");
    }
    root
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn pending(lab: &Lab) -> Vec<Value> {
    let listed = lab.ok(&["approvals", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    listed["pending"].as_array().expect("a list").clone()
}

fn kid_in(lab: &Lab, phase: &str) -> Option<String> {
    let keys = lab.keys().into_iter();
    let mut keys = keys.filter(|key| key["phase"] == phase);
    Some(keys.next()?["kid"].as_str()?.to_owned())
}

#[tokio::test]
async fn a_rollback_and_a_destruction_wait_for_a_second_person() {
    if !can_be_others() {
        return;
    }
    let lab = two_people(QUICK);
    lab.amend("rollback_window = \"1s\"", "rollback_window = \"1h\"");
    lab.amend("rotate_every = \"4s\"", "rotate_every = \"3h\"");
    lab.init();
    let mut daemon = lab.serve().await;
    wait_until(async || kid_in(&lab, "published").is_some()).await;
    let first = kid_in(&lab, "active").expect("an active key");
    // A rotation is routine, and takes one.
    let rotated = run_as(&lab, ANNA, &["keys", "rotate"]);
    assert!(rotated.status.success(), "{}", said(&rotated));
    wait_until(async || kid_in(&lab, "retiring").as_ref() == Some(&first)).await;

    // Whom the configuration does not name can be anybody twice.
    let asked = run_as(&lab, NOBODY, &["keys", "rollback", &first]);
    assert!(said(&asked).contains("NOT_A_PERSON"), "{}", said(&asked));
    let asked = run_as(&lab, ANNA, &["keys", "rollback", &first]);
    assert!(asked.status.success(), "{}", said(&asked));
    assert!(
        said(&asked).contains("approvals approve 1"),
        "{}",
        said(&asked)
    );
    let waits = pending(&lab);
    assert_eq!(waits.len(), 1);
    assert_eq!(waits[0]["wish"], "rollback");
    assert_eq!(waits[0]["person"], "anna");
    // The second person gives the same order: no second request.
    let asked = run_as(&lab, BEN, &["keys", "rollback", &first]);
    let told = said(&asked);
    assert!(told.contains("anna asked for it before"), "{told}");
    assert!(told.contains("approvals approve 1"), "{told}");
    assert_eq!(pending(&lab), waits);
    assert_eq!(kid_in(&lab, "retiring").as_ref(), Some(&first));

    // It is on record: a restart forgets no request.
    daemon.ask_to_stop();
    assert!(daemon.end().await.success());
    let _daemon = lab.serve().await;
    wait_until(async || lab.run(&["approvals", "list"]).status.success()).await;
    assert_eq!(pending(&lab), waits);

    for (uid, code) in [(ANNA, "SAME_PERSON"), (NOBODY, "NOT_A_PERSON")] {
        let agreed = run_as(&lab, uid, &["approvals", "approve", "1"]);
        assert_eq!(agreed.status.code(), Some(1), "{}", said(&agreed));
        assert!(said(&agreed).contains(code), "{}", said(&agreed));
    }
    let agreed = run_as(&lab, BEN, &["approvals", "approve", "1"]);
    assert!(agreed.status.success(), "{}", said(&agreed));
    assert!(!said(&agreed).contains("alone"), "{}", said(&agreed));
    wait_until(async || kid_in(&lab, "active").as_ref() == Some(&first)).await;
    let log = std::fs::read_to_string(lab.path("state/audit/keys.log")).expect("the log");
    let both = format!("unix:{ANNA} with unix:{BEN}");
    let line = log.lines().find(|line| line.contains("rollback-scheduled"));
    assert!(line.is_some_and(|line| line.contains(&both)), "{line:?}");

    // The other key retires now; to destroy it early takes two as well, and
    // anybody may take the wish off.
    wait_until(async || kid_in(&lab, "retiring").is_some()).await;
    let other = kid_in(&lab, "retiring").expect("a retiring key");
    let destroy = ["keys", "destroy", &other, "--end-rollback", "--yes"];
    wait_until(async || run_as(&lab, BEN, &destroy).status.success()).await;
    let number = pending(&lab)[0]["number"].to_string();
    let withdrawn = run_as(&lab, ANNA, &["approvals", "withdraw", &number]);
    assert!(withdrawn.status.success(), "{}", said(&withdrawn));
    assert_eq!(pending(&lab), Vec::<Value>::new());
    let held = lab.keys().into_iter().find(|key| key["kid"] == *other);
    assert_eq!(held.expect("the key")["private_half"], "present");
}

/// At 3 a.m. there is one person: the key is blocked and out of the set at
/// once. What waits is that another one signs before its time.
#[tokio::test]
async fn a_revocation_waits_for_nobody() {
    if !can_be_others() {
        return;
    }
    let lab = two_people(CALM);
    lab.init();
    let daemon = lab.serve().await;
    wait_until(async || kid_in(&lab, "published").is_some()).await;
    let kid = kid_in(&lab, "active").expect("an active key");
    let objects = lab.objects_in_token();
    let gone = || {
        let left = lab.objects_in_token();
        objects.keys().filter(|id| !left.contains_key(*id)).count()
    };
    let revoke = [
        "keys",
        "revoke",
        &kid,
        "--reason",
        "compromised",
        "--then",
        "activate",
    ];
    let revoked = run_as(&lab, ANNA, &revoke);
    assert!(revoked.status.success(), "{}", said(&revoked));
    assert!(
        said(&revoked).contains("approvals approve 1"),
        "{}",
        said(&revoked)
    );
    let set = daemon.jwks().await.expect("a set");
    assert!(!String::from_utf8_lossy(&set).contains(&kid));
    assert_eq!(kid_in(&lab, "active"), None);
    assert_eq!(pending(&lab)[0]["wish"], "activate");
    let agreed = run_as(&lab, BEN, &["approvals", "approve", "1"]);
    assert!(agreed.status.success(), "{}", said(&agreed));
    wait_until(async || kid_in(&lab, "active").is_some()).await;

    // Its private half waits for another person, and everybody says so.
    let asks = "`sealkeeper approvals approve 2 --key-set main`";
    assert!(said(&revoked).contains(asks), "{}", said(&revoked));
    assert!(said(&revoked).contains("is kept"), "{}", said(&revoked));
    assert_eq!(pending(&lab)[0]["wish"], "destroy");
    let half = || {
        let mut keys = lab.keys().into_iter();
        let key = keys.find(|key| key["kid"] == *kid).expect("the key");
        key["private_half"].clone()
    };
    assert_eq!((half(), gone()), ("present".into(), 0));
    let shown = lab.ok(&["keys", "show", &kid]);
    assert!(shown.contains("approvals approve 2"), "{shown}");
    let doctor = said(&lab.run(&["doctor"]));
    assert!(doctor.contains("of the revoked key"), "{doctor}");
    let same = run_as(&lab, ANNA, &["approvals", "approve", "2"]);
    assert!(said(&same).contains("SAME_PERSON"), "{}", said(&same));
    // Withdrawn, it is asked for again.
    lab.ok(&["approvals", "withdraw", "2"]);
    let shown = lab.ok(&["keys", "show", &kid]);
    assert!(shown.contains("keys destroy"), "{shown}");
    let asked = run_as(&lab, ANNA, &["keys", "destroy", &kid, "--yes"]);
    assert!(
        said(&asked).contains("approvals approve 3"),
        "{}",
        said(&asked)
    );
    let agreed = run_as(&lab, BEN, &["approvals", "approve", "3"]);
    assert!(agreed.status.success(), "{}", said(&agreed));
    wait_until(async || half() == "destroyed").await;
    assert_eq!(gone(), 1);

    // So with a whole device.
    let all = [
        "keys", "revoke", "--all", "--device", "softhsm", "--then", "activate",
    ];
    let revoked = run_as(&lab, BEN, &all);
    assert!(revoked.status.success(), "{}", said(&revoked));
    assert_eq!(kid_in(&lab, "active"), None);
    let waits = pending(&lab);
    let activate = waits.iter().find(|request| request["wish"] == "activate");
    let activate = activate.expect("a request");
    let number = activate["number"].to_string();
    // The revoked key is not the one that would sign.
    let about = activate["about"].as_str().expect("words");
    assert!(
        about.starts_with("the next ES256 key in place of "),
        "{about}"
    );
    assert!(about.ends_with(" (revoked)"), "{about}");
    assert_ne!(activate["would_sign"], Value::Null, "{activate}");
    assert!(
        said(&revoked).contains("the next ES256 key in place of"),
        "{}",
        said(&revoked)
    );
    let listed = lab.ok(&["approvals", "list"]);
    assert!(listed.contains("(revoked): now "), "{listed}");
    let destroys = waits.iter().filter(|request| request["wish"] == "destroy");
    assert!(destroys.count() >= 2, "{waits:?}");
    let agreed = run_as(&lab, ANNA, &["approvals", "approve", &number]);
    assert!(agreed.status.success(), "{}", said(&agreed));
    wait_until(async || kid_in(&lab, "active").is_some()).await;

    // Nobody in the configuration may end a key as well.
    let next = kid_in(&lab, "active").expect("an active key");
    let revoke = [
        "keys",
        "revoke",
        &next,
        "--reason",
        "compromised",
        "--then",
        "activate",
    ];
    let revoked = run_as(&lab, NOBODY, &revoke);
    assert!(revoked.status.success(), "{}", said(&revoked));
    let set = daemon.jwks().await.expect("a set");
    assert!(!String::from_utf8_lossy(&set).contains(&next));
    assert!(
        said(&revoked).contains("takes two people"),
        "{}",
        said(&revoked)
    );
    let waits = pending(&lab);
    let about = |request: &&Value| request["about"].to_string().contains(&next);
    let about = waits.iter().find(about);
    assert_eq!(about, None);
}

/// A rotation is one person's; one before its time is not.
#[tokio::test]
async fn a_forced_rotation_waits_for_a_second_person() {
    if !can_be_others() {
        return;
    }
    let schedule = format!("{CALM}adoption = \"500ms\"\n");
    let lab = two_people(&schedule);
    lab.init();
    let _daemon = lab.serve().await;
    wait_until(async || kid_in(&lab, "published").is_some()).await;
    let standby = kid_in(&lab, "published").expect("a standby");
    let first = kid_in(&lab, "active");
    let force = ["keys", "rotate", "--force", "--yes", "--note", "ticket 7"];
    let asked = run_as(&lab, NOBODY, &force);
    assert!(said(&asked).contains("NOT_A_PERSON"), "{}", said(&asked));
    let asked = run_as(&lab, ANNA, &force);
    assert!(asked.status.success(), "{}", said(&asked));
    let told = said(&asked);
    assert!(told.contains("approvals approve 1"), "{told}");
    assert!(
        told.contains(&format!("{standby} signs before its time")),
        "{told}"
    );
    let waits = pending(&lab);
    assert_eq!(waits[0]["wish"], "force");
    assert_eq!(waits[0]["about"], standby.as_str());
    let listed = lab.ok(&["approvals", "list"]);
    assert!(listed.contains("before its time"), "{listed}");
    let again = run_as(&lab, ANNA, &["approvals", "approve", "1"]);
    assert!(said(&again).contains("SAME_PERSON"), "{}", said(&again));
    assert_eq!(kid_in(&lab, "active"), first);

    let agreed = run_as(&lab, BEN, &["approvals", "approve", "1"]);
    assert!(agreed.status.success(), "{}", said(&agreed));
    assert!(said(&agreed).contains("(rule 1)"), "{}", said(&agreed));
    wait_until(async || kid_in(&lab, "active").as_ref() == Some(&standby)).await;
    let log = std::fs::read_to_string(lab.path("state/audit/keys.log")).expect("the log");
    let forced = log
        .lines()
        .find(|line| line.contains("\"activation-forced\""));
    let forced = forced.expect("it is on record");
    let names = [ANNA, BEN].map(|uid| format!("unix:{uid}"));
    assert!(names.iter().all(|name| forced.contains(name)), "{forced}");
}

/// Found by review: one person had a key sign before its time, by way of a
/// record made again.
#[tokio::test]
async fn a_record_made_again_activates_nothing_early_for_one_person() {
    let lab = two_people(CALM);
    lab.init();
    let database = lab.path("state/keys.sqlite");
    let lost = || {
        for tail in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{tail}", database.display()));
        }
    };
    lost();
    let early = lab.run(&["recover", "--write", "--then", "activate"]);
    assert_eq!(early.status.code(), Some(1));
    let told = said(&early);
    assert!(told.contains("takes two people"), "{told}");
    assert!(told.contains("asks for the second one"), "{told}");
    // On a record that is old, a revoked key may sign.
    let word = lab.run(&["recover", "--write", "--record-is-right"]);
    let told = String::from_utf8_lossy(&word.stderr).into_owned();
    assert_eq!(word.status.code(), Some(1), "{told}");
    assert!(
        told.contains("though it looks old, takes two people"),
        "{told}"
    );
    lab.ok(&["recover", "--write"]);
}
