//! `verify`, from the outside: over a file, over https, and from the agent.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::live::lab::{CALM, Lab};

fn verify(args: &[&str], env: &[(&str, &Path)]) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_sealkeeper"))
        .args(["verify", "--json"])
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the program under test");
    let text = if output.stdout.is_empty() {
        &output.stderr
    } else {
        &output.stdout
    };
    let value = serde_json::from_slice(text)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(text)));
    (output, value)
}

/// Serves `body` to whoever asks, over TLS with this certificate.
async fn serve_over_tls(certified: &rcgen::Certificate, key: &KeyPair, body: Vec<u8>) -> String {
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certified.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            let _ = stream.shutdown().await;
        }
    });
    format!("https://localhost:{port}/jwks.json")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_verified_by_the_agent_by_a_file_and_over_https() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let daemon = lab.serve().await;
    let token = lab.ok(&["sign", r#"{"sub":"planted-9d2c","aud":"api"}"#]);
    let token = token.trim();

    // By the agent: the issuer is the key set's.
    let said = lab.ok(&["verify", token]);
    assert!(
        said.starts_with("good, by the keys of the agent's key set main"),
        "{said}"
    );
    assert!(said.contains("https://lab.example"), "{said}");
    assert!(!said.contains("planted-9d2c"), "{said}");
    let other = lab.run(&["verify", "--issuer", "https://other.example", token]);
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stdout).contains("WRONG_ISSUER"));
    assert!(other.stderr.is_empty(), "it was said once");

    // By a file, without a configuration.
    let jwks = daemon.jwks().await.unwrap();
    let file = lab.path("jwks.json");
    fs::write(&file, &jwks).unwrap();
    let file = file.to_str().unwrap();
    let (output, said) = verify(&["--jwks", file, "--audience", "api", token], &[]);
    assert!(output.status.success(), "{said}");
    assert_eq!(said["good"], true);
    assert_eq!(said["alg"], "ES256");
    assert_eq!(said["findings"], serde_json::json!([]));
    assert_eq!(said["jwks"]["kids"][0], said["kid"]);
    fs::write(lab.path("jwks.json"), r#"{"keys":[]}"#).unwrap();
    let (output, said) = verify(&["--jwks", file, token], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said["findings"][0]["code"], "UNKNOWN_KID");

    // Over http, as verifiers get it, and https with a root of the system's.
    let url = format!("{}/main/jwks.json", daemon.origin());
    assert_eq!(verify(&["--jwks", &url, token], &[]).1["good"], true);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let roots = lab.path("roots.pem");
    fs::write(&roots, certificate.pem()).unwrap();
    let url = serve_over_tls(&certificate, &key, jwks).await;
    let env = [("SSL_CERT_FILE", &*roots)];
    let (_, said) = verify(&["--jwks", &url, token], &env);
    assert_eq!(said["good"], true, "{said}");
    let (output, said) = verify(&["--jwks", &url, token], &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = said["error"].as_str().unwrap();
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn a_token_comes_from_standard_input_too() {
    let dir = tempfile::tempdir().unwrap();
    let jwks = dir.path().join("jwks.json");
    fs::write(&jwks, r#"{"keys":[]}"#).unwrap();
    let input = dir.path().join("token");
    fs::write(&input, "  a.b\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sealkeeper"))
        .args(["verify", "--jwks", jwks.to_str().unwrap(), "-"])
        .stdin(fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("MALFORMED: expected 3 parts between dots, got 2"),
        "{said}"
    );
    let missing = verify(&["--jwks", "nowhere.json", "a.b.c"], &[]);
    assert_eq!(missing.0.status.code(), Some(1));
    assert!(missing.1["hint"].as_str().unwrap().contains("https://"));
    let bad = verify(
        &["--jwks", "https://user:secret-1f@x.example/", "a.b.c"],
        &[],
    );
    assert_eq!(bad.0.status.code(), Some(2));
    assert!(!bad.1.to_string().contains("secret-1f"));
}
