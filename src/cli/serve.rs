//! `serve`: the agent, its sockets, and its end.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::compose;
use super::output::Failure;
use super::systemd::{Manager, Pulse};
use crate::agent::Agent;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::observe::Origin;
use crate::serve::http::Site;
use crate::serve::listener::{Tcp, Unix};
use crate::serve::{self, Counted, Limits};

const IF_IN_USE: &str =
    "if it is the same agent, it runs already; give another one a state_dir of its own";

/// Runs the agent until it is asked to stop.
pub(super) fn run(path: &Path, ready_file: Option<&Path>) -> Result<(), Failure> {
    compose::harden();
    let config = compose::config(path)?;
    compose::start_log()?;
    compose::block_on(serve(&config, ready_file))?
}

async fn serve(config: &Config, ready_file: Option<&Path>) -> Result<(), Failure> {
    // Asked for before anything is served: a signal that comes early counts.
    let stop = stop_signal()?;
    let context = compose::open(config, IF_IN_USE)?;
    let devices = context.devices();
    let metrics = context.metrics();
    let bind = |path: &Path, mode| Unix::bind(path, mode).map_err(Failure::failed);
    let signing = bind(
        &config.serve.signing_socket,
        config.serve.signing_socket_mode,
    )?;
    let admin = bind(&config.serve.admin_socket, config.serve.admin_socket_mode)?;
    let jwks = Tcp::bind(config.serve.jwks_listen)
        .await
        .map_err(Failure::failed)?;
    let address = jwks.address();
    let operators = match config.serve.metrics_listen {
        Some(address) => Some(Tcp::bind(address).await.map_err(Failure::failed)?),
        None => None,
    };

    let mut wanted = Vec::new();
    for name in config.key_sets.keys() {
        let mut set = compose::wanted(config, name)?;
        // Until more is configured, the agent observes its own listener, as a
        // verifier would see it.
        let url = format!("http://{address}/{name}/jwks.json");
        set.origins = vec![Origin::new("own-listener", &url).map_err(Failure::failed)?];
        wanted.push(set);
    }
    let agent = Arc::new(Agent::start(context, wanted, config.serve.well_known.clone()).await);
    tracing::info!(
        signing = %signing.path().display(),
        admin = %admin.path().display(),
        jwks = %address,
        "serving"
    );
    let limits = Limits::default();
    let ready = Ready::write(ready_file, &signing, &admin, &jwks, operators.as_ref())?;
    let manager = Manager::from_env();
    let pulses = [Pulse::new(), Pulse::new(), Pulse::new()];
    let until = |pulse: &Pulse| pulse.clone().until(ended(stop.clone()));
    let site = site(config, &agent, &metrics);
    let figures = async {
        if let Some(listener) = operators {
            let agent = Arc::clone(&agent);
            serve::http::serve_operators(listener, agent, limits, ended(stop.clone())).await;
        }
    };
    let watch = async {
        manager.ready();
        tokio::select! {
            () = ended(stop.clone()) => manager.stopping(),
            () = manager.accompany(&*agent, &pulses) => {}
        }
    };
    let signing = Counted::new(signing, metrics.connections("signing"));
    let admin = Counted::new(admin, metrics.connections("administration"));
    let jwks = Counted::new(jwks, metrics.connections("jwks"));
    tokio::join!(
        serve::grpc::serve_signer(signing, Arc::clone(&agent), limits, until(&pulses[0])),
        serve::grpc::serve_admin(admin, Arc::clone(&agent), limits, until(&pulses[1])),
        serve::http::serve(jwks, site, limits, until(&pulses[2])),
        figures,
        watch,
    );
    drop(ready);
    drop(agent);
    for device in devices {
        device.shut_down().await;
    }
    tracing::info!("stopped");
    Ok(())
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

/// Turns true at SIGTERM or SIGINT.
fn stop_signal() -> Result<watch::Receiver<bool>, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::failed(format!("signals: {e}")));
    let mut term = listen(SignalKind::terminate())?;
    let mut int = listen(SignalKind::interrupt())?;
    let (tell, told) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
        let _ = tell.send(true);
    });
    Ok(told)
}

async fn ended(mut stop: watch::Receiver<bool>) {
    // An error means that nobody can ask any more: as good as asked.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The file that says where the agent serves; gone when it stops.
struct Ready<'a>(Option<&'a Path>);

impl<'a> Ready<'a> {
    fn write(
        path: Option<&'a Path>,
        signing: &Unix,
        admin: &Unix,
        jwks: &Tcp,
        operators: Option<&Tcp>,
    ) -> Result<Self, Failure> {
        if let Some(path) = path {
            let mut text = format!(
                "signing_socket = {:?}\nadmin_socket = {:?}\njwks_listen = \"{}\"\n",
                signing.path(),
                admin.path(),
                jwks.address()
            );
            if let Some(operators) = operators {
                text += &format!("metrics_listen = \"{}\"\n", operators.address());
            }
            // Moved into place whole: whoever waits for the file may read it.
            let staged = path.with_extension("new");
            std::fs::write(&staged, text)
                .and_then(|()| std::fs::rename(&staged, path))
                .map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
        }
        Ok(Self(path))
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            // A file that stays names sockets where nobody answers.
            let _ = std::fs::remove_file(path);
        }
    }
}
