//! Signatures a second, by algorithm and way of asking, beside the token alone.

use std::time::Duration;

use super::WORKERS;
use super::agent::{Agent, Way};
use super::load::Figure;
use super::report::{Cell, Goal, Report, Table, Unit};
use super::token::Bare;

const WAYS: [Way; 7] = [
    Way::Unary(1),
    Way::Unary(16),
    Way::Unary(64),
    Way::Batch,
    Way::Stream(64),
    Way::Tls(64),
    Way::TlsStream(64),
];

const HOW: &str = "Bare: C_Sign in two threads of one process, each with a session of its own, and \
    the same with the verification of each signature; before and after the agent, the mean of both. \
    The agent has two sessions as well. Its callers are one thread in a process of its own, on the \
    same processors: what they take is in the figures. Latencies are those of one call, of a batch \
    the whole; the last three columns are microseconds of a processor for each signature, from \
    /proc. In flight means: so many ask again as soon as they have their answer.";

pub(crate) async fn measure(report: &mut Report, span: Duration) {
    let algorithms = ["RS256", "ES256", "Ed25519"];
    let agent = Agent::start(&algorithms, |_| {}).await;
    let rest = agent.memory();
    let mut most = rest;
    for alg in algorithms {
        let name = if alg == "RS256" { "RS256 (2048)" } else { alg };
        let columns = [
            "/s",
            "of bare",
            "of bare + verify",
            "p50 µs",
            "p99 µs",
            "caller",
            "agent",
            "device",
        ];
        let mut table = Table::new(&format!("Signatures: {name}"), HOW, &columns);
        let (bare, verified) = bare(&agent, alg, span / 2).await;
        let mut ways = Vec::new();
        for way in WAYS {
            let watch = async {
                let half = tokio::time::Instant::now() + span / 2;
                tokio::time::timeout_at(half, std::future::pending::<()>())
                    .await
                    .ok();
                agent.memory()
            };
            let (figure, memory) = tokio::join!(agent.drive(way, alg, span), watch);
            if memory.sum > most.sum {
                most = memory;
            }
            ways.push((way, figure));
        }
        let (bare_after, verified_after) = self::bare(&agent, alg, span / 2).await;
        let (bare, verified) = (bare.between(&bare_after), verified.between(&verified_after));
        let row = |figure: &Figure, alone: bool| {
            let mut cells = vec![
                Cell::Count(figure.per_second),
                Cell::Ratio(figure.per_second / bare.per_second),
                Cell::Ratio(figure.per_second / verified.per_second),
                Cell::Micros(figure.p50_us),
                Cell::Micros(figure.p99_us),
            ];
            let used = figure.cpu_us.iter().map(|us| Cell::Micros(*us));
            cells.extend((0..if alone { 2 } else { 0 }).map(|_| Cell::None));
            cells.extend(used);
            cells
        };
        table.row(format!("bare, {WORKERS} threads"), row(&bare, true));
        table.row(
            format!("bare + verify, {WORKERS} threads"),
            row(&verified, true),
        );
        for (way, figure) in &ways {
            table.row(way.name(), row(figure, false));
        }
        report.add(table);
        let streamed = ways.iter().find(|(way, _)| matches!(way, Way::Stream(_)));
        let streamed = streamed.unwrap().1.per_second;
        judge(
            report,
            alg,
            streamed / bare.per_second,
            streamed / verified.per_second,
        );
    }
    memory(report, rest, most);
}

async fn bare(agent: &Agent, alg: &str, span: Duration) -> (Figure, Figure) {
    let key = agent.key(alg).await;
    let bare = Bare::signing(&key, WORKERS, span);
    (bare.run(&agent.lab), bare.verifying().run(&agent.lab))
}

/// Why less than the token's own speed comes out at the other end.
const SHARED: &str = "callers, agent and token share the processors, and a software token uses all \
    of them by itself. What the last columns count beside the device is the whole of it: gRPC on \
    both sides, verification, policy and the record.";

fn judge(report: &mut Report, alg: &str, of_bare: f64, of_verified: f64) {
    let part = |n| Goal::AtLeast(n, Unit::Part);
    if alg == "RS256" {
        report.aim("RSA-2048 streamed, of bare", part(0.9), of_bare, SHARED);
    } else {
        let what = format!("{alg} streamed, of bare + verify");
        report.aim(what, part(0.8), of_verified, SHARED);
    }
}

fn memory(report: &mut Report, rest: super::machine::Memory, most: super::machine::Memory) {
    let how = "The agent and its device's process, after the start and at the most that was seen \
        in the middle of each load above. Together: each page counted once (PSS); sum: each \
        process as if it were alone (RSS).";
    let mut table = Table::new("Resident memory, MB", how, &["together", "sum"]);
    for (name, memory) in [("at rest", rest), ("under load", most)] {
        let together = memory.together.map_or(Cell::None, Cell::Tenths);
        table.row(name, vec![together, Cell::Tenths(memory.sum)]);
    }
    report.add(table);
    let cause = "see the table.";
    let got = most.together.unwrap_or(most.sum);
    report.aim(
        "memory, all processes",
        Goal::AtMost(40.0, Unit::Megabytes),
        got,
        cause,
    );
}
