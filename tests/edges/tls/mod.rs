//! Callers over TLS: who gets in as whom, and who has to leave.

mod bounds;
mod files;
mod openssl;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rcgen::{ExtendedKeyUsagePurpose, IsCa, date_time_ymd};
use sealkeeper::clock::SystemClock;
use sealkeeper::policy::{Caller, Names};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tonic::Code;

use super::authority::{
    Authority, Folder, Identity, SERVER, TlsServer, client_config, connect, names,
};
use super::fake::Signer;
use super::grpc::jwt;
use super::log::Log;
use super::*;

/// A server whose clients come from the same authority.
pub(super) struct Place {
    pub(super) authority: Authority,
    folder: Folder,
    signer: Arc<Signer>,
    pub(super) server: TlsServer,
}

impl Place {
    pub(super) async fn new(limits: Limits) -> Self {
        Self::with(None, Signer::default(), limits).await
    }

    /// With a revocation list, where there is to be one.
    async fn with(crl: Option<&[u64]>, signer: Signer, limits: Limits) -> Self {
        let authority = Authority::new("authority");
        let folder = Folder::new(&authority.server(), &authority);
        if let Some(revoked) = crl {
            folder.put("clients.crl", &authority.crl(2999, revoked));
        }
        let signer = Arc::new(signer);
        let files = folder.files(crl.is_some());
        let clock = Arc::new(SystemClock::new());
        let server = TlsServer::start(files, clock, &signer, limits).await;
        Self {
            authority,
            folder,
            signer,
            server,
        }
    }

    /// Signs with this certificate; what went wrong, otherwise.
    async fn sign(&self, identity: Option<&Identity>) -> Result<(), String> {
        let mut client = self.server.connect(&self.authority, identity).await?;
        let signed = within(client.sign_jwt(jwt())).await;
        signed.map(drop).map_err(|status| format!("{status:?}"))
    }

    async fn reloaded(&self, wanted: u64) {
        until(|| self.server.keeper.state().loads >= wanted).await;
    }
}

#[tokio::test]
async fn a_certificate_tells_who_calls() {
    let place = Place::new(Limits::default()).await;
    for (uris, dns) in [
        (&[][..], &["login.example", "Alias.example"][..]),
        (&["spiffe://example.org/login"], &[]),
        (&["spiffe://example.org/login"], &["login.example"]),
        (&["https://login.example/"], &["login.example"]),
    ] {
        let client = place.authority.client(uris, dns);
        place.sign(Some(&client)).await.unwrap();
        let expected = Caller::Tls {
            names: Names::parse(uris, dns).unwrap(),
        };
        assert_eq!(place.signer.seen().last().unwrap().caller, expected);
    }
    let ids: Vec<_> = place
        .server
        .callers
        .list()
        .into_iter()
        .map(|c| c.id)
        .collect();
    let expected = [
        "dns:alias.example",
        "dns:login.example",
        "spiffe://example.org/login",
    ];
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn who_shows_no_good_certificate_stays_outside() {
    let (log, _guard) = Log::listen();
    let authority = Authority::new("authority");
    let revoked = authority.client(&[], &["login.example"]);
    let place = {
        let folder = Folder::new(&authority.server(), &authority);
        folder.put("clients.crl", &authority.crl(2999, &[revoked.serial]));
        let signer = Arc::new(Signer::default());
        let clock = Arc::new(SystemClock::new());
        let files = folder.files(true);
        let server = TlsServer::start(files, clock, &signer, Limits::default()).await;
        Place {
            authority,
            folder,
            signer,
            server,
        }
    };
    let ours = &place.authority;
    let dns = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names = names(&[], &["login.example"]);
    };
    let cases = [
        ("NO_CERTIFICATE", None),
        (
            "UNKNOWN_ISSUER",
            Some(Authority::new("another").client(&[], &["login.example"])),
        ),
        // Which calls itself ours.
        (
            "CERTIFICATE_INVALID",
            Some(Authority::new("authority").client(&[], &["login.example"])),
        ),
        ("CERTIFICATE_REVOKED", Some(revoked)),
        (
            "CERTIFICATE_EXPIRED",
            Some(ours.issue(|params| {
                dns(params);
                params.not_after = date_time_ymd(2021, 1, 1);
            })),
        ),
        (
            "CERTIFICATE_NOT_VALID_YET",
            Some(ours.issue(|params| {
                dns(params);
                params.not_before = date_time_ymd(2999, 1, 1);
            })),
        ),
        (
            "CERTIFICATE_INVALID",
            Some(ours.issue(|params| {
                dns(params);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })),
        ),
        (
            "CERTIFICATE_INVALID",
            Some(ours.issue(|params| {
                dns(params);
                params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            })),
        ),
        ("CERTIFICATE_NAMES_NOBODY", Some(ours.client(&[], &[]))),
        (
            "CERTIFICATE_NAMES_NOBODY",
            Some(ours.client(&["spiffe://a/x", "spiffe://a/y"], &[])),
        ),
        (
            "CERTIFICATE_NAMES_NOBODY",
            Some(ours.client(&["spiffe://a"], &["login.example"])),
        ),
        (
            "CERTIFICATE_NAMES_NOBODY",
            Some(ours.client(&[], &["*.example"])),
        ),
    ];
    let mut expected = Vec::new();
    for (reason, identity) in &cases {
        expected.push((*reason).to_owned());
        place.sign(identity.as_ref()).await.unwrap_err();
        until(|| log.reasons("connection_refused").len() >= expected.len()).await;
    }
    assert_eq!(log.reasons("connection_refused"), expected);
    assert_eq!(place.signer.seen().len(), 0);
    // One whom nothing is wrong with gets in.
    let good = ours.client(&[], &["login.example"]);
    place.sign(Some(&good)).await.unwrap();
    // What a jail matches.
    let line = &log.lines("connection_refused")[0];
    let start =
        "\"event\":\"connection_refused\",\"reason\":\"NO_CERTIFICATE\",\"peer\":\"127.0.0.1\",";
    assert!(line.contains(start), "{line}");
}

