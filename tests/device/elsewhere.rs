//! Processes that a service manager starts, one for each connection to its
//! socket: by systemd's own program for trying that out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use sealkeeper::hsm::{Device, DeviceConfig, State};
use sealkeeper::jose::Algorithm;

use super::{es256_key, is_down, object, reaches, signal, signs, soon};
use crate::softhsm::SoftHsm;

/// A manager; it ends with the test, and its processes with their connections.
struct Manager {
    child: Child,
    socket: PathBuf,
}

impl Manager {
    /// Started by `starter`, which is a command and its arguments.
    fn start(hsm: &SoftHsm, folder: &Path, starter: &[&str]) -> Self {
        let socket = folder.join("device.sock");
        let (name, value) = hsm.env();
        let mut words = starter.to_vec();
        words.push("systemd-socket-activate");
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
            .args(["--accept", "--inetd", "--listen"])
            .arg(&socket);
        let variable = format!("--setenv={}={}", name.display(), value.display());
        command.arg(variable).arg(env!("CARGO_BIN_EXE_sealkeeper"));
        let child = command
            .arg("device-child")
            .stderr(Stdio::null())
            .spawn()
            .expect("systemd is installed by scripts/test");
        Self { child, socket }
    }

    /// The processes that it has started and that are there.
    fn children(&self) -> Vec<u32> {
        let pid = self.child.id();
        let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let listed = listed.unwrap_or_default();
        let pids = listed.split_whitespace().map(|pid| pid.parse().unwrap());
        let running = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        pids.filter(running).collect()
    }

    fn device(&self, hsm: &SoftHsm) -> DeviceConfig {
        let mut config = hsm.device_config();
        config.env = Vec::new();
        config.program = Some("/nowhere".into());
        config.socket = Some(self.socket.clone());
        config
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn is_up(device: &Device) {
    let up = reaches(device, |state| matches!(state, State::Up { .. })).await;
    assert!(matches!(up, State::Up { pid: None, .. }), "{up:?}");
}

#[tokio::test]
async fn a_process_of_a_service_manager_serves_as_our_own_does() {
    let (hsm, folder) = (SoftHsm::new(), tempfile::tempdir().unwrap());
    let manager = Manager::start(&hsm, folder.path(), &[]);
    let mut config = manager.device(&hsm);
    config.call_timeout = std::time::Duration::from_millis(500);
    let device = Device::start(config);
    is_up(&device).await;
    let key = es256_key(&device, 1).await.public;
    signs(&device, object(1), Algorithm::Es256, &key).await;

    // It crashes: the next connection gets another.
    let first = manager.children();
    assert_eq!(first.len(), 1);
    signal(first[0], Signal::KILL);
    signs(&device, object(1), Algorithm::Es256, &key).await;
    let second = manager.children();
    assert_ne!(first, second);

    // It hangs: it is left behind, and leaves once it can.
    signal(second[0], Signal::STOP);
    signs(&device, object(1), Algorithm::Es256, &key).await;
    let both = manager.children();
    assert_eq!(both.len(), 2, "{both:?}");
    signal(second[0], Signal::CONT);
    let deadline = soon();
    while manager.children().contains(&second[0]) {
        assert!(std::time::Instant::now() < deadline, "it stays");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }

    // We go: so does it.
    device.shut_down().await;
    assert_eq!(manager.children(), [0; 0]);
}

#[tokio::test]
async fn the_pin_is_not_given_to_a_stranger() {
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else can be two users.
    }
    let (hsm, folder) = (SoftHsm::new(), tempfile::tempdir().unwrap());
    std::os::unix::fs::chown(folder.path(), Some(65534), None).unwrap();
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--clear-groups",
        "--regid=65534",
    ];
    let manager = Manager::start(&hsm, folder.path(), &nobody);
    let deadline = soon();
    while !manager.socket.exists() {
        assert!(std::time::Instant::now() < deadline, "nobody listens");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let device = Device::start(manager.device(&hsm));
    let State::Down { why, .. } = is_down(&device).await else {
        panic!("expected it to be down");
    };
    assert!(why.contains("user 65534 listens there"), "{why}");
}

#[tokio::test]
async fn a_socket_where_nobody_listens_is_tried_again() {
    let (hsm, folder) = (SoftHsm::new(), tempfile::tempdir().unwrap());
    let mut config = hsm.device_config();
    config.socket = Some(folder.path().join("device.sock"));
    config.env = Vec::new();
    let device = Device::start(config);
    let State::Down { why, .. } = is_down(&device).await else {
        panic!("expected it to be down");
    };
    let path = folder.path().join("device.sock");
    assert!(why.contains(&path.display().to_string()), "{why}");
    let _manager = Manager::start(&hsm, folder.path(), &[]);
    is_up(&device).await;
}
