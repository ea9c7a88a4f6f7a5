//! Signs one token over TLS 1.3, known to the agent by a client certificate.
//!
//! `cargo run --example sign_over_tls -- agent.example:8443 main client.pem client.key ca.pem`

use std::error::Error;

use sealkeeper::client::Client;
use sealkeeper::client::rustls::pki_types::pem::PemObject as _;
use sealkeeper::client::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sealkeeper::client::rustls::{ClientConfig, RootCertStore, crypto, version};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, key_set, certificate, key, ca] = args.as_slice() else {
        return Err("expected HOST:PORT KEY_SET CERTIFICATE KEY CA".into());
    };
    let (host, _) = address.rsplit_once(':').ok_or("expected HOST:PORT")?;
    let name = ServerName::try_from(host.to_owned())?;

    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca)? {
        roots.add(root?)?;
    }
    let chain: Result<_, _> = CertificateDer::pem_file_iter(certificate)?.collect();
    let provider = crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain?, PrivateKeyDer::from_pem_file(key)?)?;

    let client = Client::tls(address, name, config);
    let claims = serde_json::json!({ "sub": "alice" });
    println!("{}", client.sign_jwt(key_set, &claims).await?.token);
    Ok(())
}
