//! Devices: module, PIN, marker, token, mechanisms.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::Report;
use super::keys::Looked;
use super::machine::user_name;
use super::paths;
use super::sockets::Agent;
use super::state::Records;
use crate::config::{self, Config};
use crate::hsm::pin_marker::{self, Status};
use crate::hsm::pin_source::{PinError, PinSource};
use crate::hsm::{Device, State};

/// The name of most checks here.
const DEVICE: &str = "device";

/// After a repair that a running agent finds.
const BY_ITSELF: &str = "the agent then goes on by itself, without a restart";

/// How much longer than its own patience a device may take to come up.
const GRACE: Duration = Duration::from_secs(2);

pub(super) async fn look(
    config: &Config,
    records: &Records,
    agent: Option<&Agent>,
    report: &mut Report,
) {
    for device in config.devices.values() {
        let module = module(device, report);
        let pin = pin(device, report);
        let free = marker(config, device, report);
        if let Some(agent) = agent {
            held(config, device, agent, report);
        } else if module && pin && free {
            open(config, device, records, report).await;
        }
    }
}

fn module(device: &config::Device, report: &mut Report) -> bool {
    match std::fs::File::open(&device.module) {
        Ok(_) => true,
        Err(e) => {
            let alike = paths::alike(&device.module).map(|path| {
                let path = path.display();
                format!("is {path} the one that is meant? Correct")
            });
            report.fail(
                "module",
                &device.name,
                format!("{}: {e}", device.module.display()),
                format!(
                    "{} device.{}.module, then restart the agent; or install the HSM's PKCS#11 library there: the agent tries again by itself",
                    alike.as_deref().unwrap_or("correct"),
                    device.name
                ),
            );
            false
        }
    }
}

/// Whether the PIN can be had without asking anybody.
fn pin(device: &config::Device, report: &mut Report) -> bool {
    let name = &device.name;
    let place = match &device.pin {
        PinSource::Prompt => {
            report.ok(
                "pin",
                name,
                "asked for when the agent starts: not looked at",
            );
            return false;
        }
        PinSource::File(path) => format!("file {}", path.display()),
        PinSource::Credential(credential) => format!("credential {credential}"),
        PinSource::Environment(variable) => format!("environment variable {variable}"),
    };
    let read = device.pin.supply(name).and_then(|supply| supply.pin());
    let hint = match read {
        Ok(_) => {
            report.ok("pin", name, format!("{place}: readable"));
            return true;
        }
        Err(PinError::NoCredentials { .. }) => {
            report.ok(
                "pin",
                name,
                format!("{place}: given to the service alone, not looked at"),
            );
            return false;
        }
        Err(ref e) => match e {
            PinError::Exposed { path, .. } => {
                format!("chmod 600 {}; {BY_ITSELF}", path.display())
            }
            PinError::Io { path, .. } => format!(
                "the agent's user must own it: chown USER {0} && chmod 600 {0}; {BY_ITSELF}",
                path.display()
            ),
            PinError::NotInEnvironment { .. } => {
                "set it for the agent, then restart it; a file or a systemd credential is safer"
                    .to_owned()
            }
            _ => "the PIN alone stands there, in one line; mend it, then restart the agent"
                .to_owned(),
        },
    };
    let why = read.map_or_else(|e| e.to_string(), |_| String::new());
    report.fail("pin", name, why, hint);
    false
}

/// Whether a login may be tried.
fn marker(config: &Config, device: &config::Device, report: &mut Report) -> bool {
    const CHECK: &str = "pin_marker";
    let name = &device.name;
    match pin_marker::status(&device.pin_marker(&config.state_dir)) {
        Ok(Status::Clear) => {
            report.ok(CHECK, name, "the PIN may be tried");
            true
        }
        Ok(Status::LoggingIn) => {
            report.ok(CHECK, name, "a login is under way");
            false
        }
        Ok(Status::Standing { reason, since }) => {
            let since = since.map_or(String::new(), |at| format!(", on {at}"));
            report.fail(
                CHECK,
                name,
                format!("the agent does not try the PIN any more: {reason}{since}"),
                format!(
                    "{}: make sure that the PIN is right{}, then run: sealkeeper device unlock {name}; {BY_ITSELF}",
                    stopped(&reason),
                    match &device.pin {
                        PinSource::File(path) => format!(" in {}", path.display()),
                        _ => String::new(),
                    }
                ),
            );
            false
        }
        Err(e) => {
            let hint = "the agent's user must be able to write to the state folder; then it tries again by itself";
            report.fail(CHECK, name, e.to_string(), hint);
            false
        }
    }
}

/// Who stopped it: the agent, or the token as well.
fn stopped(reason: &str) -> &'static str {
    match reason.contains("CKR_PIN_LOCKED") {
        true => "the token itself has locked the PIN, which its security officer sets anew",
        false => "the agent stopped by itself, before the token, which counts wrong PINs, locks",
    }
}

/// A device in the hands of the running agent: only the agent is asked.
fn held(config: &Config, device: &config::Device, agent: &Agent, report: &mut Report) {
    let name = &device.name;
    let Some(health) = agent.devices.iter().find(|health| health.name == *name) else {
        let found = "in the hands of the running agent: not looked at";
        return report.ok(DEVICE, name, found);
    };
    if health.up {
        let found = format!("open in the agent: token {}", health.token);
        return report.ok(DEVICE, name, found);
    }
    if health.opening {
        let found = "the agent has just started and is opening it";
        return report.warn(DEVICE, name, found, "look again in a moment");
    }
    let hint = if health.pin_blocked {
        unlock(name)
    } else {
        which(device, &health.why)
    };
    report.fail(DEVICE, name, format!("not open: {}", health.why), hint);
    explained(config, device, &health.why, report);
}

