//! A page in a real browser fetches the JWKS from another origin and verifies
//! a token with it.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::lab::{CALM, Lab, PATIENCE, sign};

/// What the page does; it reports to the server that it came from.
const SCRIPT: &str = r#"
const bytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const report = {};
try {
  const answer = await fetch(JWKS);
  report.etag = answer.headers.get("etag");
  const set = await answer.json();
  // A header of its own: the browser asks first whether it may.
  const again = await fetch(JWKS, { headers: { "If-None-Match": report.etag } });
  report.again = again.status;
  report.with_credentials = await fetch(JWKS, { credentials: "include" }).then(
    () => "answered", () => "refused");
  report.health = await fetch(READY).then(() => "answered", () => "refused");
  report.issuer = (await (await fetch(DISCOVERY)).json()).issuer;

  const [header, payload, signature] = TOKEN.split(".");
  const { kid } = JSON.parse(new TextDecoder().decode(bytes(header)));
  const key = await crypto.subtle.importKey(
    "jwk", set.keys.find((key) => key.kid === kid),
    { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]);
  const verify = (input) => crypto.subtle.verify(
    { name: "ECDSA", hash: "SHA-256" }, key, bytes(signature), new TextEncoder().encode(input));
  report.verifies = await verify(`${header}.${payload}`);
  report.tampered = await verify(`${header}.${payload}A`);
} catch (error) {
  report.error = String(error);
}
await fetch("/report", { method: "POST", body: JSON.stringify(report) });
"#;

/// A browser and all its processes, which end with it.
struct Browser(Child);

impl Browser {
    fn open(url: &str, profile: &std::path::Path) -> Self {
        use std::os::unix::process::CommandExt as _;
        let child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                // Without it, it ends as soon as the page is there.
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromium is installed by scripts/test");
        Self(child)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Serves one page until it has reported.
async fn report_of(listener: &TcpListener, page: &str) -> Value {
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        let body = loop {
            // Browsers open connections that they may never use.
            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                break None;
            }
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                let is_it = name.eq_ignore_ascii_case("content-length");
                is_it.then(|| value.parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                break Some((head.starts_with("POST /report "), body.to_owned()));
            }
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            page.len()
        );
        match body {
            Some((true, report)) => return serde_json::from_str(&report).expect("JSON"),
            Some((false, _)) => {
                let _ = stream.write_all(format!("{head}{page}").as_bytes()).await;
            }
            None => {}
        }
    }
}

#[tokio::test]
async fn a_page_of_another_origin_verifies_a_token() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.amend(
        "[[key_set.main.rule]]",
        "[key_set.main.discovery]\n[[key_set.main.rule]]",
    );
    lab.init();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    let token = sign(&mut signer, "ES256", r#"{"sub":"alice"}"#).await;
    let token = token.expect("it signs").token;

    let origin = daemon.origin();
    let page = format!(
        "<!doctype html><script type=module>\n\
         const JWKS = \"{origin}/main/jwks.json\", READY = \"{origin}/readyz\";\n\
         const DISCOVERY = \"{origin}/.well-known/openid-configuration\";\n\
         const TOKEN = \"{token}\";\n{SCRIPT}</script>"
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let profile = tempfile::tempdir().unwrap();
    let browser = Browser::open(&format!("http://localhost:{port}/"), profile.path());
    let report = tokio::time::timeout(PATIENCE, report_of(&listener, &page)).await;
    drop(browser);

    let mut report = report.expect("the page reports in time");
    let etag = report["etag"].take();
    assert!(
        etag.as_str().is_some_and(|tag| tag.starts_with('"')),
        "{etag}"
    );
    let expected = json!({
        "etag": null,
        "again": 304,
        "with_credentials": "refused",
        "health": "refused",
        "issuer": "https://lab.example",
        "verifies": true,
        "tampered": false,
    });
    assert_eq!(report, expected);
}
