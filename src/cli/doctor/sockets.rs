//! Sockets: who may connect, whether the agent answers, and what it says.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use super::keys;
use super::machine::{self, Access};
use super::state::Records;
use super::{Report, counted, origins, revoked};
use crate::api::client::{self, ConnectError};
use crate::api::v1::key_admin_client::KeyAdminClient;
use crate::api::v1::{
    DeviceHealth, GetHealthRequest, KeySet, KeySetHealth, ListKeysRequest, Phase as Listed,
};
use crate::cli::hangs;
use crate::cli::output::{START, WHY_ENDED};
use crate::config::Config;
use crate::keyring::{OWN_LISTENER, Shown};
use crate::observe::{self, Origin, Trust};
use crate::store::REBUILD;
use crate::time::Span;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the running agent says of itself.
#[derive(Debug, Default)]
pub(super) struct Agent {
    pub(super) key_sets: Vec<KeySet>,
    pub(super) devices: Vec<DeviceHealth>,
    /// Where it observes a key set's JWKS.
    observed_at: BTreeMap<String, String>,
}

/// Looks at both sockets and asks the agent. None where it does not answer; an
/// empty one where it runs, and does not talk to us.
pub(super) async fn look(config: &Config, report: &mut Report) -> Option<Agent> {
    let signing = connect("signing_socket", config, report).await;
    let admin = connect("admin_socket", config, report).await;
    let Some(channel) = admin else {
        return signing.map(|_| Agent::default());
    };
    let mut admin = KeyAdminClient::new(channel);
    let asked = async {
        let health = admin.get_health(GetHealthRequest {}).await?.into_inner();
        // A key set without a record has none to list; that it does not sign
        // is said below.
        let keys = admin.list_keys(ListKeysRequest::default()).await;
        let keys = keys.map(|keys| keys.into_inner().key_sets);
        Ok::<_, tonic::Status>((health, keys.unwrap_or_default()))
    };
    let (why, hint) = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok((health, keys))) => {
            let place = config.serve.admin_socket.display().to_string();
            report.ok("agent", place, "answers");
            let observed = health.key_sets.iter().filter_map(|set| {
                let mut origins = set.origins.iter();
                let own = origins.find(|origin| origin.name == OWN_LISTENER)?;
                Some((set.name.clone(), own.url.clone()))
            });
            let agent = Agent {
                key_sets: keys,
                devices: health.devices,
                observed_at: observed.collect(),
            };
            for set in &health.key_sets {
                if set.signs {
                    let found = format!("signs, for whom a rule lets in: see `rules {}`", set.name);
                    report.ok("key_set", &set.name, found);
                } else if set.reason == "DEVICE_STARTING" {
                    report.warn("key_set", &set.name, &set.why, "look again in a moment");
                } else {
                    let found = format!("does not sign: {} ({})", set.why, set.reason);
                    let hint = match &*set.reason {
                        "KEY_MISSING" => keys::missed(&agent, set),
                        reason => cure(reason).to_owned(),
                    };
                    report.fail("key_set", &set.name, found, hint);
                    explained(config, &set.name, &set.reason, report);
                }
                late_rotations(set, report);
                origins::told(config, set, report);
                revoked::in_memory_alone(set, report);
            }
            revoked::told(&agent, report);
            keys::lost_standbys(&agent, report);
            keys::early(&agent, report);
            return Some(agent);
        }
        Ok(Err(status)) => (status.message().to_owned(), "its log says more".to_owned()),
        Err(_) => hung(config),
    };
    report.fail("agent", "", why, hint);
    Some(Agent::default())
}

/// It takes connections, and says nothing.
fn hung(config: &Config) -> (String, String) {
    let socket = &config.serve.admin_socket;
    let id = client::process_id(socket).map(|id| format!(" (process id {id})"));
    let found = format!(
        "hangs: its process{} is there, and gives no answer within {PATIENCE:?}",
        id.unwrap_or_default()
    );
    let hint = format!(
        "its log may say why. End it: {}; then start it again, and what it had begun is finished. To end a key before that: `sealkeeper keys revoke KID --offline`",
        hangs::end_it(socket)
    );
    (found, hint)
}

/// The keys that should have been replaced.
fn late_rotations(set: &KeySetHealth, report: &mut Report) {
    for rotation in &set.late_rotations {
        let late = rotation.late.and_then(|late| late.try_into().ok());
        let late = Span::from(late.unwrap_or(Duration::ZERO));
        let found = format!(
            "the {} key should have been replaced {late} ago",
            rotation.alg
        );
        let hint = format!(
            "waits for: {}; `sealkeeper keys list` shows the plan",
            rotation.waits_for
        );
        match rotation.past_hard_limit {
            true => {
                let found = format!("{found}, longer than hard_limit");
                report.fail("rotation", &set.name, found, hint);
            }
            false => report.warn("rotation", &set.name, found, hint),
        }
    }
}

