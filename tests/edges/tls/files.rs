//! Certificates, roots and revocation lists that change while we serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rcgen::date_time_ymd;
use sealkeeper::clock::{ManualClock, SystemClock};
use sealkeeper::time::{Span, Time};
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn a_new_certificate_is_served_and_no_request_fails() {
    let place = Place::new(Limits::default()).await;
    let client = place.authority.client(&[], &["login.example"]);
    let mut lasting = place
        .server
        .connect(&place.authority, Some(&client))
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let signed = Arc::new(AtomicU64::new(0));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let config = client_config(&place.authority, Some(&client));
            let (stop, signed, address) = (stop.clone(), signed.clone(), place.server.address);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = connect(address, config.clone()).await?;
                    client.sign_jwt(jwt()).await.map_err(|e| e.to_string())?;
                    signed.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    let certificate = async || {
        let config = client_config(&place.authority, Some(&client));
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(place.server.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from(SERVER).unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = certificate().await;
    for round in 2..=4 {
        let begun = signed.load(Ordering::Relaxed);
        place.folder.put_server(&place.authority.server());
        place.reloaded(round).await;
        until(|| signed.load(Ordering::Relaxed) > begun + 20).await;
        lasting.sign_jwt(jwt()).await.unwrap();
    }
    assert_ne!(certificate().await, before);
    stop.store(true, Ordering::Relaxed);
    for task in load {
        within(task).await.unwrap().unwrap();
    }
    assert_eq!(place.server.keeper.state().failures, 0);
}

#[tokio::test]
async fn files_that_make_no_sense_leave_the_set_before_in_place() {
    let place = Place::with(Some(&[]), Signer::default(), Limits::default()).await;
    let client = place.authority.client(&[], &["login.example"]);
    let server = place.authority.server();
    let expired = place.authority.issue(|params| {
        params.subject_alt_names = names(&[], &[SERVER]);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let ca = place.authority.pem();
    let crl = place.authority.crl(2999, &[]);
    let stale = place.authority.crl(2021, &[]);
    for (file, bad, about) in [
        ("cert.pem", "", "expected a certificate, got none"),
        (
            "cert.pem",
            &place.authority.server().chain,
            "not the key of",
        ),
        ("cert.pem", &expired.chain, "good now, got one from"),
        ("key.pem", "what", "expected a private key"),
        ("ca.pem", "", "expected a certificate, got none"),
        ("ca.pem", &server.key, "expected a certificate, got none"),
        ("clients.crl", "", "expected a revocation list, got none"),
        ("clients.crl", &ca, "expected a revocation list, got none"),
        ("clients.crl", &stale, "good now, got one until 2021-01-01"),
    ] {
        place.folder.put_server(&server);
        place.folder.put("ca.pem", &ca);
        place.folder.put("clients.crl", &crl);
        let state = || place.server.keeper.state();
        place.server.keeper.reload();
        until(|| state().error.is_none() && state().loads > 1).await;
        let before = state();
        place.folder.put(file, bad);
        place.server.keeper.reload();
        until(|| state().failures > before.failures).await;
        let error = state().error.unwrap_or_default();
        assert!(error.contains(about), "{file}: {error}");
        assert!(!error.contains("PRIVATE KEY"));
        place.sign(Some(&client)).await.unwrap();
    }
    // Mended, it is taken without being asked for.
    let before = place.server.keeper.state();
    place.folder.put("clients.crl", &crl);
    place.reloaded(before.loads + 1).await;
    assert_eq!(place.server.keeper.state().error, None);
}

#[tokio::test]
async fn without_good_files_nobody_is_let_in_until_there_are_some() {
    let (log, _guard) = Log::listen();
    let authority = Authority::new("authority");
    let server = authority.server();
    let folder = Folder::new(&server, &authority);
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(folder.path("key.pem"), everybody).unwrap();
    let signer = Arc::new(Signer::default());
    let clock = Arc::new(SystemClock::new());
    let limits = Limits::default();
    let running = TlsServer::start(folder.files(false), clock, &signer, limits).await;
    let client = authority.client(&[], &["login.example"]);
    running
        .connect(&authority, Some(&client))
        .await
        .unwrap_err();
    until(|| log.reasons("connection_refused") == ["TLS_NOT_READY"]).await;
    let error = running.keeper.state().error.unwrap();
    assert!(
        error.contains("not everybody may read, got mode 0644"),
        "{error}"
    );
    folder.put_server(&server);
    until(|| running.keeper.state().loads == 1).await;
    running.connect(&authority, Some(&client)).await.unwrap();
}

/// A list that revokes a certificate ends its connections, with what is going
/// on in them, and no others.
#[tokio::test]
async fn a_revoked_certificate_is_out_at_once() {
    let (log, _guard) = Log::listen();
    let place = Place::with(Some(&[]), Signer::shut(), Limits::default()).await;
    let bad = place.authority.client(&[], &["bad.example"]);
    let good = place.authority.client(&[], &["good.example"]);
    let mut clients = Vec::new();
    for identity in [&bad, &good] {
        let mut client = place
            .server
            .connect(&place.authority, Some(identity))
            .await
            .unwrap();
        clients.push(tokio::spawn(async move { client.sign_jwt(jwt()).await }));
    }
    until(|| place.signer.seen().len() == 2).await;
    place
        .folder
        .put("clients.crl", &place.authority.crl(2999, &[bad.serial]));
    place.reloaded(2).await;
    let ended = clients.remove(0);
    within(ended).await.unwrap().unwrap_err();
    until(|| place.signer.dropped.load(Ordering::SeqCst) == 1).await;
    assert_eq!(log.reasons("connection_refused"), ["CERTIFICATE_REVOKED"]);
    place.signer.open();
    within(clients.remove(0)).await.unwrap().unwrap();
    place.sign(Some(&bad)).await.unwrap_err();
    place.sign(Some(&good)).await.unwrap();
}

/// Once a list has ended, nobody knows who was revoked since.
#[tokio::test]
async fn a_stale_revocation_list_lets_nobody_in() {
    let (log, _guard) = Log::listen();
    let authority = Authority::new("authority");
    let folder = Folder::new(&authority.server(), &authority);
    folder.put("clients.crl", &authority.crl(2031, &[]));
    let signer = Arc::new(Signer::default());
    let clock = Arc::new(ManualClock::new(Time::from_secs(1_800_000_000)));
    let limits = Limits::default();
    let server = TlsServer::start(folder.files(true), clock.clone(), &signer, limits).await;
    let client = authority.client(&[], &["login.example"]);
    let mut open = server.connect(&authority, Some(&client)).await.unwrap();
    open.sign_jwt(jwt()).await.unwrap();

    clock.advance(Span::from_days(10 * 365));
    let mut late = server.connect(&authority, Some(&client)).await;
    if let Ok(late) = &mut late {
        within(late.sign_jwt(jwt())).await.unwrap_err();
    }
    until(|| log.reasons("connection_refused") == ["REVOCATION_LIST_STALE"]).await;
    // Who is connected leaves too, at the next look.
    server.keeper.reload();
    until(|| log.reasons("connection_refused").len() >= 2).await;
    within(open.sign_jwt(jwt())).await.unwrap_err();

    folder.put("clients.crl", &authority.crl(2999, &[]));
    until(|| server.keeper.state().loads >= 3).await;
    let mut client = server.connect(&authority, Some(&client)).await.unwrap();
    client.sign_jwt(jwt()).await.unwrap();
}

/// Who issues to clients without a list where others have one.
#[tokio::test]
async fn an_authority_without_a_list_lets_nobody_in() {
    let (log, _guard) = Log::listen();
    let place = Place::with(Some(&[]), Signer::default(), Limits::default()).await;
    let second = Authority::new("second");
    place.folder.put(
        "ca.pem",
        &format!("{}{}", place.authority.pem(), second.pem()),
    );
    place.reloaded(2).await;
    let client = second.client(&[], &["login.example"]);
    place.sign(Some(&client)).await.unwrap_err();
    until(|| log.reasons("connection_refused") == ["REVOCATION_UNKNOWN"]).await;
    let both = format!(
        "{}{}",
        place.authority.crl(2999, &[]),
        second.crl(2999, &[])
    );
    place.folder.put("clients.crl", &both);
    place.reloaded(3).await;
    place.sign(Some(&client)).await.unwrap();
}
