//! Certificate, key, trust roots and revocation lists, read and checked as one.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;
use zeroize::Zeroizing;

use super::clients::Clients;
use super::{ClientFiles, Files};
use crate::clock::Clock;
use crate::time::Time;

/// What callers speak below TLS: HTTP/2 alone (RFC 9113 section 3.2).
pub(super) const ALPN: &[u8] = b"h2";

/// What verifiers speak, whether or not they say so (RFC 7301 section 6).
const ALPN_PUBLIC: &[u8] = b"http/1.1";

/// The largest file of certificates or keys, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The largest file of revocation lists, in bytes. Those of large authorities
/// have some megabytes.
const MAX_CRL_FILE: u64 = 64 << 20;

/// Why files make no set. Shows paths, and nothing of a key.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A file cannot be read.
    #[error("cannot read {path}: {why}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {why}", path = path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what was expected.
        why: String,
    },
}

impl SetError {
    fn content(path: &Path, why: impl Into<String>) -> Self {
        Self::Content {
            path: path.to_owned(),
            why: why.into(),
        }
    }
}

/// What handshakes are made with.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) config: Arc<ServerConfig>,
    /// Whose certificates are good, where they are asked for one.
    pub(super) clients: Option<Arc<Clients>>,
    /// When our certificate ends.
    pub(super) certificate_ends: Time,
    /// When the first of the revocation lists ends.
    pub(super) crl_ends: Option<Time>,
    crl: Option<PathBuf>,
}

impl Set {
    /// Reads all files.
    pub(super) fn read(files: &Files, clock: Arc<dyn Clock>, now: Time) -> Result<Self, SetError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (chain, certificate_ends) = chain(&files.certificate, now)?;
        let key = key(&files.key)?;
        let (clients, crl_ends) = match &files.clients {
            Some(files) => {
                let (clients, crl_ends) = clients(files, &provider)?;
                (Some(clients), crl_ends)
            }
            None => (None, None),
        };
        let config = ServerConfig::builder_with_details(provider, Arc::new(Wall(clock)))
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| SetError::content(&files.certificate, e.to_string()))?;
        let (config, alpn) = match &clients {
            Some(clients) => {
                let verifier = Arc::clone(clients);
                (config.with_client_cert_verifier(verifier), ALPN)
            }
            None => (config.with_no_client_auth(), ALPN_PUBLIC),
        };
        let mut config = config.with_single_cert(chain, key).map_err(|e| {
            SetError::content(&files.key, format!("not the key of the certificate: {e}"))
        })?;
        config.alpn_protocols = vec![alpn.to_vec()];
        // A resumed session would not show a certificate: no tickets, no
        // memory, no early data.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self {
            config: Arc::new(config),
            clients,
            certificate_ends,
            crl_ends,
            crl: files.clients.as_ref().and_then(|files| files.crl.clone()),
        })
    }

    /// Whether it may take the place of `current`: a list that has ended does
    /// not take the place of one that has not.
    pub(super) fn may_follow(&self, current: Option<&Self>, now: Time) -> Result<(), SetError> {
        match (self.stale(now), current) {
            (Some(ended), Some(current)) if current.stale(now).is_none() => {
                let path = self.crl.as_deref().unwrap_or(Path::new(""));
                let why =
                    format!("expected a revocation list that is good now, got one until {ended}");
                Err(SetError::content(path, why))
            }
            _ => Ok(()),
        }
    }

    /// When its revocation lists ended, if one has.
    pub(super) fn stale(&self, now: Time) -> Option<Time> {
        self.crl_ends.filter(|ends| *ends <= now)
    }
}

/// The agent's clock, as rustls has it: a step of it counts here too.
#[derive(Debug)]
struct Wall(Arc<dyn Clock>);

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        Some(super::unix(self.0.read().wall))
    }
}

/// Who is let in, and when the first of the lists ends that may keep them out.
fn clients(
    files: &ClientFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<Clients>, Option<Time>), SetError> {
    let roots = Arc::new(roots(&files.ca)?);
    let mut chains = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let mut crl_ends = None;
    if let Some(path) = &files.crl {
        let (lists, ends) = crls(path)?;
        // All of a chain is looked up; what no list says is unknown and
        // refused, and so is everything once a list has ended.
        chains = chains.with_crls(lists).enforce_revocation_expiration();
        crl_ends = Some(ends);
    }
    let chains = chains.build().map_err(|e| {
        let path = files.crl.as_ref().unwrap_or(&files.ca);
        SetError::content(path, e.to_string())
    })?;
    Ok((Arc::new(Clients::new(chains)), crl_ends))
}

