//! A client of the agent, for authorization servers written in Rust.
//!
//! ```no_run
//! # async fn example() -> Result<(), sealkeeper::client::Error> {
//! use sealkeeper::client::Client;
//!
//! let client = Client::unix("/run/sealkeeper/sign.sock");
//! let claims = serde_json::json!({ "sub": "alice", "aud": "https://api.example" });
//! let token = client.sign_jwt("main", &claims).await?;
//! println!("{}", token.token);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is cheap to clone and connects when it is first used, and
//! again whenever its connection ended. Each call has a time within which it
//! is tried again where that may help and does no harm: the agent could not be
//! reached, or said when there would be room. Signing is safe to try again: a
//! second token harms nobody.
//!
//! For volume, [`Client::stream`] is the fastest: many signatures at a time
//! over one call, each a future of its own.

mod error;
mod stream;
mod watch;

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};
use tower::Service;

use crate::api::v1::signer_client::SignerClient;
use crate::api::v1::{
    GetJwksRequest, GetJwksResponse, SignBatchRequest, SignItem, SignJwsRequest, SignJwtRequest,
    SignOutcome, sign_item, sign_outcome,
};

pub use error::{Error, Fault};
/// The TLS library of [`Client::tls`].
pub use rustls;
pub use stream::SigningStream;
pub use watch::JwksWatch;

/// How long a call may take, all tries together, unless the client says
/// otherwise: what the agent grants one request.
const PATIENCE: Duration = Duration::from_secs(5);

/// The wait before the agent is tried again when it gave no hint; it doubles.
const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// A connection to an agent that heals by itself.
#[derive(Clone, Debug)]
pub struct Client {
    signer: SignerClient<Channel>,
    patience: Duration,
}

/// One thing to sign.
#[derive(Clone, PartialEq)]
pub struct Item(SignItem);

/// A signed token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The JWT in compact serialization.
    pub token: String,
    /// The key that signed.
    pub kid: String,
    /// Its algorithm.
    pub alg: String,
    /// The token's `exp`.
    pub expires: SystemTime,
}

/// A signature over a JWS signing input.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// In JOSE form (RFC 7518 section 3), not base64url.
    pub signature: Vec<u8>,
    /// The key that signed: the header's.
    pub kid: String,
    /// Its algorithm.
    pub alg: String,
    /// The token's `exp`.
    pub expires: SystemTime,
}

/// What came of an [`Item`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// Of [`Item::jwt`].
    Jwt(Token),
    /// Of [`Item::jws`].
    Jws(Signature),
}

/// A JWKS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwks {
    /// The JSON text, as it is served over HTTP.
    pub body: Vec<u8>,
    /// Another one whenever the set is another one.
    pub etag: String,
    /// For how long it may be cached.
    pub max_age: Duration,
}

