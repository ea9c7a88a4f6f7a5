//! Where `serve` is reached, and the file that says so.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::output::Failure;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::keyring::OWN_LISTENER;
use crate::observe::{Origin, Trust};
use crate::serve::listener::{Tcp, Unix};
use crate::serve::tls::{Files, Keeper, Public, Tls};

/// Every socket of the agent, bound.
pub(super) struct Listeners {
    pub(super) signing: Unix,
    /// Signing for other machines, where that is configured.
    pub(super) over_tls: Option<Tls>,
    pub(super) admin: Unix,
    pub(super) jwks: Verifiers,
    /// Figures, where they are asked for.
    pub(super) operators: Option<Tcp>,
    /// The files of TLS, which change while we serve.
    pub(super) keepers: Vec<Keeper>,
}

/// Where verifiers come.
pub(super) enum Verifiers {
    Plain(Tcp),
    Tls(Public),
}

impl Verifiers {
    pub(super) const fn address(&self) -> SocketAddr {
        match self {
            Self::Plain(tcp) => tcp.address(),
            Self::Tls(tls) => tls.address(),
        }
    }

    /// Where a key set is fetched on this machine, as a verifier would.
    pub(super) fn origin(&self, key_set: &str, files: Option<&Files>) -> Result<Origin, Failure> {
        let (scheme, address) = match files {
            Some(_) => ("https", self.address()),
            None => ("http", self.address()),
        };
        let url = format!("{scheme}://{address}/{key_set}/jwks.json");
        let origin = Origin::new(OWN_LISTENER, &url).map_err(Failure::failed)?;
        Ok(match files {
            Some(files) => origin.trusting(Trust::Exactly(files.certificate.clone())),
            None => origin,
        })
    }
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> Result<Self, Failure> {
        let serve = &config.serve;
        let unix = |path: &Path, mode| Unix::bind(path, mode).map_err(Failure::failed);
        let tcp = async |address| Tcp::bind(address).await.map_err(Failure::failed);
        let mut keepers = Vec::new();
        let mut keeper = |files: &Files| {
            let keeper = Keeper::start(files.clone(), Arc::new(SystemClock::new()));
            keepers.push(keeper.clone());
            keeper
        };
        let over_tls = match &serve.signing_tls {
            Some((address, files)) => Some(Tls::new(tcp(*address).await?, keeper(files))),
            None => None,
        };
        let jwks = tcp(serve.jwks_listen).await?;
        let jwks = match &serve.jwks_tls {
            Some(files) => Verifiers::Tls(Public::new(jwks, keeper(files))),
            None => Verifiers::Plain(jwks),
        };
        Ok(Self {
            signing: unix(&serve.signing_socket, serve.signing_socket_mode)?,
            over_tls,
            admin: unix(&serve.admin_socket, serve.admin_socket_mode)?,
            jwks,
            operators: match serve.metrics_listen {
                Some(address) => Some(tcp(address).await?),
                None => None,
            },
            keepers,
        })
    }
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
