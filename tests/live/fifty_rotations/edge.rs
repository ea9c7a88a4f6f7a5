//! What stands between the agent and the public: an origin that the agent
//! observes, and edges that are behind it by as much as P allows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sealkeeper::time::Span;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::lab::{fetch, kids};

/// How often the origin asks the agent.
const PACE: Duration = Duration::from_millis(25);

#[derive(Clone)]
pub(super) struct Edge {
    address: SocketAddr,
    line: Arc<Mutex<Line>>,
}

/// What the origin showed, one set after the other.
struct Line {
    /// Where the agent serves.
    agent: String,
    /// How far the origin is behind the agent.
    lag: Duration,
    /// What it got from the agent and does not show yet.
    coming: Vec<(Instant, Vec<u8>)>,
    /// Each set, from the instant at which it was the one to show.
    ///
    /// Why by instants: an edge shows what the origin showed `lag` ago, and no
    /// older one, however late on a busy machine anything here runs.
    shown: Vec<(Instant, Vec<u8>)>,
    /// Whether it shows a set of before.
    regressed: bool,
    /// Keys that it leaves out.
    hidden: BTreeSet<String>,
    /// How often the agent looked.
    looks: usize,
}

impl Edge {
    /// Shows what the agent at `agent` serves, as soon as it does.
    pub(super) async fn start(lag: Span) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(Mutex::new(Line {
            agent: String::new(),
            lag: lag.to_duration(),
            coming: Vec::new(),
            shown: Vec::new(),
            regressed: false,
            hidden: BTreeSet::new(),
            looks: 0,
        }));
        let app = Router::new()
            .route("/origin/jwks.json", get(origin))
            .route("/edge/{behind_ms}/jwks.json", get(behind))
            .with_state(Arc::clone(&line));
        tokio::spawn(async move { axum::serve(listener, app).await });
        tokio::spawn(feed(Arc::downgrade(&line)));
        Self { address, line }
    }

    /// Where the agent observes its set.
    pub(super) fn observed(&self) -> String {
        format!("http://{}/origin/jwks.json", self.address)
    }

    /// Where a verifier gets it, so far behind.
    pub(super) fn behind(&self, lag: Span) -> String {
        format!("http://{}/edge/{}/jwks.json", self.address, lag.as_millis())
    }

    pub(super) fn follow(&self, agent: String) {
        self.line().agent = agent;
    }

    /// Shows the newest set without this key, until it is told to catch up.
    /// Whether there is one.
    pub(super) fn regress(&self, kid: &str) -> bool {
        let mut line = self.line();
        let mut old = line.shown.iter().rev().map(|(_, body)| body);
        let lacks = |body: &&Vec<u8>| kids(body).iter().all(|shown| shown != kid);
        let old = old.find(lacks).cloned();
        let Some(old) = old else { return false };
        line.regressed = true;
        line.show(old);
        true
    }

    pub(super) fn catch_up(&self) {
        let mut line = self.line();
        line.regressed = false;
        line.advance();
    }

    /// Leaves a key out of every set from now on.
    pub(super) fn hide(&self, kid: &str) {
        let mut line = self.line();
        line.hidden.insert(kid.to_owned());
        let body = line.shown.last().map(|(_, body)| body.clone());
        line.show(body.unwrap_or_default());
    }

    /// The keys that the origin shows.
    pub(super) fn kids(&self) -> Vec<String> {
        let line = self.line();
        line.shown
            .last()
            .map_or_else(Vec::new, |(_, body)| kids(body))
    }

    /// How often the agent has looked.
    pub(super) fn looks(&self) -> usize {
        self.line().looks
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap()
    }
}

impl Line {
    /// The agent served this.
    fn got(&mut self, body: Vec<u8>) {
        let last = self.coming.last().map(|(_, body)| body);
        if last != Some(&body) {
            self.coming.push((Instant::now(), body));
        }
        self.advance();
    }

    /// Shows the newest set that is old enough; the last of `coming` stays, so
    /// that what the agent serves next can be held against it.
    fn advance(&mut self) {
        let ripe = |(since, _): &&(Instant, Vec<u8>)| since.elapsed() >= self.lag;
        let ripe = self.coming.iter().take_while(ripe).count();
        if ripe == 0 || self.regressed {
            return;
        }
        self.coming.drain(..ripe - 1);
        let body = self.coming[0].1.clone();
        self.show(body);
    }

    fn show(&mut self, body: Vec<u8>) {
        let body = self.without_hidden(body);
        if self.shown.last().map(|(_, last)| last) != Some(&body) {
            self.shown.push((Instant::now(), body));
        }
    }

    fn without_hidden(&self, body: Vec<u8>) -> Vec<u8> {
        if self.hidden.is_empty() {
            return body;
        }
        let mut set: Value = serde_json::from_slice(&body).unwrap();
        let hidden = |key: &Value| {
            key["kid"]
                .as_str()
                .is_some_and(|kid| self.hidden.contains(kid))
        };
        let keys = set["keys"].as_array_mut().unwrap();
        keys.retain(|key| !hidden(key));
        serde_json::to_vec(&set).unwrap()
    }

    /// What was shown so long ago; the first set, before there was one.
    fn at(&self, behind: Duration) -> Option<Vec<u8>> {
        let then = Instant::now().checked_sub(behind)?;
        let since = self.shown.partition_point(|(since, _)| *since <= then);
        let (_, body) = self.shown.get(since.saturating_sub(1))?;
        Some(body.clone())
    }
}

/// Asks the agent again and again, for as long as anybody uses the edge.
async fn feed(line: Weak<Mutex<Line>>) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        pace.tick().await;
        let Some(agent) = line
            .upgrade()
            .map(|line| line.lock().unwrap().agent.clone())
        else {
            return;
        };
        if agent.is_empty() {
            continue;
        }
        let answer = timeout(Duration::from_secs(2), fetch(&agent, "/main/jwks.json")).await;
        let Some(line) = line.upgrade() else { return };
        let mut line = line.lock().unwrap();
        match answer {
            // One that broke off is no JSON.
            Ok(Ok((200, body))) if serde_json::from_slice::<Value>(&body).is_ok() => line.got(body),
            // It is away: what it served before goes on its way.
            _ => line.advance(),
        }
    }
}

async fn origin(State(line): State<Arc<Mutex<Line>>>) -> Response {
    let mut line = line.lock().unwrap();
    line.looks += 1;
    answer(line.at(Duration::ZERO))
}

async fn behind(Path(ms): Path<u64>, State(line): State<Arc<Mutex<Line>>>) -> Response {
    answer(line.lock().unwrap().at(Duration::from_millis(ms)))
}

fn answer(body: Option<Vec<u8>>) -> Response {
    let Some(body) = body else {
        return axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