impl Client {
    /// A client of the agent at a Unix socket. Connects when it is first used.
    /// To be called within a Tokio runtime.
    #[must_use]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        Self::with_connector(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
    }

    /// A client of the agent's TLS listener at `address` (a host or an IP
    /// address, and a port), which has a certificate for `name`. `config` holds
    /// the roots that this leads to and the client's own certificate. Connects
    /// when it is first used. To be called within a Tokio runtime.
    #[must_use]
    pub fn tls(address: &str, name: ServerName<'static>, mut config: ClientConfig) -> Self {
        // gRPC over TLS is HTTP/2 by this name (RFC 9113 section 3.2).
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        let address = address.to_owned();
        Self::with_connector(tower::service_fn(move |_: Uri| {
            let (address, name, tls) = (address.clone(), name.clone(), tls.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                tls.connect(name, stream).await.map(TokioIo::new)
            }
        }))
    }

    /// A client over whatever `connector` makes, such as a tunnel. It is
    /// asked for a connection whenever there is none.
    #[must_use]
    pub fn with_connector<C>(connector: C) -> Self
    where
        C: Service<Uri> + Send + 'static,
        C::Response: hyper::rt::Read + hyper::rt::Write + Send + Unpin,
        C::Future: Send,
        C::Error: Send,
        Box<dyn std::error::Error + Send + Sync>: From<C::Error>,
    {
        // The name is for nobody: the connector knows where to go.
        let channel =
            Endpoint::from_static("http://sealkeeper").connect_with_connector_lazy(connector);
        Self {
            signer: SignerClient::new(channel),
            patience: PATIENCE,
        }
    }

    /// The same client with another time for each call, all tries together.
    /// The agent itself grants a request five seconds.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Claims in, token out, with the key set's default algorithm and type.
    /// To keep claims byte for byte, pass a `serde_json::value::RawValue`.
    ///
    /// # Errors
    /// [`Error`] says whose fault it is and what to do.
    pub async fn sign_jwt(
        &self,
        key_set: &str,
        claims: &(impl Serialize + ?Sized),
    ) -> Result<Token, Error> {
        match self.sign(Item::jwt(key_set, claims)?).await? {
            Signed::Jwt(token) => Ok(token),
            Signed::Jws(_) => Err(Error::unexpected("a signature, asked for a token")),
        }
    }

    /// A JWS signing input in, a signature out.
    ///
    /// # Errors
    /// As [`Self::sign_jwt`].
    pub async fn sign_jws(
        &self,
        key_set: &str,
        signing_input: impl Into<Vec<u8>>,
    ) -> Result<Signature, Error> {
        match self.sign(Item::jws(key_set, signing_input)).await? {
            Signed::Jws(signature) => Ok(signature),
            Signed::Jwt(_) => Err(Error::unexpected("a token, asked for a signature")),
        }
    }

    /// Signs one item.
    ///
    /// # Errors
    /// As [`Self::sign_jwt`].
    pub async fn sign(&self, item: Item) -> Result<Signed, Error> {
        match item.0.request {
            Some(sign_item::Request::Jwt(jwt)) => {
                let call = |mut signer: SignerClient<Channel>, request| async move {
                    signer.sign_jwt(request).await
                };
                let signed = self.call(jwt, call).await?;
                signed_of(Some(sign_outcome::Outcome::Jwt(signed)))
            }
            Some(sign_item::Request::Jws(jws)) => {
                let call = |mut signer: SignerClient<Channel>, request| async move {
                    signer.sign_jws(request).await
                };
                let signed = self.call(jws, call).await?;
                signed_of(Some(sign_outcome::Outcome::Jws(signed)))
            }
            None => Err(Error::unexpected("an item without a request")),
        }
    }

    /// Signs up to 256 items in one call; each has a result of its own, in
    /// their order.
    ///
    /// # Errors
    /// Of the call as a whole, as [`Self::sign_jwt`].
    pub async fn sign_batch(
        &self,
        items: impl IntoIterator<Item = Item>,
    ) -> Result<Vec<Result<Signed, Error>>, Error> {
        let items = items.into_iter().map(|item| item.0).collect();
        let call = |mut signer: SignerClient<Channel>, request| async move {
            signer.sign_batch(request).await
        };
        let reply = self.call(SignBatchRequest { items }, call).await?;
        Ok(reply.outcomes.into_iter().map(outcome).collect())
    }

    /// A stream of signatures. Opened when it is first used.
    #[must_use]
    pub fn stream(&self) -> SigningStream {
        SigningStream::new(self.clone())
    }

    /// The JWKS of a key set; of the well-known one where the name is empty.
    ///
    /// # Errors
    /// As [`Self::sign_jwt`].
    pub async fn jwks(&self, key_set: &str) -> Result<Jwks, Error> {
        let request = GetJwksRequest {
            key_set: key_set.to_owned(),
        };
        let call = |mut signer: SignerClient<Channel>, request| async move {
            signer.get_jwks(request).await
        };
        self.call(request, call).await.map(Jwks::from)
    }

    /// Follows the JWKS of a key set, through restarts of the agent.
    #[must_use]
    pub fn watch_jwks(&self, key_set: &str) -> JwksWatch {
        JwksWatch::new(self.clone(), key_set)
    }

    /// Calls until it goes well, trying again does not help, or the time is up.
    async fn call<Q, R, F>(
        &self,
        request: Q,
        call: impl Fn(SignerClient<Channel>, Request<Q>) -> F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut tries = Tries::within(self.patience);
        loop {
            let mut request = Request::new(request.clone());
            request.set_timeout(tries.left());
            match call(self.signer.clone(), request).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => tries.pause(Error::from(status)).await?,
            }
        }
    }
}

