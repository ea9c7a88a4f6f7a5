//! Under a service manager: what it is told and when, credentials, and the
//! unit file.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;
use std::{fs, io};

use super::lab::{CALM, Lab, PATIENCE, PIN, fetch, sign, wait_until};

/// The manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn at_path(lab: &Lab) -> Self {
        let path = lab.path("notify");
        Self {
            socket: UnixDatagram::bind(&path).unwrap(),
            name: path.to_str().unwrap().to_owned(),
        }
    }

    fn at_abstract_name() -> Self {
        let name = format!("sealkeeper-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self {
            socket: UnixDatagram::bind_addr(&address).unwrap(),
            name: format!("@{name}"),
        }
    }

    /// The next line that begins so; what comes before it is passed over.
    fn hears(&self, start: &str) -> String {
        let message = self.message(start);
        let line = message.lines().find(|line| line.starts_with(start));
        line.expect("it was looked for").to_owned()
    }

    /// The next message with a line that begins so.
    fn message(&self, start: &str) -> String {
        let began = Instant::now();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        loop {
            assert!(began.elapsed() < PATIENCE, "{start} never came");
            let mut message = [0; 4096];
            let n = match self.socket.recv(&mut message) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                n => n.unwrap(),
            };
            let text = String::from_utf8(message[..n].to_vec()).unwrap();
            if text.lines().any(|line| line.starts_with(start)) {
                return text;
            }
        }
    }
}

#[tokio::test]
async fn the_manager_hears_how_it_goes() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    for manager in [Manager::at_path(&lab), Manager::at_abstract_name()] {
        let env = [
            ("NOTIFY_SOCKET", manager.name.as_str()),
            ("WATCHDOG_USEC", "400000"),
        ];
        let mut daemon = lab.spawn(&env);
        manager.hears("READY=1");
        // It is: nothing has to be waited for.
        let (status, _) = fetch(&daemon.origin(), "/main/jwks.json").await.unwrap();
        assert_eq!(status, 200);
        while manager.hears("STATUS=") != "STATUS=1 key set, all signing" {}
        for _ in 0..5 {
            manager.hears("WATCHDOG=1");
        }
        fs::rename(lab.path("tokens"), lab.path("away")).unwrap();
        let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
        sign(&mut signer, "ES256", "{}").await.unwrap_err();
        while !manager.hears("STATUS=").contains("device softhsm is down") {}
        // That is no reason to be restarted.
        manager.hears("WATCHDOG=1");
        fs::rename(lab.path("away"), lab.path("tokens")).unwrap();
        while manager.hears("STATUS=") != "STATUS=1 key set, all signing" {}
        daemon.ask_to_stop();
        manager.hears("STOPPING=1");
        assert!(daemon.end().await.success());
    }
}

/// What can be read again is; what needs a restart is named; and the manager
/// hears when it begins and when it is over.
#[tokio::test]
async fn a_reload_says_what_it_took_and_what_it_did_not() {
    let monotonic = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1000
    };
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let manager = Manager::at_path(&lab);
    let daemon = lab.spawn(&[("NOTIFY_SOCKET", manager.name.as_str())]);
    manager.hears("READY=1");
    let rounds: [(&str, &dyn Fn()); 4] = [
        ("the configuration has not changed", &|| ()),
        (
            "\"changed\":\"key_set.main.issuer\",\"left\":\"device.softhsm.token, serve.connections, serve.connections_per_peer\"",
            &|| {
                lab.amend(
                    "[serve]",
                    "[serve]\nconnections = 9\nconnections_per_peer = 9",
                );
                lab.amend("token = \"lab\"", "token = \"another\"");
                lab.amend("https://lab.example", "https://other.example");
            },
        ),
        ("the configuration stays as it was", &|| {
            lab.amend("[serve]", "[server]")
        }),
        ("\"why\":\"cannot read the configuration", &|| {
            fs::remove_file(lab.path("sealkeeper.toml")).unwrap();
        }),
    ];
    for (n, (said, change)) in rounds.into_iter().enumerate() {
        change();
        let before = monotonic();
        daemon.hang_up();
        let begun = manager.message("RELOADING=1");
        let at = begun
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        let at: i64 = at.expect("a date").parse().unwrap();
        assert!((before..=monotonic()).contains(&at), "{begun:?}, {before}");
        manager.hears("READY=1");
        let reloaded = "\"event\":\"reloaded\"";
        wait_until(async || lab.log().matches(reloaded).count() == n + 1).await;
        let log = lab.log();
        let mut lines = log.lines().filter(|line| line.contains(reloaded));
        let last = lines.next_back().expect("a line of each reload");
        assert!(last.contains(said), "{said} in {last}");
    }
    // It serves on, as it was.
    let mut daemon = daemon;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    sign(&mut signer, "ES256", "{}").await.unwrap();
}

