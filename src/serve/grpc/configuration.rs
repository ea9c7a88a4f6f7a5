//! `sealkeeper.v1.Configuration`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use tracing::info;

use super::identity;
use super::status::Fault;
use crate::api::v1::{self, configuration_server};

/// Whoever can read the configuration again. What it answers is the contract's
/// own message: nobody between the file and the operator looks at it.
pub trait Reloads: Send + Sync + fmt::Debug + 'static {
    /// Looks at the file, and takes it into use where `order` says so.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing was changed, but for the TLS files.
    fn reload(&self, order: Reload) -> Reloaded<'_>;
}

/// What [`Reloads::reload`] returns, in time.
pub type Reloaded<'a> =
    Pin<Box<dyn Future<Output = Result<v1::ConfigurationChange, ReloadError>> + Send + 'a>>;

/// How far a reload goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Only looks.
    Diff,
    /// Takes it into use.
    Take {
        /// Though a key set stops signing.
        even_if_signing_stops: bool,
        /// Only the text with this SHA-256, in hexadecimal.
        expected: Option<String>,
    },
}

/// Why the configuration stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read, or makes no sense.
    #[error("{why}")]
    Invalid {
        /// Every mistake.
        why: String,
        /// What to do about each.
        hint: String,
    },
    /// Not the file that the operator looked at.
    #[error("expected a file with SHA-256 {expected}, got {found}: it has changed since the diff")]
    Changed {
        /// The operator's.
        expected: String,
        /// The file's.
        found: String,
    },
    /// A key set that signs would sign no more.
    #[error("{why}")]
    SigningWouldStop {
        /// Which, and why.
        why: String,
    },
    /// The agent could not follow.
    #[error("{why}")]
    Failed {
        /// What happened.
        why: String,
    },
}

pub(super) struct Configuration(pub(super) Arc<dyn Reloads>);

impl Configuration {
    async fn ask(&self, order: Reload) -> Result<Response<v1::ConfigurationChange>, Status> {
        let answer = self.0.reload(order).await;
        answer
            .map(Response::new)
            .map_err(|error| Fault::reload(error).into_status())
    }
}

#[tonic::async_trait]
impl configuration_server::Configuration for Configuration {
    async fn diff_configuration(
        &self,
        request: Request<v1::DiffConfigurationRequest>,
    ) -> Result<Response<v1::ConfigurationChange>, Status> {
        identity::administrator(&request)?;
        self.ask(Reload::Diff).await
    }

    async fn reload_configuration(
        &self,
        request: Request<v1::ReloadConfigurationRequest>,
    ) -> Result<Response<v1::ConfigurationChange>, Status> {
        let caller = identity::administrator(&request)?;
        let request = request.into_inner();
        info!(%caller, even_if_signing_stops = request.even_if_signing_stops, "reload ordered");
        let expected = Some(request.expected_digest).filter(|digest| !digest.is_empty());
        self.ask(Reload::Take {
            even_if_signing_stops: request.even_if_signing_stops,
            expected,
        })
        .await
    }
}
