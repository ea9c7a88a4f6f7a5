//! Those who are told of key events over HTTP.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::bad_days::{active, at_work};
use super::lab::{Daemon, Lab, wait_until};
use crate::edges::authority::{Authority, Folder};

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
        let app = self.app();
        tokio::spawn(async move { axum::serve(listener, app).await });
        port
    }

    /// The same over TLS, with a certificate for `localhost` by this authority.
    async fn listen_over_tls(&self, authority: &Authority) -> u16 {
        let files = Folder::new(&authority.server_at("localhost"), authority);
        let chain = CertificateDer::pem_file_iter(files.path("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(files.path("key.pem")).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key)
            .unwrap();
        let listener = OverTls {
            tcp: TcpListener::bind(("127.0.0.1", 0)).await.unwrap(),
            acceptor: Arc::new(config).into(),
        };
        let port = listener.local_addr().unwrap().port();
        let app = self.app();
        tokio::spawn(async move { axum::serve(listener, app).await });
        port
    }

    fn app(&self) -> Router {
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
        Router::new().fallback(answer)
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

/// Connections whose handshake went well.
struct OverTls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for OverTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, from)) = self.tcp.accept().await else {
                continue;
            };
            // A client that does not trust us hangs up.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
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

/// Roots of one's own: who shows a certificate of them is told, and who shows
/// another one learns nothing, though it listens at the address.
#[tokio::test(flavor = "multi_thread")]
async fn over_https_the_certificate_leads_to_the_roots_that_are_given() {
    let (lab, mut daemon, _) = at_work().await;
    let (ours, another) = (Authority::new("ours"), Authority::new("another"));
    let roots = Folder::new(&ours.server_at("localhost"), &ours);
    let (told, impostor) = (Receiver::default(), Receiver::default());
    let port = told.listen_over_tls(&ours).await;
    let other = impostor.listen_over_tls(&another).await;
    // A credential of the service: nothing but its folder guards it.
    let folder = lab.path("credentials");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("ops-secret"), SECRET).unwrap();
    fs::set_permissions(folder.join("ops-secret"), fs::Permissions::from_mode(0o440)).unwrap();
    let ca = roots.path("ca.pem").display().to_string();
    let hook = |name: &str, port: u16, ca: &str| {
        format!(
            "[webhook.{name}]\nurl = \"https://localhost:{port}/sesame\"\nsecret = {{ credential = \"ops-secret\" }}\n{ca}"
        )
    };
    let ca = format!("ca = {ca:?}\n");
    let hooks = [
        hook("ops", port, &ca),
        hook("impostor", other, &ca),
        // By the system's roots nobody vouches for it.
        hook("without", port, ""),
    ];
    lab.amend("[serve]", &format!("{}[serve]", hooks.concat()));
    daemon.kill();
    let credentials = [("CREDENTIALS_DIRECTORY", folder.to_str().unwrap())];
    let daemon = lab.serve_with(&credentials).await;
    let test = |name: &str, with: &[(&str, &str)]| {
        let mut command = lab.command(&["webhooks", "test", name]);
        let output = command.envs(with.iter().copied()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = test("ops", &credentials);
    assert!(code == Some(0) && said.contains("204"), "{said}");
    for name in ["impostor", "without"] {
        let (code, said) = test(name, &credentials);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.to_lowercase().contains("certificate"), "{said}");
    }
    // Only the service has the credential.
    let (code, said) = test("ops", &[]);
    assert!(
        code == Some(1) && said.contains("/run/credentials/"),
        "{said}"
    );

    let kid = active(&lab);
    lab.ok(&["keys", "revoke", &kid, "--then", "activate"]);
    told.told("revoked", &kid).await;
    wait_until(async || {
        let log = lab.log();
        let failing = |name: &str| {
            let mut lines = log.lines();
            lines.any(|line| line.contains("webhook_failing") && line.contains(name))
        };
        failing("impostor") && failing("without")
    })
    .await;
    assert!(impostor.0.lock().unwrap().is_empty(), "it was told");
    let events = told.0.lock().unwrap();
    let revoked = events.iter().filter(|told| told["event"] == "revoked");
    assert_eq!(revoked.count(), 1, "by one of the two: {events:?}");
    assert_eq!(doctor(&lab, "ops")["level"], "ok");
    assert_eq!(doctor(&lab, "impostor")["level"], "fail");
    drop(daemon);
}
