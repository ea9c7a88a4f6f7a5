//! Where `serve` is reached, and the file that says so.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::output::Failure;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::serve::listener::{Tcp, Unix};
use crate::serve::tls::{Keeper, Tls};

/// Every socket of the agent, bound.
pub(super) struct Listeners {
    pub(super) signing: Unix,
    /// Signing for other machines, where that is configured.
    pub(super) over_tls: Option<Tls>,
    pub(super) admin: Unix,
    pub(super) jwks: Tcp,
    /// Figures, where they are asked for.
    pub(super) operators: Option<Tcp>,
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> Result<Self, Failure> {
        let serve = &config.serve;
        let unix = |path: &Path, mode| Unix::bind(path, mode).map_err(Failure::failed);
        let tcp = async |address| Tcp::bind(address).await.map_err(Failure::failed);
        Ok(Self {
            signing: unix(&serve.signing_socket, serve.signing_socket_mode)?,
            over_tls: tls(config).await?,
            admin: unix(&serve.admin_socket, serve.admin_socket_mode)?,
            jwks: tcp(serve.jwks_listen).await?,
            operators: match serve.metrics_listen {
                Some(address) => Some(tcp(address).await?),
                None => None,
            },
        })
    }
}

/// The signing listener over TLS, where one is configured. Its files are read
/// again when they change, and at SIGHUP.
async fn tls(config: &Config) -> Result<Option<Tls>, Failure> {
    let mut hangups =
        signal(SignalKind::hangup()).map_err(|e| Failure::failed(format!("signals: {e}")))?;
    let Some((address, files)) = &config.serve.signing_tls else {
        // Taken all the same: a SIGHUP that has nothing to do ends nothing.
        return Ok(None);
    };
    let tcp = Tcp::bind(*address).await.map_err(Failure::failed)?;
    let keeper = Keeper::start(files.clone(), Arc::new(SystemClock::new()));
    let reloaded = keeper.clone();
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            reloaded.reload();
        }
    });
    Ok(Some(Tls::new(tcp, keeper)))
}

/// The file that says where the agent serves; gone when it stops.
pub(super) struct Ready<'a>(Option<&'a Path>);

impl<'a> Ready<'a> {
    pub(super) fn write(path: Option<&'a Path>, on: &Listeners) -> Result<Self, Failure> {
        if let Some(path) = path {
            let mut text = format!(
                "signing_socket = {:?}\nadmin_socket = {:?}\njwks_listen = \"{}\"\n",
                on.signing.path(),
                on.admin.path(),
                on.jwks.address()
            );
            if let Some(over_tls) = &on.over_tls {
                text += &format!("signing_listen = \"{}\"\n", over_tls.address());
            }
            if let Some(operators) = &on.operators {
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
