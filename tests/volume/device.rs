//! What reaches a slow device, and what does not.

use std::time::{Duration, Instant};

use sealkeeper::hsm::{Device, DeviceError, ObjectId};
use sealkeeper::jose::{Algorithm, KeyType};
use tokio::task::JoinSet;

use super::slow::{self, Counters};
use crate::softhsm::SoftHsm;

const KEY: ObjectId = ObjectId([7; 16]);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// A device of one worker that takes at least `sign` for each; it has made
/// one signature.
async fn slow_device(sign: Duration) -> (SoftHsm, tempfile::TempDir, Device) {
    let hsm = SoftHsm::new();
    let dir = tempfile::tempdir().unwrap();
    let mut config = hsm.device_config();
    config.module = slow::module().to_owned();
    let env = slow::env(sign, &dir.path().join("counters"));
    config
        .env
        .extend(env.map(|(name, value)| (name.into(), value.into())));
    config.workers = 1;
    let device = Device::start(config);
    device
        .generate(KEY, KeyType::P256, Algorithm::Es256, soon())
        .await
        .unwrap();
    (hsm, dir, device)
}

async fn sign(device: &Device, deadline: Instant) -> Result<Vec<u8>, DeviceError> {
    device.sign(KEY, Algorithm::Es256, *b"a.b", deadline).await
}

/// The wait is in the one call that returns a signature, and only there.
#[tokio::test]
async fn the_slow_module_is_slow_and_counts() {
    let (_hsm, dir, device) = slow_device(Duration::from_millis(20)).await;
    let before = Counters::read(&dir.path().join("counters"));
    let began = Instant::now();
    for _ in 0..5 {
        sign(&device, soon()).await.unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(100));
    let after = Counters::read(&dir.path().join("counters"));
    assert_eq!(after.signatures - before.signatures, 5);
    assert_eq!(after.sign_init - before.sign_init, 5);
    assert!(after.sign - before.sign >= 5);
    assert_eq!(after.most_inside, 1);
    let service = device.load().service.unwrap();
    assert!(service >= Duration::from_millis(20), "{service:?}");
}

/// Whoever waits past the deadline, in the daemon or in the child, is told,
/// and the device is not troubled.
#[tokio::test]
async fn an_expired_request_does_not_reach_the_device() {
    let (_hsm, dir, device) = slow_device(Duration::from_millis(50)).await;
    let before = Counters::read(&dir.path().join("counters"));
    let deadline = Instant::now() + Duration::from_millis(220);
    let mut callers = JoinSet::new();
    for _ in 0..40 {
        let device = device.clone();
        callers.spawn(async move { sign(&device, deadline).await });
    }
    let mut signed = 0;
    for answer in callers.join_all().await {
        match answer {
            Ok(_) => signed += 1,
            // The first ones are let in while the device's speed is not known.
            Err(DeviceError::Deadline { .. } | DeviceError::Overloaded { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    // Behind everything that came before.
    sign(&device, soon()).await.unwrap();
    let after = Counters::read(&dir.path().join("counters"));
    let made = after.signatures - before.signatures;
    // One may have been begun in time and ended too late.
    assert!((1..=4).contains(&signed), "{signed}");
    assert!(made <= signed + 2, "{made} made, {signed} answered");
}

/// A caller that hangs up is not worked for.
#[tokio::test]
async fn what_nobody_waits_for_does_not_reach_the_device() {
    let (_hsm, dir, device) = slow_device(Duration::from_millis(20)).await;
    let before = Counters::read(&dir.path().join("counters"));
    let mut callers = JoinSet::new();
    for _ in 0..40 {
        let device = device.clone();
        callers.spawn(async move { sign(&device, soon()).await });
    }
    callers.join_next().await.unwrap().unwrap().unwrap();
    callers.shutdown().await;
    sign(&device, soon()).await.unwrap();
    let after = Counters::read(&dir.path().join("counters"));
    let made = after.signatures - before.signatures;
    // What was with the child when they went, and the two that were waited for.
    assert!(made <= 8, "{made}");
}

/// Two flows, one with a queue: the other is served next.
#[tokio::test]
async fn flows_take_turns_at_the_device() {
    let (_hsm, _dir, device) = slow_device(Duration::from_millis(10)).await;
    let mut flood = JoinSet::new();
    for _ in 0..20 {
        let device = device.clone();
        flood.spawn(async move {
            let pending = device.enqueue("flood", KEY, Algorithm::Es256, b"a.b".into(), soon());
            pending?.signature().await
        });
    }
    flood.join_next().await.unwrap().unwrap().unwrap();
    device
        .enqueue("other", KEY, Algorithm::Es256, b"a.b".into(), soon())
        .unwrap()
        .signature()
        .await
        .unwrap();
    let mut answered = 1;
    while flood.try_join_next().is_some() {
        answered += 1;
    }
    // What the child had already, and little more; not all of them.
    assert!(answered <= 10, "{answered} of 20 went first");
}