impl Item {
    /// Claims to be signed as a JWT.
    ///
    /// # Errors
    /// `INVALID_CLAIMS` where they cannot be written as JSON.
    pub fn jwt(key_set: &str, claims: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        // The error may quote the claims.
        let claims = serde_json::to_vec(claims).map_err(|_| Error::invalid_claims())?;
        let jwt = SignJwtRequest {
            key_set: key_set.to_owned(),
            claims,
            alg: None,
            typ: None,
        };
        Ok(Self(SignItem {
            request: Some(sign_item::Request::Jwt(jwt)),
        }))
    }

    /// A JWS signing input: `b64url(header) "." b64url(payload)`.
    #[must_use]
    pub fn jws(key_set: &str, signing_input: impl Into<Vec<u8>>) -> Self {
        let jws = SignJwsRequest {
            key_set: key_set.to_owned(),
            signing_input: signing_input.into(),
        };
        Self(SignItem {
            request: Some(sign_item::Request::Jws(jws)),
        })
    }

    /// With this algorithm; the key set's default otherwise. The header of a
    /// JWS signing input says its own.
    #[must_use]
    pub fn with_alg(mut self, alg: &str) -> Self {
        if let Some(sign_item::Request::Jwt(jwt)) = &mut self.0.request {
            jwt.alg = Some(alg.to_owned());
        }
        self
    }

    /// With this `typ` in the header; the rule's default otherwise.
    #[must_use]
    pub fn with_typ(mut self, typ: &str) -> Self {
        if let Some(sign_item::Request::Jwt(jwt)) = &mut self.0.request {
            jwt.typ = Some(typ.to_owned());
        }
        self
    }
}

/// The tries of one call.
struct Tries {
    until: Instant,
    delay: Duration,
}

impl Tries {
    fn within(patience: Duration) -> Self {
        Self {
            until: Instant::now() + patience,
            delay: FIRST_DELAY,
        }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits until it makes sense to try again; gives the error back where it
    /// does not.
    async fn pause(&mut self, error: Error) -> Result<(), Error> {
        let Some(delay) = error.worth_trying_again(self.delay) else {
            return Err(error);
        };
        // Those who were sent away together do not come back together.
        let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        let delay = delay + delay.mul_f64(random / 2.0);
        if delay >= self.left() {
            return Err(error);
        }
        sleep(delay).await;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        Ok(())
    }
}

fn outcome(outcome: SignOutcome) -> Result<Signed, Error> {
    signed_of(outcome.outcome)
}

fn signed_of(outcome: Option<sign_outcome::Outcome>) -> Result<Signed, Error> {
    match outcome {
        Some(sign_outcome::Outcome::Jwt(jwt)) => Ok(Signed::Jwt(Token {
            token: jwt.token,
            kid: jwt.kid,
            alg: jwt.alg,
            expires: time(jwt.expires)?,
        })),
        Some(sign_outcome::Outcome::Jws(jws)) => Ok(Signed::Jws(Signature {
            signature: jws.signature,
            kid: jws.kid,
            alg: jws.alg,
            expires: time(jws.expires)?,
        })),
        Some(sign_outcome::Outcome::Error(error)) => Err(Error::from(error)),
        None => Err(Error::unexpected("an outcome without a result")),
    }
}

fn time(expires: Option<prost_types::Timestamp>) -> Result<SystemTime, Error> {
    let time = expires.and_then(|expires| SystemTime::try_from(expires).ok());
    time.ok_or_else(|| Error::unexpected("an expiry that is no time"))
}

impl From<GetJwksResponse> for Jwks {
    fn from(jwks: GetJwksResponse) -> Self {
        Self {
            body: jwks.jwks,
            etag: jwks.etag,
            max_age: jwks
                .max_age
                .and_then(|span| span.try_into().ok())
                .unwrap_or_default(),
        }
    }
}

// Why by hand: a token in a log is a token that somebody else can use.

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("kid", &self.kid)
            .field("alg", &self.alg)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature")
            .field("kid", &self.kid)
            .field("alg", &self.alg)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").finish_non_exhaustive()
    }
}