/// What else would have a key set not sign for this reason.
fn explained(config: &Config, name: &str, reason: &str, report: &mut Report) {
    match reason {
        "DEVICE_ABSENT" | "DEVICE_UNAVAILABLE" | "DEVICE_UNUSABLE" | "PIN_BLOCKED" => {
            if let Some(set) = config.key_sets.get(name) {
                report.explained_by("device", &set.device);
            }
        }
        "OTHER_TOKEN" => {
            if let Some(set) = config.key_sets.get(name) {
                report.explained_by("token", &set.device);
            }
        }
        "DISK_FULL" => {
            report.explained_by("state_folder", config.state_dir.display().to_string());
            of_store(config, name, report);
        }
        "TOMBSTONE_UNREADABLE" => {
            report.explained_by("tombstones", below(config, "tombstones"));
        }
        "ROTATION_OVERDUE" | "CEILING_REACHED" => {
            report.explained_by("clock", name);
        }
        reason if reason.starts_with("STORE_") || is_of_record(reason) => {
            of_store(config, name, report);
        }
        _ => {}
    }
}

fn is_of_record(reason: &str) -> bool {
    let of_record = [
        "NOT_INITIALIZED",
        "INIT_UNFINISHED",
        "RECORD_LOST",
        "RECORD_UNUSABLE",
        "RECORD_OUTDATED",
        "NO_ACTIVE_KEY",
    ];
    of_record.contains(&reason)
}

/// The store as a whole, or what it has of this key set.
fn of_store(config: &Config, name: &str, report: &mut Report) {
    report
        .explained_by("store", below(config, "keys.sqlite"))
        .explained_by("store", name);
}

fn below(config: &Config, file: &str) -> String {
    config.state_dir.join(file).display().to_string()
}

/// What to do about a key set that does not sign, by the reason that callers
/// get.
pub(super) fn cure(reason: &str) -> &'static str {
    match reason {
        "NOT_INITIALIZED" => {
            "if this key set has signed before, its record is lost: `sealkeeper restore --from FILE` puts your newest backup in place; else stop the agent, run `sealkeeper init`, and start it again"
        }
        "INIT_UNFINISHED" => {
            "stop the agent, run `sealkeeper init` again, which goes on where it stopped, and start the agent"
        }
        "DISK_FULL" => "see `state folder`; once there is room, the agent goes on by itself",
        "STORE_UNAVAILABLE" => "see `store`; once it works, the agent goes on by itself",
        "RECORD_UNUSABLE" | "RECORD_LOST" | "STORE_UNUSABLE" => REBUILD,
        "RECORD_OUTDATED" => {
            "stop the agent: doctor then looks into the token itself; `sealkeeper recover` shows what the token and the origins know, and with --write joins it with the record; then start the agent"
        }
        "TOMBSTONE_UNREADABLE" => {
            "a revocation on disk cannot be read and may be of any key: look at the file, then restart the agent"
        }
        "NO_ACTIVE_KEY" => {
            "the agent goes on by itself: `sealkeeper keys list` shows when the next key may sign, what it waits for, and after a revocation which order has it sign earlier"
        }
        "ROTATION_OVERDUE" => {
            "`sealkeeper keys list` shows what the rotation waits for; after that the agent goes on by itself"
        }
        "CEILING_REACHED" => {
            "while the store or the clock is in trouble, nothing is signed further ahead: see `store` and `clock`"
        }
        "DEVICE_ABSENT" | "DEVICE_UNAVAILABLE" | "DEVICE_UNUSABLE" | "PIN_BLOCKED" => {
            "its device does not work: see `device`"
        }
        "OTHER_TOKEN" => "see `token`",
        "KEY_BLOCKED" => "the key was revoked; `sealkeeper keys list` shows what comes next",
        _ => "wait a moment and look again; the agent's log says more",
    }
}

