//! Devices, through real child processes, on SoftHSM2.

mod elsewhere;
mod faults;
mod keys;
mod load;
mod pin;

use std::time::{Duration, Instant};

use sealkeeper::hsm::{Device, DeviceConfig, DeviceError, Generated, ObjectId, State};
use sealkeeper::jose::{Algorithm, KeyType, PublicKey, Verifier};

/// Longer than anything here takes, even on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// As a journal would draw it; here only different from its neighbours.
fn object(n: u8) -> ObjectId {
    ObjectId(std::array::from_fn(|i| {
        n.wrapping_mul(31).wrapping_add(i as u8)
    }))
}

async fn up(config: DeviceConfig) -> Device {
    let device = Device::start(config);
    is_up(&device).await;
    device
}

async fn is_up(device: &Device) -> u32 {
    match reaches(device, |state| matches!(state, State::Up { .. })).await {
        State::Up { pid: Some(pid), .. } => pid,
        other => panic!("expected it to be up, got {other:?}"),
    }
}

async fn is_down(device: &Device) -> State {
    reaches(device, |state| matches!(state, State::Down { .. })).await
}

/// Waits until another child than this is up.
async fn is_replaced(device: &Device, old: u32) -> u32 {
    match reaches(
        device,
        |state| matches!(state, State::Up { pid, .. } if *pid != Some(old)),
    )
    .await
    {
        State::Up { pid: Some(pid), .. } => pid,
        other => panic!("expected another child, got {other:?}"),
    }
}

async fn reaches(device: &Device, wanted: impl FnMut(&State) -> bool) -> State {
    let mut state = device.state();
    let reached = tokio::time::timeout(PATIENCE, state.wait_for(wanted)).await;
    match reached {
        Ok(Ok(state)) => state.clone(),
        other => panic!("{device:?} did not get there: {:?}", other.map(|_| ())),
    }
}

/// A new P-256 key for ES256.
async fn es256_key(device: &Device, n: u8) -> Generated {
    let generated = device.generate(object(n), KeyType::P256, Algorithm::Es256, soon());
    generated.await.unwrap()
}

/// Signs with the key of [`es256_key`], number 1.
async fn signature(device: &Device) -> Result<Vec<u8>, DeviceError> {
    let signed = device.sign(object(1), Algorithm::Es256, *b"a.b", soon());
    signed.await
}

async fn signs(device: &Device, object: ObjectId, algorithm: Algorithm, key: &PublicKey) {
    let input = b"eyJhbGciOiJ4In0.e30";
    let signature = device
        .sign(object, algorithm, *input, soon())
        .await
        .unwrap();
    Verifier::new(algorithm, key)
        .unwrap()
        .verify(input, &signature)
        .unwrap();
}

fn is_unavailable(result: &Result<impl std::fmt::Debug, DeviceError>) -> bool {
    matches!(result, Err(DeviceError::Unavailable { .. }))
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits until a process is gone, a zombie included.
async fn is_gone(pid: u32) {
    let path = format!("/proc/{pid}");
    let deadline = soon();
    while std::path::Path::new(&path).exists() {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
