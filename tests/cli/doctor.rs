//! Ten breakages, as an operator meets them: signing fails, and the failing
//! command or `doctor` names the cause and the cure.

mod causes;
mod instants;
mod keys;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::live::lab::{CALM, Lab, PIN, wait_for};

/// What a command said, on both streams, and its exit code.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = [&*output.stdout, &*output.stderr].concat();
        Self {
            code: output.status.code(),
            text: String::from_utf8(text).expect("text"),
        }
    }

    /// Each of these stands in it.
    #[track_caller]
    fn says(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(
                self.text.contains(part),
                "{part:?} is not in\n{}",
                self.text
            );
        }
        self
    }

    /// Failed, and trying again would be no use.
    #[track_caller]
    fn for_good(&self) -> &Self {
        assert_eq!(self.code, Some(1), "{}", self.text);
        self.failed()
    }

    #[track_caller]
    fn failed(&self) -> &Self {
        assert!(matches!(self.code, Some(1 | 3)), "{}", self.text);
        assert!(!self.text.contains(PIN), "{}", self.text);
        self
    }
}

fn sign(lab: &Lab) -> Said {
    Said::of(&lab.run(&["sign", "{}"]))
}

fn doctor(lab: &Lab) -> Said {
    let said = Said::of(&lab.run(&["doctor"]));
    let json = lab.run(&["doctor", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let checks = json["checks"].as_array().expect("checks");
    let of = |level: &str| {
        checks
            .iter()
            .filter(|check| check["level"] == level)
            .count()
    };
    assert!(
        checks
            .iter()
            .all(|check| check["level"] == "ok" || check["hint"].is_string())
    );
    for check in checks {
        let skipped = check["level"] == "skip";
        assert_eq!(check["waits_for"].is_string(), skipped, "{check}");
    }
    assert_eq!(json["ok"], of("fail") == 0);
    assert_eq!(said.code, Some(i32::from(of("fail") > 0)));
    let failed = said.text.lines().filter(|line| line.starts_with("fail  "));
    said.says(&[&format!(": {} failed, ", failed.count())]);
    said
}

/// Waits until signing fails for this reason.
async fn refused(lab: &Lab, reason: &str) -> Said {
    let mut said = sign(lab);
    wait_for(|| {
        said = sign(lab);
        said.text.contains(reason)
    })
    .await;
    said
}

fn begun() -> Lab {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    lab
}

/// Changes the configuration.
fn edit(lab: &Lab, from: &str, to: &str) {
    let path = lab.path("sealkeeper.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(&path, text.replace(from, to)).unwrap();
}

#[tokio::test]
async fn nothing_is_wrong_with_and_without_the_agent() {
    let lab = begun();
    // Without it: the device is opened, and nothing is left behind.
    let stopped = doctor(&lab);
    stopped.failed().says(&[
        "fail  signing socket",
        "not there: the agent is not running",
        "hint: start it: `sealkeeper serve`",
        "ok    device softhsm: opens: token \"lab\"",
        "ok    mechanisms main: ES256",
        "keys main: 1 private half on softhsm: as recorded, and none can leave",
        "ok    pin marker softhsm: the PIN may be tried",
        "skip  admin socket",
        "not looked at: first mend signing socket",
        " 1 failed, 0 warnings, 1 skipped",
    ]);
    let before = lab.objects_in_token();
    let mut daemon = lab.serve().await;
    wait_for(|| sign(&lab).code == Some(0)).await;
    let running = doctor(&lab);
    assert_eq!(running.code, Some(0), "{}", running.text);
    running.says(&[
        "ok    device softhsm: open in the agent: token \"lab\"",
        "ok    key set main: signs, for whom a rule lets in: see `rules main`\n",
        "ok    rules main: 1 rule\n",
        "good, with 1 key set and 1 device",
        "0 failed",
        // At the port that the agent was given, which no configuration names.
        &format!("ok    jwks main: {}/main/jwks.json shows", daemon.origin()),
    ]);
    assert!(lab.objects_in_token().len() >= before.len());
    // At its address verifiers get the active key; at another's they do not.
    let address = daemon.origin().replace("http://", "");
    edit(&lab, "127.0.0.1:0", &address);
    doctor(&lab).says(&[
        "ok    jwks main: http://127.0.0.1:",
        "/main/jwks.json shows",
    ]);
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = stranger.local_addr().unwrap().to_string();
    drop(stranger);
    edit(&lab, &address, &other);
    let found = doctor(&lab);
    found.failed().says(&[
        "fail  jwks main: cannot fetch",
        "does another program hold the port?",
    ]);
    // It did not disturb the agent: the same child holds the device.
    assert_eq!(lab.log().matches("device up").count(), 1, "{}", lab.log());
    daemon.kill();
}

#[tokio::test]
async fn breakage_1_a_wrong_pin() {
    let lab = begun();
    fs::write(lab.path("pin"), "00000000").unwrap();
    let mut daemon = lab.serve().await;
    let said = refused(&lab, "PIN_BLOCKED").await;
    said.for_good().says(&["sealkeeper device unlock softhsm"]);
    let found = doctor(&lab);
    found.failed().says(&[
        "fail  pin marker softhsm: the agent does not try the PIN any more",
        "hint: the agent stopped by itself, before the token",
        "make sure that the PIN is right in ",
        "/pin, then run: sealkeeper device unlock softhsm, which has it tried once",
        "C_Login said CKR_PIN_INCORRECT, and it says that more than one try is left, on 2",
        "--token-label \"lab\" --login --list-objects` asks for a PIN and tries it",
        "skip  device softhsm: not looked at: first mend pin marker softhsm",
        "skip  key set main: not looked at: first mend pin marker softhsm",
        " 1 failed",
    ]);
    // Nor does doctor try it, when the agent is gone.
    daemon.kill();
    doctor(&lab)
        .failed()
        .says(&["the agent does not try the PIN any more"]);
    // The cure works.
    fs::write(lab.path("pin"), PIN).unwrap();
    lab.ok(&["device", "unlock", "softhsm"]);
    doctor(&lab).says(&["ok    device softhsm: opens"]);
}

#[tokio::test]
async fn breakage_2_a_pin_file_that_is_not_private_or_not_there() {
    let lab = begun();
    let pin = lab.path("pin");
    fs::set_permissions(&pin, Permissions::from_mode(0o644)).unwrap();
    let _daemon = lab.serve().await;
    refused(&lab, "expected mode 0600").await.failed();
    let chmod = format!("hint: chmod 600 {}", pin.display());
    doctor(&lab).failed().says(&["fail  pin softhsm", &chmod]);
    refused(&lab, "(DEVICE_UNUSABLE)").await.for_good();
    fs::remove_file(&pin).unwrap();
    doctor(&lab).failed().says(&[
        "fail  pin softhsm",
        "No such file",
        "hint: the agent's user must own it",
    ]);
}

#[tokio::test]
async fn breakage_3_a_token_that_is_gone() {
    let lab = begun();
    fs::rename(lab.path("tokens"), lab.path("elsewhere")).unwrap();
    fs::create_dir(lab.path("tokens")).unwrap();
    let daemon = lab.serve().await;
    refused(&lab, "expected a token with label \"lab\"")
        .await
        .failed();
    let found = |text: &[&str]| doctor(&lab).failed().says(text).text.len();
    found(&[
        "skip  key set main: not looked at: first mend device softhsm",
        "fail  device softhsm: not open",
        " 1 failed",
        "and the agent goes on by itself",
        "expected a token with label \"lab\"",
        "pkcs11-tool --module",
        "--list-token-slots",
    ]);
    // It may be put back by itself.
    assert_eq!(sign(&lab).code, Some(3), "a token that was pulled");
    drop(daemon);
    found(&[
        "fail  device softhsm: expected a token with label \"lab\", got none at all",
        "SOFTHSM2_CONF=",
    ]);
    // Found by an operator: another token was there, and which one was not said.
    let other = [
        "--init-token",
        "--free",
        "--label",
        "other",
        "--so-pin",
        "5678",
        "--pin",
        PIN,
    ];
    let made = Command::new("softhsm2-util")
        .args(other)
        .env("SOFTHSM2_CONF", lab.path("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(made.status.success());
    found(&["expected a token with label \"lab\", got \"other\" (serial \""]);
    // Found by an operator: a module that fails says a number, and what its
    // own configuration names was there to be looked at.
    let tokens = lab.path("tokens");
    fs::remove_dir_all(&tokens).unwrap();
    let tokens = tokens.display();
    let named = format!("/softhsm2.conf names {tokens}: No such file");
    let back = format!("put {tokens} back");
    found(&["hint: directories.tokendir in /", &named, &back]);
    fs::remove_file(lab.path("softhsm2.conf")).unwrap();
    found(&[
        "hint: SOFTHSM2_CONF names /",
        "/softhsm2.conf: No such file",
    ]);
}

#[tokio::test]
async fn breakage_4_a_module_that_is_not_there() {
    let lab = begun();
    let module = crate::live::lab::softhsm_module();
    edit(&lab, module.to_str().unwrap(), "/usr/lib/nothing.so");
    let _daemon = lab.serve().await;
    let said = refused(&lab, "/usr/lib/nothing.so").await;
    said.for_good()
        .says(&["(DEVICE_UNUSABLE)", "`sealkeeper doctor`"]);
    doctor(&lab).failed().says(&[
        "fail  module softhsm: /usr/lib/nothing.so: No such file",
        "hint: correct device.softhsm.module, then restart the agent; or install the HSM's PKCS#11 library there: the agent tries again by itself",
        "skip  device softhsm: not looked at: first mend module softhsm",
        "skip  key set main: not looked at: first mend module softhsm",
        " 1 failed",
    ]);
    // A slip of the pen.
    let there = lab.path("libsofthsm2.so");
    fs::write(&there, "").unwrap();
    let slip = lab.path("libsofthsm.so");
    edit(&lab, "/usr/lib/nothing.so", slip.to_str().unwrap());
    let meant = format!(
        "hint: is {} the one that is meant? Correct",
        there.display()
    );
    doctor(&lab).failed().says(&[&meant]);
}

/// The same program as a user whom the sockets keep out.
fn as_nobody(lab: &Lab, args: &[&str]) -> Said {
    let us = rustix::process::getuid();
    let program = env!("CARGO_BIN_EXE_sealkeeper");
    let mut command = if us.is_root() {
        // Opened first: the way to the program may be closed to others.
        let mut command = Command::new("bash");
        let drop = "exec 3<\"$0\"; exec setpriv --reuid 65534 --regid 65534 --clear-groups -- /proc/self/fd/3 \"$@\"";
        command.args(["-c", drop, program]);
        command
    } else {
        fs::set_permissions(lab.path("sign.sock"), Permissions::from_mode(0o000)).unwrap();
        Command::new(program)
    };
    command
        .args(args)
        .arg("--config")
        .arg(lab.path("sealkeeper.toml"));
    Said::of(&command.output().unwrap())
}

#[tokio::test]
async fn breakage_5_a_socket_that_keeps_the_caller_out() {
    let lab = begun();
    edit(&lab, "[serve]", "[serve]\nsocket_mode = \"0600\"");
    fs::set_permissions(lab.path("."), Permissions::from_mode(0o755)).unwrap();
    let _daemon = lab.serve().await;
    wait_for(|| sign(&lab).code == Some(0)).await;
    let said = as_nobody(&lab, &["sign", "{}"]);
    said.failed()
        .says(&["Permission denied", "you may not open the socket"]);
    as_nobody(&lab, &["doctor"]).failed().says(&[
        "fail  signing socket",
        "keeps you out: you are",
        "set serve.socket_mode = \"0660\", restart the agent, and join its group: `usermod -aG GROUP USER`",
    ]);
    // And seen from the other side: a caller whom a rule lets in.
    if rustix::process::getuid().is_root() {
        edit(&lab, "uid = [0]", "uid = [0, 65534, 4000000000]");
        doctor(&lab).says(&[
            "(uid 65534) is let in by the rule, and kept out by the signing socket",
            "serve.socket_mode = \"0660\", and `usermod -aG",
            "no user of this machine has the uid 4000000000",
        ]);
    }
}

#[tokio::test]
async fn breakage_6_no_rule_for_the_caller() {
    let lab = begun();
    let us = rustix::process::getuid().as_raw();
    edit(&lab, &format!("uid = [{us}]"), "uid = [4000000000]");
    let daemon = lab.serve().await;
    let said = refused(&lab, "NOT_ALLOWED").await;
    said.for_good().says(&[
        &format!("no rule is about unix:{us}"),
        "hint: an operator adds a rule that names this caller: `sealkeeper policy test`",
    ]);
    doctor(&lab).says(&["fail  rules main: nothing is signed for anybody"]);
    drop(daemon);
    let path = lab.path("sealkeeper.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (without, _) = text.split_once("[[key_set.main.rule]]").unwrap();
    fs::write(&path, without).unwrap();
    doctor(&lab).says(&[
        "fail  rules main: there are none: nothing is signed for anybody",
        "hint: add [[key_set.main.rule]]",
    ]);
}

#[tokio::test]
async fn breakage_6_a_caller_that_is_blocked() {
    let lab = begun();
    let _daemon = lab.serve().await;
    let us = format!("unix:{}", rustix::process::getuid().as_raw());
    lab.ok(&["callers", "block", &us]);
    let unblock = format!("sealkeeper callers unblock {us}");
    let said = refused(&lab, "CALLER_BLOCKED").await;
    said.for_good().says(&[&unblock, "sealkeeper callers list"]);
    // Found by an operator: all was well with their being blocked themselves.
    let found = doctor(&lab);
    found.failed().says(&[
        "fail  blocked callers",
        &format!("{us} is blocked since"),
        ": that is you",
        &unblock,
        " 1 failed",
    ]);
    // Who keeps somebody else out meant it.
    lab.ok(&["callers", "unblock", &us]);
    lab.ok(&["callers", "block", "unix:4000000000"]);
    let found = doctor(&lab);
    assert_eq!(found.code, Some(0), "{}", found.text);
    found.says(&["warn  blocked callers", "unix:4000000000 is blocked since"]);
}

#[tokio::test]
async fn breakage_7_a_key_set_that_has_not_begun() {
    let lab = Lab::new(CALM, &["ES256"]);
    // Before anything: there is no state folder even.
    doctor(&lab)
        .failed()
        .says(&["fail  state folder", "`sealkeeper init` makes it"]);
    let daemon = lab.serve().await;
    let said = refused(&lab, "NOT_INITIALIZED").await;
    said.for_good().says(&["run `sealkeeper init`"]);
    // Nor is an order any use.
    Said::of(&lab.run(&["keys", "rotate"]))
        .for_good()
        .says(&["hint: nothing was changed, and ordering again does not mend it"]);
    // Found by an operator: a bare `init`, and "nobody ran it" of a record
    // that may be lost.
    said.says(&["the log knows no key event of it: if it never signed before, stop the agent"]);
    let cure = "stop the agent, run `sealkeeper init`, and start it again";
    let store = lab.path("state/keys.sqlite").display().to_string();
    doctor(&lab).failed().says(&[
        &format!("fail  store main: has no record in {store}, and the log knows nothing of it"),
        "hint: `init` begins it: ",
        "skip  key set main: not looked at: first mend store main",
        " 1 failed",
        cure,
    ]);
    drop(daemon);
    lab.init();
    let _daemon = lab.serve().await;
    wait_for(|| sign(&lab).code == Some(0)).await;
}

#[tokio::test]
async fn breakage_8_a_clock_that_stepped_back() {
    let lab = begun();
    let offset = lab.path("offset");
    let clock = [("SEALKEEPER_TEST_CLOCK_OFFSET", offset.to_str().unwrap())];
    let _daemon = lab.serve_with(&clock).await;
    wait_for(|| sign(&lab).code == Some(0)).await;
    // A day back: nothing moves, and soon nothing is signed beyond what is on
    // record already.
    fs::write(&offset, "-86400000").unwrap();
    lab.run(&["keys", "rotate"]);
    wait_for(|| doctor(&lab).text.contains("fail  clock")).await;
    let said = doctor(&lab);
    instants::stepped_back(&said.text, 86_400);
    said.failed().says(&[
        "fail  clock main: the clock stepped back: expected about 20",
        "the agent activates, retires and destroys nothing",
        "hint: compare `date -u` with a clock that you trust",
        "sealkeeper clock confirm",
    ]);
}

/// The same before the agent is started at all.
#[test]
fn breakage_8_is_seen_without_the_agent() {
    let lab = begun();
    let offset = lab.path("offset");
    fs::write(&offset, "-86400000").unwrap();
    let mut command = lab.command(&["doctor"]);
    command.env("SEALKEEPER_TEST_CLOCK_OFFSET", &offset);
    let said = Said::of(&command.output().unwrap());
    instants::stepped_back(&said.text, 86_400);
    said.failed().says(&[
        "fail  clock main: the clock stepped back",
        "sealkeeper clock confirm",
    ]);
}

#[tokio::test]
async fn breakage_9_a_damaged_database() {
    let lab = begun();
    let database = lab.path("state/keys.sqlite");
    let mut bytes = fs::read(&database).unwrap();
    for byte in bytes.iter_mut().skip(16).take(4096) {
        *byte ^= 0x5a;
    }
    fs::write(&database, bytes).unwrap();
    for beside in ["keys.sqlite-wal", "keys.sqlite-shm"] {
        let _ = fs::remove_file(lab.path("state").join(beside));
    }
    let _daemon = lab.serve().await;
    let said = refused(&lab, "STORE_UNUSABLE").await;
    said.for_good().says(&["damaged"]);
    doctor(&lab).failed().says(&[
        "fail  store",
        "is damaged",
        "skip  key set main: not looked at: first mend store /",
        "sealkeeper restore --from FILE",
        "A backup is what `sealkeeper backup --to FILE` wrote",
        " 1 failed",
    ]);
}
