//! Four times what the device can do, over gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sealkeeper::api::v1::signer_client::SignerClient;
use tonic::Code;
use tonic::transport::Channel;

use super::load::{Answer, at_rate, in_turn, percentile};
use super::slow::Counters;
use super::{counters, slow_lab};
use crate::live::crowds::most_resident;
use crate::live::lab::{Daemon, Lab};

/// What one signature takes, at least. Slower than most HSMs, so that what
/// the test itself needs of two busy processors is little beside it.
const SIGN: Duration = Duration::from_millis(5);

/// A queue of the first moment is a crowd: it is let in, and gone by then.
const ONSET: Duration = Duration::from_secs(1);

/// How long it is quiet, how long it is not, and which percentile is compared:
/// of a few seconds' requests, some other process on the same processors has
/// the last word on the slowest hundredth. `scripts/test` has the minute that
/// is promised, once nothing else runs.
fn overload() -> (Duration, Duration, usize) {
    if std::env::var_os("SEALKEEPER_ALONE").is_some() {
        (Duration::from_secs(10), Duration::from_secs(60), 99)
    } else {
        (Duration::from_secs(2), Duration::from_secs(4), 90)
    }
}

async fn signers(daemon: &mut Daemon) -> Vec<SignerClient<Channel>> {
    let mut signers = Vec::new();
    for _ in 0..4 {
        signers.push(daemon.clients().await.unwrap().0);
    }
    signers
}

/// Signatures a second, with more callers than workers.
async fn capacity(signers: &[SignerClient<Channel>], lab: &Lab) -> f64 {
    let enough = Arc::new(AtomicBool::new(false));
    let callers = in_turn(signers, "main", 8, Arc::clone(&enough));
    let time = Duration::from_secs(1);
    let watch = async {
        let (began, before) = (Instant::now(), Counters::read(&counters(lab)));
        tokio::time::timeout(time, std::future::pending::<()>())
            .await
            .ok();
        let made = Counters::read(&counters(lab)).signatures - before.signatures;
        enough.store(true, Ordering::Relaxed);
        made as f64 / began.elapsed().as_secs_f64()
    };
    let (_, rate) = tokio::join!(callers, watch);
    rate
}

fn accepted(answers: &[Answer]) -> impl Iterator<Item = &Answer> + Clone {
    answers.iter().filter(|answer| answer.result.is_ok())
}

/// Latency of what is accepted, memory, what the device does, and what the
/// others are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_leaves_latency_and_memory_flat() {
    let (lab, mut daemon) = slow_lab(SIGN, &[]).await;
    let signers = signers(&mut daemon).await;
    let capacity = capacity(&signers, &lab).await;
    let (quietly, long, percent) = overload();

    // Another process on these processors may take them away from either
    // side of the comparison: one good run of three is no accident.
    let mut seen = Vec::new();
    for _ in 0..3 {
        let quiet = at_rate(&signers, "main", capacity / 2.0, quietly).await;
        let quiet = percentile(accepted(&quiet).map(|answer| answer.took), percent);

        let memory = most_resident(&daemon);
        let made = Counters::read(&counters(&lab)).signatures;
        let flood = at_rate(&signers, "main", capacity * 4.0, ONSET).await;
        let began = Instant::now();
        let mut answers = at_rate(&signers, "main", capacity * 4.0, long).await;
        let time = began.elapsed();
        let grown = most_resident(&daemon) - memory;
        assert!(grown < memory / 10 + 8 * 1024, "{memory} and {grown} KiB");

        let made = Counters::read(&counters(&lab)).signatures - made;
        let got = accepted(&flood).count() + accepted(&answers).count();
        let wasted = made as usize - got;
        assert!(wasted <= got / 100 + 8, "{made} made, {got} given out");
        for answer in &answers {
            if let Err(refused) = &answer.result {
                assert_eq!(refused.code, Code::ResourceExhausted, "{refused:?}");
                assert!(refused.retry_after > Some(Duration::ZERO));
            }
        }
        let rate = accepted(&answers).count() as f64 / time.as_secs_f64();
        let took = percentile(accepted(&answers).map(|answer| answer.took), percent);
        answers.retain(|answer| answer.result.is_err());
        let told = percentile(answers.iter().map(|answer| answer.took), 50);
        let run = format!(
            "capacity {capacity:.0}/s; quiet p{percent} {quiet:?}; flooded p{percent} {took:?}, \
             {rate:.0}/s; refused in {told:?}; {memory} KiB, {grown} more"
        );
        eprintln!("{run}");
        seen.push(run);
        if took <= quiet * 3 && told <= quiet && rate >= capacity * 0.75 {
            return;
        }
    }
    panic!("{}", seen.join("\n"));
}

/// One key set's flood leaves another its share of completions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_leaves_another_key_set_its_share() {
    let (lab, mut daemon) = slow_lab(SIGN, &["other"]).await;
    let signers = signers(&mut daemon).await;
    let capacity = capacity(&signers, &lab).await;
    let enough = Arc::new(AtomicBool::new(false));
    let flood = async {
        let answers = at_rate(&signers, "main", capacity * 4.0, Duration::from_secs(4)).await;
        enough.store(true, Ordering::Relaxed);
        accepted(&answers).count()
    };
    let other = in_turn(&signers, "other", 8, Arc::clone(&enough));
    let (flood, other) = tokio::join!(flood, other);
    let share = other as f64 / (flood + other) as f64;
    eprintln!("{other} beside a flood that got {flood}");
    assert!((0.35..0.75).contains(&share), "{other} beside {flood}");
}
