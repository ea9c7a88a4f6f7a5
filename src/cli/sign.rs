//! `sign` and `jwks`: what a caller and a verifier get, by hand.

use std::io::Read;
use std::path::Path;

use serde_json::json;

use super::compose;
use super::keys;
use super::output::{Failure, say};
use crate::api::v1::{GetJwksRequest, SignJwtRequest};
use crate::jose::Algorithm;

/// More than any policy allows; keeps a mistaken file out of memory.
const LARGEST_INPUT: u64 = 1 << 20;

/// Signs claims through the agent's socket.
pub(super) fn sign(
    config: &Path,
    key_set: Option<String>,
    alg: Option<Algorithm>,
    typ: Option<String>,
    claims: String,
    as_json: bool,
) -> Result<(), Failure> {
    let config = compose::config(config)?;
    let claims = read_argument(claims)?;
    let request = SignJwtRequest {
        key_set: compose::key_set(&config, key_set)?,
        claims,
        alg: alg.map(|alg| alg.name().to_owned()),
        typ,
    };
    let answer = compose::block_on(async {
        let mut signer = compose::signer(&config).await?;
        Ok::<_, Failure>(signer.sign_jwt(request).await?.into_inner())
    })??;
    if as_json {
        return say(json!({
            "token": answer.token,
            "kid": answer.kid,
            "alg": answer.alg,
            "expires": keys::date(answer.expires.as_ref()),
        }));
    }
    say(answer.token)
}

/// Prints the JWKS.
pub(super) fn jwks(config: &Path, key_set: Option<String>) -> Result<(), Failure> {
    let config = compose::config(config)?;
    let request = GetJwksRequest {
        key_set: compose::key_set(&config, key_set)?,
    };
    let answer = compose::block_on(async {
        let mut signer = compose::signer(&config).await?;
        Ok::<_, Failure>(signer.get_jwks(request).await?.into_inner())
    })??;
    say(String::from_utf8_lossy(&answer.jwks))
}

/// What was given, or standard input where that is `-`.
pub(super) fn read_argument(given: String) -> Result<Vec<u8>, Failure> {
    match given.as_str() {
        "-" => read_input(),
        _ => Ok(given.into_bytes()),
    }
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    std::io::stdin()
        .take(LARGEST_INPUT)
        .read_to_end(&mut input)
        .map_err(|e| Failure::failed(format!("standard input: {e}")))?;
    Ok(input)
}
