//! A JWKS and its changes.

use tonic::Streaming;

use super::{Client, Error, Jwks, LONGEST_DELAY, Tries};
use crate::api::v1::{WatchJwksRequest, WatchJwksResponse};

/// Follows a JWKS: the set of now, then each other one.
#[derive(Debug)]
pub struct JwksWatch {
    client: Client,
    key_set: String,
    open: Option<Streaming<WatchJwksResponse>>,
    shown: Option<String>,
}

impl JwksWatch {
    pub(super) fn new(client: Client, key_set: &str) -> Self {
        Self {
            client,
            key_set: key_set.to_owned(),
            open: None,
            shown: None,
        }
    }

    /// The next set that is not the one before. Waits for as long as it takes,
    /// also for an agent that is away.
    ///
    /// # Errors
    /// Where trying again does not help: there is no such key set, or the
    /// caller may not connect.
    pub async fn next(&mut self) -> Result<Jwks, Error> {
        let mut tries = Tries::within(LONGEST_DELAY * 1000);
        loop {
            match self.read().await {
                Ok(jwks) if self.shown.as_ref() == Some(&jwks.etag) => {}
                Ok(jwks) => {
                    self.shown = Some(jwks.etag.clone());
                    return Ok(jwks);
                }
                Err(error) => {
                    self.open = None;
                    tries.pause(error).await?;
                    tries.until = Tries::within(LONGEST_DELAY * 1000).until;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Jwks, Error> {
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let request = WatchJwksRequest {
                    key_set: self.key_set.clone(),
                };
                let mut signer = self.client.signer.clone();
                let stream = signer.watch_jwks(request).await?;
                self.open.insert(stream.into_inner())
            }
        };
        let message = open.message().await?.ok_or_else(Error::ended)?;
        let jwks = message.jwks.ok_or_else(|| Error::unexpected("no set"))?;
        Ok(Jwks::from(jwks))
    }
}
