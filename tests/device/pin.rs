//! A wrong PIN is tried once.

use std::fs;
use std::os::unix::fs::MetadataExt;

use sealkeeper::hsm::pin_marker::{self, Status};
use sealkeeper::hsm::{Cure, Device, DeviceError, State};

use super::{es256_key, is_down, is_up, signature, up};
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
