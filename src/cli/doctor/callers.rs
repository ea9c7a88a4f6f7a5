//! What decides whether callers are let in at all: the list of those who are
//! blocked, and the files of the TLS listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Report;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::durable::{BlockList, OsDisk};
use crate::policy::CallerId;
use crate::serve::tls::{self, Files};

pub(super) fn look(config: &Config, report: &mut Report) {
    blocked(config, report);
    certificates(config, report);
}

fn blocked(config: &Config, report: &mut Report) {
    const CHECK: &str = "blocked_callers";
    let dir = config.state_dir.join("callers");
    if !dir.exists() {
        return; // The agent never ran here.
    }
    let of = dir.display().to_string();
    match BlockList::reading(Arc::new(OsDisk), dir).load() {
        Ok(blocked) if blocked.is_empty() => report.ok(CHECK, of, "none"),
        Ok(blocked) => {
            let us = CallerId::Unix(rustix::process::geteuid().as_raw());
            for one in blocked {
                let mut found = format!("{} is blocked since {}, by {}", one.id, one.since, one.by);
                let hint = format!(
                    "every request of it is refused; to let it in again, at once: sealkeeper callers unblock {}",
                    one.id
                );
                // Who is kept out on purpose is no fault; who asks why nothing
                // is signed has found it.
                if one.id == us {
                    found += ": that is you";
                    report.fail(CHECK, of.clone(), found, hint);
                } else {
                    report.warn(CHECK, of.clone(), found, hint);
                }
            }
        }
        Err(e) => report.fail(
            CHECK,
            of,
            e.to_string(),
            "nobody is let in: look at the file, put a copy in its place, and start the agent again",
        ),
    }
}

/// The files as they are now, which a running agent may not have taken yet.
fn certificates(config: &Config, report: &mut Report) {
    let serve = &config.serve;
    if let Some((address, files)) = &serve.signing_tls {
        set(*address, files, report);
    }
    if let Some(files) = &serve.jwks_tls {
        set(serve.jwks_listen, files, report);
    }
}

fn set(address: SocketAddr, files: &Files, report: &mut Report) {
    const CHECK: &str = "certificates";
    let of = address.to_string();
    let who = match files.clients {
        Some(_) => "lets nobody in over TLS",
        None => "serves no JWKS",
    };
    let clock = SystemClock::new();
    let now = clock.read().wall;
    let state = match tls::look(files, Arc::new(clock)) {
        Ok(state) => state,
        Err(e) => {
            let hint = format!(
                "an agent that runs goes on with the set that it has; one that starts {who} until the files make sense, and then takes them by itself"
            );
            return report.fail(CHECK, of, e.to_string(), hint);
        }
    };
    if let Some(ended) = state.crl_ends.filter(|ends| *ends <= now) {
        return report.fail(
            CHECK,
            of,
            format!("a revocation list ended at {ended}: nobody is let in over TLS"),
            "put a newer list in place; the agent takes it by itself",
        );
    }
    let until = |at: Option<_>| at.map_or(String::new(), |at| format!("until {at}"));
    let mut found = format!("good {}", until(state.certificate_ends));
    if state.crl_ends.is_some() {
        found += &format!(", revocation lists {}", until(state.crl_ends));
    }
    report.ok(CHECK, of, found);
}
