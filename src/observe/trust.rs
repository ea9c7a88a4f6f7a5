//! Whom an observer takes for its origin.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use tower::Service;

use super::Trust;

/// Connects to whatever an address names, over TLS where its address is `https`.
///
/// Roots are read each time, and only then: one that was added or taken away
/// counts without a restart.
///
/// `at` is the address to connect to, whatever the name leads to.
pub(crate) fn connector(
    url: &Uri,
    trust: &Trust,
    at: Option<IpAddr>,
) -> std::io::Result<HttpsConnector<HttpConnector<To>>> {
    let mut http = HttpConnector::new_with_resolver(To(at));
    // The address says whether TLS is spoken.
    http.enforce_http(false);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(Error::other)?;
    let over_tls = url.scheme_str() == Some("https");
    let builder = HttpsConnectorBuilder::new();
    let builder = match trust {
        Trust::System if over_tls => {
            builder.with_provider_and_native_roots(aws_lc_rs::default_provider())?
        }
        Trust::Roots(path) if over_tls => {
            let roots = roots(path)?;
            builder.with_tls_config(config.with_root_certificates(roots).with_no_client_auth())
        }
        Trust::Exactly(path) if over_tls => {
            let certificate = certificates(path)?.swap_remove(0);
            let only = Arc::new(Only {
                certificate,
                provider,
            });
            let config = config.dangerous().with_custom_certificate_verifier(only);
            builder.with_tls_config(config.with_no_client_auth())
        }
        Trust::System | Trust::Roots(_) | Trust::Exactly(_) => {
            let nobody = RootCertStore::empty();
            builder.with_tls_config(config.with_root_certificates(nobody).with_no_client_auth())
        }
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(http))
}

/// Leads every name to one address, or to where it leads.
#[derive(Clone, Debug)]
pub(crate) struct To(Option<IpAddr>);

impl Service<Name> for To {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let at = self.0;
        Box::pin(async move {
            let found: Vec<_> = match at {
                // The client puts the port in.
                Some(at) => vec![SocketAddr::from((at, 0))],
                None => tokio::net::lookup_host((name.as_str(), 0)).await?.collect(),
            };
            Ok(found.into_iter())
        })
    }
}

/// Whether a file holds roots that can be trusted.
///
/// # Errors
/// What is wrong with it, with its path.
pub fn check_roots(path: &Path) -> std::io::Result<()> {
    roots(path).map(drop)
}

fn roots(path: &Path) -> std::io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in certificates(path)? {
        roots.add(root).map_err(|e| of(path, e))?;
    }
    Ok(roots)
}

/// One at least.
fn certificates(path: &Path) -> std::io::Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).map_err(|e| Error::new(e.kind(), of(path, e)))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|e| of(path, e))?;
    if all.is_empty() {
        return Err(of(path, "expected a certificate in PEM, got none"));
    }
    Ok(all)
}

fn of(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

/// Takes one certificate and no other, whatever it says.
///
/// Trust: whoever has its key. That is what a root would vouch for; the name
/// is not asked, since the agent observes itself by address.
#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _stapled: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        let other = CertificateError::ApplicationVerificationFailure;
        Err(rustls::Error::InvalidCertificate(other))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
