//! Signs one token, then a thousand over a stream, and follows the JWKS.
//!
//! `cargo run --example sign -- /run/sealkeeper/sign.sock main`

use std::error::Error;

use sealkeeper::client::{Client, Fault, Item};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "expected the agent's signing socket and a key set";
    let socket = args.next().ok_or(usage)?;
    let key_set = args.next().ok_or(usage)?;
    let client = Client::unix(socket);

    let claims = serde_json::json!({ "sub": "alice" });
    match client.sign_jwt(&key_set, &claims).await {
        Ok(token) => println!("{}", token.token),
        Err(error) if error.fault == Fault::Caller => {
            // Trying again is no use: the rule and the hint say what to mend.
            return Err(format!("refused by {:?}: {error}", error.rule).into());
        }
        Err(error) => return Err(error.into()),
    }

    // Each item is a future of its own; the agent slows the stream down where
    // it has enough to do.
    let stream = client.stream();
    let mut signing = JoinSet::new();
    for n in 0..1000 {
        let claims = serde_json::json!({ "sub": format!("user-{n}") });
        let (stream, item) = (stream.clone(), Item::jwt(&key_set, &claims)?);
        signing.spawn(async move { stream.sign(item).await });
    }
    let mut signed = 0;
    while let Some(outcome) = signing.join_next().await {
        outcome??;
        signed += 1;
    }
    println!("{signed} more over a stream");

    let jwks = client.watch_jwks(&key_set).next().await?;
    println!("{}", String::from_utf8_lossy(&jwks.body));
    Ok(())
}
