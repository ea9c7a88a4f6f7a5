//! The JWKS over TLS 1.3, to verifiers that are not ours and to our own.

use std::fs;
use std::process::{Command, Output, Stdio};

use super::lab::{CALM, Lab, fetch, sign, wait_until};
use crate::edges::authority::{Authority, Folder};

fn run(program: &str, args: &[&str]) -> (Output, String) {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program} is installed by scripts/test: {e}"));
    let text = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy);
    let text = text.concat();
    (output, text)
}

struct Place {
    lab: Lab,
    folder: Folder,
}

impl Place {
    fn new() -> Self {
        // Looked at every so often within the propagation.
        let schedule = format!("{CALM}propagation = \"2s\"\n");
        let lab = Lab::new(&schedule, &["ES256"]);
        let authority = Authority::new("authority");
        let folder = Folder::new(&authority.server_at("localhost"), &authority);
        let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
        let tls = format!("[serve]\njwks_tls = {{ cert = {cert:?}, key = {key:?} }}");
        lab.amend("[serve]", &tls);
        lab.init();
        Self { lab, folder }
    }

    fn ca(&self) -> String {
        self.folder.path("ca.pem").display().to_string()
    }

    /// Whether `verify` takes a token by the keys at an address.
    fn verifies(&self, url: &str, ca: &[&str], token: &str) -> Output {
        let args = [&["verify", "--jwks", url], ca, &[token]].concat();
        self.lab.run(&args)
    }
}

#[tokio::test]
async fn verifiers_get_the_jwks_over_tls_1_3_and_nothing_else() {
    let place = Place::new();
    let (lab, ca) = (&place.lab, place.ca());
    let mut daemon = lab.serve().await;
    let address = daemon.origin().replace("http://", "");
    let (_, port) = address.rsplit_once(':').expect("a port");
    let url = format!("https://localhost:{port}/main/jwks.json");
    let (mut signer, _) = daemon.clients().await.expect("it serves");
    sign(&mut signer, "ES256", "{}").await.expect("a token");

    // The agent sees its own JWKS there, as it must before a key may sign.
    wait_until(async || {
        let keys = lab.keys();
        keys.len() > 1 && keys.iter().all(|key| !key["observed"].is_null())
    })
    .await;

    // curl, as any verifier; GET and HEAD.
    let curl = [
        "--silent",
        "--show-error",
        "--cacert",
        &ca,
        "--max-time",
        "20",
    ];
    let (got, body) = run("curl", &[&curl[..], &[&url]].concat());
    assert!(got.status.success(), "{body}");
    assert_eq!(body.trim(), lab.ok(&["jwks"]).trim());
    let (got, head) = run("curl", &[&curl[..], &["--head", &url]].concat());
    assert!(
        got.status.success() && head.starts_with("HTTP/1.1 200"),
        "{head}"
    );
    // Neither an older TLS, nor none.
    let (old, said) = run("curl", &[&curl[..], &["--tls-max", "1.2", &url]].concat());
    assert!(!old.status.success(), "{said}");
    let connect = format!("localhost:{port}");
    let (old, said) = run("openssl", &["s_client", "-connect", &connect, "-tls1_2"]);
    assert!(
        !old.status.success() && said.contains("alert protocol version"),
        "{said}"
    );
    let refused = "\"reason\":\"TLS_VERSION\"";
    wait_until(async || lab.log().matches(refused).count() == 2).await;
    let plain = fetch(&format!("http://{address}"), "/main/jwks.json").await;
    assert!(plain.is_err(), "{plain:?}");

    // Our own verifier, by a root that it is told.
    let token = lab.ok(&["sign", r#"{"sub":"a"}"#]);
    let good = place.verifies(&url, &["--ca", &ca], token.trim());
    assert!(good.status.success(), "{good:?}");
    let unknown = place.verifies(&url, &[], token.trim());
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said.contains("UnknownIssuer"), "{said}");
    for (url, ca, says) in [
        (
            "http://localhost/main/jwks.json",
            &*ca,
            "is about an https address",
        ),
        (&*url, "nowhere.pem", "nowhere.pem"),
    ] {
        let refused = place.verifies(url, &["--ca", ca], token.trim());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(says), "{said}");
    }
}

#[tokio::test]
async fn a_new_certificate_of_the_jwks_is_taken_without_a_restart() {
    let place = Place::new();
    let (lab, ca) = (&place.lab, place.ca());
    let mut daemon = lab.serve().await;
    let address = daemon.origin().replace("http://", "");
    let url = format!(
        "https://{}/main/jwks.json",
        address.replace("127.0.0.1", "localhost")
    );
    let (mut signer, _) = daemon.clients().await.expect("it serves");
    sign(&mut signer, "ES256", "{}").await.expect("a token");
    let token = lab.ok(&["sign", "{}"]);
    let token = token.trim();
    let verifies = |ca: &str| place.verifies(&url, &["--ca", ca], token).status.success();
    assert!(verifies(&ca));

    lab.amend("127.0.0.1:0", &address);
    let found = lab.ok(&["doctor"]);
    assert!(
        found.contains(&format!("ok    certificates {address}: good until ")),
        "{found}"
    );
    let shows = format!("ok    jwks main: https://{address}/main/jwks.json shows ");
    assert!(found.contains(&shows), "{found}");

    let second = Authority::new("second");
    let other = Folder::new(&second.server_at("localhost"), &second);
    for name in ["cert.pem", "key.pem"] {
        fs::rename(other.path(name), place.folder.path(name)).expect("a new file");
    }
    daemon.hang_up();
    let new = other.path("ca.pem").display().to_string();
    wait_until(async || verifies(&new)).await;
    assert!(!verifies(&ca), "the one before is gone");

    // Files that make no sense leave it in place, and `doctor` says so.
    fs::copy(&new, place.folder.path("key.pem")).expect("the key");
    daemon.hang_up();
    wait_until(async || lab.log().contains("the TLS files make no set")).await;
    assert!(verifies(&new));
    let found = lab.run(&["doctor"]);
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(
        found.contains(&format!("fail  certificates {address}: ")),
        "{found}"
    );
    assert!(found.contains("one that starts serves no JWKS"), "{found}");
}
