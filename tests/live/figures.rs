//! `/metrics` of the whole program: the figures move as they should, and a
//! tool that knows the format finds nothing wrong with it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::{env, fs};

use sealkeeper::api::v1::{SignJwsRequest, SignJwtRequest};

use super::bad_days::{active, damage};
use super::lab::{CALM, Daemon, Lab, PIN, QUICK, fetch, kids, sign, wait_until};

pub(super) async fn scrape(daemon: &Daemon) -> String {
    let address = daemon.address("metrics_listen");
    let (status, body) = fetch(&address, "/metrics").await.expect("an answer");
    assert_eq!(status, 200);
    String::from_utf8(body).expect("text")
}

/// The figure with this name and these labels, in the order of their names.
pub(super) fn figure(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| {
        let rest = line.strip_prefix("sealkeeper_")?.strip_prefix(name)?;
        rest.strip_prefix(' ')
    });
    let line = line.unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    line.parse().expect("a number")
}

fn requests(text: &str, outcome: &str) -> f64 {
    let labels = format!(r#"{{key_set="main",operation="sign-jwt",outcome="{outcome}"}}"#);
    figure(text, &format!("requests_total{labels}"))
}

fn lab() -> Lab {
    let lab = Lab::new(CALM, &["ES256"]);
    let listen = "[serve]\nmetrics_listen = \"127.0.0.1:0\"";
    lab.amend("[serve]", listen);
    lab.init();
    lab
}

#[tokio::test]
async fn figures_move_as_they_should() {
    let lab = lab();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    wait_until(async || sign(&mut signer, "ES256", "{}").await.is_ok()).await;
    let before = scrape(&daemon).await;
    assert!(requests(&before, "signed") >= 1.0);
    for (name, expected) in [
        (
            r#"keys{algorithm="ES256",key_set="main",phase="active"}"#,
            1.0,
        ),
        (r#"device_state{device="softhsm",state="up"}"#, 1.0),
        (r#"key_set_signing{key_set="main"}"#, 1.0),
        (r#"key_set_published{key_set="main"}"#, 1.0),
        (
            r#"rotation_overdue_seconds{algorithm="ES256",key_set="main"}"#,
            0.0,
        ),
        (r#"device_queue_length{device="softhsm"}"#, 0.0),
        (r#"connections{listener="signing"}"#, 1.0),
    ] {
        assert!(
            (figure(&before, name) - expected).abs() < 0.5,
            "{name}:\n{before}"
        );
    }
    let next = r#"next_rotation_seconds{algorithm="ES256",key_set="main"}"#;
    let days = figure(&before, next) / 86_400.0;
    assert!((89.0..=90.0).contains(&days), "{days}");
    for from in ["generation", "activation"] {
        let name =
            format!(r#"active_key_age_seconds{{algorithm="ES256",from="{from}",key_set="main"}}"#);
        let age = figure(&before, &name);
        assert!((0.0..600.0).contains(&age), "{age}");
    }

    sign(&mut signer, "ES256", "{}").await.expect("it signs");
    sign(&mut signer, "ES256", r#"{"exp":1}"#)
        .await
        .unwrap_err();
    sign(&mut signer, "none", "{}").await.unwrap_err();
    daemon.jwks().await.expect("a set");
    let after = scrape(&daemon).await;
    let moved = |name: &str| figure(&after, name) - figure(&before, name);
    let one = |moved: f64| (moved - 1.0).abs() < 0.5;
    assert!(one(requests(&after, "signed") - requests(&before, "signed")));
    assert!((requests(&after, "refused") - 2.0).abs() < 0.5, "{after}");
    for rule in [
        r#"reason="EXPIRED",rule="builtin.not_expired""#,
        r#"reason="UNKNOWN_ALGORITHM",rule="builtin.algorithms""#,
    ] {
        let name = format!(r#"refusals_total{{key_set="main",{rule}}}"#);
        assert!(one(figure(&after, &name)), "{after}");
    }
    for stage in ["", "_device", "_record", "_verification", "_own"] {
        let stage = format!(r#"sign{stage}_seconds_count{{key_set="main"}}"#);
        assert!(one(moved(&stage)), "{stage}:\n{after}");
    }
    // The daemon's own observer fetches as well.
    assert!(moved(r#"jwks_requests_total{key_set="main",status="200"}"#) >= 1.0);
}

#[tokio::test]
async fn a_device_that_is_gone_shows_and_so_does_its_return() {
    let lab = lab();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    wait_until(async || sign(&mut signer, "ES256", "{}").await.is_ok()).await;
    let shows = async |daemon: &Daemon, up: f64| {
        wait_until(async || {
            let text = scrape(daemon).await;
            let state = figure(&text, r#"device_state{device="softhsm",state="up"}"#);
            let signing = figure(&text, r#"key_set_signing{key_set="main"}"#);
            (state - up).abs() < 0.5 && (signing - up).abs() < 0.5
        })
        .await;
    };
    shows(&daemon, 1.0).await;
    fs::rename(lab.path("tokens"), lab.path("away")).expect("the token goes");
    shows(&daemon, 0.0).await;
    sign(&mut signer, "ES256", "{}").await.unwrap_err();
    let text = scrape(&daemon).await;
    assert!(requests(&text, "unavailable") >= 1.0, "{text}");
    assert!(figure(&text, r#"key_set_published{key_set="main"}"#) > 0.5);

    // Alive and ready, and not signing; in codes to the public, in sentences
    // to operators.
    for (listener, sentences) in [("jwks_listen", false), ("metrics_listen", true)] {
        let address = daemon.address(listener);
        for (path, expected) in [
            ("/healthz", 200),
            ("/readyz", 200),
            ("/readyz/signing", 503),
        ] {
            let (status, body) = fetch(&address, path).await.expect("an answer");
            assert_eq!(status, expected, "{path}");
            let body = String::from_utf8(body).expect("text");
            assert_eq!(
                body.contains("DEVICE_"),
                path != "/healthz",
                "{path}: {body}"
            );
            let said = body.contains("softhsm");
            assert_eq!(said, sentences && path != "/healthz", "{path}: {body}");
        }
    }
    fs::rename(lab.path("away"), lab.path("tokens")).expect("the token is back");
    shows(&daemon, 1.0).await;
    let (status, _) = fetch(&daemon.origin(), "/readyz/signing")
        .await
        .expect("an answer");
    assert_eq!(status, 200);
}

/// Found by review: `hard_limit = { page = ... }` did nothing.
#[tokio::test]
async fn a_rotation_past_its_hard_limit_pages_once() {
    let schedule = format!("{QUICK}\nhard_limit = {{ page = \"1s\" }}");
    let lab = Lab::new(&schedule, &["ES256"]);
    lab.amend("[serve]", "[serve]\nmetrics_listen = \"127.0.0.1:0\"");
    lab.init();
    let daemon = lab.serve().await;
    let page = |text: &str| {
        let name = r#"rotation_page{algorithm="ES256",key_set="main"}"#;
        figure(text, name) > 0.5
    };
    assert!(!page(&scrape(&daemon).await));
    let held = active(&lab);
    lab.ok(&["keys", "hold", &held]);
    wait_until(async || page(&scrape(&daemon).await)).await;
    let doctor = || String::from_utf8(lab.run(&["doctor"]).stdout).expect("text");
    let told = doctor();
    for line in [
        "fail  rotation main: the ES256 key should have been replaced ",
        "ago, longer than hard_limit\n      hint: waits for: the key is held",
        "ok    key set main: signs",
    ] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    lab.ok(&["keys", "release", &held]);
    wait_until(async || !page(&scrape(&daemon).await)).await;
    let over = "the rotation of the ES256 key is no longer late past hard_limit";
    wait_until(async || lab.log().contains(over)).await;
    let log = lab.log();
    let lines = |part: &str| log.lines().filter(|line| line.contains(part)).count();
    let began = "late, past hard_limit; waits for: the key is held";
    assert_eq!((lines(began), lines(over)), (1, 1), "{log}");
    let line = log.lines().find(|line| line.contains(began));
    assert!(
        line.is_some_and(|line| line.contains(r#""level":"ERROR""#)),
        "{line:?}"
    );
    assert!(!doctor().contains("hard_limit"));
}

/// Found by review: on a schedule of seconds, four times a second.
#[tokio::test]
async fn a_store_that_is_damaged_is_said_to_be_so_once() {
    let lab = Lab::new(QUICK, &["ES256"]);
    lab.amend("[serve]", "[serve]\nmetrics_listen = \"127.0.0.1:0\"");
    lab.init();
    lab.serve().await.kill();
    damage(&lab);
    let daemon = lab.serve().await;
    let said = || lab.log().matches("a sighting was not stored").count();
    wait_until(async || said() > 0).await;
    let fetched = async || {
        let name = r#"jwks_requests_total{key_set="main",status="200"}"#;
        figure(&scrape(&daemon).await, name)
    };
    let before = fetched().await;
    wait_until(async || fetched().await > before + 10.0).await;
    assert_eq!(said(), 1, "{}", lab.log());
}

#[tokio::test]
async fn promtool_finds_nothing_wrong() {
    let lab = lab();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    wait_until(async || sign(&mut signer, "ES256", "{}").await.is_ok()).await;
    sign(&mut signer, "ES256", "[]").await.unwrap_err();
    let text = scrape(&daemon).await;
    let (passed, said) = promtool(&text);
    assert!(passed && said.is_empty(), "{said}");
    // It sees what is wrong.
    let (passed, said) = promtool(&text.replace("_requests_total", "_requests"));
    assert!(!passed && said.contains("sealkeeper_requests"), "{said}");
}

/// What must not be anywhere.
const NEEDLE: &str = "needle-5be1d4";
/// What a stranger says, which may be in a log of everything.
const STRANGE: &str = "strange-9c03aa";

/// Everything that is served without a signature.
async fn served(daemon: &Daemon) -> String {
    let mut all = String::new();
    for (listener, paths) in [
        (
            "metrics_listen",
            &["/metrics", "/readyz", "/readyz/signing"][..],
        ),
        (
            "jwks_listen",
            &[
                "/main/jwks.json",
                "/readyz",
                "/.well-known/openid-configuration",
                "/.well-known/oauth-authorization-server",
            ],
        ),
    ] {
        for path in paths {
            let (_, body) = fetch(&daemon.address(listener), path).await.unwrap();
            all += &String::from_utf8(body).unwrap();
        }
    }
    all
}

#[tokio::test]
async fn nothing_of_a_caller_is_served_or_logged() {
    let lab = lab();
    let rule = "[[key_set.main.rule]]";
    lab.amend(rule, &format!("[key_set.main.discovery]\n{rule}"));
    let mut daemon = lab.serve_with(&[("SEALKEEPER_LOG", "trace")]).await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    wait_until(async || sign(&mut signer, "ES256", "{}").await.is_ok()).await;
    let kids = kids(&daemon.jwks().await.expect("a set"));
    let claims = format!(r#"{{"sub":"{NEEDLE}"}}"#);
    let signed = sign(&mut signer, "ES256", &claims).await.unwrap();
    let token = signed.token;
    let parts: Vec<&str> = token.split('.').skip(1).collect();

    let series = |text: &str| text.lines().filter(|l| !l.starts_with('#')).count();
    let mut counts = Vec::new();
    for round in 0..3 {
        for n in 0..20 {
            let strange = format!("{STRANGE}-{round}-{n}");
            let request = |key_set: &str, alg: Option<&str>, typ: Option<&str>, claims: &str| {
                SignJwtRequest {
                    key_set: key_set.to_owned(),
                    alg: alg.map(str::to_owned),
                    typ: typ.map(str::to_owned),
                    claims: claims.as_bytes().to_vec(),
                }
            };
            for wrong in [
                request(&strange, None, None, &claims),
                request("main", Some(&strange), None, &claims),
                request("main", None, Some(&strange), &claims),
                request("main", None, None, &format!(r#"{{"exp":"{NEEDLE}-{n}"}}"#)),
                request("main", None, None, &format!(r#"{{"{NEEDLE}-{n}":"#)),
            ] {
                signer.sign_jwt(wrong).await.unwrap_err();
            }
            let wrong = SignJwsRequest {
                key_set: "main".to_owned(),
                signing_input: token.replace('.', &strange).into_bytes(),
            };
            signer.sign_jws(wrong).await.unwrap_err();
            for path in [
                format!("/{strange}/jwks.json"),
                format!("/{strange}?{strange}"),
            ] {
                let (status, _) = fetch(&daemon.origin(), &path).await.unwrap();
                assert_eq!(status, 404);
            }
        }
        counts.push(series(&scrape(&daemon).await));
    }
    assert_eq!(counts[1], counts[2], "more requests, no more series");
    let served = served(&daemon).await;
    daemon.ask_to_stop();
    daemon.end().await;
    let log = lab.log();
    assert!(log.contains("TRACE"), "it logged everything");
    for secret in [&[NEEDLE, PIN][..], &parts].concat() {
        assert!(!served.contains(secret), "{secret} in:\n{served}");
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
    assert!(!served.contains(STRANGE), "{served}");
    let figures = served.split("\n{").next().unwrap();
    assert!(figures.contains("sealkeeper_requests_total"));
    for kid in kids {
        assert!(!figures.contains(&kid), "{kid} in:\n{figures}");
    }
}

#[tokio::test]
async fn the_log_is_json_off_a_terminal_and_its_level_is_checked() {
    let lab = lab();
    let mut daemon = lab.serve().await;
    daemon.ask_to_stop();
    daemon.end().await;
    let log = lab.log();
    assert!(log.lines().count() >= 3, "{log}");
    for line in log.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}, in:\n{log}"));
        let at = line["timestamp"].as_str().expect("a time");
        assert!(at.starts_with("20") && at.ends_with('Z'), "{at}");
        assert!(line["level"].is_string() && line["fields"]["message"].is_string());
    }
    let wrong = lab
        .command(&["serve"])
        .env("SEALKEEPER_LOG", "info,sealkeeper=loud")
        .output();
    let wrong = wrong.expect("the program under test");
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(2), "{said}");
    assert!(
        said.contains("SEALKEEPER_LOG") && said.contains("hint: "),
        "{said}"
    );
}

/// What reads standard error may stop to: a pipe that is full must hold up no
/// signature, no JWKS and no probe.
#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let lab = lab();
    let (mut daemon, log) = lab.serve_piped(&[("SEALKEEPER_LOG", "trace")]).await;
    let (mut signer, _admin) = daemon.clients().await.expect("a daemon");
    let lost = || async { figure(&scrape(&daemon).await, "log_lines_lost_total") };
    assert_eq!(lost().await, 0.0);
    wait_until(async || {
        sign(&mut signer, "ES256", r#"{"sub":"a"}"#)
            .await
            .expect("a signature");
        lost().await > 0.0
    })
    .await;
    for path in ["/main/jwks.json", "/healthz", "/readyz"] {
        let (status, _) = fetch(&daemon.origin(), path).await.expect("an answer");
        assert_eq!(status, 200, "{path}");
    }
    // Whoever reads again is told.
    let mut lines = BufReader::new(log).lines();
    let told = lines.find(|line| {
        let line = line.as_ref().expect("text");
        line.contains(r#""event":"log_lines_lost""#)
    });
    assert!(told.is_some());
    // And a stop waits for no reader.
    sign(&mut signer, "ES256", r#"{"sub":"a"}"#)
        .await
        .expect("a signature");
    daemon.ask_to_stop();
    assert!(daemon.end().await.success());
}

/// `scripts/test` puts it on the path, or says where it is.
fn promtool(text: &str) -> (bool, String) {
    let program = env::var_os("SEALKEEPER_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let mut child = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by scripts/test");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}
