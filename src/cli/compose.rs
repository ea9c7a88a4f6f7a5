//! Puts the agent together, from the configuration to its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tonic::transport::Channel;

use super::output::Failure;
use crate::agent::{Context, Ports, Wanted};
use crate::api::client;
use crate::api::v1::key_admin_client::KeyAdminClient;
use crate::api::v1::signer_client::SignerClient;
use crate::audit::{Audit, AuditError, Limits};
use crate::clock::SystemClock;
use crate::config::{Config, ConfigError};
use crate::durable::{Disk, LastGood, OsDisk, Tombstones};
use crate::hsm::Device;
use crate::metrics::Metrics;
use crate::store::{Counted, Sqlite, Store, Unusable};

/// Reads the configuration; its mistakes are the operator's: exit code 2.
pub(super) fn config(path: &Path) -> Result<Config, Failure> {
    Ok(read(path)?.0)
}

/// The same, and the text.
pub(super) fn read(path: &Path) -> Result<(Config, String), Failure> {
    Config::read(path).map_err(|e| unusable(path, e))
}

/// The files that it names, as far as no start looks at them.
pub(super) fn files(path: &Path) -> Result<(), Failure> {
    Config::check_files(path).map_err(|e| unusable(path, e))
}

fn unusable(path: &Path, error: ConfigError) -> Failure {
    match error {
        error @ ConfigError::Read { .. } => {
            Failure::usage(error).hint("--config FILE names another")
        }
        ConfigError::Invalid(invalid) => {
            let file = path.display();
            let message = format!("{file}: {}", invalid.messages());
            Failure::usage(message)
                .hint(invalid.hints())
                .shown(&invalid)
        }
    }
}

/// The key set that is meant: the one that is named, or the only one.
pub(super) fn key_set(config: &Config, name: Option<String>) -> Result<String, Failure> {
    let known: Vec<&str> = config.key_sets.keys().map(String::as_str).collect();
    match (name, known.as_slice()) {
        (Some(name), known) if known.contains(&name.as_str()) => Ok(name),
        (Some(name), known) => Err(Failure::usage(format!("no key set {name:?} is configured"))
            .hint(format!("one of: {}", known.join(", ")))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, known) => Err(Failure::usage("which key set?")
            .hint(format!("--key-set with one of: {}", known.join(", ")))),
    }
}

/// A key set for the agent; where it is observed only if that is configured.
pub(super) fn wanted(config: &Config, name: &str) -> Result<Wanted, Failure> {
    let set = config
        .key_sets
        .get(name)
        .ok_or_else(|| Failure::usage(format!("no key set {name:?} is configured")))?;
    Ok(Wanted {
        name: name.to_owned(),
        plan: set.plan(BTreeSet::new()),
        rules: set.rules.clone(),
        approvals: set.approvals.clone(),
        historical_keys: set.historical_keys,
        own: None,
        origins: set.observe.clone(),
    })
}

/// Makes the state folder where there is none, and keeps everybody else from
/// it for as long as the log is open: the agent's name, and the log.
///
/// Trust: whoever may write to the state directory may stop the agent from
/// signing, and may take back a revocation that is only there; it is made
/// for its owner alone. `if_in_use` tells the operator what to do where an
/// agent is running on it.
pub(super) fn alone(config: &Config, if_in_use: &str) -> Result<(String, Audit), Failure> {
    let state = &config.state_dir;
    make_state_dir(state)?;
    let replica = replica(state)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let audit = Audit::open(disk, state.join("audit"), &replica, Limits::default());
    let audit = audit.map_err(|e| match e {
        AuditError::InUse { .. } => Failure::failed(format!(
            "an agent is running on {}, and nobody else may write there meanwhile",
            state.display()
        ))
        .hint(if_in_use),
        e => Failure::failed(e),
    })?;
    Ok((replica, audit))
}

pub(super) fn make_state_dir(state: &Path) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state);
    made.map_err(|e| {
        Failure::failed(format!("{}: {e}", state.display()))
            .hint("state_dir must be a folder that the agent may write to")
    })
}

/// Opens everything that outlives a step: state, log, store, devices. As
/// [`alone`] otherwise.
pub(super) fn open(config: &Config, if_in_use: &str) -> Result<Context, Failure> {
    let state = &config.state_dir;
    let failed = |e: &dyn std::fmt::Display| Failure::failed(e);
    let (replica, audit) = alone(config, if_in_use)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let tombstones =
        Tombstones::open(Arc::clone(&disk), state.join("tombstones")).map_err(|e| failed(&e))?;
    let last_good = LastGood::open(disk, state.join("jwks")).map_err(|e| failed(&e))?;
    let store: Arc<dyn Store> = match Sqlite::open_in_time(state.join("keys.sqlite")) {
        Ok(store) => Arc::new(store),
        Err(e) => {
            tracing::error!("nothing will be signed: {e}");
            Arc::new(Unusable(e))
        }
    };
    let metrics = Metrics::new();
    let store = Arc::new(Counted::new(store, metrics.clone()));
    let mut devices = BTreeMap::new();
    for (name, device) in &config.devices {
        let port = device.to_port(state).map_err(|e| failed(&e))?;
        devices.insert(name.clone(), Device::start(port));
    }
    Ok(Context::new(Ports {
        replica,
        clock: Arc::new(SystemClock::new()),
        store,
        audit: Arc::new(audit),
        tombstones,
        last_good,
        devices,
        metrics,
    }))
}

/// The agent's stable name: made once, kept in the state directory.
fn replica(state: &Path) -> Result<String, Failure> {
    let path = state.join("agent-id");
    let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", path.display()));
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let name = random_name()?;
    let disk = OsDisk;
    crate::durable::write_atomic(&disk, &path, name.as_bytes(), 0o600).map_err(Failure::failed)?;
    Ok(name)
}

/// 16 random bytes in hexadecimal.
pub(super) fn random_name() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    let filled = rustix::rand::getrandom(&mut bytes[..], flags)
        .map_err(|e| Failure::failed(format!("the system's random numbers: {e}")))?;
    debug_assert_eq!(
        filled,
        bytes.len(),
        "up to 256 bytes come whole (getrandom(2))"
    );
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A connection to the agent's signing socket.
pub(super) async fn signer(config: &Config) -> Result<SignerClient<Channel>, Failure> {
    Ok(SignerClient::new(
        client::connect(&config.serve.signing_socket).await?,
    ))
}

/// A connection to the agent's administration socket.
pub(super) async fn admin(config: &Config) -> Result<KeyAdminClient<Channel>, Failure> {
    Ok(KeyAdminClient::new(
        client::connect(&config.serve.admin_socket).await?,
    ))
}

/// Runs a command on a runtime of its own.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("the runtime: {e}")))?;
    Ok(runtime.block_on(work))
}

/// No core dumps, and no other process of this user reads our memory: a key
/// was once lost through a crash dump.
pub(super) fn harden() {
    // Failing to is no reason not to serve; the unit file does it as well.
    let _ = rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
