//! One, two and four processes on one token.

use std::fs;
use std::time::Duration;

use sealkeeper::client::Client;

use super::agent::{item, signed};
use super::live::lab::{CALM, Daemon, Lab, wait_for};
use super::load::{Figure, drive};
use super::machine::children_of;
use super::report::{Cell, Report, Table};
use super::token::{Bare, Key};

const MOST: usize = 4;

const HOW: &str = "ES256, streamed, 64 in flight. A device of the configuration is one child \
    process; so several children on one token are several devices that name the same token, each \
    with a key set of its own, among which the callers take turns. Bare: as many processes and \
    sessions without the agent.";

pub(crate) async fn measure(report: &mut Report, span: Duration) {
    let columns = ["/s", "of one child", "p50 µs", "p99 µs", "bare/s"];
    let mut table = Table::new("Children on one token", HOW, &columns);
    let lab = Lab::new(CALM, &["ES256"]);
    let text = fs::read_to_string(lab.path("sealkeeper.toml")).unwrap();
    let template = Template::of(&text);
    // One after the other: SoftHSM loses keys that several processes make at
    // the same time.
    let mut keys = Vec::new();
    for n in 0..MOST {
        let key = prepare(&lab, &template, n).await;
        keys.push(key);
    }
    let mut one = None;
    for (children, sessions) in [(1, 1), (2, 1), (4, 1), (1, 2), (1, 4)] {
        let config = template.devices(0..children, sessions);
        fs::write(lab.path("sealkeeper.toml"), config).unwrap();
        let daemon = serving(&lab, children).await;
        let figure = load(&lab, &daemon, children, span).await;
        end(daemon).await;
        let bare = Bare::signing(&keys[0], sessions, span / 2).run_in(children, &lab);
        let first = *one.get_or_insert(figure.per_second);
        let plural = |n: usize, one: &str, more: &str| match n {
            1 => format!("1 {one}"),
            n => format!("{n} {more}"),
        };
        let name = format!(
            "{}, {} each",
            plural(children, "child", "children"),
            plural(sessions, "session", "sessions")
        );
        table.row(
            name,
            vec![
                Cell::Count(figure.per_second),
                Cell::Ratio(figure.per_second / first),
                Cell::Micros(figure.p50_us),
                Cell::Micros(figure.p99_us),
                Cell::Count(bare),
            ],
        );
    }
    report.add(table);
}

/// The parts of a configuration that are there once for each child.
struct Template {
    head: String,
    device: String,
    key_set: String,
}

impl Template {
    fn of(text: &str) -> Self {
        let (head, rest) = text.split_once("[device.softhsm]").unwrap();
        let (device, key_set) = rest.split_once("[key_set.main]").unwrap();
        Self {
            head: head.to_owned(),
            device: device.to_owned(),
            key_set: format!("[key_set.main]{key_set}"),
        }
    }

    fn devices(&self, range: std::ops::Range<usize>, sessions: usize) -> String {
        let mut text = self.head.clone();
        for n in range {
            text += &format!("[device.d{n}]\nworkers = {sessions}{}", self.device);
            let set = self
                .key_set
                .replace("key_set.main", &format!("key_set.set{n}"));
            text += &set.replace("device = \"softhsm\"", &format!("device = \"d{n}\""));
        }
        text
    }
}

/// Begins a key set and waits for its standby. Returns its active key.
async fn prepare(lab: &Lab, template: &Template, n: usize) -> Key {
    fs::write(lab.path("sealkeeper.toml"), template.devices(n..n + 1, 1)).unwrap();
    lab.init();
    let daemon = lab.serve().await;
    let agent = |phase: &str| lab.keys().into_iter().find(|key| key["phase"] == phase);
    wait_for(|| agent("published").is_some()).await;
    let key = agent("active").unwrap();
    let path = format!("/set{n}/jwks.json");
    let (_, body) = super::live::lab::fetch(&daemon.origin(), &path)
        .await
        .unwrap();
    let set: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let jwks = set["keys"].as_array().unwrap();
    let jwk = jwks
        .iter()
        .find(|jwk| jwk["kid"] == key["kid"])
        .unwrap()
        .clone();
    end(daemon).await;
    let id = key["placements"][0]["handle_id"]
        .as_str()
        .unwrap()
        .to_owned();
    Key {
        alg: "ES256".to_owned(),
        id,
        jwk,
    }
}

/// An agent all of whose devices sign.
///
/// Why again and again: SoftHSM fails now and then where several processes log
/// in at the same time. What it says then is no word about the PIN, so the PIN
/// is not tried again until somebody unlocks it.
async fn serving(lab: &Lab, children: usize) -> Daemon {
    for _ in 0..20 {
        let daemon = lab.serve().await;
        let client = Client::unix(lab.path("sign.sock"));
        let mut all = true;
        for n in 0..children {
            all &= client.sign(item(&format!("set{n}"), None)).await.is_ok();
        }
        if all {
            return daemon;
        }
        end(daemon).await;
        for n in 0..children {
            lab.ok(&["device", "unlock", &format!("d{n}")]);
        }
    }
    panic!("{children} children never logged in together");
}

async fn load(lab: &Lab, daemon: &Daemon, sets: usize, span: Duration) -> Figure {
    let client = Client::unix(lab.path("sign.sock"));
    let stream = client.stream();
    let processes = [vec![daemon.id()], children_of(daemon.id())];
    let callers = (0..64).map(|n| {
        let (stream, item) = (stream.clone(), item(&format!("set{}", n % sets), None));
        async move || signed(stream.sign(item.clone()).await)
    });
    drive(span, 1, &processes, callers).await
}

/// Ends an agent as a service manager does.
pub(crate) async fn end(mut daemon: Daemon) {
    daemon.ask_to_stop();
    daemon.end().await;
}