async fn connect(
    check: &'static str,
    config: &Config,
    report: &mut Report,
) -> Option<tonic::transport::Channel> {
    let serve = &config.serve;
    let (path, setting) = match check {
        "admin_socket" => (&serve.admin_socket, "serve.admin_socket_mode"),
        _ => (&serve.signing_socket, "serve.socket_mode"),
    };
    let of = path.display().to_string();
    let access = match std::fs::metadata(path) {
        Ok(meta) => Access::of(&meta),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            report.fail(
                check,
                of,
                "not there: the agent is not running",
                format!("{START}; if it ends at once, what it says last is why"),
            );
            no_agent(check, config, report);
            return None;
        }
        Err(e) => {
            let hint = "you must be allowed to enter every folder on the way to it";
            report.fail(check, of, e.to_string(), hint);
            return None;
        }
    };
    if !access.socket {
        let hint =
            "move it away, or name another path in the configuration; then restart the agent";
        report.fail(check, of, "there is a file that is no socket", hint);
        return None;
    }
    match client::connect(path).await {
        Ok(channel) => {
            report.ok(check, of, access.shown());
            Some(channel)
        }
        Err(ConnectError::Unreachable { why, .. }) if why.kind() == ErrorKind::PermissionDenied => {
            let us = rustix::process::geteuid().as_raw();
            let found = format!(
                "keeps you out: you are {}, and it has {}",
                machine::user_name(us),
                access.shown()
            );
            let hint = format!(
                "run this as its owner, or set {setting} = \"0660\", restart the agent, and join its group: `usermod -aG GROUP USER`, then log in again"
            );
            report.fail(check, of, found, hint);
            None
        }
        Err(e) => {
            // Its path was said.
            let why = match e {
                ConnectError::Unreachable { why, .. } => why.to_string(),
                e => e.to_string(),
            };
            let found = format!("the agent is not running: it has ended, and left this ({why})");
            report.fail(check, of, found, format!("{START}; {WHY_ENDED}"));
            no_agent(check, config, report);
            None
        }
    }
}

/// That no agent runs shows at each socket; and where there is nothing that it
/// could work with, that comes first.
fn no_agent(check: &str, config: &Config, report: &mut Report) {
    report
        .explained_by("state_folder", config.state_dir.display().to_string())
        .explained_by("store", below(config, "keys.sqlite"));
    for name in config.key_sets.keys() {
        report.explained_by("store", name);
    }
    if check == "admin_socket" {
        let signing = config.serve.signing_socket.display().to_string();
        report.explained_by("signing_socket", signing);
    }
}

/// Whether verifiers get the keys that sign: by the record, where it can be
/// read, for a `kid` alone is but a name.
pub(super) async fn jwks(
    config: &Config,
    records: &Records,
    agent: Option<&Agent>,
    report: &mut Report,
) {
    let Some(agent) = agent else { return };
    let mut address = config.serve.jwks_listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    for name in config.key_sets.keys() {
        let files = config.serve.jwks_tls.as_ref();
        let scheme = files.map_or("http", |_| "https");
        let url = match address.port() {
            // Only the agent knows which one it was given.
            0 => agent.observed_at.get(name).cloned(),
            _ => Some(format!("{scheme}://{address}/{name}/jwks.json")),
        };
        let Some(url) = url else {
            let found = "at any free port, which the agent does not tell: not looked at";
            report.ok("jwks", name, found);
            continue;
        };
        let trust = files.map_or(Trust::System, |files| {
            Trust::Exactly(files.certificate.clone())
        });
        let fetched = match Origin::new(name, &url) {
            Ok(origin) => observe::fetch(&origin.trusting(trust), PATIENCE)
                .await
                .map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let served = match fetched {
            Ok(served) => served,
            Err(why) => {
                let hint = "does another program hold the port? `serve.jwks_listen` names it; restart the agent once it is free, or after changing it";
                report.fail("jwks", name, why, hint);
                of_store(config, name, report);
                report.explained_by("agent", "");
                continue;
            }
        };
        let served = Shown::from(served);
        let recorded = |kid: &str| records.get(name).and_then(|set| set.by_kid(kid));
        let shows = |kid: &String| match recorded(kid) {
            Some(key) => served.shows(key),
            None => served.everywhere.contains(kid),
        };
        let set = agent.key_sets.iter().find(|set| set.name == *name);
        let active = set.into_iter().flat_map(|set| &set.keys);
        let missing = active
            .filter(|key| key.phase() == Listed::Active && !shows(&key.kid))
            .map(|key| key.kid.clone())
            .next();
        match missing {
            Some(kid) => report.fail(
                "jwks",
                name,
                format!("{url} does not show the active key {kid}"),
                "somebody else answers at this address, or a cache stands before it: look at serve.jwks_listen, and restart the agent after changing it",
            ),
            None => report.ok("jwks", name, format!("{url} shows {}", counted(served.anywhere.len(), "key"))),
        }
    }
}