#[tokio::test]
async fn a_watchdog_of_another_process_is_not_fed() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let manager = Manager::at_path(&lab);
    let other = std::process::id().to_string();
    let env = [
        ("NOTIFY_SOCKET", manager.name.as_str()),
        ("WATCHDOG_USEC", "400000"),
        // Meant for somebody else.
        ("WATCHDOG_PID", &other),
    ];
    let mut daemon = lab.spawn(&env);
    manager.hears("READY=1");
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    wait_until(async || sign(&mut signer, "ES256", "{}").await.is_ok()).await;
    daemon.ask_to_stop();
    // All that it said until its end.
    daemon.end().await;
    manager.socket.set_nonblocking(true).unwrap();
    let mut message = [0; 4096];
    while let Ok(n) = manager.socket.recv(&mut message) {
        let text = String::from_utf8_lossy(&message[..n]).into_owned();
        assert!(!text.contains("WATCHDOG"), "{text}");
    }
}

#[tokio::test]
async fn a_manager_that_is_gone_does_no_harm() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    for name in [
        "/nowhere/at/all",
        "@nobody-listens-here",
        "vsock:2:1234",
        "",
    ] {
        let mut daemon = lab.serve_with(&[("NOTIFY_SOCKET", name)]).await;
        let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
        wait_until(async || sign(&mut signer, "ES256", "{}").await.is_ok()).await;
        daemon.ask_to_stop();
        assert!(daemon.end().await.success(), "{name}");
    }
}

#[tokio::test]
async fn the_pin_comes_as_a_credential() {
    let lab = Lab::new(CALM, &["ES256"]);
    let file = format!("{{ file = \"{}\" }}", lab.path("pin").display());
    lab.amend(&file, "{ credential = \"hsm-pin\" }");
    let without = lab.run(&["init"]);
    assert_eq!(without.status.code(), Some(1));
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(said.contains("LoadCredential=hsm-pin"), "{said}");

    // As systemd makes it: the folder is closed, the file is readable.
    let folder = lab.path("credentials");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(folder.join("hsm-pin"), PIN).unwrap();
    fs::set_permissions(folder.join("hsm-pin"), fs::Permissions::from_mode(0o440)).unwrap();
    let folder = folder.to_str().unwrap();
    let init = lab
        .command(&["init"])
        .env("CREDENTIALS_DIRECTORY", folder)
        .output();
    assert!(init.unwrap().status.success());
    let mut daemon = lab.serve_with(&[("CREDENTIALS_DIRECTORY", folder)]).await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    wait_until(async || sign(&mut signer, "ES256", "{}").await.is_ok()).await;
}

/// The unit in a folder of its own, with drop-ins, and with the program under
/// test in the place of the installed one.
fn unit(folder: &Path, drop_ins: &[&str], change: impl Fn(String) -> String) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-config/systemd");
    let text = fs::read_to_string(from.join("sealkeeper.service")).unwrap();
    let installed = "/usr/bin/sealkeeper";
    assert!(text.contains(installed));
    let unit = folder.join("sealkeeper.service");
    let text = text.replace(installed, env!("CARGO_BIN_EXE_sealkeeper"));
    fs::write(&unit, change(text)).unwrap();
    let beside = folder.join("sealkeeper.service.d");
    fs::create_dir_all(&beside).unwrap();
    for name in drop_ins {
        fs::copy(from.join(name), beside.join(name)).unwrap();
    }
    unit
}

fn systemd_analyze(args: &[&str], unit: &Path) -> Output {
    let output = Command::new("systemd-analyze")
        .args(args)
        .arg(unit)
        .output();
    output.expect("systemd is installed by scripts/test")
}

fn said(output: &Output) -> String {
    [&*output.stdout, &*output.stderr]
        .map(String::from_utf8_lossy)
        .concat()
}

