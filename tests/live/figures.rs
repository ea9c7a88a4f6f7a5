//! `/metrics` of the whole program: the figures move as they should, and a
//! tool that knows the format finds nothing wrong with it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::{env, fs};

use super::lab::{CALM, Daemon, Lab, fetch, sign, wait_until};

async fn scrape(daemon: &Daemon) -> String {
    let address = daemon.address("metrics_listen");
    let (status, body) = fetch(&address, "/metrics").await.expect("an answer");
    assert_eq!(status, 200);
    String::from_utf8(body).expect("text")
}

/// The figure with this name and these labels, in the order of their names.
fn figure(text: &str, name: &str) -> f64 {
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
