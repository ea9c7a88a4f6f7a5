//! Somebody else's client: OpenSSL's own, from the system.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use super::super::authority::write;
use super::*;

/// A preface and a farewell: SETTINGS, then GOAWAY. The server answers and
/// ends the connection.
const FAREWELL: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// What `openssl s_client` says of the server.
async fn s_client(
    place: &Place,
    dir: &Path,
    identity: Option<&Identity>,
    extra: &[&str],
) -> String {
    let roots = dir.join("roots.pem");
    std::fs::write(&roots, place.authority.pem()).unwrap();
    let mut command = tokio::process::Command::new("openssl");
    command
        .args(["s_client", "-connect", &place.server.address.to_string()])
        .args(["-servername", SERVER, "-verify_return_error", "-CAfile"])
        .arg(&roots)
        .args(["-alpn", "h2", "-ign_eof"])
        .args(extra);
    if let Some(identity) = identity {
        let (cert, key) = write(dir, &identity.serial.to_string(), identity);
        command.arg("-cert").arg(cert).arg("-key").arg(key);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl, which scripts/test installs");
    // It may have gone already, refused.
    let _ = child.stdin.take().unwrap().write_all(FAREWELL).await;
    let output = within(child.wait_with_output()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn openssl_agrees() {
    let (log, _guard) = Log::listen();
    let place = Place::new(Limits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let good = place.authority.client(&["spiffe://example.org/login"], &[]);
    let stranger = Authority::new("another").client(&[], &["login.example"]);
    let text = s_client(&place, dir.path(), Some(&good), &[]).await;
    for expected in [
        "New, TLSv1.3",
        "Verify return code: 0 (ok)",
        "ALPN protocol: h2",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("New Session Ticket arrived"), "{text}");
    let seen = || {
        let callers = place.server.callers.list().into_iter();
        callers.filter(|caller| caller.first_seen.is_some()).count()
    };
    assert_eq!(seen(), 1);

    let mut reasons = Vec::new();
    for (identity, extra, alert, reason) in [
        (
            Some(&good),
            &["-tls1_2"][..],
            "alert protocol version",
            "TLS_VERSION",
        ),
        (None, &[], "alert certificate required", "NO_CERTIFICATE"),
        (Some(&stranger), &[], "alert unknown ca", "UNKNOWN_ISSUER"),
        (
            Some(&good),
            &["-alpn", "h3"],
            "alert no application protocol",
            "NO_ALPN",
        ),
    ] {
        let text = s_client(&place, dir.path(), identity, extra).await;
        assert!(text.contains(alert), "{extra:?}, expected {alert}: {text}");
        reasons.push(reason);
    }
    until(|| log.reasons("connection_refused") == reasons).await;
    // As old as OpenSSL still speaks.
    let old = &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    let text = s_client(&place, dir.path(), Some(&good), old).await;
    assert!(text.contains("no peer certificate available"), "{text}");
    assert_eq!(seen(), 1);
}
