//! `callers list`, `block` and `unblock`, and TLS beside them, on a real
//! daemon.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;
use tonic::Code;

use super::lab::{CALM, Daemon, Lab, sign, wait_until};
use crate::edges::authority::{Authority, Folder, client_config, connect};

/// Adds to the configuration of a laboratory.
fn add(lab: &Lab, serve: &str, rules: &str) {
    let path = lab.path("sealkeeper.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    let text = text.replace("[serve]", &format!("[serve]\n{serve}"));
    fs::write(&path, format!("{text}\n{rules}")).expect("the configuration");
}

fn listed(lab: &Lab, id: &str) -> Option<Value> {
    let listing: Value =
        serde_json::from_str(&lab.ok(&["callers", "list", "--json"])).expect("JSON");
    let callers = listing["callers"].as_array().expect("callers");
    callers.iter().find(|caller| caller["id"] == id).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_blocked_across_restarts_until_it_is_let_in_again() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let me = format!(
        "unix:{}",
        fs::metadata(lab.path("pin")).expect("our file").uid()
    );
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("it serves");
    sign(&mut signer, "ES256", "{}").await.expect("a token");
    let seen = listed(&lab, &me).expect("we called");
    assert_eq!(seen["requests"], 1);
    assert_eq!(seen["rules"][0]["rule"], "me");

    lab.ok(&["callers", "block", &me, "--note", "at night"]);
    lab.ok(&["callers", "block", "spiffe://example.org/bad"]);
    let table = lab.ok(&["callers", "list"]);
    assert!(
        table.contains("at night") && table.contains("spiffe://example.org/bad"),
        "{table}"
    );
    for _ in 0..2 {
        let (mut signer, _) = daemon.clients().await.expect("it serves");
        let refused = sign(&mut signer, "ES256", "{}").await.expect_err("blocked");
        assert_eq!(refused.code(), Code::PermissionDenied);
        lab.logged("\"event\":\"caller_refused\",\"reason\":\"CALLER_BLOCKED\"")
            .await;
        daemon.kill();
        daemon = lab.serve().await;
    }
    let output = lab.run(&["sign", "{}"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("CALLER_BLOCKED") && said.contains("hint: "),
        "{said}"
    );

    lab.ok(&["callers", "unblock", &me]);
    lab.ok(&["sign", "{}"]);
    daemon.kill();
    let _daemon = lab.serve().await;
    lab.ok(&["sign", "{}"]);
    let bad = lab.run(&["callers", "block", "nobody"]);
    assert_eq!(bad.status.code(), Some(1));
}

/// The address of the TLS listener, from the ready file.
fn tls_address(lab: &Lab, _of: &Daemon) -> std::net::SocketAddr {
    let text = fs::read_to_string(lab.path("ready")).expect("the ready file");
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("signing_listen = \""));
    let address = line.expect("an address").trim_end_matches('"');
    address.parse().expect("an address")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_gets_what_its_rule_grants() {
    let lab = Lab::new(CALM, &["ES256"]);
    let authority = Authority::new("authority");
    let folder = Folder::new(&authority.server(), &authority);
    let file = |name: &str| format!("{:?}", folder.path(name));
    let serve = format!(
        "signing_listen = \"127.0.0.1:0\"\nsigning_tls = {{ cert = {}, key = {}, client_ca = {} }}",
        file("cert.pem"),
        file("key.pem"),
        file("ca.pem")
    );
    let rule = "[[key_set.main.rule]]\nname = \"workloads\"\nspiffe = [\"spiffe://lab.example/auth/*\"]\noperations = [\"sign-jwt\"]\n";
    add(&lab, &serve, rule);
    lab.init();
    let daemon = lab.serve().await;
    let address = tls_address(&lab, &daemon);
    let named = authority.client(&["spiffe://lab.example/auth/login"], &[]);
    let other = authority.client(&["spiffe://lab.example/web"], &[]);
    let config = client_config(&authority, Some(&named));
    let mut signer = connect(address, config).await.expect("a good certificate");
    sign(&mut signer, "ES256", "{}").await.expect("a token");
    let config = client_config(&authority, Some(&other));
    let mut stranger = connect(address, config).await.expect("a good certificate");
    let refused = sign(&mut stranger, "ES256", "{}")
        .await
        .expect_err("no rule");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let line = "\"event\":\"caller_refused\",\"reason\":\"NOT_ALLOWED\",\"peer\":\"127.0.0.1\",\"caller\":\"spiffe://lab.example/web\"";
    lab.logged(line).await;
    let audit =
        super::lab::folder_holds(&lab.path("state/audit"), "spiffe://lab.example/auth/login");
    assert!(!audit.is_empty(), "the record names the caller");

    let config = client_config(&authority, None);
    if let Ok(mut nobody) = connect(address, config).await {
        let refused = sign(&mut nobody, "ES256", "{}").await;
        refused.expect_err("no certificate");
    }
    wait_until(async || lab.log().contains("NO_CERTIFICATE")).await;
    let log = lab.log();
    let refused = |line: &&str| {
        ["connection_refused", "caller_refused"]
            .iter()
            .any(|event| line.contains(event))
    };
    let lines = log.lines().filter(refused).count();
    assert!(lines >= 2);
    assert_eq!(jailed(&log), vec!["127.0.0.1"; lines]);

    // SIGHUP reads the files again.
    let loads = || lab.log().matches("TLS certificates loaded").count();
    let before = loads();
    daemon.hang_up();
    wait_until(async || loads() > before).await;
    sign(&mut signer, "ES256", "{}").await.expect("a token");

    let good = lab.ok(&["doctor"]);
    assert!(
        good.contains("ok    certificates 127.0.0.1:0: good until "),
        "{good}"
    );
    // Files and a list that make no sense are what `doctor` says first.
    let key = folder.path("key.pem");
    fs::copy(folder.path("ca.pem"), &key).expect("the key");
    fs::write(lab.path("state/callers/blocked.json"), "{").expect("the list");
    let found = lab.run(&["doctor"]);
    assert_eq!(found.status.code(), Some(1));
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    for fail in ["fail  certificates 127.0.0.1:0: ", "fail  blocked callers "] {
        assert!(found.contains(fail), "{found}");
    }
}

/// Whom fail2ban would ban for a log, with the expressions that
/// `docs/operation.md` gives. It is written in Python, and its `<HOST>` is an address.
fn jailed(log: &str) -> Vec<String> {
    const PROGRAM: &str = r#"
import re, sys
readme, log = sys.argv[1:]
block = re.search(r"failregex = (.*?)\ndatepattern", readme, re.S).group(1)
for line in block.splitlines():
    expression = line.strip().replace("<HOST>", r"(?P<host>[0-9a-f.:]+)")
    for match in re.finditer(expression, log):
        print(match.group("host"))
"#;
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operation.md");
    let readme = fs::read_to_string(readme).expect("the document");
    let output = std::process::Command::new("/usr/bin/python3")
        .args(["-c", PROGRAM, &readme, log])
        .output()
        .expect("python3");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let hosts = String::from_utf8(output.stdout).expect("addresses");
    hosts.lines().map(str::to_owned).collect()
}
