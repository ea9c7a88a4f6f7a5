//! The state in which somebody opens each of the runbooks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::edges::authority::{Authority, Folder, client_config, connect};
use crate::live::bad_days::{shown, signs};
use crate::live::full_disk::{SmallDisk, lab_on};
use crate::live::lab::{CALM, Daemon, Lab, PIN, QUICK, sign, softhsm_module, wait_until};

/// A laboratory in trouble.
pub(super) struct Place {
    pub(super) lab: Lab,
    /// None where it does not run.
    pub(super) daemon: Option<Daemon>,
    /// The key that the runbook is about, and the one that is next.
    kids: [String; 2],
    /// What goes on beside it, to its end.
    _beside: Option<(Folder, tokio::task::JoinSet<()>)>,
    /// The file system of its state, where that is one of its own.
    _disk: Option<SmallDisk>,
}

/// Folders of the machine, and of the laboratory.
pub(super) const FOLDERS: &[(&str, &str)] = &[
    ("/etc/sealkeeper", "."),
    ("/var/lib/sealkeeper", "state"),
    ("/var/lib/softhsm/tokens", "tokens"),
    ("/var/backups/sealkeeper", "backups"),
];

impl Place {
    fn new(lab: Lab, daemon: Option<Daemon>, kids: [String; 2]) -> Self {
        for folder in ["backups", "tls"] {
            let _ = fs::create_dir(lab.path(folder));
        }
        Self {
            lab,
            daemon,
            kids,
            _beside: None,
            _disk: None,
        }
    }

    /// What the document says, about this place.
    pub(super) fn here(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (there, here) in FOLDERS {
            let here = self.lab.path(here);
            let here = here.display().to_string();
            text = text.replace(there, here.trim_end_matches("/."));
        }
        let [kid, standby] = &self.kids;
        for (name, is) in [
            ("KID", kid.as_str()),
            ("STANDBY", standby),
            ("TOKEN", "lab"),
        ] {
            text = word(&text, name, is);
        }
        let module = softhsm_module().display().to_string();
        text.replace("/usr/lib/softhsm/libsofthsm2.so", &module)
    }

    /// With the ids whole that a table cuts short.
    pub(super) fn whole_ids(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for kid in &self.kids {
            text = text.replace(&format!("{}…", &kid[..12]), kid);
        }
        text
    }
}

/// Replaces a word, not a part of one.
fn word(text: &str, from: &str, to: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(from) {
        let whole = !before.ends_with(is_part) && !after.starts_with(is_part);
        done += before;
        done += if whole { to } else { from };
        rest = after;
    }
    done + rest
}

