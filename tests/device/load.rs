//! Many callers at the same time.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sealkeeper::hsm::DeviceError;
use sealkeeper::hsm::device::MAX_INPUT;
use sealkeeper::jose::{Algorithm, Verifier};
use tokio::task::JoinSet;

use super::{es256_key, is_up, object, signal, signature, soon, up};
use crate::softhsm::SoftHsm;

#[tokio::test]
async fn sixty_four_callers_get_their_own_signatures() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let made = es256_key(&device, 1).await;
    let verifier = Verifier::new(Algorithm::Es256, &made.public).unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..64 {
        let (device, verifier) = (device.clone(), verifier.clone());
        callers.spawn(async move {
            for n in 0..20 {
                let input = format!("caller{caller}.request{n}");
                let signature = device
                    .sign(object(1), Algorithm::Es256, input.clone(), soon())
                    .await
                    .unwrap();
                verifier.verify(input.as_bytes(), &signature).unwrap();
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

/// Far more than a socket holds: frames are written and read in pieces.
#[tokio::test]
async fn long_inputs_arrive_whole() {
    let hsm = SoftHsm::new();
    let device = up(hsm.device_config()).await;
    let made = es256_key(&device, 1).await;
    let verifier = Verifier::new(Algorithm::Es256, &made.public).unwrap();
    let mut callers = JoinSet::new();
    for n in 0..40 {
        let (device, verifier) = (device.clone(), verifier.clone());
        callers.spawn(async move {
            let input = vec![n; MAX_INPUT];
            let signature = device
                .sign(object(1), Algorithm::Es256, input.clone(), soon())
                .await
                .unwrap();
            verifier.verify(&input, &signature).unwrap();
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let longer = vec![0; MAX_INPUT + 1];
    let signed = device
        .sign(object(1), Algorithm::Es256, longer, soon())
        .await;
    assert!(
        matches!(signed, Err(DeviceError::Refused { .. })),
        "{signed:?}"
    );
}

#[tokio::test]
async fn a_full_queue_answers_at_once() {
    let hsm = SoftHsm::new();
    let mut config = hsm.device_config();
    config.queue = 4;
    config.workers = 1;
    let device = up(config).await;
    let made = es256_key(&device, 1).await;
    let pid = is_up(&device).await;
    signal(pid, Signal::STOP);
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let device = device.clone();
        callers.spawn(async move { signature(&device).await });
    }
    // Those that found no room are back while the child does nothing.
    let mut turned_away = 0;
    while turned_away < 100 - 4 - 8 {
        let answer = callers.join_next().await.unwrap().unwrap();
        let Err(DeviceError::Overloaded { queued, .. }) = answer else {
            panic!("expected to be turned away, got {answer:?}");
        };
        assert_eq!(queued, 4);
        turned_away += 1;
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    signal(pid, Signal::CONT);
    let verifier = Verifier::new(Algorithm::Es256, &made.public).unwrap();
    while let Some(answer) = callers.join_next().await {
        match answer.unwrap() {
            Ok(signature) => verifier.verify(b"a.b", &signature).unwrap(),
            Err(DeviceError::Overloaded { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
}
