//! The edges over real sockets, with something in the agent's place that
//! answers as the test says.
#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

mod admin;
pub(crate) mod authority;
mod client;
mod connections;
mod fake;
mod grpc;
mod http;
mod issuer;
mod log;
mod order;
mod room;
mod slow;
mod standard;
mod tls;
pub(crate) mod unfinished;
mod volume;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealkeeper::agent::callers::Callers;
use sealkeeper::clock::SystemClock;
use sealkeeper::durable::BlockList;
use sealkeeper::durable::sim::SimDisk;
use sealkeeper::metrics::Metrics;
use sealkeeper::serve::Limits;
use sealkeeper::serve::grpc as grpc_edge;
use sealkeeper::serve::listener::Unix;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

/// Longer than anything here takes: a test that gets there has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a socket of its own, until it is dropped.
struct Server {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    _dir: TempDir,
}

impl Server {
    fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl FnOnce(Unix, oneshot::Receiver<()>) -> F,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (stop, stopped) = oneshot::channel();
        let listener = Unix::bind(&path, 0o600).unwrap();
        Self {
            task: tokio::spawn(serve(listener, stopped)),
            stop: Some(stop),
            path,
            _dir: dir,
        }
    }

    fn signer(signing: &Arc<fake::Signer>, limits: Limits) -> Self {
        Self::signer_for(&callers(), signing, limits)
    }

    fn signer_for(callers: &Arc<Callers>, signing: &Arc<fake::Signer>, limits: Limits) -> Self {
        let (callers, signing) = (Arc::clone(callers), Arc::clone(signing));
        Self::start(move |listener, stopped| async move {
            let stopped = async { drop(stopped.await) };
            let room = Metrics::new().room("signing");
            grpc_edge::serve_signer(listener, signing, callers, room, limits, stopped).await;
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits for the server to end after [`Self::stop`].
    async fn ended(self) {
        within(self.task).await.unwrap();
    }
}

/// Nobody called yet, and nobody is blocked.
fn callers() -> Arc<Callers> {
    let list = BlockList::open(Arc::new(SimDisk::new()), "/callers").unwrap();
    Callers::open(Arc::new(SystemClock::new()), list, vec![])
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("this should have come about long ago")
}

/// Waits until `condition` holds, looking again whenever others have run.
async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// What every error of ours carries.
struct Told {
    details: ErrorDetails,
    reason: String,
}

impl Told {
    fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().expect("every error has its reason");
        assert_eq!(info.domain, "sealkeeper");
        Self {
            reason: info.reason.clone(),
            details,
        }
    }

    fn metadata(&self, name: &str) -> Option<&str> {
        let info = self.details.error_info()?;
        info.metadata.get(name).map(String::as_str)
    }

    fn retry_after(&self) -> Option<Duration> {
        self.details.retry_info()?.retry_delay
    }

    fn field(&self) -> Option<&str> {
        let violations = &self.details.bad_request()?.field_violations;
        Some(violations.first()?.field.as_str())
    }
}
