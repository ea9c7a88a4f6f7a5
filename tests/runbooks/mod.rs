//! `docs/runbooks.md`: each command in it is executed, in order, beside a
//! real daemon on a real token, in the state that its runbook is about
//! (`places.rs`). It must end as the document says and show what it shows.
//!
//! What the document says of a machine is put in the place of the laboratory:
//!
//! - `/etc/sealkeeper`, `/var/lib/sealkeeper`, `/var/lib/softhsm/tokens` and
//!   `/var/backups/sealkeeper` are folders of the laboratory;
//! - `KID` is the key that the runbook is about, `STANDBY` the next one after
//!   it, as the runbook begins; an id that a table cuts short is whole;
//! - `TOKEN` is the label of the token;
//! - `systemctl stop|start|restart|reload sealkeeper` is about the daemon of
//!   the laboratory, `journalctl -u sealkeeper` its log, and `systemd-run`
//!   runs the command without a unit;
//! - `watch COMMAND` runs it until it shows what is below it.

mod document;
mod places;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::Instant;

use crate::live::lab::{PATIENCE, wait_until};
use document::{Document, Does, Runbook, Step, compare};
use places::Place;

macro_rules! runbooks {
    ($($name:ident: $title:literal;)*) => {
        /// Each runbook for which there is a place.
        const TITLES: &[&str] = &[$($title),*];

        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            follow($title, places::$name().await).await;
        })*
    };
}

runbooks! {
    revoke: "A key is compromised";
    revoke_without_standby: "No standby is ready";
    revoke_offline: "The agent does not run";
    revoke_device: "A whole device is compromised";
    restore: "There is a backup";
    recover: "There is no backup, or it is refused";
    old_folder: "The whole folder is old";
    origin_lags: "An origin holds it up";
    rotate_early: "It cannot wait for verifiers";
    rollback: "It was done, and verifiers refuse tokens";
    device_away: "It can be brought back";
    device_lost: "It is gone for good";
    rotate: "Routine rotation";
    algorithm: "Algorithm change";
    pin_change: "PIN change";
    pin_refused: "The token refused the PIN";
    clock: "Doubted clock";
    full_disk: "Full disk";
    stolen_certificate: "Stolen caller certificate";
    migrate: "Device migration";
}

#[test]
fn each_runbook_has_a_place_and_each_place_a_runbook() {
    let document = Document::read();
    let titles = document.titles();
    let places: BTreeSet<&str> = TITLES.iter().copied().collect();
    assert_eq!(titles.iter().copied().collect::<BTreeSet<_>>(), places);
    assert_eq!(titles.len(), places.len(), "a title that is there twice");
}

/// A command in a sentence is one of those that are executed, or its start.
#[test]
fn each_command_in_a_sentence_is_executed_too() {
    let document = Document::read();
    let commands = document.commands();
    for mentioned in document.mentioned() {
        let executed = |command: &&str| command.contains(mentioned);
        assert!(
            commands.iter().any(executed),
            "{mentioned:?} is not executed"
        );
    }
}

/// What lies where the unit does not make it is made with the machine.
#[test]
fn each_folder_is_made_by_the_set_up() {
    let text = fs::read_to_string("hsm-config/systemd/tmpfiles.conf").expect("the file");
    let made = text.lines().filter_map(|line| line.strip_prefix("d "));
    let made: BTreeSet<_> = (made.filter_map(|line| line.split(' ').next())).collect();
    for (folder, _) in places::FOLDERS {
        // The unit's own, and the token's.
        let others = ["/var/lib/sealkeeper", "/var/lib/softhsm/tokens"];
        let known = others.contains(folder) || made.contains(folder);
        assert!(known, "nothing makes {folder}");
    }
}

/// The table at the top leads to every part, and nowhere else.
#[test]
fn the_table_leads_to_every_part() {
    let document = Document::read();
    let anchor = |title: &str| title.to_lowercase().replace(' ', "-").replace(',', "");
    let headings = document.text.lines().filter(|line| line.starts_with("##"));
    let anchors: BTreeSet<String> = headings
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect();
    let links = document.text.split("](#").skip(1);
    let linked: BTreeSet<String> = links
        .filter_map(|link| link.split_once(')'))
        .map(|(link, _)| link.to_owned())
        .collect();
    let unknown: Vec<_> = linked.difference(&anchors).collect();
    assert!(unknown.is_empty(), "no such heading: {unknown:?}");
    for title in TITLES {
        assert!(
            linked.contains(&anchor(title)),
            "nothing leads to {title:?}"
        );
    }
}

