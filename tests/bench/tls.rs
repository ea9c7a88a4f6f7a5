//! Certificates, and a client that shows one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sealkeeper::client::Client;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::live::lab::Lab;

/// The names in the certificates.
pub(crate) const CLIENT: &str = "login.example";
const SERVER: &str = "agent.example";

/// An authority, with the agent's certificate and one for its callers.
pub(crate) struct Authority {
    folder: PathBuf,
    config: Arc<ClientConfig>,
}

impl Authority {
    /// Puts the agent's files into the laboratory's folder.
    pub(crate) fn new(lab: &Lab) -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str, usage| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            (
                params.signed_by(&key, &issuer).unwrap().pem(),
                key.serialize_pem(),
            )
        };
        let (cert, key) = issue(SERVER, ExtendedKeyUsagePurpose::ServerAuth);
        let folder = lab.path("tls");
        fs::create_dir(&folder).unwrap();
        for (name, text) in [
            ("cert.pem", &cert),
            ("key.pem", &key),
            ("ca.pem", &issuer.pem()),
        ] {
            fs::write(folder.join(name), text).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let (cert, key) = issue(CLIENT, ExtendedKeyUsagePurpose::ClientAuth);
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(issuer.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = CertificateDer::pem_slice_iter(cert.as_bytes());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                chain.collect::<Result<_, _>>().unwrap(),
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            folder,
            config: Arc::new(config),
        }
    }

    /// The value of `signing_tls`.
    pub(crate) fn setting(&self) -> String {
        let file = |name: &str| format!("{:?}", self.folder.join(name));
        let (cert, key, ca) = (file("cert.pem"), file("key.pem"), file("ca.pem"));
        format!("{{ cert = {cert}, key = {key}, client_ca = {ca} }}")
    }

    /// A caller with a certificate.
    pub(crate) fn client(&self, address: &str) -> Client {
        let (connector, address) = (TlsConnector::from(self.config.clone()), address.to_owned());
        Client::with_connector(tower::service_fn(move |_| {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(SERVER).unwrap();
                let stream = connector.connect(name, stream).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        }))
    }
}
