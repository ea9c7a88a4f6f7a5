//! Where the agent listens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::check::Check;
use super::raw::{self, Text};
use crate::serve::Limits;
use crate::serve::tls::{ClientFiles, Files};

/// Sockets and listeners, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The Unix socket that signs. Absolute, at most 107 bytes.
    pub signing_socket: PathBuf,
    /// Its permission bits.
    pub signing_socket_mode: u32,
    /// The Unix socket of administration: whoever can connect may administer.
    pub admin_socket: PathBuf,
    /// Its permission bits.
    pub admin_socket_mode: u32,
    /// Where signing is served over TLS 1.3 to callers with a certificate, and
    /// the files for it; `None` where it is not. Port 0 means any free one.
    pub signing_tls: Option<(SocketAddr, Files)>,
    /// Connections at a time, for each listener.
    pub connections: usize,
    /// Those of one local user or one address among them.
    pub connections_per_peer: usize,
    /// Where JWKS are served over HTTP. Port 0 means any free one.
    pub jwks_listen: SocketAddr,
    /// The files with which that is TLS 1.3; `None` where it is not. Nobody is
    /// asked for a certificate.
    pub jwks_tls: Option<Files>,
    /// The key set that `/.well-known/jwks.json` shows; `None` if there are
    /// several and the configuration names none.
    pub well_known: Option<String>,
    /// Where figures are served over HTTP; nowhere if absent. Of this machine
    /// alone unless the configuration says otherwise.
    pub metrics_listen: Option<SocketAddr>,
}

pub(super) fn check(
    raw: &raw::Serve,
    key_sets: &BTreeMap<Text, raw::KeySet>,
    check: &mut Check<'_>,
) -> Option<Serve> {
    let signing_socket = socket(
        raw.signing_socket.as_ref(),
        "serve.signing_socket",
        "/run/sealkeeper/sign.sock",
        check,
    );
    let admin_socket = socket(
        raw.admin_socket.as_ref(),
        "serve.admin_socket",
        "/run/sealkeeper/admin.sock",
        check,
    );
    if let (Some(signing), Some(admin), Some(at)) = (
        &signing_socket,
        &admin_socket,
        raw.admin_socket.as_ref().or(raw.signing_socket.as_ref()),
    ) && signing == admin
    {
        check.say(
            at.span(),
            "serve.admin_socket: expected another path than serve.signing_socket".into(),
            "whoever may sign would be allowed to administer",
        );
    }
    let signing_socket_mode = mode(raw.socket_mode.as_ref(), "serve.socket_mode", 0o660, check);
    let admin_socket_mode = mode(
        raw.admin_socket_mode.as_ref(),
        "serve.admin_socket_mode",
        0o600,
        check,
    );
    let signing_tls = signing_tls(raw, check);
    let (connections, connections_per_peer) = bounds(raw, check);
    let jwks_listen = match &raw.jwks_listen {
        Some(text) => listen(text, "serve.jwks_listen", check),
        None => Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
    };
    let jwks_tls = match &raw.jwks_tls {
        Some(tls) => jwks_tls(tls, check).map(Some),
        None => Some(None),
    };
    let metrics_listen = metrics_listen(raw, check);
    let well_known = well_known(raw.well_known.as_ref(), key_sets, check);
    Some(Serve {
        signing_socket: signing_socket?,
        signing_socket_mode: signing_socket_mode?,
        admin_socket: admin_socket?,
        admin_socket_mode: admin_socket_mode?,
        signing_tls: signing_tls?,
        connections: connections?,
        connections_per_peer: connections_per_peer?,
        jwks_listen: jwks_listen?,
        jwks_tls: jwks_tls?,
        well_known: well_known?,
        metrics_listen: metrics_listen?,
    })
}

fn socket(
    text: Option<&Text>,
    field: &str,
    default: &str,
    check: &mut Check<'_>,
) -> Option<PathBuf> {
    match text {
        Some(text) => check.socket(text, field),
        None => Some(PathBuf::from(default)),
    }
}

/// Octal, as for chmod(1). Nobody outside owner and group: `0666` would make
/// every process of the machine a caller.
fn mode(text: Option<&Text>, field: &str, default: u32, check: &mut Check<'_>) -> Option<u32> {
    let Some(text) = text else {
        return Some(default);
    };
    match u32::from_str_radix(text.get_ref(), 8) {
        Ok(mode) if mode & !0o770 == 0 => return Some(mode),
        Ok(mode) if mode & !0o777 == 0 => check.say(
            text.span(),
            format!("{field}: expected nothing for others, got {mode:04o}"),
            "put the callers in a group, and let the folder or the socket belong to it",
        ),
        _ => check.say(
            text.span(),
            format!(
                "{field}: expected permission bits in octal, got {:?}",
                text.get_ref()
            ),
            "\"0660\" lets the owner and the group connect, \"0600\" the owner alone",
        ),
    }
    None
}

