//! From the start of the program to its first signature.

use std::time::{Duration, Instant};

use sealkeeper::api::client;
use sealkeeper::api::v1::signer_client::SignerClient;

use super::CLAIMS;
use super::agent::Agent;
use super::children::end;
use super::live::lab::{Lab, sign};
use super::report::{Cell, Goal, Report, Table, Unit};

const RUNS: usize = 9;

const HOW: &str = "Milliseconds from the start of `sealkeeper serve` until a caller that tries \
    again every millisecond has its first token (ES256): the configuration, the store, the log, \
    the child process, the module and its login are among it. Each run after an orderly end.";

pub(crate) async fn measure(report: &mut Report) {
    let algorithms = ["ES256", "ES384", "ES512", "Ed25519", "RS256"];
    let Agent { lab, daemon, .. } = {
        let agent = Agent::start(&algorithms, |_| {}).await;
        let keys = agent.keys().len();
        assert!(keys >= 10, "expected ten keys, got {keys}");
        agent
    };
    end(daemon).await;
    let mut took = Vec::new();
    for _ in 0..RUNS {
        took.push(first_signature(&lab).await.as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    let mut table = Table::new(
        "Start to first signature, ms",
        HOW,
        &["least", "median", "most"],
    );
    let cells = [took[0], took[RUNS / 2], took[RUNS - 1]].map(Cell::Tenths);
    table.row("a token with ten keys", cells.into());
    report.add(table);
    let cause = "see the table.";
    let what = "start to first signature, ten keys";
    report.aim(
        what,
        Goal::AtMost(100.0, Unit::Millis),
        took[RUNS / 2],
        cause,
    );
}

async fn first_signature(lab: &Lab) -> Duration {
    let began = Instant::now();
    let daemon = lab.spawn(&[]);
    let mut again = tokio::time::interval(Duration::from_millis(1));
    let took = loop {
        again.tick().await;
        let Ok(channel) = client::connect(&lab.path("sign.sock")).await else {
            continue;
        };
        if sign(&mut SignerClient::new(channel), "ES256", CLAIMS)
            .await
            .is_ok()
        {
            break began.elapsed();
        }
    };
    end(daemon).await;
    took
}
