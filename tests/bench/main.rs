//! What the agent costs: one set of tables from one run on one machine. It
//! judges nothing by a time: a figure is only worth something beside another
//! one of the same run, or beside what was aimed for.
//!
//! `scripts/bench` runs it with the release profile, and says where OpenBao
//! and nginx are. Every load is bounded in time; a run ends by itself.
//!
//! No switch of the program takes a promise away for this: what is measured
//! verifies and records each signature.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

mod agent;
mod children;
#[path = "../debian.rs"]
mod debian;
mod echo;
mod http;
#[expect(dead_code, reason = "the tests need more of the laboratory")]
#[path = "../live/lab.rs"]
mod lab;
mod load;
mod lone;
mod machine;
mod openbao;
mod report;
#[path = "../live/waits.rs"]
mod waits;
/// The laboratory, where the tests have it.
mod live {
    pub(crate) use crate::lab;
}
#[expect(dead_code, reason = "the tests count what the module did")]
#[path = "../volume/slow.rs"]
mod slow;
mod slow_device;
mod start;
mod throughput;
mod tls;
mod token;
mod verifiers;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use report::Report;

/// How many sessions a device signs with when the configuration says nothing.
const WORKERS: usize = 2;
/// The claims of every token.
const CLAIMS: &str = r#"{"sub":"a-subject","aud":"https://api.example","scope":"read write"}"#;

/// What the command line asks for.
struct Options {
    /// How long each figure is measured.
    span: Duration,
    json: Option<PathBuf>,
    write: Option<PathBuf>,
    /// Only chapters whose name holds this.
    only: String,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            span: Duration::from_millis(2500),
            json: None,
            write: None,
            only: String::new(),
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
            match arg.as_str() {
                // Which cargo adds.
                "--bench" => {}
                "--seconds" => options.span = Duration::from_secs_f64(value().parse().unwrap()),
                "--json" => options.json = Some(value().into()),
                "--write" => options.write = Some(value().into()),
                "--only" => options.only = value(),
                other => panic!("unknown argument {other:?}; see scripts/bench --help"),
            }
        }
        options
    }
}

fn main() {
    // The module reads its configuration from the environment, which only a
    // process of its own can be given.
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(token::MODE) => return token::run(&args[1..]),
        Some(echo::MODE) => return echo::run(&args[1..]),
        _ => {}
    }
    let options = Options::parse(args.into_iter());
    // One thread for all callers: they share the processors with what they
    // call, and a second one would only take from it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let report = runtime.block_on(measure(&options));
    println!("{}", report.text());
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&report).unwrap()).unwrap();
    }
    if let Some(path) = &options.write {
        fs::write(path, report.document()).unwrap();
    }
}

async fn measure(options: &Options) -> Report {
    let mut report = Report::new(machine::describe());
    let span = options.span;
    let wanted = |name: &str| {
        let wanted = name.contains(&options.only);
        if wanted {
            eprintln!("measuring: {name}");
        }
        wanted
    };
    if wanted("throughput") {
        throughput::measure(&mut report, span).await;
    }
    if wanted("lone") {
        lone::measure(&mut report, span).await;
    }
    if wanted("children") {
        children::measure(&mut report, span).await;
    }
    if wanted("slow") {
        slow_device::measure(&mut report, span).await;
    }
    if wanted("openbao") {
        openbao::measure(&mut report, span).await;
    }
    if wanted("jwks") {
        verifiers::measure(&mut report, span).await;
    }
    if wanted("start") {
        start::measure(&mut report).await;
    }
    report
}
