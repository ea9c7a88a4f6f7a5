//! Keys: made, proven, found, destroyed.

use sealkeeper::hsm::DeviceError;
use sealkeeper::jose::{Algorithm, KeyType};

use super::{es256_key, object, signature, signs, soon, up};
use crate::softhsm::SoftHsm;

#[tokio::test]
async fn every_algorithm_signs() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    for (n, algorithm) in (0..).zip(Algorithm::ALL) {
        let key_type = algorithm.default_key_type();
        let made = device
            .generate(object(n), key_type, algorithm, soon())
            .await
            .unwrap();
        assert_eq!(made.public.key_type(), key_type, "{algorithm}");
        signs(&device, object(n), algorithm, &made.public).await;
    }
}

#[tokio::test]
async fn every_rsa_size_signs() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    for (n, key_type, algorithm) in [
        (0, KeyType::Rsa3072, Algorithm::Rs256),
        (1, KeyType::Rsa4096, Algorithm::Ps512),
    ] {
        let made = device
            .generate(object(n), key_type, algorithm, soon())
            .await
            .unwrap();
        assert_eq!(made.public.key_type(), key_type);
        signs(&device, object(n), algorithm, &made.public).await;
    }
}

#[tokio::test]
async fn a_new_key_was_read_back() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    for (n, algorithm, made_by) in [
        (0, Algorithm::Es256, "CKM_EC_KEY_PAIR_GEN"),
        (1, Algorithm::Rs256, "CKM_RSA_PKCS_KEY_PAIR_GEN"),
        (2, Algorithm::Ed25519, "CKM_EC_EDWARDS_KEY_PAIR_GEN"),
    ] {
        let key_type = algorithm.default_key_type();
        let made = device
            .generate(object(n), key_type, algorithm, soon())
            .await
            .unwrap();
        let evidence = made.evidence;
        assert_eq!(evidence.sensitive, Some(true));
        assert_eq!(evidence.extractable, Some(false));
        assert_eq!(evidence.always_sensitive, Some(true));
        assert_eq!(evidence.never_extractable, Some(true));
        assert_eq!(evidence.local, Some(true));
        assert_eq!(evidence.key_gen_mechanism.as_deref(), Some(made_by));
        assert_eq!(evidence.allowed_mechanisms.len(), 1, "{evidence:?}");
        assert!(evidence.notes.is_empty(), "{:?}", evidence.notes);
    }
    // What another tool sees of the private keys.
    let seen = hsm.pkcs11_tool_logged_in(&["--list-objects", "--type", "privkey"]);
    assert_eq!(seen.matches("Private Key Object").count(), 3, "{seen}");
    assert_eq!(seen.matches("never extractable").count(), 3, "{seen}");
    assert!(
        !seen.contains("decrypt") && !seen.contains("unwrap"),
        "{seen}"
    );
    assert!(seen.contains(&object(0).label()), "{seen}");
}

#[tokio::test]
async fn a_key_is_held_to_its_algorithm() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    device
        .generate(object(1), KeyType::Rsa2048, Algorithm::Rs256, soon())
        .await
        .unwrap();
    // The token itself refuses another RSA mechanism.
    let other = device
        .sign(object(1), Algorithm::Ps256, *b"a.b", soon())
        .await;
    assert!(
        matches!(other, Err(DeviceError::Refused { .. })),
        "{other:?}"
    );
    // And the agent another kind of key.
    let other = signature(&device).await;
    assert!(
        matches!(other, Err(DeviceError::Refused { .. })),
        "{other:?}"
    );
    let wrong = device
        .generate(object(2), KeyType::P256, Algorithm::Es384, soon())
        .await;
    assert!(
        matches!(wrong, Err(DeviceError::Refused { .. })),
        "{wrong:?}"
    );
    assert_eq!(device.find(object(2)).await.unwrap(), None);
}

