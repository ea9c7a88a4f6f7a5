//! Children that die or hang, tokens that go away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sealkeeper::hsm::{Device, DeviceError, State, TokenSelector};
use sealkeeper::jose::{Algorithm, Verifier};
use tokio::task::JoinSet;

use super::{
    es256_key, is_down, is_gone, is_replaced, is_unavailable, is_up, object, reaches, signal,
    signature, signs, soon, up,
};
use crate::softhsm::SoftHsm;

#[tokio::test]
async fn killed_under_load_nobody_notices() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let made = es256_key(&device, 1).await;
    let verifier = Verifier::new(Algorithm::Es256, &made.public).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..32 {
        let (device, verifier) = (device.clone(), verifier.clone());
        let (done, count) = (Arc::clone(&done), Arc::clone(&count));
        callers.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let signature = signature(&device).await.unwrap();
                verifier.verify(b"a.b", &signature).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut pid = is_up(&device).await;
    for _ in 0..3 {
        // In the middle of the load.
        let seen = count.load(Ordering::Relaxed);
        let deadline = soon();
        while count.load(Ordering::Relaxed) < seen + 100 {
            assert!(Instant::now() < deadline && !callers.is_empty());
            tokio::task::yield_now().await;
        }
        signal(pid, Signal::KILL);
        pid = is_replaced(&device, pid).await;
    }
    done.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

#[tokio::test]
async fn a_killed_child_heals_when_idle() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let pid = is_up(&device).await;
    signal(pid, Signal::KILL);
    is_replaced(&device, pid).await;
    is_gone(pid).await;
    device.health().await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_gone_is_unavailable_in_time_and_heals() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let made = es256_key(&device, 1).await;
    signs(&device, object(1), Algorithm::Es256, &made.public).await;

    hsm.unplug();
    is_down(&device).await;
    let asked = Instant::now();
    let signed = signature(&device).await;
    assert!(is_unavailable(&signed), "{signed:?}");
    let found = device.find(object(1)).await;
    assert!(is_unavailable(&found), "{found:?}");
    let destroyed = device.destroy(object(1)).await;
    assert!(is_unavailable(&destroyed), "{destroyed:?}");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );

    hsm.plug();
    is_up(&device).await;
    signs(&device, object(1), Algorithm::Es256, &made.public).await;
}

