//! Client certificates: who issued them, whether they still stand, and whom
//! they name.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::policy::Names;
use crate::policy::identity::InvalidNames;
use crate::serve::listener::Refused;

/// Lets in whoever has a certificate that leads to one of the roots, was not
/// revoked, and names somebody.
#[derive(Debug)]
pub(super) struct Clients {
    chains: Arc<dyn ClientCertVerifier>,
}

impl Clients {
    /// `chains` looks at everything but the names.
    pub(super) const fn new(chains: Arc<dyn ClientCertVerifier>) -> Self {
        Self { chains }
    }

    /// Whether a certificate that was shown earlier still stands; the first is
    /// the client's own.
    pub(super) fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let (own, between) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.verify_client_cert(own, between, now).map(drop)
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(own, between, now)?;
        // Now, so that the client is told by an alert.
        names(own).map_err(|e| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(e))))
        })?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unnamed {
    /// Its names cannot be read.
    #[error("the names in the certificate cannot be read")]
    Unreadable,
    /// They can, and are none.
    #[error(transparent)]
    Invalid(#[from] InvalidNames),
}

/// Whom a certificate names (subjectAltName, RFC 5280 section 4.2.1.6). The
/// common name counts for nothing (RFC 9525 section 6.1).
pub(super) fn names(certificate: &CertificateDer<'_>) -> Result<Names, Unnamed> {
    let unreadable = |_| Unnamed::Unreadable;
    let (rest, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| Unnamed::Unreadable)?;
    if !rest.is_empty() {
        return Err(Unnamed::Unreadable);
    }
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    if let Some(found) = certificate.subject_alternative_name().map_err(unreadable)? {
        for name in &found.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                GeneralName::DNSName(name) => dns.push(*name),
                GeneralName::Invalid(..) => return Err(Unnamed::Unreadable),
                // Nobody is known by these here.
                _ => {}
            }
        }
    }
    Ok(Names::parse(&uris, &dns)?)
}

/// What a failed handshake is called. The words are rustls's own.
pub(super) fn refused(error: &Error) -> Refused {
    use CertificateError as Bad;
    let reason = match error {
        Error::NoCertificatesPresented => "NO_CERTIFICATE",
        Error::NoApplicationProtocol => "NO_ALPN",
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ) => "TLS_VERSION",
        Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer => "UNKNOWN_ISSUER",
            Bad::Expired | Bad::ExpiredContext { .. } => "CERTIFICATE_EXPIRED",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "CERTIFICATE_NOT_VALID_YET",
            Bad::Revoked => "CERTIFICATE_REVOKED",
            Bad::UnknownRevocationStatus => "REVOCATION_UNKNOWN",
            Bad::ExpiredRevocationList | Bad::ExpiredRevocationListContext { .. } => {
                "REVOCATION_LIST_STALE"
            }
            Bad::Other(other) if other.0.downcast_ref::<Unnamed>().is_some() => {
                "CERTIFICATE_NAMES_NOBODY"
            }
            _ => "CERTIFICATE_INVALID",
        },
        Error::InvalidCertRevocationList(_) => "REVOCATION_LIST_INVALID",
        // Such as: it does not trust *our* certificate.
        Error::AlertReceived(_) => "CLIENT_GAVE_UP",
        _ => "HANDSHAKE_FAILED",
    };
    let why = match error {
        Error::InvalidCertificate(Bad::Other(other)) => other.0.to_string(),
        other => other.to_string(),
    };
    Refused { reason, why }
}
