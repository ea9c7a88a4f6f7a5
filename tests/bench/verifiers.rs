//! The JWKS, fetched as verifiers do, beside nginx with the same bytes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::agent::Agent;
use super::http::{self, Connection};
use super::live::lab::wait_until;
use super::load::Figure;
use super::machine::children_of;
use super::report::{Cell, Goal, Report, Table, Unit};

const HOW: &str = "GET of the same bytes over HTTP/1.1 on loopback, 16 connections that stay open, \
    one request at a time on each, by turns. nginx: a file, two worker processes, no access log. \
    The last two columns are microseconds of a processor for each answer: the callers', which are \
    one thread, and the server's.";

pub(crate) async fn measure(report: &mut Report, span: Duration) {
    let agent = Agent::start(&["ES256", "RS256"], |_| {}).await;
    let address = agent.daemon.origin();
    let address: SocketAddr = address.strip_prefix("http://").unwrap().parse().unwrap();
    let request = http::request("GET", "/main/jwks.json", "", "");
    let body = agent.daemon.jwks().await.unwrap();
    let columns = ["/s", "p50 µs", "p99 µs", "caller", "server"];
    let name = format!("A JWKS of {} bytes", body.len());
    let mut table = Table::new(&name, HOW, &columns);
    let row = |f: &Figure| {
        vec![
            Cell::Count(f.per_second),
            Cell::Micros(f.p50_us),
            Cell::Micros(f.p99_us),
            Cell::Micros(f.cpu_us[0]),
            Cell::Micros(f.cpu_us[1]),
        ]
    };
    let ours = async || {
        let [callers, agent, _] = agent.processes();
        http::load(address, &request, 16, span / 2, &[callers, agent]).await
    };
    let Some(program) = std::env::var_os("SEALKEEPER_NGINX") else {
        table.row("Sealkeeper", row(&ours().await));
        report.add(table);
        report.skip("nginx beside the JWKS: nginx is not installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(Path::new(&program), dir.path(), &body);
    let answers = async || {
        let Ok(mut connection) = Connection::open(nginx.address).await else {
            return false;
        };
        matches!(connection.ask(&request).await, Ok((200, got)) if got == body)
    };
    wait_until(answers).await;
    let theirs = async || {
        let pids = [vec![nginx.process.id()], children_of(nginx.process.id())].concat();
        let processes = [vec![std::process::id()], pids];
        http::load(nginx.address, &request, 16, span / 2, &processes).await
    };
    let (a, b) = (ours().await, theirs().await);
    let (b, a) = (b.between(&theirs().await), a.between(&ours().await));
    table.row("Sealkeeper", row(&a));
    table.row("nginx", row(&b));
    report.add(table);
    let cause = "the last column tells: one answer takes more of a processor with our HTTP stack \
        than with nginx's.";
    let ratio = a.per_second / b.per_second;
    report.aim(
        "JWKS beside nginx",
        Goal::AtLeast(1.0, Unit::Times),
        ratio,
        cause,
    );
}

/// Asked to end when dropped.
struct Nginx {
    process: Child,
    address: SocketAddr,
}

impl Nginx {
    /// Everything that it writes is in `dir`.
    fn start(program: &Path, dir: &Path, body: &[u8]) -> Self {
        let address = http::free_address();
        fs::create_dir_all(dir.join("root/main")).unwrap();
        fs::write(dir.join("root/main/jwks.json"), body).unwrap();
        let whoami = |of: &str| {
            let output = Command::new("id").arg(of).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let config = format!(
            "daemon off;\nuser {} {};\nworker_processes 2;\npid nginx.pid;\nerror_log error.log;\n\
             events {{}}\nhttp {{\naccess_log off;\nclient_body_temp_path t1;\nproxy_temp_path t2;\n\
             fastcgi_temp_path t3;\nuwsgi_temp_path t4;\nscgi_temp_path t5;\nsendfile on;\n\
             tcp_nopush on;\nkeepalive_requests 100000000;\nopen_file_cache max=10;\n\
             default_type application/jwk-set+json;\nadd_header Cache-Control max-age=300;\n\
             server {{ listen {address}; root root; }}\n}}\n",
            whoami("-un"),
            whoami("-gn"),
        );
        fs::write(dir.join("nginx.conf"), config).unwrap();
        let process = Command::new(program)
            .arg("-p")
            .arg(dir)
            .args(["-c", "nginx.conf", "-e", "error.log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, address }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only if it is asked.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}