#[tokio::test]
async fn generate_is_idempotent() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let generate = || device.generate(object(1), KeyType::P256, Algorithm::Es256, soon());
    let first = generate().await.unwrap();
    let second = generate().await.unwrap();
    assert_eq!(first.public, second.public);

    // Not with another kind of key: that is another intent's id.
    let other = device
        .generate(object(1), KeyType::P384, Algorithm::Es384, soon())
        .await;
    assert!(
        matches!(other, Err(DeviceError::Refused { .. })),
        "{other:?}"
    );
    signs(&device, object(1), Algorithm::Es256, &first.public).await;
}

#[tokio::test]
async fn half_a_pair_is_made_anew() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let id = object(1).to_string();
    let generate = || device.generate(object(1), KeyType::P256, Algorithm::Es256, soon());
    let mut before = generate().await.unwrap().public;
    for half in ["pubkey", "privkey"] {
        hsm.pkcs11_tool_logged_in(&["--delete-object", "--type", half, "--id", &id]);
        let found = device.find(object(1)).await;
        assert!(
            matches!(found, Err(DeviceError::BadKey { .. })),
            "{found:?}"
        );

        let made = generate().await.unwrap();
        assert_ne!(made.public, before, "after losing its {half}");
        assert!(!made.evidence.notes.is_empty());
        signs(&device, object(1), Algorithm::Es256, &made.public).await;
        before = made.public;
    }
    let seen = hsm.pkcs11_tool_logged_in(&["--list-objects"]);
    assert_eq!(seen.matches("Key Object").count(), 2, "{seen}");
}

#[tokio::test]
async fn two_keys_with_one_id_are_an_error() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let generate = || device.generate(object(1), KeyType::P256, Algorithm::Es256, soon());
    generate().await.unwrap();
    let id = object(1).to_string();
    hsm.pkcs11_tool_logged_in(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", &id]);

    let again = generate().await;
    assert!(
        matches!(again, Err(DeviceError::BadKey { .. })),
        "{again:?}"
    );
    let found = device.find(object(1)).await;
    assert!(
        matches!(found, Err(DeviceError::BadKey { .. })),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_key_that_can_leave_is_refused() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let id = object(1).to_string();
    hsm.pkcs11_tool_logged_in(&[
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--id",
        &id,
        "--extractable",
    ]);
    let found = device.find(object(1)).await;
    assert!(
        matches!(found, Err(DeviceError::BadKey { .. })),
        "{found:?}"
    );
    let made = device
        .generate(object(1), KeyType::P256, Algorithm::Es256, soon())
        .await;
    let Err(DeviceError::BadKey { why, .. }) = made else {
        panic!("expected a bad key, got {made:?}");
    };
    assert!(why.contains("CKA_EXTRACTABLE"), "{why}");
}

#[tokio::test]
async fn halves_of_two_pairs_are_no_pair() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    for n in [1, 2] {
        es256_key(&device, n).await;
    }
    let (id, other) = (object(1).to_string(), object(2).to_string());
    let file = hsm.tokens().with_file_name("public.der");
    let file = file.to_str().unwrap();
    hsm.pkcs11_tool(&[
        "--read-object",
        "--type",
        "pubkey",
        "--id",
        &other,
        "-o",
        file,
    ]);
    hsm.pkcs11_tool_logged_in(&["--delete-object", "--type", "pubkey", "--id", &id]);
    hsm.pkcs11_tool_logged_in(&["--write-object", file, "--type", "pubkey", "--id", &id]);

    let made = device
        .generate(object(1), KeyType::P256, Algorithm::Es256, soon())
        .await;
    let Err(DeviceError::BadKey { why, .. }) = made else {
        panic!("expected a bad key, got {made:?}");
    };
    assert!(why.contains("does not verify"), "{why}");
}

