//! What the public gets, where that is not what the agent serves: origins that
//! lag, regress, and are gone.

use std::net::SocketAddr;
use std::process::Output;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::figures::{figure, scrape};
use serde_json::Value;

use super::lab::{CALM, Daemon, Lab, QUICK, fetch, wait_until};

/// What stands between the agent and verifiers.
#[derive(Clone)]
pub(super) struct Cdn {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
}

#[derive(Clone)]
pub(super) enum Mode {
    /// What the agent at this address serves.
    Follows(String),
    /// Always the same.
    Shows(Vec<u8>),
    Dead,
}

impl Cdn {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let mode = Arc::new(Mutex::new(Mode::Dead));
        let cdn = Self {
            address: listener.local_addr().expect("an address"),
            mode: Arc::clone(&mode),
        };
        let app = Router::new().fallback(move || answer(mode.lock().expect("whole").clone()));
        tokio::spawn(async move { axum::serve(listener, app).await });
        cdn
    }

    fn url(&self) -> String {
        format!("http://{}/main/jwks.json", self.address)
    }

    pub(super) fn follows(&self, daemon: &Daemon) {
        self.is(Mode::Follows(daemon.origin()));
    }

    pub(super) fn is(&self, mode: Mode) {
        *self.mode.lock().expect("whole") = mode;
    }
}