#[test]
fn the_unit_is_sound_and_exposes_little() {
    // Tenths of systemd's own score, from 0 to 100.
    for (drop_ins, most) in [
        (&[][..], "16"),
        (&["usb.conf"], "18"),
        (&["softhsm.conf"], "17"),
        (&["usb.conf", "softhsm.conf"], "19"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let unit = unit(folder.path(), drop_ins, |text| text);
        let verified = systemd_analyze(&["verify", "--man=no"], &unit);
        let said_of_it = said(&verified);
        assert!(verified.status.success(), "{said_of_it}");
        // It speaks of other units of the machine, too; and only warns of an
        // unknown line.
        assert!(!said_of_it.contains("sealkeeper.service"), "{said_of_it}");
        assert!(!said_of_it.contains(".conf"), "{said_of_it}");
        let threshold = format!("--threshold={most}");
        let exposure = systemd_analyze(&["security", "--offline=true", &threshold], &unit);
        assert!(
            exposure.status.success(),
            "{drop_ins:?}: {}",
            said(&exposure)
        );
    }
    reload_is_waited_for();
    the_device_has_units_of_its_own();
    // Both see what is wrong.
    let folder = tempfile::tempdir().unwrap();
    let wrong = |text: String| text.replace("NoNewPrivileges=yes", "NoNewPrivilege=yes");
    let unit = unit(folder.path(), &[], wrong);
    let verified = systemd_analyze(&["verify", "--man=no"], &unit);
    assert!(said(&verified).contains("NoNewPrivilege"));
    let exposure = systemd_analyze(&["security", "--offline=true", "--threshold=16"], &unit);
    assert!(!exposure.status.success(), "{}", said(&exposure));
}

/// The form with two units.
fn the_device_has_units_of_its_own() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-config/systemd");
    let folder = tempfile::tempdir().unwrap();
    let take = |name: &str| {
        let text = fs::read_to_string(from.join(name)).unwrap();
        let text = text.replace("/usr/bin/sealkeeper", env!("CARGO_BIN_EXE_sealkeeper"));
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let service = take("sealkeeper-device@.service");
    let socket = take("sealkeeper-device.socket");
    for unit in [&socket, &service] {
        let verified = systemd_analyze(&["verify", "--man=no"], unit);
        let said_of_it = said(&verified);
        assert!(verified.status.success(), "{said_of_it}");
        assert!(!said_of_it.contains("sealkeeper-device"), "{said_of_it}");
    }
    let exposure = systemd_analyze(&["security", "--offline=true", "--threshold=12"], &service);
    assert!(exposure.status.success(), "{}", said(&exposure));
    // What it needs, and the agent does not have.
    let agent = fs::read_to_string(from.join("sealkeeper.service")).unwrap();
    let device = fs::read_to_string(&service).unwrap();
    for (line, whose) in [
        ("PrivateDevices=yes", &agent),
        ("DeviceAllow=char-usb_device rw", &device),
        ("PrivateNetwork=yes", &device),
    ] {
        let has = |text: &str| text.lines().any(|it| it == line);
        assert!(has(whose), "{line}");
        assert_ne!(has(&agent), has(&device), "{line}");
    }
}

/// By a manager that knows how. An older one says that it does not know this
/// line, and nothing else.
fn reload_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let unit = unit(folder.path(), &["reload.conf"], |text| text);
    let version = systemd_analyze(&["--version"], Path::new("--no-pager"));
    let version = said(&version);
    let number = version.split_whitespace().nth(1).unwrap();
    let knows = number.parse::<u32>().unwrap() >= 253;
    let verified = said(&systemd_analyze(&["verify", "--man=no"], &unit));
    let about: Vec<&str> = verified
        .lines()
        .filter(|line| line.contains("reload.conf") || line.contains("sealkeeper.service:"))
        .collect();
    if knows {
        assert_eq!(about, [""; 0]);
    } else {
        assert_eq!(about.len(), 1, "{verified}");
        assert!(about[0].contains("notify-reload"), "{verified}");
    }
}

#[test]
fn the_users_and_folders_can_be_made() {
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else may give files away.
    }
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-config/systemd");
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc/sealkeeper")).unwrap();
    let at_root = format!("--root={}", root.path().display());
    let run = |program: &str, args: &[&str], file: &str| {
        let output = Command::new(program)
            .args(args)
            .arg(&at_root)
            .arg(from.join(file))
            .output()
            .expect("systemd is installed by scripts/test");
        assert!(output.status.success(), "{}", said(&output));
    };
    run("systemd-sysusers", &[], "sysusers.conf");
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(users.contains("sealkeeper:"), "{users}");
    for name in ["pin", "sealkeeper.toml"] {
        fs::write(root.path().join("etc/sealkeeper").join(name), "").unwrap();
    }
    run("systemd-tmpfiles", &["--create"], "tmpfiles.conf");
    for (name, mode) in [("", 0o755), ("pin", 0o600), ("sealkeeper.toml", 0o644)] {
        let path = root.path().join("etc/sealkeeper").join(name);
        let found = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode, "{name}");
    }
}