#[tokio::test]
async fn a_client_must_say_that_it_speaks_http_2() {
    let (log, _guard) = Log::listen();
    let place = Place::new(Limits::default()).await;
    let client = place.authority.client(&[], &["login.example"]);
    for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = client_config(&place.authority, Some(&client));
        config.alpn_protocols = alpn;
        let connected = connect(place.server.address, config).await;
        if let Ok(mut connected) = connected {
            within(connected.sign_jwt(jwt())).await.unwrap_err();
        }
    }
    until(|| log.reasons("connection_refused") == ["NO_ALPN", "NO_ALPN"]).await;
}

/// The client that we give to others; also after its connection has ended.
#[tokio::test]
async fn the_rust_client_signs_over_tls_and_connects_again() {
    let place = Place::new(Limits {
        age: std::time::Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let identity = place.authority.client(&["spiffe://example.org/login"], &[]);
    let mut config = client_config(&place.authority, Some(&identity));
    config.alpn_protocols = Vec::new();
    let name = rustls::pki_types::ServerName::try_from(SERVER).unwrap();
    let address = place.server.address.to_string();
    let client = sealkeeper::client::Client::tls(&address, name, config);
    let claims = serde_json::json!({ "sub": "a" });
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(700) {
        within(client.sign_jwt("main", &claims)).await.unwrap();
    }
    let expected = Caller::Tls {
        names: Names::parse(&["spiffe://example.org/login"], &[]).unwrap(),
    };
    assert!(
        place
            .signer
            .seen()
            .iter()
            .all(|seen| seen.caller == expected)
    );
    // Nobody's certificate is nobody.
    let config = client_config(&place.authority, None);
    let name = rustls::pki_types::ServerName::try_from(SERVER).unwrap();
    let client = sealkeeper::client::Client::tls(&address, name, config);
    let client = client.with_patience(std::time::Duration::from_millis(300));
    within(client.sign_jwt("main", &claims)).await.unwrap_err();
}

/// Each connection shows a certificate: there is no ticket to come back with.
#[tokio::test]
async fn no_session_is_resumed() {
    let place = Place::new(Limits::default()).await;
    let client = place.authority.client(&[], &["login.example"]);
    let config = client_config(&place.authority, Some(&client));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for _ in 0..3 {
        let stream = TcpStream::connect(place.server.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from(SERVER).unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        // The server's SETTINGS: a ticket would have come before.
        stream.read_u8().await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_blocked_caller_is_out_at_once_and_told_why() {
    let (log, _guard) = Log::listen();
    let place = Place::with(None, Signer::shut(), Limits::default()).await;
    let bad = place
        .authority
        .client(&["spiffe://example.org/bad"], &["bad.example"]);
    let good = place.authority.client(&["spiffe://example.org/good"], &[]);
    let mut clients = Vec::new();
    for identity in [&bad, &good] {
        let client = place
            .server
            .connect(&place.authority, Some(identity))
            .await
            .unwrap();
        let mut asking = client.clone();
        let request = tokio::spawn(async move { asking.sign_jwt(jwt()).await });
        clients.push((client, request));
    }
    until(|| place.signer.seen().len() == 2).await;
    let operator = place.signer.seen()[1].caller.clone();
    let id = "dns:bad.example".parse().unwrap();
    let blocked = place
        .server
        .callers
        .block(id, &operator, "leak".into())
        .await;
    assert!(blocked.durable);

    // What was going on has ended without an answer.
    let (mut bad, request) = clients.remove(0);
    within(request).await.unwrap().unwrap_err();
    until(|| place.signer.dropped.load(Ordering::SeqCst) == 1).await;
    assert_eq!(log.reasons("connection_refused"), ["CALLER_BLOCKED"]);
    // The next request, on a connection of its own, is told why.
    place.signer.open();
    let status = within(bad.sign_jwt(jwt())).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let told = Told::of(&status);
    assert_eq!(told.reason, "CALLER_BLOCKED");
    assert_eq!(told.metadata("fault"), Some("caller"));
    assert_eq!(told.metadata("rule"), Some("builtin.caller_not_blocked"));
    let line = &log.lines("caller_refused")[0];
    let start = "\"event\":\"caller_refused\",\"reason\":\"CALLER_BLOCKED\",\"peer\":\"127.0.0.1\",\"caller\":\"spiffe://example.org/bad\"";
    assert!(line.contains(start), "{line}");
    assert_eq!(place.signer.seen().len(), 2);
    within(clients.remove(0).1).await.unwrap().unwrap();
    let status = place
        .server
        .callers
        .status(&"spiffe://example.org/bad".parse().unwrap());
    assert_eq!((status.requests, status.refusals), (2, 1));
}
