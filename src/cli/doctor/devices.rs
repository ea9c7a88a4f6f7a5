//! Devices: module, token, mechanisms.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::Report;
use super::keys::Looked;
use super::machine::user_name;
use super::sockets::Agent;
use super::state::Records;
use super::{outdated, paths, pins, tokens};
use crate::config::{self, Config};
use crate::hsm::{Device, State};

/// The name of most checks here.
const DEVICE: &str = "device";

/// After a repair that a running agent finds.
pub(super) const BY_ITSELF: &str = "the agent then goes on by itself, without a restart";

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
        let pin = pins::look(device, report);
        let free = pins::marker(config, device, report);
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

/// A device in the hands of the running agent: only the agent is asked.
fn held(config: &Config, device: &config::Device, agent: &Agent, report: &mut Report) {
    let name = &device.name;
    let Some(health) = agent.devices.iter().find(|health| health.name == *name) else {
        let found = "in the hands of the running agent: not looked at";
        return report.ok(DEVICE, name, found);
    };
    if health.up {
        let found = format!("open in the agent: token {}", health.token);
        report.ok(DEVICE, name, found);
        tokens::look(
            name,
            &health.token_serial,
            &tokens::listed(agent, name),
            report,
        );
        return;
    }
    if health.opening {
        let found = "the agent has just started and is opening it";
        return report.warn(DEVICE, name, found, "look again in a moment");
    }
    let hint = if health.pin_blocked {
        pins::cure(device, &health.why)
    } else {
        which(device, &health.why)
    };
    report.fail(DEVICE, name, format!("not open: {}", health.why), hint);
    explained(config, device, &health.why, report);
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

/// OpenSC's tool with this device's module, up to what it is to do.
pub(super) fn tool(device: &config::Device) -> String {
    let env = device.env.iter();
    let mut words: Vec<String> = env.map(|(name, value)| format!("{name}={value}")).collect();
    words.push(format!("pkcs11-tool --module {}", device.module.display()));
    words.join(" ")
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
    let seen = format!("{} --list-token-slots", tool(device));
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
            tokens::look(
                name,
                &token.serial,
                &tokens::recorded(records, name),
                report,
            );
            let looked = Looked::new(&opened, &token, device.require_local);
            looked.keys(records, report).await;
            outdated::look(config, &opened, records, report).await;
        }
        State::Down {
            why, pin_blocked, ..
        } => {
            let hint = if pin_blocked {
                pins::cure(device, &why)
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
                    "take another algorithm for the track, or another token, then start the agent",
                ),
            }
        }
        if !names.is_empty() {
            report.ok("mechanisms", name, names.join(", "));
        }
    }
}