#[tokio::test]
async fn keys_outlive_their_child() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let made = device
        .generate(object(1), KeyType::P384, Algorithm::Es384, soon())
        .await
        .unwrap();
    device.shut_down().await;

    let device = up(hsm.device_config()).await;
    let found = device.find(object(1)).await.unwrap().unwrap();
    assert_eq!(found, made);
    signs(&device, object(1), Algorithm::Es384, &found.public).await;
    assert_eq!(device.find(object(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_key_that_somebody_else_destroyed_is_missed() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let generate = || device.generate(object(1), KeyType::P256, Algorithm::Es256, soon());
    let sign = || device.sign(object(1), Algorithm::Es256, *b"a.b", soon());
    generate().await.unwrap();
    // Until each worker has its handle.
    for _ in 0..20 {
        sign().await.unwrap();
    }
    let id = object(1).to_string();
    for half in ["privkey", "pubkey"] {
        hsm.pkcs11_tool_logged_in(&["--delete-object", "--type", half, "--id", &id]);
    }
    for _ in 0..20 {
        let signed = sign().await;
        assert!(
            matches!(signed, Err(DeviceError::NoSuchKey { .. })),
            "{signed:?}"
        );
    }
    let made = generate().await.unwrap();
    signs(&device, object(1), Algorithm::Es256, &made.public).await;
}

#[tokio::test]
async fn destroy_is_idempotent_and_complete() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let kept = es256_key(&device, 2).await;
    es256_key(&device, 1).await;
    signature(&device).await.unwrap();

    device.destroy(object(1)).await.unwrap();
    assert_eq!(device.find(object(1)).await.unwrap(), None);
    let signed = signature(&device).await;
    assert!(
        matches!(signed, Err(DeviceError::NoSuchKey { .. })),
        "{signed:?}"
    );
    device.destroy(object(1)).await.unwrap();

    signs(&device, object(2), Algorithm::Es256, &kept.public).await;
    let seen = hsm.pkcs11_tool_logged_in(&["--list-objects"]);
    assert_eq!(seen.matches("Key Object").count(), 2, "{seen}");
}

/// What a worker knows of a key ends with the key. On other tokens its handle
/// may be another key's by then; SoftHSM gives none twice, so here the kind
/// of key shows what was remembered.
#[tokio::test]
async fn workers_forget_what_was_destroyed() {
    let hsm = SoftHsm::new();
    let mut config = hsm.device_config();
    config.workers = 1;
    let device = up(config).await;
    for (key_type, algorithm) in [
        (KeyType::P256, Algorithm::Es256),
        (KeyType::P384, Algorithm::Es384),
        (KeyType::Rsa2048, Algorithm::Rs256),
    ] {
        let generated = device.generate(object(1), key_type, algorithm, soon());
        let made = generated.await.unwrap();
        signs(&device, object(1), algorithm, &made.public).await;
        // No signature in between, or its failure would make it forget.
        device.destroy(object(1)).await.unwrap();
    }
}

/// Found with SoftHSM 2.6: a key that was made, read back and proven is lost
/// if another program lists it while it is being made. Whoever is about to
/// rely on a key can ask, and the child that made it knows no better than the
/// token.
#[tokio::test]
async fn a_key_that_was_lost_after_it_was_proven_is_found_out() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let made = es256_key(&device, 1).await;
    signs(&device, object(1), Algorithm::Es256, &made.public).await;
    hsm.spoil_private_keys();
    let found = device.find(object(1)).await;
    assert!(
        matches!(found, Err(DeviceError::BadKey { .. })),
        "{found:?}"
    );
    let signed = signature(&device).await;
    assert!(
        matches!(signed, Err(DeviceError::NoSuchKey { .. })),
        "{signed:?}"
    );
}

/// Why tests list a copy of the token: the tool that only lists writes.
#[test]
fn listing_a_half_made_key_writes_to_it() {
    let hsm = SoftHsm::new();
    let make = "--keypairgen --key-type EC:prime256v1 --id 01 --label one";
    hsm.pkcs11_tool_logged_in(&make.split(' ').collect::<Vec<_>>());
    hsm.spoil_private_keys();
    let before = hsm.private_keys();
    assert_eq!(before.len(), 1);
    hsm.pkcs11_tool_logged_in(&["--list-objects", "--type", "privkey"]);
    assert_ne!(
        before,
        hsm.private_keys(),
        "SoftHSM was mended: see its notes"
    );
}
