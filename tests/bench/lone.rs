//! A lone request, taken apart.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use sealkeeper::client::Client;

use super::agent::{Agent, item, signed};
use super::echo::Echo;
use super::http::{self, Connection};
use super::live::lab::wait_for;
use super::report::{Cell, Goal, Report, Table, Unit};
use super::token::Bare;

/// Requests of one kind after each other, until it is another kind's turn. Few,
/// so that in most turns no other process had the processors.
const SLICE: u32 = 10;

const HOW: &str = "One caller, one request at a time, in microseconds. By turns of ten: the \
    agent, and a gRPC service with the same messages on another Unix socket that answers at once \
    (transport). Of each turn the mean, of all turns the median. Device, record, verification and \
    the agent's total are what /metrics of the agent counted in the same turn; the device's own \
    work is the median of a bare loop of C_Sign in one thread, and what the agent waits for it \
    beyond that is the way to the child process and back. The record is made at the same time as \
    the signature: counted is by how much it took longer. Our own share is all that is left: \
    connection, caller, policy, encoding, queues and their wake-ups.";

/// What /metrics knows of a signature's time, in the order of [`Parts`].
const HISTOGRAMS: [&str; 5] = [
    "sign_seconds",
    "sign_device_seconds",
    "sign_record_seconds",
    "sign_verification_seconds",
    "sign_own_seconds",
];

/// Means of one turn, in microseconds.
#[derive(Clone, Copy, Default)]
struct Parts {
    request: f64,
    echo: f64,
    total: f64,
    device: f64,
    record: f64,
    verification: f64,
    own: f64,
}

pub(crate) async fn measure(report: &mut Report, span: Duration) {
    let algorithms = ["ES256", "Ed25519", "RS256"];
    let agent = Agent::start(&algorithms, |_| {}).await;
    let socket = agent.lab.path("echo.sock");
    let _echo = Echo::start(&socket);
    wait_for(|| socket.exists()).await;
    let mut table = Table::new("A lone request, µs", HOW, &algorithms);
    let mut columns = Vec::new();
    for alg in algorithms {
        let key = agent.key(alg).await;
        let sign = Bare::signing(&key, 1, span / 2).run(&agent.lab).p50_us;
        let parts = turns(&agent, &socket, alg, span).await;
        columns.push((sign, parts));
    }
    let row = |of: &dyn Fn(f64, &Parts) -> f64| {
        let cells = columns
            .iter()
            .map(|(sign, parts)| Cell::Micros(of(*sign, parts)));
        cells.collect::<Vec<_>>()
    };
    // Whichever of the two took longer, request by request.
    let both = |p: &Parts| p.total - p.own - p.verification;
    let edge = |p: &Parts| p.request - p.echo - p.total;
    table.row("request, as its caller sees it", row(&|_, p| p.request));
    table.row("  transport", row(&|_, p| p.echo));
    table.row("  device", row(&|sign, _| sign));
    table.row(
        "  way to the child and back",
        row(&|sign, p| p.device - sign),
    );
    table.row(
        "  record, beyond the device",
        row(&|_, p| both(p) - p.device),
    );
    table.row("  verification", row(&|_, p| p.verification));
    table.row("  own share", row(&|_, p| p.own + edge(p)));
    table.row("    at the edge: connection, caller", row(&|_, p| edge(p)));
    table.row("    in the agent: policy, encoding", row(&|_, p| p.own));
    table.row("record, all of it", row(&|_, p| p.record));
    let synced = appended(&agent.lab.path("appended"));
    let synced = algorithms.map(|_| Cell::Micros(synced));
    table.row("an append with a sync, alone", synced.into());
    report.add(table);
    let (_, es256) = &columns[0];
    let cause = "most of it is threads and tasks that wake each other up on few processors: \
        the connection, the request, the device and the log each have their own. See the profile.";
    let own = es256.own + edge(es256);
    report.aim(
        "own share of a lone request (ES256)",
        Goal::AtMost(60.0, Unit::Micros),
        own,
        cause,
    );
}

/// The medians of all turns.
async fn turns(agent: &Agent, socket: &Path, alg: &str, span: Duration) -> Parts {
    let signer = Client::unix(agent.lab.path("sign.sock"));
    let echo = Client::unix(socket);
    let item = item("main", Some(alg));
    let ask = async |client: &Client| {
        let began = Instant::now();
        for _ in 0..SLICE {
            signed(client.sign(item.clone()).await);
        }
        began.elapsed().as_secs_f64() * 1e6 / f64::from(SLICE)
    };
    // To warm up.
    ask(&signer).await;
    ask(&echo).await;
    let address = agent.daemon.address("metrics_listen");
    let address = address.strip_prefix("http://").unwrap().parse().unwrap();
    let mut metrics = Connection::open(address).await.unwrap();
    let mut all = Vec::new();
    let began = Instant::now();
    while began.elapsed() < span * 2 || all.len() < 5 {
        let before = counted(&mut metrics).await;
        let request = ask(&signer).await;
        let after = counted(&mut metrics).await;
        let [total, device, record, verification, own] =
            std::array::from_fn(|n| (after[n] - before[n]) * 1e6 / f64::from(SLICE));
        let echo = ask(&echo).await;
        all.push(Parts {
            request,
            echo,
            total,
            device,
            record,
            verification,
            own,
        });
    }
    let median = |of: fn(&Parts) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Parts {
        request: median(|p| p.request),
        echo: median(|p| p.echo),
        total: median(|p| p.total),
        device: median(|p| p.device),
        record: median(|p| p.record),
        verification: median(|p| p.verification),
        own: median(|p| p.own),
    }
}

/// The sums of the histograms, in seconds.
async fn counted(metrics: &mut Connection) -> [f64; 5] {
    let request = http::request("GET", "/metrics", "", "");
    let (_, body) = metrics.ask(&request).await.unwrap();
    let text = String::from_utf8_lossy(body);
    HISTOGRAMS.map(|name| {
        let start = format!("sealkeeper_{name}_sum{{key_set=\"main\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&*start));
        line.unwrap_or_else(|| panic!("no {name} in:\n{text}"))
            .parse()
            .unwrap()
    })
}

/// What the log's disk takes for a line, in microseconds: the median of 200.
fn appended(path: &Path) -> f64 {
    let mut file = File::create(path).unwrap();
    let line = [b'a'; 400];
    let mut took: Vec<Duration> = (0..200)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&line).unwrap();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[took.len() / 2].as_secs_f64() * 1e6
}