/// Follows a runbook to its end.
async fn follow(title: &str, place: impl Into<Option<Place>>) {
    let Some(mut place) = place.into() else {
        return;
    };
    let document = Document::read();
    let mut runbooks = document.runbooks.iter();
    let runbook = runbooks.find(|runbook| runbook.title == title);
    let Runbook { steps, .. } = runbook.unwrap_or_else(|| panic!("no runbook {title:?}"));
    tools(&place);
    for step in steps {
        let Step { line, does } = step;
        match does {
            Does::Run {
                command,
                shown,
                exit,
            } => {
                let shown: Vec<String> = shown.iter().map(|line| place.here(line)).collect();
                let command = place.here(command);
                eprintln!("line {line}: {command}");
                let done = execute(&document, &mut place, &command, &shown, *exit).await;
                let log = place.lab.log();
                done.unwrap_or_else(|why| {
                    panic!("docs/runbooks.md:{line}: {command}\n{why}\n{log}")
                });
            }
            Does::Edit { file, old, new } => {
                let path = place.here(file);
                let text = fs::read_to_string(&path).expect("the file");
                let (old, new) = (place.here(old), place.here(new));
                let found = text.matches(&*old).count();
                assert_eq!(found, 1, "docs/runbooks.md:{line}: {old}\nin\n{text}");
                fs::write(&path, text.replace(&*old, &new)).expect("the file");
            }
        }
    }
}

/// Runs a command, until it does what it should where one is to watch it.
async fn execute(
    document: &Document,
    place: &mut Place,
    command: &str,
    shown: &[String],
    exit: i32,
) -> Result<(), String> {
    if let Some(verb) = command.strip_prefix("systemctl ") {
        let verb = verb.strip_suffix(" sealkeeper");
        return service(place, verb.unwrap_or_default()).await;
    }
    let (watched, command) = match command.strip_prefix("watch ") {
        Some(command) => (true, command),
        None => (false, command),
    };
    let mut outcome = Ok(());
    let began = Instant::now();
    wait_until(async || {
        outcome = once(document, place, command, shown, exit);
        // It gives up before the waiting does, and says what was seen.
        outcome.is_ok() || !watched || began.elapsed() > PATIENCE / 2
    })
    .await;
    outcome
}

fn once(
    document: &Document,
    place: &Place,
    command: &str,
    shown: &[String],
    exit: i32,
) -> Result<(), String> {
    let lab = &place.lab;
    let path = std::env::var("PATH").unwrap_or_default();
    let definitions = place.here(&document.definitions);
    let script = format!("exec 2>&1\n{definitions}\n{command}");
    let (first, more) = match lab.starter.split_first() {
        Some((first, more)) => (first.as_str(), [more, &["sh".to_owned()]].concat()),
        None => ("sh", Vec::new()),
    };
    let output = Command::new(first)
        .args(more)
        .args(["-c", &script])
        .current_dir(lab.path("."))
        .env("PATH", format!("{}:{path}", lab.path("bin").display()))
        .env("SEALKEEPER_CONFIG", lab.path("sealkeeper.toml"))
        .output()
        .expect("sh");
    let text = place.whole_ids(&String::from_utf8_lossy(&output.stdout));
    let code = output.status.code();
    if code != Some(exit) {
        return Err(format!("expected exit code {exit}, got {code:?}\n{text}"));
    }
    compare(shown, &text).map_err(|why| format!("{why}\nin\n{text}"))
}

/// What a service manager does.
async fn service(place: &mut Place, verb: &str) -> Result<(), String> {
    let stop = matches!(verb, "stop" | "restart");
    let start = matches!(verb, "start" | "restart");
    if verb == "reload" {
        place.daemon.as_ref().ok_or("it does not run")?.hang_up();
    } else if !stop && !start {
        return Err("expected systemctl stop|start|restart|reload sealkeeper".to_owned());
    }
    if stop && let Some(mut daemon) = place.daemon.take() {
        daemon.ask_to_stop();
        daemon.end().await;
    }
    if start {
        place.daemon = Some(place.lab.serve().await);
    }
    Ok(())
}

/// The programs that a command finds before the machine's own.
fn tools(place: &Place) {
    let bin = place.lab.path("bin");
    fs::create_dir(&bin).expect("a folder");
    symlink(env!("CARGO_BIN_EXE_sealkeeper"), bin.join("sealkeeper")).expect("a link");
    let log = place.lab.path("agent.log");
    let journal = format!(
        "[ \"$*\" = '-u sealkeeper' ] && exec cat '{}'",
        log.display()
    );
    let unit = "while [ \"${1#-}\" != \"$1\" ]; do shift; done; exec \"$@\"";
    for (name, script) in [("journalctl", &*journal), ("systemd-run", unit)] {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
}

#[test]
fn what_is_not_shown_is_found() {
    let text = "```console\n# a \\\n  b\none ... 3\n...\nlast\n[exit code 1]\n# c\n```\n";
    let document = Document::parse(&format!("## Title\n{text}"));
    assert_eq!(document.titles(), ["Title"]);
    assert_eq!(
        document.commands().into_iter().collect::<Vec<_>>(),
        ["a \\\n  b", "c"]
    );
    let Does::Run { shown, exit, .. } = &document.runbooks[0].steps[0].does else {
        panic!("a command");
    };
    assert_eq!(*exit, 1);
    for good in ["one  2 3\nlast\n", "one 2 3\nmore\nlast"] {
        compare(shown, good).expect("it fits");
    }
    for bad in [
        "",
        "one 2 3",
        "one 2\nlast",
        "0\none 2 3\nlast",
        "one 2 3\nlast\nmore",
    ] {
        compare(shown, bad).expect_err(bad);
    }
    compare(&[], "whatever").expect("it does not matter");
}
