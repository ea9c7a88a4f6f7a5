//! Callers: those who ask at a rate whatever the answers, and those who wait
//! for each answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sealkeeper::api::v1::SignJwtRequest;
use sealkeeper::api::v1::signer_client::SignerClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What became of one request.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) took: Duration,
    pub(super) result: Result<(), Refused>,
}

#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) retry_after: Option<Duration>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        Self {
            code: status.code(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

/// One signature for a key set.
pub(super) async fn sign(
    signer: &mut SignerClient<Channel>,
    key_set: &str,
    timeout: Duration,
) -> Result<(), Refused> {
    let mut request = tonic::Request::new(SignJwtRequest {
        key_set: key_set.to_owned(),
        claims: br#"{"sub":"alice"}"#.to_vec(),
        alg: None,
        typ: None,
    });
    request.set_timeout(timeout);
    signer.sign_jwt(request).await?;
    Ok(())
}

/// Asks `rate` times a second, whatever the answers.
pub(super) async fn at_rate(
    signers: &[SignerClient<Channel>],
    key_set: &'static str,
    rate: f64,
    time: Duration,
) -> Vec<Answer> {
    let began = Instant::now();
    let mut asked = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut n = 0;
    while began.elapsed() < time {
        ticks.tick().await;
        let due = |n: u32| Duration::from_secs_f64(f64::from(n) / rate);
        while due(n) <= began.elapsed() {
            let mut signer = signers[n as usize % signers.len()].clone();
            asked.spawn(async move {
                // Not from when it was due: that this process had to wait for
                // a processor is not the agent's doing.
                let at = Instant::now();
                let result = sign(&mut signer, key_set, Duration::from_secs(5)).await;
                Answer {
                    took: at.elapsed(),
                    result,
                }
            });
            n += 1;
        }
    }
    asked.join_all().await
}

/// So many callers who ask again once they have their answer, until `enough`;
/// who is told to come back later does. How many signatures they got.
pub(super) async fn in_turn(
    signers: &[SignerClient<Channel>],
    key_set: &'static str,
    callers: usize,
    enough: Arc<AtomicBool>,
) -> usize {
    let mut all = JoinSet::new();
    for n in 0..callers {
        let (mut signer, enough) = (signers[n % signers.len()].clone(), enough.clone());
        all.spawn(async move {
            let mut done = 0;
            while !enough.load(Ordering::Relaxed) {
                match sign(&mut signer, key_set, Duration::from_secs(5)).await {
                    Ok(()) => done += 1,
                    Err(Refused {
                        code: Code::ResourceExhausted,
                        retry_after: Some(delay),
                        ..
                    }) => tokio::time::sleep(delay).await,
                    Err(other) => panic!("{other:?}"),
                }
            }
            done
        });
    }
    all.join_all().await.into_iter().sum()
}

/// The value below which so many of a hundred lie.
pub(super) fn percentile(values: impl Iterator<Item = Duration>, percent: usize) -> Duration {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