/// Our certificate and what stands between it and a root.
fn chain(path: &Path, now: Time) -> Result<(Vec<CertificateDer<'static>>, Time), SetError> {
    let pem = read(path, MAX_FILE)?;
    let chain = certificates(path, &pem)?;
    let Some(own) = chain.first() else {
        return Err(SetError::content(path, "expected a certificate, got none"));
    };
    let (_, own) = X509Certificate::from_der(own)
        .map_err(|e| SetError::content(path, format!("not a certificate: {e}")))?;
    let (begins, ends) = (time(own.validity.not_before), time(own.validity.not_after));
    if !(begins..=ends).contains(&now) {
        return Err(SetError::content(
            path,
            format!("expected a certificate that is good now, got one from {begins} to {ends}"),
        ));
    }
    Ok((chain, ends))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, SetError> {
    let io = |why| SetError::Read {
        path: path.to_owned(),
        why,
    };
    let mode = fs::metadata(path).map_err(io)?.permissions().mode();
    if mode & 0o004 != 0 {
        return Err(SetError::content(
            path,
            format!(
                "expected a key that not everybody may read, got mode {:04o}; chmod o-r",
                mode & 0o7777
            ),
        ));
    }
    let pem = Zeroizing::new(read(path, MAX_FILE)?);
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| SetError::content(path, "expected a private key in PEM, not encrypted"))
}

fn roots(path: &Path) -> Result<RootCertStore, SetError> {
    let pem = read(path, MAX_FILE)?;
    let mut roots = RootCertStore::empty();
    for root in certificates(path, &pem)? {
        roots.add(root).map_err(|e| {
            SetError::content(path, format!("not a certificate of an authority: {e}"))
        })?;
    }
    if roots.is_empty() {
        return Err(SetError::content(path, "expected a certificate, got none"));
    }
    Ok(roots)
}

/// The lists, and when the first of them ends.
fn crls(path: &Path) -> Result<(Vec<CertificateRevocationListDer<'static>>, Time), SetError> {
    let pem = read(path, MAX_CRL_FILE)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let lists = lists.map_err(|e| SetError::content(path, format!("not PEM: {e}")))?;
    let mut first: Option<Time> = None;
    for list in &lists {
        let (_, list) = CertificateRevocationList::from_der(list)
            .map_err(|e| SetError::content(path, format!("not a revocation list: {e}")))?;
        let ends = list.next_update().map(time).ok_or_else(|| {
            SetError::content(path, "expected a list that says when the next one comes")
        })?;
        first = Some(first.map_or(ends, |first| first.min(ends)));
    }
    let first =
        first.ok_or_else(|| SetError::content(path, "expected a revocation list, got none"))?;
    Ok((lists, first))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SetError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| SetError::content(path, format!("not PEM: {e}")))
}

fn read(path: &Path, longest: u64) -> Result<Vec<u8>, SetError> {
    let io = |why| SetError::Read {
        path: path.to_owned(),
        why,
    };
    let file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > longest {
        return Err(SetError::content(
            path,
            format!("expected at most {longest} bytes"),
        ));
    }
    Ok(bytes)
}

fn time(at: ASN1Time) -> Time {
    Time::from_secs(at.timestamp())
}

/// What tells that a file was replaced or written to. Links are followed: where
/// secrets are mounted, a link is what changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<Option<Look>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    file: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
    mode: u32,
}

impl Fingerprint {
    pub(super) fn of(files: &Files) -> Self {
        let own = [&files.certificate, &files.key];
        let of_clients = files.clients.iter();
        let of_clients = of_clients.flat_map(|files| [Some(&files.ca), files.crl.as_ref()]);
        let looks = own.into_iter().chain(of_clients.flatten()).map(|path| {
            let found = fs::metadata(path).ok()?;
            Some(Look {
                file: (found.dev(), found.ino()),
                size: found.size(),
                written: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
                mode: found.mode(),
            })
        });
        Self(looks.collect())
    }
}
