//! Long because: a laboratory is one thing, and all its tests use all of it.
//!
//! A laboratory: a token, a configuration and a daemon of its own for each
//! test, in a folder that goes with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use sealkeeper::api::client;
use sealkeeper::api::v1::key_admin_client::KeyAdminClient;
use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::api::v1::{SignJwtRequest, SignJwtResponse};
use tempfile::TempDir;
use tonic::transport::Channel;

pub(crate) use super::waits::{wait_for, wait_until};
pub(crate) use crate::debian::softhsm_module;

/// How long anything may take before the test says so. Long, because tests
/// share two cores; nothing waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The PIN of every laboratory's token. Planted: tests look for it in logs.
pub(crate) const PIN: &str = "83920174";

/// A schedule of seconds, within all the rules.
pub(crate) const QUICK: &str = r#"
rotate_every = "4s"
verifier_cache = "1s"
propagation = "1500ms"
skew = "200ms"
max_token_lifetime = "3s"
default_lifetime = "3s"
rollback_window = "1s"
adoption = "200ms"
signing_deadline = "1s"
max_age = "1s"
"#;

/// A schedule on which nothing happens while a test runs.
pub(crate) const CALM: &str = r#"
rotate_every = "90d"
"#;

pub(crate) struct Lab {
    dir: TempDir,
    /// A command, with its arguments, that starts the program under test.
    pub(crate) starter: Vec<String>,
}

