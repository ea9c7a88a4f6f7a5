//! Those who are told of key events over HTTP.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

use super::bad_days::{active, at_work};
use super::lab::{Daemon, Lab, wait_until};

/// The bytes of `sealkeeper-test-secret-0123456789`.
const SECRET: &str = "whsec_c2VhbGtlZXBlci10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5";
const SECRET_HEX: &str = "7365616c6b65657065722d746573742d7365637265742d30313233343536373839";

/// A receiver that takes what `openssl` says is signed.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<Value>>>);

impl Receiver {
    /// Listens on that port; 0 is any. Returns the one that it is.
    async fn listen(&self, port: u16) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = Arc::clone(&self.0);
        let answer = move |headers: HeaderMap, body: String| {
            let header = |name: &str| headers[name].to_str().unwrap().to_owned();
            let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
            let wanted = openssl_hmac(&format!("{id}.{at}.{body}"));
            let good = header("webhook-signature") == format!("v1,{wanted}");
            if good {
                told.lock()
                    .unwrap()
                    .push(serde_json::from_str(&body).unwrap());
            }
            std::future::ready(match good {
                true => StatusCode::NO_CONTENT,
                false => StatusCode::UNAUTHORIZED,
            })
        };
        let app = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        port
    }

    fn of(&self, event: &str, kid: &str) -> Option<Value> {
        let told = self.0.lock().unwrap();
        let mut told = told.iter();
        told.find(|told| told["event"] == event && told["kid"] == kid)
            .cloned()
    }

    async fn told(&self, event: &str, kid: &str) -> Value {
        wait_until(async || self.of(event, kid).is_some()).await;
        self.of(event, kid).unwrap()
    }
}

fn openssl_hmac(signed: &str) -> String {
    let sh = "openssl dgst -sha256 -mac HMAC -macopt hexkey:$0 -binary | openssl base64 -A";
    let mut child = Command::new("sh")
        .args(["-c", sh, SECRET_HEX])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), signed.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// Puts webhooks into the configuration, and starts the agent again with them.
async fn with_webhooks(lab: &Lab, mut daemon: Daemon, hooks: &[(&str, u16)]) -> Daemon {
    let secret = lab.path("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let mut tables = String::new();
    for (name, port) in hooks {
        tables += &format!(
            "[webhook.{name}]\nurl = \"http://127.0.0.1:{port}/sesame\"\nsecret = {{ file = \"secret\" }}\n"
        );
    }
    lab.amend("[serve]", &format!("{tables}[serve]"));
    // No reload does, and none shows an address.
    let diff = lab.ok(&["config", "diff", "--json"]);
    assert!(diff.contains("webhook.ops.url") && diff.contains("\"needs_restart\":true"));
    assert!(!diff.contains("sesame"), "{diff}");
    daemon.ask_to_stop();
    assert!(daemon.end().await.success());
    drop(daemon);
    lab.serve().await
}

fn doctor(lab: &Lab, name: &str) -> Value {
    let report: Value =
        serde_json::from_slice(&lab.run(&["doctor", "--json"]).stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    let mut checks = checks.iter();
    let of = |c: &&Value| c["check"] == "webhook" && c["of"] == name;
    checks.find(of).expect("a finding").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_told_though_another_receiver_hangs() {
    let (lab, daemon, shown) = at_work().await;
    let receiver = Receiver::default();
    // Connections get as far as the kernel, and no answer.
    let hangs = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let hanging = hangs.local_addr().unwrap().port();
    let hooks = [("a-hanging", hanging), ("ops", receiver.listen(0).await)];
    let daemon = with_webhooks(&lab, daemon, &hooks).await;
    assert_eq!(doctor(&lab, "ops")["level"], "ok");
    let tested = lab.ok(&["webhooks", "test", "ops", "--json"]);
    assert!(tested.contains("\"status\":204"), "{tested}");
    assert_eq!(receiver.0.lock().unwrap()[0]["event"], "test");

    let kid = active(&lab);
    assert!(shown.contains(&kid));
    let note = ["--reason", "compromised", "--note", "a ticket", "--then"];
    lab.ok(&[&["keys", "revoke", &kid][..], &note, &["activate"]].concat());
    let told = receiver.told("revoked", &kid).await;
    assert_eq!(told["reason"], "compromised");
    assert_eq!(told["alg"], "ES256");
    assert_eq!(told["issuer"], "https://lab.example");
    assert!(!told.to_string().contains("ticket"), "{told}");
    assert!(!told.to_string().contains("unix:"), "{told}");
    // The one that hangs is told of once, by its name alone.
    let log = lab.logged("webhook_failing").await;
    assert!(
        log.contains("a-hanging") && !log.contains("sesame"),
        "{log}"
    );
    let found = doctor(&lab, "a-hanging");
    assert_eq!(found["level"], "fail", "{found}");
    assert_eq!(doctor(&lab, "ops")["level"], "ok");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_took_is_told_after_a_restart() {
    let (lab, daemon, _) = at_work().await;
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let mut daemon = with_webhooks(&lab, daemon, &[("ops", port)]).await;
    let failed = lab.run(&["webhooks", "test", "ops"]);
    assert_eq!(failed.status.code(), Some(3));
    let kid = active(&lab);
    lab.ok(&["keys", "revoke", &kid, "--then", "activate"]);
    lab.logged("webhook_failing").await;
    daemon.kill();
    let receiver = Receiver::default();
    receiver.listen(port).await;
    let daemon = lab.serve().await;
    receiver.told("revoked", &kid).await;
    lab.logged("webhook_answers").await;
    assert_eq!(doctor(&lab, "ops")["level"], "ok");
    drop(daemon);
}
