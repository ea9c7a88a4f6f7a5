//! A wrong PIN is tried once.

use std::fs;
use std::os::unix::fs::MetadataExt;

use sealkeeper::hsm::pin_marker::{self, Status};
use sealkeeper::hsm::{Cure, Device, DeviceConfig, DeviceError, State};

use super::{es256_key, is_down, is_up, reaches, signature, up};
use crate::softhsm::{PIN, SoftHsm};

/// SoftHSM raises this flag at a wrong PIN and lowers it at a right one.
fn token_saw_a_wrong_pin(hsm: &SoftHsm) -> bool {
    hsm.pkcs11_tool(&["--list-token-slots"])
        .contains("user PIN count low")
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_across_restarts() {
    let hsm = SoftHsm::new();
    hsm.write_pin("9999");
    assert!(!token_saw_a_wrong_pin(&hsm));

    let device = Device::start(hsm.device_config());
    let State::Down {
        why,
        cure,
        pin_blocked,
        ..
    } = is_down(&device).await
    else {
        panic!("expected it to be down");
    };
    assert!(pin_blocked);
    assert_eq!(cure, Cure::Never);
    assert!(why.contains("sealkeeper device unlock lab"), "{why}");
    assert!(why.contains("CKR_PIN_INCORRECT"), "{why}");
    let signed = signature(&device).await;
    assert!(
        matches!(signed, Err(DeviceError::PinBlocked { .. })),
        "{signed:?}"
    );
    assert!(token_saw_a_wrong_pin(&hsm));
    device.shut_down().await;

    // Somebody's right PIN lowers the flag; only another wrong one raises it.
    hsm.pkcs11_tool_logged_in(&["--list-objects"]);
    assert!(!token_saw_a_wrong_pin(&hsm));
    let marker = fs::metadata(hsm.pin_marker()).unwrap();
    for _ in 0..3 {
        let device = Device::start(hsm.device_config());
        assert!(matches!(
            is_down(&device).await,
            State::Down {
                pin_blocked: true,
                ..
            }
        ));
        device.shut_down().await;
    }
    assert!(
        !token_saw_a_wrong_pin(&hsm),
        "a restart tried the wrong PIN again"
    );
    let same = fs::metadata(hsm.pin_marker()).unwrap();
    assert_eq!(
        (marker.ino(), marker.mtime_nsec()),
        (same.ino(), same.mtime_nsec())
    );

    // The right PIN alone does not help: an operator has to say so.
    hsm.write_pin(PIN);
    let device = Device::start(hsm.device_config());
    is_down(&device).await;
    let text = fs::read_to_string(hsm.pin_marker()).unwrap();
    assert!(!text.contains("9999") && !text.contains(PIN), "{text}");
    assert!(pin_marker::unlock(&hsm.pin_marker()).unwrap());
    is_up(&device).await;
    es256_key(&device, 1).await;
}

#[tokio::test]
async fn a_good_login_leaves_no_marker() {
    let hsm = SoftHsm::new();
    let _device = up(hsm.device_config()).await;
    assert_eq!(
        pin_marker::status(&hsm.pin_marker()).unwrap(),
        Status::Clear
    );
}

#[tokio::test]
async fn a_login_that_was_cut_off_needs_an_operator() {
    let hsm = SoftHsm::new();
    fs::write(hsm.pin_marker(), "").unwrap();
    let device = Device::start(hsm.device_config());
    assert!(matches!(
        is_down(&device).await,
        State::Down {
            pin_blocked: true,
            ..
        }
    ));
    assert!(pin_marker::unlock(&hsm.pin_marker()).unwrap());
    is_up(&device).await;
}

/// A device of its own on the same token.
fn sibling(hsm: &SoftHsm, n: usize) -> DeviceConfig {
    let mut config = hsm.device_config();
    config.name = format!("lab-{n}");
    let name = format!("lab-{n}{}", pin_marker::SUFFIX);
    config.pin_marker = hsm.pin_marker().with_file_name(name);
    config
}

/// Each login rewrites the file of a SoftHSM token, and who reads meanwhile
/// gets CKR_GENERAL_ERROR: from that nobody must conclude that the PIN is wrong.
#[tokio::test]
async fn devices_on_one_token_log_in_by_turns() {
    let hsm = SoftHsm::new();
    for _ in 0..3 {
        let devices: Vec<Device> = (0..6).map(|n| Device::start(sibling(&hsm, n))).collect();
        for device in &devices {
            let first = reaches(device, |state| !matches!(state, State::Starting)).await;
            if let State::Down { why, .. } = first {
                // Another's login was in the way of finding the token: nothing
                // was tried yet, and the next child finds it.
                assert!(why.starts_with("expected a token"), "{why}");
            }
            is_up(device).await;
        }
        for device in &devices {
            device.shut_down().await;
        }
    }
    for n in 0..6 {
        let marker = sibling(&hsm, n).pin_marker;
        assert_eq!(pin_marker::status(&marker).unwrap(), Status::Clear);
    }
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_on_a_token_that_devices_share() {
    let hsm = SoftHsm::new();
    hsm.write_pin("9999");
    let first = Device::start(sibling(&hsm, 1));
    is_down(&first).await;
    assert!(token_saw_a_wrong_pin(&hsm));
    // Somebody's right PIN lowers the flag; only another wrong one raises it.
    hsm.pkcs11_tool_logged_in(&["--list-objects"]);
    let second = Device::start(sibling(&hsm, 2));
    let State::Down {
        why, pin_blocked, ..
    } = is_down(&second).await
    else {
        panic!("expected it to be down");
    };
    assert!(pin_blocked, "{why}");
    assert!(why.contains("the token is device lab-1's too"), "{why}");
    assert!(why.contains("sealkeeper device unlock lab-1"), "{why}");
    assert!(!token_saw_a_wrong_pin(&hsm), "tried once more");

    hsm.write_pin(PIN);
    assert!(pin_marker::unlock(&sibling(&hsm, 1).pin_marker).unwrap());
    is_up(&first).await;
    is_up(&second).await;
}

#[tokio::test]
async fn an_exposed_pin_file_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let hsm = SoftHsm::new();
    fs::set_permissions(hsm.pin_file(), fs::Permissions::from_mode(0o644)).unwrap();
    let device = Device::start(hsm.device_config());
    let State::Down {
        why, pin_blocked, ..
    } = is_down(&device).await
    else {
        panic!("expected it to be down");
    };
    assert!(why.contains("chmod 600"), "{why}");
    assert!(!pin_blocked);
    fs::set_permissions(hsm.pin_file(), fs::Permissions::from_mode(0o600)).unwrap();
    is_up(&device).await;
}