fn unlock(name: &str) -> String {
    format!("check the PIN, then run: sealkeeper device unlock {name}; {BY_ITSELF}")
}

/// What a device needs before it can open.
fn explained(config: &Config, device: &config::Device, why: &str, report: &mut Report) {
    report
        .explained_by("module", &device.name)
        .explained_by("pin_marker", &device.name);
    // What we may not read ourselves need not be what the agent lacks.
    let pin = (report.0.iter()).find(|it| it.check == "pin" && it.of == device.name);
    if pin.is_some_and(|pin| why.contains(&pin.found)) {
        report.explained_by("pin", &device.name);
    }
    // The marker is a file of the state folder, and is written before a login.
    if why.starts_with("PIN marker ") {
        report.explained_by("state_folder", config.state_dir.display().to_string());
    }
}

/// What to do about a device that does not open, and how to see what its
/// module sees.
fn which(device: &config::Device, why: &str) -> String {
    if !device.module.exists() {
        return format!(
            "correct device.{}.module, then restart the agent",
            device.name
        );
    }
    let mut env: Vec<String> = device
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    env.push(format!(
        "pkcs11-tool --module {} --list-token-slots",
        device.module.display()
    ));
    let seen = env.join(" ");
    let broken = paths::broken(&device.env);
    if let Some((said, path)) = &broken
        && why.contains("C_Initialize")
    {
        return format!(
            "{said}: put {} back, readable for the agent's user, and the agent goes on by itself; or correct what names it, then restart the agent. What the module says: {seen}",
            path.display()
        );
    }
    if why.contains("C_Initialize") {
        return format!(
            "the module fails before it looks for a token: what its own configuration names must be there and be readable for the agent's user; the agent then goes on by itself. To see what the module says: {seen}"
        );
    }
    // It may not matter: a log need not be there yet.
    let beside = broken.map_or(String::new(), |(said, _)| format!("; {said}"));
    format!(
        "expected the token with {}: put it back, and the agent goes on by itself; or correct device.{}, then restart the agent{beside}. What the module sees: {seen}",
        device.token, device.name
    )
}

/// Opens a device as the agent would.
async fn open(config: &Config, device: &config::Device, records: &Records, report: &mut Report) {
    let name = &device.name;
    let us = rustix::process::geteuid().as_raw();
    let owner = std::fs::metadata(&config.state_dir).map(|meta| meta.uid());
    // A login leaves files in the state folder, which must stay its owner's.
    if let Ok(owner) = owner
        && owner != us
    {
        let found = "not opened: that is for the state folder's owner";
        let hint = format!("run this as {}", user_name(owner));
        return report.warn(DEVICE, name, found, hint);
    }
    if owner.is_err() {
        let found = "not opened: a login needs the state folder";
        report.warn(DEVICE, name, found, "make the state folder first");
        report.explained_by("state_folder", config.state_dir.display().to_string());
        return;
    }
    let port = match device.to_port(&config.state_dir) {
        Ok(port) => port,
        Err(e) => return report.fail(DEVICE, name, e.to_string(), which(device, &e.to_string())),
    };
    let patience = port.open_timeout + GRACE;
    let opened = Device::start(port);
    let mut state = opened.state();
    let up = state.wait_for(|state| *state != State::Starting);
    let up = match tokio::time::timeout(patience, up).await {
        Ok(Ok(state)) => state.clone(),
        _ => State::Closed,
    };
    match up {
        State::Up { token, .. } => {
            let found = format!("opens: token {:?}, serial {}", token.label, token.serial);
            report.ok(DEVICE, name, found);
            mechanisms(config, &opened, report).await;
            let token = format!("{:?}, serial {}", token.label, token.serial);
            let looked = Looked::new(&opened, token, device.require_local);
            looked.keys(records, report).await;
        }
        State::Down {
            why, pin_blocked, ..
        } => {
            let hint = if pin_blocked {
                unlock(name)
            } else {
                which(device, &why)
            };
            report.fail(DEVICE, name, &why, hint);
            explained(config, device, &why, report);
        }
        State::Starting | State::Closed => report.fail(
            DEVICE,
            name,
            format!("did not open within {patience:?}"),
            "the module hangs: is the HSM reachable from here? The agent tries again by itself; device.open_timeout bounds each try",
        ),
    }
    opened.shut_down().await;
}

/// Whether the token can do what the tracks want of it.
async fn mechanisms(config: &Config, device: &Device, report: &mut Report) {
    let sets = config.key_sets.iter();
    for (name, set) in sets.filter(|(_, set)| set.device == device.name()) {
        let mut names = Vec::new();
        for (algorithm, key_type) in &set.tracks {
            match device.supports(*key_type, *algorithm).await {
                Ok(()) => names.push(algorithm.to_string()),
                Err(e) => report.fail(
                    "mechanisms",
                    name,
                    e.to_string(),
                    "take another algorithm for the track, or another token, then restart the agent",
                ),
            }
        }
        if !names.is_empty() {
            report.ok("mechanisms", name, names.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_locked_the_pin_is_not_the_agents_doing() {
        let said = |code| stopped(&format!("the token refused the PIN: C_Login said {code}"));
        assert!(said("CKR_PIN_INCORRECT").starts_with("the agent stopped"));
        assert!(said("CKR_PIN_LOCKED").starts_with("the token itself"));
    }
}
