//! A device that takes its time, as a network HSM does.

use std::path::Path;
use std::time::Duration;

use super::agent::{Agent, Way};
use super::live::lab::softhsm_module;
use super::report::{Cell, Goal, Report, Table, Unit};
use super::slow;
use super::token::Bare;

/// What the module adds to each signature.
const DELAY: Duration = Duration::from_millis(2);

const HOW: &str = "SoftHSM behind a module that waits for 2 ms in the one C_Sign that returns a \
    signature, ES256, streamed, 64 in flight. Bare: as many threads without the agent. A signature \
    of SoftHSM and the timer's lateness come on top of the 2 ms, so the bare loop, too, stays \
    below N / 2 ms.";

/// What the module's process must have in its environment: all but a place to
/// count, which takes time as well.
fn env() -> Vec<(String, String)> {
    let env = slow::env(DELAY, Path::new("")).into_iter();
    env.filter(|(name, _)| !name.ends_with("COUNTERS"))
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

pub(crate) async fn measure(report: &mut Report, span: Duration) {
    let columns = [
        "/s",
        "of N / 2 ms",
        "of bare",
        "p50 µs",
        "p99 µs",
        "bare/s",
        "bare of N / 2 ms",
    ];
    let mut table = Table::new("A device that takes 2 ms", HOW, &columns);
    for sessions in [2, 4, 8] {
        let agent = Agent::start(&["ES256"], |lab| {
            let env: String = env()
                .iter()
                .map(|(name, value)| format!(", {name} = {value:?}"))
                .collect();
            let module = format!("module = \"{}\"", softhsm_module().display());
            lab.amend(
                &module,
                &format!("module = {:?}\nworkers = {sessions}", slow::module()),
            );
            lab.amend("softhsm2.conf\" }", &format!("softhsm2.conf\"{env} }}"));
        })
        .await;
        let mut bare = Bare::signing(&agent.key("ES256").await, sessions, span / 2);
        bare.module = slow::module().to_owned();
        bare.env = env();
        let before = bare.run(&agent.lab);
        let figure = agent.drive(Way::Stream(64), "ES256", span).await;
        let bare = before.between(&bare.run(&agent.lab)).per_second;
        let ideal = sessions as f64 / DELAY.as_secs_f64();
        let got = figure.per_second;
        table.row(
            format!("{sessions} sessions"),
            vec![
                Cell::Count(got),
                Cell::Ratio(got / ideal),
                Cell::Ratio(got / bare),
                Cell::Micros(figure.p50_us),
                Cell::Micros(figure.p99_us),
                Cell::Count(bare),
                Cell::Ratio(bare / ideal),
            ],
        );
        let cause = "the timer's lateness and SoftHSM's own signature come on top of the 2 ms, \
            as the bare loop's share shows.";
        let what = format!("2 ms device, {sessions} sessions, of N / 2 ms");
        report.aim(what, Goal::AtLeast(0.95, Unit::Part), got / ideal, cause);
    }
    report.add(table);
}