async fn answer(mode: Mode) -> Response {
    let body = match mode {
        Mode::Follows(origin) => fetch(&origin, "/main/jwks.json")
            .await
            .ok()
            .map(|(_, body)| body),
        Mode::Shows(body) => Some(body),
        Mode::Dead => None,
    };
    match body {
        Some(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// A laboratory whose JWKS is observed there.
pub(super) fn lab(schedule: &str, cdns: &[&Cdn]) -> Lab {
    let lab = Lab::new(schedule, &["ES256"]);
    let urls: Vec<String> = cdns.iter().map(|cdn| format!("{:?}", cdn.url())).collect();
    let observe = format!("device = \"softhsm\"\nobserve = [{}]", urls.join(", "));
    lab.amend("device = \"softhsm\"", &observe);
    lab.amend("[serve]", "[serve]\nmetrics_listen = \"127.0.0.1:0\"");
    lab.init();
    lab
}

fn active(lab: &Lab) -> String {
    let keys = lab.keys();
    let active = keys.iter().find(|key| key["phase"] == "active");
    active.expect("an active key")["kid"]
        .as_str()
        .expect("an id")
        .to_owned()
}

/// The set with the key of RFC 7515 appendix A.3 under one of its ids.
fn with_another_key(jwks: &[u8], kid: &str) -> Vec<u8> {
    let mut set: Value = serde_json::from_slice(jwks).expect("a set");
    let keys = set["keys"].as_array_mut().expect("keys");
    for key in keys.iter_mut().filter(|key| key["kid"] == kid) {
        key["x"] = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU".into();
        key["y"] = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0".into();
    }
    set.to_string().into_bytes()
}

/// A `kid` is but a name: what stands under it is compared with the key.
#[tokio::test]
async fn another_key_under_the_id_of_the_next_one_is_not_the_next_one() {
    let cdn = Cdn::start().await;
    let lab = lab(QUICK, &[&cdn]);
    let daemon = lab.serve().await;
    let kid = active(&lab);
    // The standby is there from the start, as far as its id goes.
    let standby = || {
        let keys = lab.keys();
        let standby = keys.iter().find(|key| key["phase"] == "published")?;
        Some(standby["kid"].as_str()?.to_owned())
    };
    wait_until(async || standby().is_some()).await;
    let standby = standby().expect("a standby");
    let set = daemon.jwks().await.expect("a set");
    cdn.is(Mode::Shows(with_another_key(&set, &standby)));
    let late = r#"rotation_overdue_seconds{algorithm="ES256",key_set="main"}"#;
    wait_until(async || figure(&scrape(&daemon).await, late) >= 2.0).await;
    assert_eq!(active(&lab), kid);
    let shown = lab.ok(&["keys", "show", &standby]);
    assert!(shown.contains("stands another public key"), "{shown}");
    cdn.follows(&daemon);
    wait_until(async || active(&lab) != kid).await;
}

/// An origin is dropped by a waiver alone, which is on record, says what it may
/// break, and can be taken back.
#[tokio::test]
async fn a_dead_origin_is_waived_by_name_and_on_record() {
    let (cdn, dead) = (Cdn::start().await, Cdn::start().await);
    let lab = lab(QUICK, &[&cdn, &dead]);
    let daemon = lab.serve().await;
    cdn.follows(&daemon);
    let kid = active(&lab);
    let late = r#"rotation_overdue_seconds{algorithm="ES256",key_set="main"}"#;
    wait_until(async || figure(&scrape(&daemon).await, late) >= 1.0).await;
    assert_eq!(active(&lab), kid);
    // What makes no sense is refused, and says what does.
    for (args, code, why) in [
        (&["http://elsewhere.example/x"][..], 1, dead.url()),
        (&[&dead.url(), "--for", "91d"], 1, "at most 90days".into()),
        (&["own-listener"], 1, "never waived".into()),
    ] {
        let all = [&["origins", "waive", "--note", "gone"], args].concat();
        let out = lab.run(&all);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{said}");
        assert!(said.contains(&why), "{said}");
    }
    let no_note = lab.run(&["origins", "waive", &dead.url()]);
    assert_eq!(no_note.status.code(), Some(2));
    // In another spelling; the answer says what it may break.
    let url = dead.url().replace("http", "HTTP");
    let waive = [
        "origins",
        "waive",
        &url,
        "--for",
        "1h",
        "--note",
        "contract ended",
    ];
    let said = lab.ok(&waive);
    assert!(
        said.contains("done:    no activation waits for the origin"),
        "{said}"
    );
    assert!(
        said.contains("may meet the id of a key that they do not hold"),
        "{said}"
    );
    assert!(said.contains("alone:"), "{said}");
    wait_until(async || active(&lab) != kid).await;
    // It is said wherever an operator looks, and watched all the same.
    let listed = lab.ok(&["origins", "list"]);
    let waived = |line: &str| line.contains(&dead.url()) && line.contains("contract ended");
    assert!(listed.lines().any(waived), "{listed}");
    let json: Value = serde_json::from_str(&lab.ok(&["origins", "list", "--json"])).expect("JSON");
    let origins = json["key_sets"][0]["origins"].as_array().expect("origins");
    let of_dead = origins.iter().find(|it| it["name"] == dead.url());
    let of_dead = of_dead.expect("it is there");
    assert_eq!(of_dead["waiver"]["note"], "contract ended");
    assert!(
        of_dead["why"]
            .as_str()
            .is_some_and(|why| why.contains("503"))
    );
    let shown = lab.ok(&["keys", "show", &active(&lab)]);
    assert!(shown.contains("waived until"), "{shown}");
    let doctor = lab.run(&["doctor"]);
    let found = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        found.contains("warn  origin") && found.contains("waived until"),
        "{found}"
    );
    let left = format!(
        r#"origin_waived_seconds{{key_set="main",origin="{}"}}"#,
        dead.url()
    );
    let seconds = figure(&scrape(&daemon).await, &left);
    assert!((1.0..=3600.0).contains(&seconds), "{seconds}");
    let log = std::fs::read_to_string(lab.path("state/audit/keys.log")).expect("the log");
    let line = log.lines().find(|line| line.contains("origin-waived"));
    let line = line.expect("it is on record");
    assert!(
        line.contains("contract ended") && line.contains(&dead.url()),
        "{line}"
    );
    // And back.
    let said = lab.ok(&["origins", "restore", &dead.url()]);
    assert!(said.contains("wait for the origin"), "{said}");
    assert_eq!(figure(&scrape(&daemon).await, &left).abs(), 0.0);
}

/// With nobody left to wait for, the agent looks at its own listener.
#[tokio::test]
async fn where_every_origin_is_waived_keys_are_still_seen_somewhere() {
    let dead = Cdn::start().await;
    let lab = lab(QUICK, &[&dead]);
    let daemon = lab.serve().await;
    let kid = active(&lab);
    let late = r#"rotation_overdue_seconds{algorithm="ES256",key_set="main"}"#;
    wait_until(async || figure(&scrape(&daemon).await, late) >= 1.0).await;
    assert_eq!(active(&lab), kid);
    let said = lab.ok(&["origins", "waive", &dead.url(), "--note", "gone"]);
    assert!(said.contains("own listener has shown it"), "{said}");
    wait_until(async || active(&lab) != kid).await;
}

/// Runs a command that asks this test's own server.
async fn beside(lab: &Lab, args: &[&str]) -> Output {
    let mut command = lab.command(args);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.expect("no panic").expect("the program under test")
}

/// What a stopped agent leaves with the public is looked at from here.
#[tokio::test]
async fn doctor_looks_at_origins_without_an_agent() {
    let cdn = Cdn::start().await;
    let schedule = format!("{CALM}propagation = \"300ms\"\n");
    let lab = lab(&schedule, &[&cdn]);
    let mut daemon = lab.serve().await;
    let standby = || lab.keys().iter().any(|key| key["phase"] == "published");
    wait_until(async || standby()).await;
    let (set, kid) = (daemon.jwks().await.expect("a set"), active(&lab));
    daemon.kill();
    let doctor = async || {
        let out = beside(&lab, &["doctor", "--json"]).await;
        let found: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let checks = found["checks"].as_array().expect("checks").clone();
        let origins = checks.iter().filter(|it| it["check"] == "origin");
        let texts = |name: &str| {
            let texts = origins.clone().filter_map(|it| it[name].as_str());
            texts.collect::<Vec<_>>().join("; ")
        };
        (texts("level"), texts("found"), texts("hint"))
    };
    cdn.is(Mode::Shows(set.clone()));
    let (level, found, _) = doctor().await;
    assert!(found.contains("shows what it should, 2 keys"), "{found}");
    assert_eq!(level, "ok");
    cdn.is(Mode::Shows(with_another_key(&set, &kid)));
    let (level, found, _) = doctor().await;
    assert!(found.contains("stands another public key"), "{found}");
    assert_eq!(level, "fail");
    cdn.is(Mode::Shows(br#"{"keys":[]}"#.to_vec()));
    let (level, found, _) = doctor().await;
    assert!(found.contains(&format!("lacks the key {kid}")), "{found}");
    assert!(level.contains("fail"), "{level}");
    // Whoever would ask the agent has nobody to ask.
    cdn.is(Mode::Dead);
    let (level, found, hint) = doctor().await;
    assert!(found.contains("503"), "{found}");
    assert_eq!(level, "skip");
    assert!(hint.contains("socket"), "{hint}");
    // Roots that are not there.
    let url = cdn.url();
    lab.amend(&url, &url.replace("http://", "https://"));
    lab.amend(
        "device = \"softhsm\"\nobserve",
        "device = \"softhsm\"\nobserve_ca = \"roots.pem\"\nobserve",
    );
    let out = beside(&lab, &["doctor"]).await;
    let said = String::from_utf8(out.stdout).expect("text");
    assert!(
        said.contains("fail  observe ca key_set.main.observe_ca"),
        "{said}"
    );
    assert!(
        said.contains("put the PEM file with the roots there"),
        "{said}"
    );
    let out = beside(&lab, &["config", "check"]).await;
    let said = String::from_utf8(out.stderr).expect("text");
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("error: key_set.main.observe_ca"), "{said}");
}

/// Rule 1, for the public: the laggard is named, and the old key signs on.
#[tokio::test]
async fn no_key_is_activated_before_each_origin_shows_it() {
    let (quick, slow) = (Cdn::start().await, Cdn::start().await);
    let lab = lab(QUICK, &[&quick, &slow]);
    let daemon = lab.serve().await;
    quick.follows(&daemon);
    let first = daemon.jwks().await.expect("a set");
    slow.is(Mode::Shows(first));
    let kid = active(&lab);
    // A whole period and more: the rotation is late, and does not happen.
    let late = r#"rotation_overdue_seconds{algorithm="ES256",key_set="main"}"#;
    wait_until(async || figure(&scrape(&daemon).await, late) >= 2.0).await;
    assert_eq!(active(&lab), kid);
    let keys = lab.keys();
    let standby = keys.iter().find(|key| key["phase"] == "published");
    let standby = standby.expect("a standby")["kid"].as_str().expect("an id");
    let shown = lab.ok(&["keys", "show", standby]);
    let not_there = |line: &str| line.contains(&slow.url()) && line.contains("not shown there");
    assert!(shown.lines().any(not_there), "{shown}");
    assert!(shown.contains(&quick.url()), "{shown}");
    let lags = format!(
        r#"origin_wrong{{key_set="main",origin="{}",what="lags"}}"#,
        slow.url()
    );
    assert!(figure(&scrape(&daemon).await, &lags) >= 1.0);
    lab.logged("does not show the next key yet").await;
    // It catches up; the wait begins there, and ends.
    slow.follows(&daemon);
    wait_until(async || active(&lab) != kid).await;
}

/// Each thing that wakes somebody: once in the log, in the figures, in doctor;
/// and gone with its cause.
#[tokio::test]
async fn what_the_public_gets_is_watched() {
    let cdn = Cdn::start().await;
    let schedule = format!("{CALM}propagation = \"300ms\"\n");
    let lab = lab(&schedule, &[&cdn]);
    let daemon = lab.serve().await;
    let url = cdn.url();
    let wrong = async |what: &str| {
        let name = format!(r#"origin_wrong{{key_set="main",origin="{url}",what="{what}"}}"#);
        figure(&scrape(&daemon).await, &name)
    };
    let doctor = || {
        let out = lab.run(&["doctor"]);
        (
            out.status.code(),
            String::from_utf8(out.stdout).expect("text"),
        )
    };
    // It does not answer from the start.
    lab.logged("ORIGIN_SILENT").await;
    assert_eq!(wrong("silent").await, 1.0);
    let (code, found) = doctor();
    assert_eq!(code, Some(1), "{found}");
    assert!(found.contains(&url) && found.contains("503"), "{found}");

    cdn.follows(&daemon);
    wait_until(async || wrong("silent").await == 0.0).await;
    wait_until(async || doctor().1.contains("shows what it should")).await;

    // Somebody serves another key under the id of the one that signs.
    let (ours, kid) = (daemon.jwks().await.expect("a set"), active(&lab));
    cdn.is(Mode::Shows(with_another_key(&ours, &kid)));
    lab.logged("ORIGIN_SHOWS_IMPOSTOR").await;
    assert_eq!(wrong("impostor").await, 1.0);
    assert_eq!(wrong("lacks_key").await, 0.0, "it is one trouble");
    let (code, found) = doctor();
    assert_eq!(code, Some(1), "{found}");
    assert!(found.contains("stands another public key"), "{found}");
    let shown = lab.ok(&["keys", "show", &kid]);
    assert!(shown.contains("stands another public key"), "{shown}");
    cdn.follows(&daemon);
    lab.logged("it is over that an origin shows something else under the id of a key")
        .await;

    // It lacks the key that signs.
    cdn.is(Mode::Shows(br#"{"keys":[]}"#.to_vec()));
    lab.logged("ORIGIN_LACKS_KEY").await;
    assert!(wrong("lacks_key").await >= 1.0);
    let (code, found) = doctor();
    assert_eq!(code, Some(1), "{found}");
    assert!(found.contains("lacks the key"), "{found}");
    cdn.follows(&daemon);
    lab.logged("it is over that an origin lacks a key that it should show")
        .await;

    // It holds an old copy, with a key that was stolen.
    let old = daemon.jwks().await.expect("a set");
    cdn.is(Mode::Shows(old));
    let kid = active(&lab);
    lab.ok(&[
        "keys",
        "revoke",
        &kid,
        "--reason",
        "compromised",
        "--then",
        "activate",
    ]);
    lab.logged("ORIGIN_SHOWS_REVOKED").await;
    assert_eq!(wrong("shows_revoked").await, 1.0);
    cdn.follows(&daemon);
    wait_until(async || wrong("shows_revoked").await == 0.0).await;

    // Once each.
    for reason in [
        "ORIGIN_SILENT",
        "ORIGIN_SHOWS_IMPOSTOR",
        "ORIGIN_LACKS_KEY",
        "ORIGIN_SHOWS_REVOKED",
    ] {
        let log = lab.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(reason)).collect();
        assert_eq!(lines.len(), 1, "{lines:#?}");
    }
}