/// Nothing moves by itself while a test runs; what is ordered happens soon.
fn brisk() -> String {
    QUICK.replace(r#"rotate_every = "4s""#, r#"rotate_every = "1h""#)
}

/// The same, with time enough to go back, and to see a key retire.
fn unhurried() -> String {
    brisk().replace(r#"rollback_window = "1s""#, r#"rollback_window = "1m""#)
}

/// The key of a phase.
fn kid(lab: &Lab, phase: &str) -> String {
    let keys = lab.keys();
    let key = keys.iter().find(|key| key["phase"] == phase);
    let kid = key.and_then(|key| key["kid"].as_str());
    kid.unwrap_or_else(|| panic!("no {phase} key: {keys:#?}"))
        .to_owned()
}

/// An agent that signs, with a standby.
async fn begun(schedule: &str) -> Place {
    let lab = Lab::new(schedule, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let kids = [kid(&lab, "active"), kid(&lab, "published")];
    Place::new(lab, Some(daemon), kids)
}

/// The same, and verifiers hold the standby.
async fn at_work(schedule: &str) -> Place {
    let place = begun(schedule).await;
    wait_until(async || {
        let told = place
            .lab
            .ok(&["keys", "revoke", &place.kids[0], "--dry-run", "--json"]);
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        told["impact"]["signs"] == place.kids[1].as_str()
    })
    .await;
    place
}

fn kill(place: &mut Place) {
    place.daemon.as_mut().expect("it runs").kill();
    place.daemon = None;
}

/// Has somebody ask for a signature, who is refused.
async fn refused(place: &mut Place) {
    let daemon = place.daemon.as_mut().expect("it runs");
    let (mut signer, _) = daemon.clients().await.expect("it serves");
    wait_until(async || sign(&mut signer, "ES256", "{}").await.is_err()).await;
}

fn init_token(lab: &Lab, label: &str) {
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", label])
        .args(["--so-pin", "5678", "--pin", PIN])
        .env("SOFTHSM2_CONF", lab.path("softhsm2.conf"))
        .output()
        .expect("softhsm2-util");
    assert!(made.status.success(), "{made:?}");
}

pub(super) async fn revoke() -> Place {
    at_work(&unhurried()).await
}

pub(super) async fn revoke_without_standby() -> Place {
    begun(CALM).await
}

pub(super) async fn revoke_offline() -> Place {
    let mut place = at_work(&brisk()).await;
    kill(&mut place);
    place
}

pub(super) async fn revoke_device() -> Place {
    at_work(&brisk()).await
}

pub(super) async fn restore() -> Place {
    let place = at_work(&brisk()).await;
    let backup = place.lab.path("backups/keys.backup");
    place
        .lab
        .ok(&["backup", "--to", backup.to_str().expect("text")]);
    without_store(place).await
}

pub(super) async fn recover() -> Place {
    without_store(at_work(&brisk()).await).await
}

/// The daemon dies, the database goes, the daemon starts again.
async fn without_store(mut place: Place) -> Place {
    kill(&mut place);
    for tail in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(place.lab.path(&format!("state/keys.sqlite{tail}")));
    }
    place.daemon = Some(place.lab.serve().await);
    refused(&mut place).await;
    place
}

/// The folder of before a rotation is put back as a whole.
pub(super) async fn old_folder() -> Place {
    let mut place = at_work(&brisk()).await;
    kill(&mut place);
    let (state, old) = (place.lab.path("state"), place.lab.path("old"));
    let copied = Command::new("cp").arg("-a").args([&state, &old]).status();
    assert!(copied.expect("cp").success());
    place.daemon = Some(place.lab.serve().await);
    place.lab.ok(&["keys", "rotate"]);
    let destroyed = |key: &serde_json::Value| key["private_half"] == "destroyed";
    wait_until(async || {
        let keys = place.lab.keys();
        let mut first = keys.iter().filter(|key| key["kid"] == *place.kids[0]);
        first.any(destroyed)
    })
    .await;
    kill(&mut place);
    fs::remove_dir_all(&state).expect("the folder goes");
    fs::rename(old, state).expect("the old one is there");
    place.daemon = Some(place.lab.serve().await);
    place.lab.logged("RECORD_OUTDATED").await;
    place
}

/// A rotation was ordered, and an origin is dead.
pub(super) async fn origin_lags() -> Place {
    let lab = Lab::new(&unhurried(), &["ES256"]);
    lab.amend(
        "device = \"softhsm\"\n",
        "device = \"softhsm\"\nobserve = [\"http://127.0.0.1:1/main/jwks.json\"]\n",
    );
    lab.init();
    let daemon = lab.serve().await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    lab.logged("ORIGIN_SILENT").await;
    lab.ok(&["keys", "rotate"]);
    let kids = [kid(&lab, "active"), kid(&lab, "published")];
    Place::new(lab, Some(daemon), kids)
}

/// Verifiers keep what they have for ten minutes.
pub(super) async fn rotate_early() -> Place {
    let slow = r#"verifier_cache = "10m""#;
    begun(&unhurried().replace(r#"verifier_cache = "1s""#, slow)).await
}

/// `KID` signed until a moment ago.
pub(super) async fn rollback() -> Place {
    let place = at_work(&unhurried()).await;
    place.lab.ok(&["keys", "rotate"]);
    wait_until(async || kid(&place.lab, "active") == place.kids[1]).await;
    place
}

pub(super) async fn device_away() -> Place {
    let mut place = at_work(&brisk()).await;
    kill(&mut place);
    let from = place.lab.path("tokens");
    fs::rename(from, place.lab.path("backups/tokens")).expect("the token goes");
    place.daemon = Some(place.lab.serve().await);
    refused(&mut place).await;
    place
}

pub(super) async fn device_lost() -> Place {
    let mut place = at_work(&unhurried()).await;
    kill(&mut place);
    fs::remove_dir_all(place.lab.path("tokens")).expect("the token goes");
    fs::create_dir(place.lab.path("tokens")).expect("a folder");
    write_secret(&place.lab.path("so-pin"), "5678");
    place.daemon = Some(place.lab.serve().await);
    refused(&mut place).await;
    place
}

pub(super) async fn rotate() -> Place {
    at_work(&unhurried()).await
}

pub(super) async fn algorithm() -> Place {
    at_work(&brisk()).await
}

pub(super) async fn pin_change() -> Place {
    at_work(&brisk()).await
}

/// Somebody changed the PIN of the token, and the agent knows the old one.
pub(super) async fn pin_refused() -> Place {
    let mut place = at_work(&brisk()).await;
    kill(&mut place);
    write_secret(&place.lab.path("pin.right"), PIN);
    fs::write(place.lab.path("pin"), "00000000").expect("another PIN");
    place.daemon = Some(place.lab.serve().await);
    refused(&mut place).await;
    place.lab.logged("the token refused the PIN").await;
    place
}

/// Somebody signs with the certificate of a workload, without a pause. What
/// its authority says of it lies beside the configuration.
pub(super) async fn stolen_certificate() -> Place {
    let lab = Lab::new(&brisk(), &["ES256"]);
    let authority = Authority::new("authority");
    let folder = Folder::new(&authority.server(), &authority);
    let file = |name: &str| format!("{:?}", folder.path(name));
    fs::create_dir(lab.path("tls")).expect("a folder");
    fs::write(lab.path("tls/clients.crl"), authority.crl(2999, &[])).expect("a list");
    let tls = format!(
        "[serve]\nsigning_listen = \"127.0.0.1:0\"\nsigning_tls = {{ cert = {}, key = {}, client_ca = {}, crl = {:?} }}",
        file("cert.pem"),
        file("key.pem"),
        file("ca.pem"),
        lab.path("tls/clients.crl"),
    );
    lab.amend("[serve]", &tls);
    let id = "spiffe://example.org/login";
    let rule = format!(
        "[[key_set.main.rule]]\nname = \"login\"\nspiffe = [{id:?}]\noperations = [\"sign-jwt\"]\n\n[[key_set.main.rule]]"
    );
    lab.amend("[[key_set.main.rule]]", &rule);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let stolen = authority.client(&[id], &[]);
    let list = authority.crl(2999, &[stolen.serial]);
    fs::write(lab.path("clients.crl"), list).expect("the new list");
    let config = client_config(&authority, Some(&stolen));
    let address = daemon.address("signing_listen").replace("http://", "");
    let address = address.parse().expect("an address");
    let mut beside = tokio::task::JoinSet::new();
    beside.spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_millis(100));
        loop {
            if let Ok(mut signer) = connect(address, config.clone()).await {
                let _ = sign(&mut signer, "ES256", "{}").await;
            }
            pause.tick().await;
        }
    });
    let kids = [kid(&lab, "active"), kid(&lab, "published")];
    wait_until(async || lab.ok(&["callers", "list"]).contains(id)).await;
    let mut place = Place::new(lab, Some(daemon), kids);
    place._beside = Some((folder, beside));
    place
}

/// The clock leapt, the agent doubts it since, and it was put right.
pub(super) async fn clock() -> Place {
    let lab = Lab::new(&brisk(), &["ES256"]);
    let clock = lab.path("clock");
    fs::write(&clock, "0").expect("the clock");
    lab.init();
    let told = clock.to_str().expect("text");
    let mut daemon = lab
        .serve_with(&[("SEALKEEPER_TEST_CLOCK_OFFSET", told)])
        .await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let kids = [kid(&lab, "active"), kid(&lab, "published")];
    fs::write(&clock, "3600000").expect("the clock");
    let doubted = || lab.ok(&["keys", "list"]).contains("the clock is in doubt");
    wait_until(async || doubted()).await;
    fs::write(&clock, "0").expect("the clock");
    assert!(doubted(), "nobody has vouched for it");
    Place::new(lab, Some(daemon), kids)
}

/// Something else has filled the file system of the state. None where this
/// machine has no namespaces.
pub(super) async fn full_disk() -> Option<Place> {
    let (lab, disk) = lab_on("24m")?;
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let kids = [kid(&lab, "active"), kid(&lab, "published")];
    disk.fill();
    fs::rename(disk.path("filler"), disk.path("core")).expect("another name");
    let mut place = Place::new(lab, Some(daemon), kids);
    place._disk = Some(disk);
    refused(&mut place).await;
    Some(place)
}

/// With the new token there, and its PIN.
pub(super) async fn migrate() -> Place {
    let place = at_work(&brisk()).await;
    init_token(&place.lab, "new");
    write_secret(&place.lab.path("new-pin"), PIN);
    place
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
}
