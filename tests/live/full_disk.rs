//! A disk that is really full, under the whole program: a small file system in
//! a mount namespace of its own holds the agent's state, and a filler takes
//! what room it has left.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::bad_days::{active, refused, shown, signs};
use super::figures::{figure, scrape};
use super::kills::{healthy, stays_revoked};
use super::lab::{Daemon, Lab, wait_until};

/// The log of key events, in the agent's state directory.
const KEY_EVENTS: &str = "audit/keys.log";

/// A file system of its own, in memory, in a mount namespace that a process of
/// ours keeps alive: nobody else sees it, and it goes with that process.
pub(crate) struct SmallDisk {
    holder: Child,
    /// Whether we are somebody else, root, in there.
    as_root: bool,
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts it; none where this machine is said to have no namespaces.
    fn mounted(at: &Path, size: &str) -> Option<Self> {
        if std::env::var_os("SEALKEEPER_NO_NAMESPACES").is_some_and(|v| v == "1") {
            return None;
        }
        fs::create_dir(at).expect("the mount point");
        let mut why = Vec::new();
        for as_root in [false, true] {
            match Self::try_mount(at, size, as_root) {
                Ok(disk) => return Some(disk),
                Err(e) => why.push(e),
            }
        }
        panic!(
            "no mount namespace, neither as we are nor as root of a user namespace: {why:?}\n\
             hint: run the tests as root, allow unprivileged user namespaces \
             (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns), \
             or say SEALKEEPER_NO_NAMESPACES=1, and this is not tested"
        );
    }

