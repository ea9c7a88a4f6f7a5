//! `serve`: the agent, its sockets, and its end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::listeners::{Listeners, Ready, Verifiers};
use super::log::Log;
use super::output::Failure;
use super::reload::{self, Reloading};
use super::stop::Stop;
use super::systemd::{Manager, Pulse};
use super::{callers, compose, descriptors, differs, log, webhooks};
use crate::agent::Agent;
use crate::agent::callers::Callers;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::serve::grpc::Reloads;
use crate::serve::http::Site;
use crate::serve::{self, Counted, tls::Tls};

const IF_IN_USE: &str =
    "if it is the same agent, it runs already; give another one a state_dir of its own";

/// Runs the agent until it is asked to stop.
pub(super) fn run(path: &Path, ready_file: Option<&Path>) -> Result<(), Failure> {
    compose::harden();
    let (config, text) = compose::read(path)?;
    let log = log::start()?;
    compose::block_on(serve((path, &config, &text), ready_file, &log))?
}

async fn serve(
    (path, config, text): (&Path, &Config, &str),
    ready_file: Option<&Path>,
    log: &Log,
) -> Result<(), Failure> {
    // Asked for before anything is served: a signal that comes early counts.
    let stop = Stop::signals()?;
    let hangups = hangups()?;
    let context = compose::open(config, IF_IN_USE)?;
    // As the record is before the agent follows the configuration.
    for warning in differs::look(config).await {
        tracing::warn!("{warning}");
    }
    let devices = context.devices();
    let metrics = context.metrics();
    let webhooks = webhooks::start(config, context.audit(), &metrics)?;
    let listeners = Listeners::bind(config).await?;
    let callers = callers::open(config)?;
    let address = listeners.jwks.address();

    let (mut own, mut wanted) = (BTreeMap::new(), Vec::new());
    for name in config.key_sets.keys() {
        let files = config.serve.jwks_tls.as_ref();
        own.insert(name.clone(), listeners.jwks.origin(name, files)?);
        wanted.push(reload::wanted(config, name, &own).map_err(Failure::failed)?);
    }
    let agent = Arc::new(Agent::start(context, wanted, config.serve.well_known.clone()).await);
    let over_tls = listeners.over_tls.as_ref().map(Tls::address);
    tracing::info!(
        signing = %listeners.signing.path().display(),
        signing_tls = over_tls.map(tracing::field::display),
        admin = %listeners.admin.path().display(),
        jwks = %address,
        jwks_tls = config.serve.jwks_tls.is_some(),
        "serving"
    );
    let ready = Ready::write(ready_file, &listeners)?;
    let manager = Manager::from_env();
    let (desk, orders) = reload::desk();
    let reloading = Reloading {
        path: path.to_owned(),
        running: Arc::new(config.clone()),
        written: Arc::new(text.parse().unwrap_or_default()),
        agent: Arc::clone(&agent),
        callers: Arc::clone(&callers),
        own,
        keepers: listeners.keepers.clone(),
    };
    let floor = Floor {
        config,
        agent: &agent,
        callers: &callers,
        metrics: &metrics,
        manager: &manager,
        reloads: Arc::new(desk),
    };
    tokio::select! {
        () = floor.answer(listeners, &stop) => {}
        () = reloading.follow(hangups, orders, &manager) => {}
        () = log.watch(&metrics) => {}
    }
    drop(ready);
    let kept = stop.last_chance(&agent, &manager).await;
    drop(webhooks);
    drop(agent);
    for device in devices {
        device.shut_down().await;
    }
    tracing::info!("stopped");
    kept
}

/// What the listeners serve.
struct Floor<'a> {
    config: &'a Config,
    agent: &'a Arc<Agent>,
    callers: &'a Arc<Callers>,
    metrics: &'a Metrics,
    manager: &'a Manager,
    reloads: Arc<dyn Reloads>,
}

impl Floor<'_> {
    /// Serves everything until the agent is to stop, and what has begun is
    /// answered.
    async fn answer(self, listeners: Listeners, stop: &Stop) {
        let Self {
            config,
            agent,
            callers,
            metrics,
            manager,
            reloads,
        } = self;
        let limits = descriptors::limits(&config.serve);
        let count = |name| metrics.connections(name);
        let pulses = [Pulse::new(), Pulse::new(), Pulse::new(), Pulse::new()];
        let until = |pulse: &Pulse| pulse.clone().until(stop.clone().asked());
        let [signing, admin, jwks, over_tls] = pulses.each_ref().map(until);
        let Listeners {
            signing: local,
            over_tls: remote,
            admin: orders,
            jwks: verifiers,
            operators,
            keepers: _,
        } = listeners;
        let local = serve::grpc::serve_signer(
            Counted::new(local, count("signing")),
            Arc::clone(agent),
            Arc::clone(callers),
            metrics.room("signing"),
            limits,
            signing,
        );
        let remote = async {
            let Some(listener) = remote else {
                // No loop, but a heart that beats for the watchdog.
                return over_tls.await;
            };
            let listener = Counted::new(listener, count("signing-tls"));
            let (agent, callers) = (Arc::clone(agent), Arc::clone(callers));
            let room = metrics.room("signing-tls");
            serve::grpc::serve_signer(listener, agent, callers, room, limits, over_tls).await;
        };
        let orders = serve::grpc::serve_admin(
            Counted::new(orders, count("administration")),
            Arc::clone(agent),
            Arc::clone(callers),
            reloads,
            limits,
            admin,
        );
        let verifiers = async {
            let (site, counted) = (site(config, agent, metrics), count("jwks"));
            match verifiers {
                Verifiers::Plain(tcp) => {
                    serve::http::serve(Counted::new(tcp, counted), site, limits, jwks).await;
                }
                Verifiers::Tls(tls) => {
                    serve::http::serve(Counted::new(tls, counted), site, limits, jwks).await;
                }
            }
        };
        let figures = async {
            if let Some(listener) = operators {
                let agent = Arc::clone(agent);
                serve::http::serve_operators(listener, agent, limits, stop.clone().asked()).await;
            }
        };
        let watch = async {
            manager.ready();
            tokio::select! {
                () = stop.clone().asked() => manager.stopping(),
                () = manager.accompany(&**agent, &pulses) => {}
            }
        };
        tokio::join!(local, remote, orders, verifiers, figures, watch);
    }
}

fn site(config: &Config, agent: &Arc<Agent>, metrics: &Metrics) -> Site<Agent> {
    let sets = config.key_sets.values();
    Site {
        signing: Arc::clone(agent),
        discovery: sets.filter_map(|set| set.discovery.clone()).collect(),
        key_sets: config.key_sets.keys().cloned().collect(),
        well_known: config.serve.well_known.clone(),
        metrics: metrics.clone(),
    }
}

/// Taken whatever is configured: a SIGHUP that has nothing to do ends nothing.
fn hangups() -> Result<Signal, Failure> {
    signal(SignalKind::hangup()).map_err(|e| Failure::failed(format!("signals: {e}")))
}