fn listen(text: &Text, field: &str, check: &mut Check<'_>) -> Option<SocketAddr> {
    let address = text.get_ref().parse().ok();
    if address.is_none() {
        check.say(
            text.span(),
            format!(
                "{field}: expected an address and a port, got {:?}",
                text.get_ref()
            ),
            "such as 127.0.0.1:8080, [::1]:8080, or 0.0.0.0:8080; port 0 takes any free one",
        );
    }
    address
}

/// Figures tell who signs how much and what is broken: not for everybody.
#[expect(
    clippy::option_option,
    reason = "the outer one is whether it makes sense"
)]
fn metrics_listen(raw: &raw::Serve, check: &mut Check<'_>) -> Option<Option<SocketAddr>> {
    let Some(text) = &raw.metrics_listen else {
        return Some(None);
    };
    let address = listen(text, "serve.metrics_listen", check)?;
    if address.ip().is_loopback() || raw.metrics_beyond_loopback == Some(true) {
        return Some(Some(address));
    }
    check.say(
        text.span(),
        format!("serve.metrics_listen: expected a loopback address, got {address}"),
        "127.0.0.1:9464, or metrics_beyond_loopback = true where only your monitoring can reach it: it asks nobody for a password",
    );
    None
}

/// Both or none: a listener that signs for whoever connects is never meant.
#[expect(
    clippy::option_option,
    reason = "the outer one is whether it makes sense"
)]
fn signing_tls(raw: &raw::Serve, check: &mut Check<'_>) -> Option<Option<(SocketAddr, Files)>> {
    let address = raw.signing_listen.as_ref();
    let address_read = address.map(|text| listen(text, "serve.signing_listen", check));
    let files = raw.signing_tls.as_ref().map(|tls| {
        let tls = tls.get_ref();
        let certificate = check.path(&tls.cert, "serve.signing_tls.cert");
        let key = check.path(&tls.key, "serve.signing_tls.key");
        let client_ca = check.path(&tls.client_ca, "serve.signing_tls.client_ca");
        let crl = tls.crl.as_ref();
        let crl = crl.map(|crl| check.path(crl, "serve.signing_tls.crl"));
        Some(Files {
            certificate: certificate?,
            key: key?,
            clients: Some(ClientFiles {
                ca: client_ca?,
                crl: match crl {
                    None => None,
                    Some(crl) => Some(crl?),
                },
            }),
        })
    });
    match (address_read, files) {
        (None, None) => Some(None),
        (Some(address), Some(files)) => Some(Some((address?, files?))),
        (Some(_), None) => {
            check.say(
                address.map_or(0..0, Text::span),
                "serve.signing_listen: expected serve.signing_tls as well".into(),
                "over TCP, callers are known by their certificates: signing_tls = { cert = ..., key = ..., client_ca = ... }",
            );
            None
        }
        (None, Some(_)) => {
            check.say(
                raw.signing_tls.as_ref().map_or(0..0, toml::Spanned::span),
                "serve.signing_tls: expected serve.signing_listen as well".into(),
                "where to listen, such as signing_listen = \"0.0.0.0:8443\"",
            );
            None
        }
    }
}

fn jwks_tls(tls: &raw::PublicTls, check: &mut Check<'_>) -> Option<Files> {
    let certificate = check.path(&tls.cert, "serve.jwks_tls.cert");
    let key = check.path(&tls.key, "serve.jwks_tls.key");
    Some(Files {
        certificate: certificate?,
        key: key?,
        clients: None,
    })
}

/// Connections, and those of one peer among them.
fn bounds(raw: &raw::Serve, check: &mut Check<'_>) -> (Option<usize>, Option<usize>) {
    const MOST: i64 = 65_536;
    let usual = Limits::default();
    let all = check.number(
        raw.connections.as_ref(),
        "serve.connections",
        1..=MOST,
        usual.connections,
    );
    let most = all.and_then(|all| i64::try_from(all).ok()).unwrap_or(MOST);
    let each = check.number(
        raw.connections_per_peer.as_ref(),
        "serve.connections_per_peer",
        1..=most,
        usual.connections_per_peer.min(all.unwrap_or(usize::MAX)),
    );
    (all, each)
}

/// The one that is named, else the only one there is.
#[expect(
    clippy::option_option,
    reason = "the outer one is whether it makes sense"
)]
fn well_known(
    text: Option<&Text>,
    key_sets: &BTreeMap<Text, raw::KeySet>,
    check: &mut Check<'_>,
) -> Option<Option<String>> {
    let Some(text) = text else {
        let only = (key_sets.len() == 1).then(|| key_sets.keys().next());
        return Some(only.flatten().map(|name| name.get_ref().clone()));
    };
    if key_sets.contains_key(text.get_ref().as_str()) {
        return Some(Some(text.get_ref().clone()));
    }
    check.say(
        text.span(),
        format!(
            "serve.well_known: expected a configured key set, got {:?}",
            text.get_ref()
        ),
        format!("configured: {}", names(key_sets)),
    );
    None
}

/// What there is, for a hint.
pub(super) fn names<T>(of: &BTreeMap<Text, T>) -> String {
    let names: Vec<_> = of.keys().map(|name| name.get_ref().as_str()).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
