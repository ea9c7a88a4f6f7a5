//! `grpc.health.v1`: whether the agent answers, and which key sets can sign.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::agent::{Readiness, Signing, Watched};

/// Can sign: at least one key set can. The empty service, which `tonic_health`
/// keeps, says only that the agent answers.
const SIGNER: &str = "sealkeeper.v1.Signer";

/// How often to look for what time alone brings about: a lease that ends, a
/// rotation past its hard limit.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What is said of each service.
pub(super) struct Health<S> {
    signing: Arc<S>,
    reporter: HealthReporter,
    /// Watchers are told what is set, be it new or not.
    said: BTreeMap<String, ServingStatus>,
}

impl<S: Signing + Watched> Health<S> {
    /// With everything said as it is now.
    pub(super) async fn new(signing: Arc<S>, reporter: HealthReporter) -> Self {
        let mut health = Self {
            signing,
            reporter,
            said: BTreeMap::new(),
        };
        health.look().await;
        health
    }

    /// Follows what changes until it is told to stop; then nothing serves, and
    /// whoever watches is let go.
    pub(super) async fn follow(mut self, mut stop: oneshot::Receiver<()>) {
        let mut changes = self.signing.changes();
        loop {
            self.look().await;
            tokio::select! {
                // An error says that nobody can tell any more: as good as told.
                _ = &mut stop => break,
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
        }
        let names: Vec<String> = self.said.keys().cloned().collect();
        for name in names.iter().map(String::as_str).chain([""]) {
            self.reporter
                .set_service_status(name, ServingStatus::NotServing)
                .await;
            self.reporter.clear_service_status(name).await;
        }
    }

    async fn look(&mut self) {
        let mut any = false;
        for Readiness {
            key_set, signing, ..
        } in self.signing.readiness()
        {
            let can = signing.is_ok();
            any |= can;
            self.say(format!("{SIGNER}/{key_set}"), can).await;
        }
        self.say(SIGNER.to_owned(), any).await;
    }

    async fn say(&mut self, service: String, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        if self.said.get(&service) != Some(&status) {
            self.reporter.set_service_status(&service, status).await;
            self.said.insert(service, status);
        }
    }
}
