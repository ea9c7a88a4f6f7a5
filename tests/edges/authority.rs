//! A certificate authority, its files, and a server and clients that use them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sealkeeper::agent::callers::Callers;
use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::clock::Clock;
use sealkeeper::metrics::Metrics;
use sealkeeper::serve::Limits;
use sealkeeper::serve::grpc as grpc_edge;
use sealkeeper::serve::listener::Tcp;
use sealkeeper::serve::tls::{ClientFiles, Files, Keeper, Tls};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::fake::Signer;

/// The name by which clients know the server.
pub(super) const SERVER: &str = "agent.example";

/// Issues certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(super) chain: String,
    pub(super) key: String,
    pub(crate) serial: u64,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate as `change` makes it: of a client, unless it says
    /// otherwise.
    pub(super) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "somebody");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let serial = u64::from_be_bytes(key.public_key_raw()[10..18].try_into().unwrap()) >> 1;
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        Identity {
            chain: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// A client with these names.
    pub(crate) fn client(&self, uris: &[&str], dns: &[&str]) -> Identity {
        self.issue(|params| params.subject_alt_names = names(uris, dns))
    }

    /// The server.
    pub(crate) fn server(&self) -> Identity {
        self.server_at(SERVER)
    }

    /// A server of this name.
    pub(crate) fn server_at(&self, name: &str) -> Identity {
        self.issue(|params| {
            params.subject_alt_names = names(&[], &[name]);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// A list with these serial numbers, good until the year `until`.
    pub(crate) fn crl(&self, until: i32, revoked: &[u64]) -> String {
        let long_ago = date_time_ymd(2020, 1, 1);
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: long_ago,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: long_ago,
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// Subject alternative names.
pub(super) fn names(uris: &[&str], dns: &[&str]) -> Vec<SanType> {
    let uris = uris.iter();
    let uris = uris.map(|uri| SanType::URI((*uri).try_into().unwrap()));
    let dns = dns.iter();
    uris.chain(dns.map(|name| SanType::DnsName((*name).try_into().unwrap())))
        .collect()
}

/// The server's files, in a folder of their own.
pub(crate) struct Folder {
    dir: TempDir,
}

impl Folder {
    /// A server's certificate and the roots that clients must lead to.
    pub(crate) fn new(server: &Identity, clients: &Authority) -> Self {
        let folder = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        folder.put_server(server);
        folder.put("ca.pem", &clients.pem());
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces a file as a careful tool does.
    pub(super) fn put(&self, name: &str, text: &str) {
        let staged = self.path(&format!("{name}.new"));
        fs::write(&staged, text).unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&staged, self.path(name)).unwrap();
    }

    pub(super) fn put_server(&self, server: &Identity) {
        self.put("cert.pem", &server.chain);
        self.put("key.pem", &server.key);
    }

    pub(super) fn files(&self, with_crl: bool) -> Files {
        Files {
            certificate: self.path("cert.pem"),
            key: self.path("key.pem"),
            clients: Some(ClientFiles {
                ca: self.path("ca.pem"),
                crl: with_crl.then(|| self.path("clients.crl")),
            }),
        }
    }
}

/// A signing server over TLS, until it is dropped.
pub(super) struct TlsServer {
    pub(super) address: SocketAddr,
    pub(super) keeper: Keeper,
    pub(super) callers: Arc<Callers>,
    _stop: oneshot::Sender<()>,
    _task: JoinHandle<()>,
}

impl TlsServer {
    pub(super) async fn start(
        files: Files,
        clock: Arc<dyn Clock>,
        signing: &Arc<Signer>,
        limits: Limits,
    ) -> Self {
        let tcp = Tcp::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = tcp.address();
        let keeper = Keeper::start(files, clock);
        let listener = Tls::new(tcp, keeper.clone());
        let callers = super::callers();
        let (stop, stopped) = oneshot::channel();
        let (signing, entered) = (Arc::clone(signing), Arc::clone(&callers));
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            let room = Metrics::new().room("signing-tls");
            grpc_edge::serve_signer(listener, signing, entered, room, limits, stopped).await;
        });
        Self {
            address,
            keeper,
            callers,
            _stop: stop,
            _task: task,
        }
    }

    /// A client that trusts `roots` and shows `identity`, if it has one.
    pub(super) async fn connect(
        &self,
        roots: &Authority,
        identity: Option<&Identity>,
    ) -> Result<SignerClient<Channel>, String> {
        connect(self.address, client_config(roots, identity)).await
    }
}

/// What a client of TLS says and trusts.
pub(crate) fn client_config(roots: &Authority, identity: Option<&Identity>) -> ClientConfig {
    let mut store = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(roots.pem().as_bytes()).unwrap();
    store.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(store);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.chain.as_bytes());
            let chain = chain.collect::<Result<_, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Connects over TLS, and again by itself when the connection ended.
pub(crate) async fn connect(
    address: SocketAddr,
    config: ClientConfig,
) -> Result<SignerClient<Channel>, String> {
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(SERVER).unwrap();
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("https://agent.example");
    let channel = endpoint.connect_with_connector(connect).await;
    channel.map(SignerClient::new).map_err(|e| format!("{e:?}"))
}

/// Writes an identity where other programs find it.
pub(super) fn write(dir: &Path, name: &str, identity: &Identity) -> (PathBuf, PathBuf) {
    let (cert, key) = (
        dir.join(format!("{name}.pem")),
        dir.join(format!("{name}.key")),
    );
    fs::write(&cert, &identity.chain).unwrap();
    fs::write(&key, &identity.key).unwrap();
    (cert, key)
}