impl Lab {
    /// A new token, and a configuration with one key set `main`.
    pub(crate) fn new(schedule: &str, algorithms: &[&str]) -> Self {
        let lab = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            starter: Vec::new(),
        };
        let tokens = lab.path("tokens");
        fs::create_dir(&tokens).expect("the token directory");
        fs::write(lab.path("softhsm2.conf"), softhsm_conf(&tokens))
            .expect("the token's configuration");
        let made = Command::new("softhsm2-util")
            .args([
                "--init-token",
                "--free",
                "--label",
                "lab",
                "--so-pin",
                "5678",
                "--pin",
                PIN,
            ])
            .env("SOFTHSM2_CONF", lab.path("softhsm2.conf"))
            .output()
            .expect("softhsm2-util");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        fs::write(lab.path("pin"), PIN).expect("the PIN");
        fs::set_permissions(lab.path("pin"), fs::Permissions::from_mode(0o600)).expect("its mode");
        let tracks: String = algorithms
            .iter()
            .map(|alg| format!("[[key_set.main.track]]\nalg = \"{alg}\"\n"))
            .collect();
        lab.configure(schedule, &tracks);
        lab
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, schedule: &str, tracks: &str) {
        let uid = fs::metadata(self.dir.path())
            .expect("our own directory")
            .uid();
        let module = softhsm_module();
        let dir = self.dir.path().display();
        let text = format!(
            r#"
state_dir = "{dir}/state"
[serve]
signing_socket = "{dir}/sign.sock"
admin_socket = "{dir}/admin.sock"
jwks_listen = "127.0.0.1:0"
[device.softhsm]
kind = "pkcs11"
module = "{module}"
token = "lab"
pin = {{ file = "{dir}/pin" }}
env = {{ SOFTHSM2_CONF = "{dir}/softhsm2.conf" }}
[key_set.main]
issuer = "https://lab.example"
device = "softhsm"
{schedule}
{tracks}
[[key_set.main.rule]]
name = "me"
uid = [{uid}]
operations = ["sign-jwt", "sign-jws"]
"#,
            module = module.display(),
        );
        fs::write(self.path("sealkeeper.toml"), text).expect("the configuration");
    }

    /// Lets other users in: to the configuration and to the sockets, whose
    /// modes are for each of them to say.
    pub(crate) fn open_to_others(&self) {
        let open = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
        };
        open(self.dir.path(), 0o755);
        open(&self.path("sealkeeper.toml"), 0o644);
    }

    /// Changes the configuration: `to` for `from`, which must be there.
    pub(crate) fn amend(&self, from: &str, to: &str) {
        let path = self.path("sealkeeper.toml");
        let text = fs::read_to_string(&path).expect("the configuration");
        assert!(text.contains(from), "no {from:?} in:\n{text}");
        fs::write(path, text.replacen(from, to, 1)).expect("the configuration");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program under test; its environment names the configuration.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_sealkeeper");
        let mut command = match self.starter.as_slice() {
            [] => Command::new(program),
            [starter, of_starter @ ..] => {
                let mut command = Command::new(starter);
                command.args(of_starter).arg(program);
                command
            }
        };
        command
            .args(args)
            .env("SEALKEEPER_CONFIG", self.path("sealkeeper.toml"))
            .env_remove("SEALKEEPER_FAILPOINT")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program under test")
    }

    /// Runs a command that must succeed, and returns its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?} failed: {stderr}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Begins the key set.
    pub(crate) fn init(&self) {
        self.ok(&["init"]);
    }

    /// Starts the daemon and waits until it serves.
    pub(crate) async fn serve(&self) -> Daemon {
        self.serve_with(&[]).await
    }

    /// The same, with variables in its environment.
    pub(crate) async fn serve_with(&self, env: &[(&str, &str)]) -> Daemon {
        let mut daemon = self.spawn(env);
        daemon.ready().await;
        daemon
    }

    /// Starts the daemon and waits for nothing.
    pub(crate) fn spawn(&self, env: &[(&str, &str)]) -> Daemon {
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path("agent.log"))
            .expect("the log");
        self.spawn_logging(env, log.into())
    }

    /// Starts the daemon and waits until it serves; its log is a pipe, and
    /// whoever has the end of it reads or does not.
    pub(crate) async fn serve_piped(&self, env: &[(&str, &str)]) -> (Daemon, ChildStderr) {
        let mut daemon = self.spawn_logging(env, Stdio::piped());
        daemon.ready().await;
        let log = daemon.child.stderr.take().expect("a pipe");
        (daemon, log)
    }

    fn spawn_logging(&self, env: &[(&str, &str)], log: Stdio) -> Daemon {
        let ready = self.path("ready");
        // A daemon that was killed left it.
        let _ = fs::remove_file(&ready);
        let child = self
            .command(&["serve"])
            .arg("--ready-file")
            .arg(&ready)
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program under test");
        Daemon {
            child,
            ready,
            socket: self.path("sign.sock"),
            admin: self.path("admin.sock"),
        }
    }

    /// Everything that the daemons of this laboratory logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// The same, as soon as `text` is in it: a thread of its own writes it.
    #[track_caller]
    pub(crate) fn logged(&self, text: &str) -> impl Future<Output = String> {
        let there = wait_until(async move || self.log().contains(text));
        async {
            there.await;
            self.log()
        }
    }

    /// `keys list`, as JSON, of the key set `main`.
    pub(crate) fn keys(&self) -> Vec<serde_json::Value> {
        let listing: serde_json::Value =
            serde_json::from_str(&self.ok(&["keys", "list", "--json"])).expect("JSON");
        listing["key_sets"][0]["keys"]
            .as_array()
            .expect("keys")
            .clone()
    }

    /// The ids of the private keys that the token holds, as `pkcs11-tool`
    /// lists them: not our own reading.
    ///
    /// Why of a copy: SoftHSM 2.6 writes to what it reads, and a key that is
    /// listed while it is being made is lost. See hsm-config/softhsm2.
    pub(crate) fn objects_in_token(&self) -> BTreeMap<String, usize> {
        let began = Instant::now();
        let listed = loop {
            let copy = tempfile::tempdir().expect("a temporary directory");
            copy_files(&self.path("tokens"), &copy.path().join("tokens"));
            let listed = list_private_keys(copy.path());
            // A copy that was made in the middle of a write lacks the token.
            if listed.status.success() || began.elapsed() > PATIENCE {
                break listed;
            }
        };
        assert!(
            listed.status.success(),
            "{}",
            String::from_utf8_lossy(&listed.stderr)
        );
        let mut ids = BTreeMap::new();
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            if let Some(id) = line.trim().strip_prefix("ID:") {
                *ids.entry(id.trim().to_owned()).or_default() += 1;
            }
        }
        ids
    }
}

/// What `pkcs11-tool` says of the private keys in a folder with `tokens`.
fn list_private_keys(folder: &Path) -> Output {
    let conf = folder.join("softhsm2.conf");
    fs::write(&conf, softhsm_conf(&folder.join("tokens"))).expect("a configuration");
    Command::new("pkcs11-tool")
        .args(["--module"])
        .arg(softhsm_module())
        .args(["--token-label", "lab", "--login", "--pin", PIN])
        .args(["--list-objects", "--type", "privkey"])
        .env("SOFTHSM2_CONF", conf)
        .output()
        .expect("pkcs11-tool")
}

fn softhsm_conf(tokens: &Path) -> String {
    format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    )
}

/// Copies a folder that others write to: what goes meanwhile is left out.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_files(&from, &to);
        } else {
            let _ = fs::copy(from, to);
        }
    }
}