    fn try_mount(at: &Path, size: &str, as_root: bool) -> Result<Self, String> {
        let script = r#"mount -t tmpfs -o size=$2,mode=0700 none "$1" && echo mounted && exec cat"#;
        let user: &[&str] = match as_root {
            true => &["--user", "--map-root-user"],
            false => &[],
        };
        let mut holder = Command::new("unshare")
            .arg("--mount")
            .args(user)
            .args(["--", "sh", "-c", script, "sh"])
            .arg(at)
            .arg(size)
            // It ends when this end of the pipe closes, however we end.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut said = String::new();
        let _ = BufReader::new(holder.stdout.as_mut().expect("a pipe")).read_line(&mut said);
        if said == "mounted\n" {
            let at = at.to_owned();
            return Ok(Self {
                holder,
                as_root,
                at,
            });
        }
        let ended = holder.wait_with_output().map_err(|e| e.to_string())?;
        Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned())
    }

    /// What starts a program where this file system is seen.
    fn starter(&self) -> Vec<String> {
        let mut starter = format!("nsenter --target {} --mount", self.holder.id());
        if self.as_root {
            starter += " --user --preserve-credentials";
        }
        starter += " --";
        starter.split(' ').map(str::to_owned).collect()
    }

    /// A file on it, as seen from here.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.at.strip_prefix("/").expect("an absolute path"))
            .join(name)
    }

    /// Takes all the room that there is.
    pub(crate) fn fill(&self) {
        let filler = self.path("filler");
        let mut filler = OpenOptions::new()
            .append(true)
            .create(true)
            .open(filler)
            .expect("a filler");
        for size in [64 << 10, 1] {
            let bytes = vec![0; size];
            let full = loop {
                if let Err(e) = filler.write_all(&bytes) {
                    break e;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
    }

    /// Gives it back.
    fn make_room(&self) {
        fs::remove_file(self.path("filler")).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn lab() -> Option<(Lab, SmallDisk)> {
    // The agent's state fits, and its database's log several times.
    lab_on("4m")
}

/// A laboratory whose agent keeps its state on a small disk.
pub(crate) fn lab_on(size: &str) -> Option<(Lab, SmallDisk)> {
    let mut lab = Lab::new(ORDERS_ONLY, &["ES256"]);
    let disk = SmallDisk::mounted(&lab.path("state"), size)?;
    if disk.as_root {
        // Who calls from outside is root in there, as its only user.
        let path = lab.path("sealkeeper.toml");
        let text = fs::read_to_string(&path).expect("the configuration");
        let uid = fs::metadata(&path).expect("the configuration").uid();
        let text = text.replace(&format!("uid = [{uid}]"), "uid = [0]");
        fs::write(&path, text).expect("the configuration");
    }
    lab.starter = disk.starter();
    Some((lab, disk))
}

/// How often each key event of the key set stands in the log.
fn key_events(disk: &SmallDisk) -> BTreeMap<u64, usize> {
    let text = fs::read_to_string(disk.path(KEY_EVENTS)).expect("the log");
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of the log");
        let number = line["number"]
            .as_u64()
            .unwrap_or_else(|| panic!("no number: {line}"));
        *counts.entry(number).or_default() += 1;
    }
    counts
}

fn once_each(events: &BTreeMap<u64, usize>) {
    let wanted = (1..=events.len() as u64)
        .map(|number| (number, 1))
        .collect();
    assert_eq!(*events, wanted);
}

/// What an operator reads, both streams.
fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Nothing happens by itself while a test runs, and what an operator orders
/// happens within seconds.
const ORDERS_ONLY: &str = r#"
rotate_every = "90d"
verifier_cache = "1s"
propagation = "300ms"
skew = "200ms"
adoption = "200ms"
signing_deadline = "1s"
max_age = "1s"
"#;

#[tokio::test]
async fn a_full_disk_stops_signing_and_loses_nothing() {
    let Some((lab, disk)) = lab() else { return };
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    // One that signs and one that stands by.
    wait_until(async || {
        lab.keys()
            .iter()
            .filter(|key| !key["observed"].is_null())
            .count()
            == 2
    })
    .await;
    let before = shown(daemon.jwks().await);

    // Twice: the first refusal gives some room back.
    disk.fill();
    refused(&mut daemon, &["DISK_FULL"]).await;
    disk.fill();
    let said = refused(&mut daemon, &["DISK_FULL"]).await;
    assert!(said.contains("make room"), "{said}");
    // It does not pass by itself, and what may go is said.
    disk.fill();
    let signed = lab.run(&["sign", "{}"]);
    assert_eq!(signed.status.code(), Some(1), "{signed:?}");
    let signed = told(&signed);
    assert!(signed.contains("(DISK_FULL)"), "{signed}");
    assert!(signed.contains("trying again does not mend it"), "{signed}");
    let found = told(&lab.run(&["doctor"]));
    for words in ["fail  state folder", "free space there", "elow /"] {
        assert!(found.contains(words), "expected {words:?} in {found}");
    }
    assert_eq!(shown(daemon.jwks().await), before);
    let rotated = lab.run(&["keys", "rotate"]);
    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    let rotated = told(&rotated);
    assert!(
        rotated.contains("make room on its file system"),
        "{rotated}"
    );
    assert!(
        rotated.contains("hint: nothing was changed, and ordering again does not mend it"),
        "{rotated}"
    );

    // What restricts holds at once all the same, and says what it lacks.
    let kid = active(&lab);
    let order = [
        "keys",
        "revoke",
        &kid,
        "--reason",
        "compromised",
        "--then",
        "activate",
    ];
    let ordered = lab.run(&order);
    assert_eq!(ordered.status.code(), Some(1), "{ordered:?}");
    let revoked = told(&ordered);
    for words in [
        "was revoked (compromised) and has left the set",
        "the revocation is not in the store yet: no room",
        "and not on disk either: cannot write",
        "error: the change holds in memory, and is not on disk yet",
        "hint: do not stop or restart the agent; make room",
    ] {
        assert!(revoked.contains(words), "expected {words:?} in {revoked}");
    }
    let left: Vec<String> = before.iter().filter(|k| **k != kid).cloned().collect();
    assert_eq!(shown(daemon.jwks().await), left);
    refused(&mut daemon, &["KEY_BLOCKED"]).await;
    // The listing says what holds, not what the store has.
    let listed = lab.keys();
    let ended = listed.iter().find(|key| key["kid"] == kid.as_str());
    assert_eq!(ended.expect("it is listed")["phase"], "revoked");
    // Sightings and ticks try the store again and again. The log says so once
    // for each outage, and there was a moment with room between two of them.
    let lines = lab.log();
    let lines = lines.matches("signing ends at the ceilings").count();
    assert!((1..=3).contains(&lines), "{lines} lines: {}", lab.log());

    // With room, everything comes about by itself.
    disk.make_room();
    signs(&mut daemon).await;
    stays_revoked(&lab, &mut daemon, &kid).await;
    let again = lab.run(&order);
    assert!(again.status.success(), "{again:?}");
    assert!(told(&again).contains("was revoked before"), "{again:?}");
    once_each(&key_events(&disk));

    // Whatever is not on disk is lost here.
    daemon.kill();
    let mut daemon = lab.serve().await;
    stays_revoked(&lab, &mut daemon, &kid).await;
    let kept = lab.keys();
    for kid in &before {
        assert!(
            kept.iter().any(|key| key["kid"] == kid.as_str()),
            "{kid} was lost: {kept:#?}"
        );
    }
    healthy(&lab).await;
    once_each(&key_events(&disk));
}

/// A daemon that was stopped in good order left none of the files that the
/// next one could go on with. Found by this test: for want of room for the PIN
/// marker no login was ever tried again, and the store was not opened again.
#[tokio::test]
async fn a_start_on_a_full_disk_serves_the_set_and_heals() {
    let Some((lab, disk)) = lab() else { return };
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let before = shown(daemon.jwks().await);
    daemon.ask_to_stop();
    assert!(daemon.end().await.success());

    disk.fill();
    let mut daemon = lab.serve().await;
    assert_eq!(shown(daemon.jwks().await), before);
    let said = refused(&mut daemon, &["DISK_FULL"]).await;
    assert!(said.contains("make room on its file system"), "{said}");
    let listed = told(&lab.run(&["keys", "list"]));
    assert!(listed.contains("make room"), "{listed}");

    disk.make_room();
    signs(&mut daemon).await;
    let after = shown(daemon.jwks().await);
    assert!(before.iter().all(|kid| after.contains(kid)), "{after:?}");
    once_each(&key_events(&disk));
}

#[tokio::test]
async fn init_on_a_full_disk_says_so_and_goes_on_later() {
    let Some((lab, disk)) = lab() else { return };
    disk.fill();
    let begun = lab.run(&["init"]);
    assert_eq!(begun.status.code(), Some(1), "{begun:?}");
    assert!(told(&begun).contains("make room"), "{begun:?}");
    assert_eq!(lab.objects_in_token(), BTreeMap::new());
    disk.make_room();
    lab.init();
    let _daemon = lab.serve().await;
    healthy(&lab).await;
}

/// A revocation that neither the store nor a tombstone has is one that a
/// restart forgets: whoever looks is told so, and a stop waits for the disk.
#[tokio::test]
async fn a_revocation_in_memory_alone_is_told_and_outlasts_a_stop() {
    let Some((lab, disk)) = lab() else { return };
    let listen = "[serve]\nmetrics_listen = \"127.0.0.1:0\"";
    lab.amend("[serve]", listen);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let in_memory = r#"revocations_in_memory{key_set="main"}"#;
    assert_eq!(figure(&scrape(&daemon).await, in_memory), 0.0);

    let kid = in_memory_alone(&lab, &disk, &mut daemon).await;
    let list = told(&lab.run(&["keys", "list"]));
    assert!(
        list.contains("IN MEMORY ALONE: a restart forgets it"),
        "{list}"
    );
    let one = told(&lab.run(&["keys", "show", &kid]));
    assert!(
        one.contains("IN MEMORY ALONE: a restart forgets it"),
        "{one}"
    );
    let listed = lab.keys();
    let ended = listed.iter().find(|key| key["kid"] == kid.as_str());
    let ended = ended.expect("it is listed");
    assert_eq!(ended["revocation"]["in_memory_alone"], true, "{ended}");
    let found = told(&lab.run(&["doctor"]));
    let failure = format!("fail  revoked main: the revocation of {kid} is in memory alone");
    assert!(found.contains(&failure), "{found}");
    assert_eq!(figure(&scrape(&daemon).await, in_memory), 1.0);

    // It is asked to stop, and waits for room.
    daemon.ask_to_stop();
    let log = lab.logged("the stop waits for 15s").await;
    assert!(log.contains(&kid), "{log}");
    disk.make_room();
    assert!(daemon.end().await.success(), "{}", lab.log());
    assert!(lab.log().contains("a revocation is on disk now"));
    let mut daemon = lab.serve().await;
    stays_revoked(&lab, &mut daemon, &kid).await;
    healthy(&lab).await;
    let found = told(&lab.run(&["doctor"]));
    assert!(!found.contains("in memory alone"), "{found}");

    // Asked twice, it ends at once, and says what it forgets and what to do.
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let kid = in_memory_alone(&lab, &disk, &mut daemon).await;
    let before = lab.log().len();
    daemon.ask_to_stop();
    let waits = async || lab.log()[before..].contains("the stop waits for 15s");
    wait_until(waits).await;
    daemon.ask_to_stop();
    assert_eq!(daemon.end().await.code(), Some(1));
    let said = lab.log().split_off(before);
    let order = format!("sealkeeper keys revoke {kid} --key-set main --offline");
    for words in ["asked to stop again", "the next start signs again", &order] {
        assert!(said.contains(words), "expected {words:?} in {said}");
    }

    // On the full disk that order holds nowhere, and says that too.
    disk.fill();
    let order = [
        "keys",
        "revoke",
        &kid,
        "--key-set",
        "main",
        "--offline",
        "--then",
        "wait",
    ];
    let ordered = lab.run(&order);
    assert_eq!(ordered.status.code(), Some(1), "{ordered:?}");
    let ordered = told(&ordered);
    assert!(ordered.contains("the next start signs again"), "{ordered}");
    disk.make_room();
    lab.ok(&order);
    let mut daemon = lab.serve().await;
    stays_revoked(&lab, &mut daemon, &kid).await;
}

/// Revokes the active key of a key set whose disk is full, and stays so.
async fn in_memory_alone(lab: &Lab, disk: &SmallDisk, daemon: &mut Daemon) -> String {
    let kid = active(lab);
    // Each refusal gives some room back.
    for _ in 0..2 {
        disk.fill();
        refused(daemon, &["DISK_FULL"]).await;
    }
    disk.fill();
    let order = ["keys", "revoke", &kid, "--then", "activate"];
    let ordered = lab.run(&order);
    assert_eq!(ordered.status.code(), Some(1), "{ordered:?}");
    disk.fill();
    kid
}