#[tokio::test]
async fn a_token_that_flickers_never_denies_its_keys() {
    let hsm = SoftHsm::new();
    let mut config = hsm.device_config();
    // The child must be found out by the questions, not by its own checks.
    config.health_interval = Duration::from_secs(3600);
    let device = up(config).await;
    es256_key(&device, 1).await;
    for round in 0..12 {
        hsm.unplug();
        match round % 3 {
            0 => {
                let signed = signature(&device).await;
                assert!(signed.is_ok() || is_unavailable(&signed), "{signed:?}");
            }
            1 => {
                let found = device.find(object(1)).await;
                assert!(
                    matches!(found, Ok(Some(_))) || is_unavailable(&found),
                    "{found:?}"
                );
            }
            _ => {
                let destroyed = device.destroy(object(1)).await;
                assert!(is_unavailable(&destroyed), "{destroyed:?}");
            }
        }
        hsm.plug();
        loop {
            match device.find(object(1)).await {
                Ok(Some(_)) => break,
                Err(DeviceError::Unavailable { .. }) => {
                    is_up(&device).await;
                }
                other => panic!("round {round}, back again: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn another_token_with_the_same_label_is_another_token() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    es256_key(&device, 1).await;
    hsm.replace();
    let State::Down { .. } = is_down(&device).await else {
        panic!("expected it to be down");
    };
    reaches(&device, |state| {
        matches!(state, State::Down { why, .. } if why.contains("expected the token with serial"))
    })
    .await;
    let destroyed = device.destroy(object(1)).await;
    assert!(is_unavailable(&destroyed), "{destroyed:?}");
    let found = device.find(object(1)).await;
    assert!(is_unavailable(&found), "{found:?}");
}

#[tokio::test]
async fn an_absent_token_at_start_is_no_obstacle() {
    let hsm = SoftHsm::new();
    hsm.unplug();
    let device = Device::start(hsm.device_config());
    is_down(&device).await;
    hsm.plug();
    is_up(&device).await;
}

#[tokio::test]
async fn a_module_that_is_missing_is_named() {
    let hsm = SoftHsm::new();
    let mut config = hsm.device_config();
    config.module = "/nowhere/libmissing.so".into();
    let device = Device::start(config);
    let State::Down { why, lasting, .. } = is_down(&device).await else {
        panic!("expected it to be down");
    };
    assert!(why.contains("/nowhere/libmissing.so"), "{why}");
    assert!(lasting, "a file that is not there does not come by itself");
}

#[tokio::test]
async fn a_token_that_is_not_there_is_told_apart() {
    let hsm = SoftHsm::new();
    let mut config = hsm.device_config();
    config.token = TokenSelector {
        label: Some("other".into()),
        serial: None,
    };
    config.expected_serial = Some("42".into());
    let device = Device::start(config);
    let State::Down { why, lasting, .. } = is_down(&device).await else {
        panic!("expected it to be down");
    };
    let (expected, got) = why.split_once(", got ").expect("both");
    assert_eq!(
        expected,
        "expected a token with label \"other\", as before serial \"42\""
    );
    assert!(got.starts_with("\"lab\" (serial \""), "{got}");
    assert!(!lasting, "a token may be plugged in");
}

#[tokio::test]
async fn a_hung_child_is_replaced() {
    let hsm = SoftHsm::new();
    let mut config = hsm.device_config();
    config.call_timeout = Duration::from_secs(2);
    config.health_interval = Duration::from_secs(3600);
    let device = up(config).await;
    let made = es256_key(&device, 1).await;
    let pid = is_up(&device).await;
    signal(pid, Signal::STOP);

    // Who cannot wait is told in time.
    let asked = Instant::now();
    let hasty = device
        .sign(
            object(1),
            Algorithm::Es256,
            *b"a.b",
            asked + Duration::from_millis(200),
        )
        .await;
    assert!(
        matches!(hasty, Err(DeviceError::Deadline { .. })),
        "{hasty:?}"
    );
    assert!(
        asked.elapsed() < Duration::from_millis(1500),
        "{:?}",
        asked.elapsed()
    );

    // Who can wait gets a signature from the next child.
    signs(&device, object(1), Algorithm::Es256, &made.public).await;
    assert_ne!(is_up(&device).await, pid);
    is_gone(pid).await;
}

#[tokio::test]
async fn an_idle_hung_child_is_found_out() {
    let hsm = SoftHsm::new();
    let mut config = hsm.device_config();
    config.call_timeout = Duration::from_millis(500);
    config.health_interval = Duration::from_millis(100);
    let device = up(config).await;
    let pid = is_up(&device).await;
    signal(pid, Signal::STOP);
    is_replaced(&device, pid).await;
}

#[tokio::test]
async fn the_last_handle_takes_the_child_along() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let clone = device.clone();
    let pid = is_up(&device).await;
    drop(device);
    clone.health().await.unwrap();
    drop(clone);
    is_gone(pid).await;
}

#[tokio::test]
async fn shutting_down_waits_for_the_child() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let pid = is_up(&device).await;
    device.shut_down().await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let signed = signature(&device).await;
    assert!(is_unavailable(&signed), "{signed:?}");
}

/// As when the daemon is killed: nobody says goodbye, the socket just closes.
#[test]
fn a_child_does_not_outlive_its_daemon() {
    let hsm = SoftHsm::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (device, pid) = runtime.block_on(async {
        let device = up(hsm.device_config()).await;
        let pid = is_up(&device).await;
        (device, pid)
    });
    // The tasks are dropped where they stand.
    runtime.shutdown_background();
    let deadline = soon();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Nobody is left to reap it, so it stays as a zombie.
    while !state().is_empty() && !state().contains(") Z ") {
        assert!(Instant::now() < deadline, "{}", state());
        std::thread::yield_now();
    }
    drop(device);
}

#[test]
fn a_child_started_by_hand_says_why_it_ends() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sealkeeper"))
        .arg("device-child")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("started by the daemon"), "{said}");
}