/// A daemon under test. Killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    ready: PathBuf,
    socket: PathBuf,
    admin: PathBuf,
}

impl Daemon {
    async fn ready(&mut self) {
        let (ready, log) = (self.ready.clone(), self.ready.with_file_name("agent.log"));
        let up = wait_for(|| {
            let ended = self.child.try_wait().expect("our own child");
            let log = || fs::read_to_string(&log).unwrap_or_default();
            assert!(
                ended.is_none(),
                "the daemon ended at once: {ended:?}\n{}",
                log()
            );
            ready.exists()
        });
        up.await;
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn origin(&self) -> String {
        self.address("jwks_listen")
    }

    /// The same of another listener.
    pub(crate) fn address(&self, listener: &str) -> String {
        let text = fs::read_to_string(&self.ready).expect("the ready file");
        let start = format!("{listener} = \"");
        let line = text.lines().find_map(|line| line.strip_prefix(&*start));
        format!("http://{}", line.expect("an address").trim_end_matches('"'))
    }

    /// Connections to both sockets, as soon as it serves; none if it dies
    /// before.
    pub(crate) async fn clients(
        &mut self,
    ) -> Option<(SignerClient<Channel>, KeyAdminClient<Channel>)> {
        let mut clients = None;
        wait_until(async || {
            if self.ready.exists() {
                let signer = client::connect(&self.socket).await.map(SignerClient::new);
                let admin = client::connect(&self.admin).await.map(KeyAdminClient::new);
                clients = signer.ok().zip(admin.ok());
            }
            clients.is_some() || self.has_ended()
        })
        .await;
        clients
    }

    /// The set of the key set `main`, over HTTP; none from a daemon that died
    /// meanwhile.
    pub(crate) async fn jwks(&self) -> Option<Vec<u8>> {
        let (status, body) = fetch(&self.origin(), "/main/jwks.json").await.ok()?;
        (status == 200).then_some(body)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// As `kill -HUP` does.
    pub(crate) fn hang_up(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::HUP).expect("our own child");
    }

    /// As `kill -STOP` does: it is there, and does nothing.
    pub(crate) fn freeze(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::STOP).expect("our own child");
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child")
    }

    /// Asks it to stop, as a service manager does.
    pub(crate) fn ask_to_stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for(|| {
            status = self.child.try_wait().expect("our own child");
            status.is_some()
        })
        .await;
        status.expect("it has ended")
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_some()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Signs with a track.
pub(crate) async fn sign(
    signer: &mut SignerClient<Channel>,
    alg: &str,
    claims: &str,
) -> Result<SignJwtResponse, tonic::Status> {
    let mut request = tonic::Request::new(SignJwtRequest {
        key_set: "main".to_owned(),
        claims: claims.as_bytes().to_vec(),
        alg: Some(alg.to_owned()),
        typ: None,
    });
    request.set_timeout(Duration::from_secs(10));
    signer
        .sign_jwt(request)
        .await
        .map(tonic::Response::into_inner)
}

/// Fetches over HTTP/1.1: the status and the body.
pub(crate) async fn fetch(origin: &str, path: &str) -> std::io::Result<(u16, Vec<u8>)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = origin.strip_prefix("http://").expect("an http origin");
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let cut_short = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.ok_or_else(cut_short)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(cut_short)?;
    Ok((status, answer[end + 4..].to_vec()))
}

/// The `kid`s of a JWKS.
pub(crate) fn kids(jwks: &[u8]) -> Vec<String> {
    let set: serde_json::Value = serde_json::from_slice(jwks).expect("a JWKS");
    let keys = set["keys"].as_array().expect("keys");
    keys.iter()
        .map(|key| key["kid"].as_str().expect("a kid").to_owned())
        .collect()
}

/// Whether a folder holds this text in any file.
pub(crate) fn folder_holds(folder: &Path, needle: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(folder_holds(&path, needle));
        } else if let Ok(bytes) = fs::read(&path)
            && bytes.windows(needle.len()).any(|w| w == needle.as_bytes())
        {
            found.push(path);
        }
    }
    found
}

/// A listing of keys less what changes by itself: their ages.
pub(crate) fn ageless(mut listing: serde_json::Value) -> serde_json::Value {
    let sets = listing["key_sets"].as_array_mut().expect("key sets");
    for key in sets
        .iter_mut()
        .flat_map(|set| set["keys"].as_array_mut().expect("keys"))
    {
        let key = key.as_object_mut().expect("a key");
        key.retain(|name, _| name != "age_seconds" && name != "seconds_since_active");
    }
    listing
}
