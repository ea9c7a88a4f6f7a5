//! `sealkeeper.v1.Signer`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};
use tracing::info;

use super::status::{Call, Fault};
use super::{deadline, identity};
use crate::agent::{SignError, Signed, Signing, TurnedAway};
use crate::api::v1::{
    GetJwksRequest, GetJwksResponse, SignJwsRequest, SignJwsResponse, SignJwtRequest,
    SignJwtResponse, signer_server,
};
use crate::jose::{self, Algorithm};
use crate::metrics::Operation;
use crate::policy::{Caller, JwsRequest, JwtRequest, Reason, Refusal};
use crate::serve::Limits;
use crate::time::Time;

/// The signing edge over whatever signs.
pub(super) struct Signer<S> {
    signing: Arc<S>,
    limits: Limits,
    in_flight: Semaphore,
}

impl<S: Signing> Signer<S> {
    pub(super) fn new(signing: Arc<S>, limits: Limits) -> Self {
        Self {
            signing,
            limits,
            in_flight: Semaphore::new(limits.in_flight),
        }
    }

    /// A place among the requests in flight, for as long as it is held.
    fn admit(&self, key_set: &str, asked: Operation) -> Result<SemaphorePermit<'_>, Fault> {
        self.in_flight.try_acquire().map_err(|_| {
            self.signing
                .turned_away(key_set, asked, TurnedAway::Overloaded);
            Fault::overloaded(self.limits.in_flight)
        })
    }
}

#[tonic::async_trait]
impl<S: Signing> signer_server::Signer for Signer<S> {
    async fn sign_jwt(
        &self,
        request: Request<SignJwtRequest>,
    ) -> Result<Response<SignJwtResponse>, Status> {
        let waiting = Waiting::new(&request, self.limits.deadline);
        let caller = identity::caller(&request)?;
        let refuse = |fault| reported(&caller, fault);
        let request = request.into_inner();
        let _place = self
            .admit(&request.key_set, Operation::SignJwt)
            .map_err(refuse)?;
        let algorithm = algorithm(request.alg.as_deref()).map_err(|refusal| {
            let why = TurnedAway::Refused(&refusal);
            self.signing
                .turned_away(&request.key_set, Operation::SignJwt, why);
            refuse(Fault::sign(SignError::Refused(refusal), Call::SignJwt))
        })?;
        let request = JwtRequest {
            key_set: request.key_set,
            algorithm,
            typ: request.typ,
            claims: request.claims,
        };
        let signed = waiting
            .on(self.signing.sign_jwt(&caller, request, waiting.until))
            .await
            .map_err(|error| refuse(Fault::sign(error, Call::SignJwt)))?;
        let token = jose::compact(&signed.signing_input, &signed.signature)
            .map_err(|error| refuse(Fault::internal("MALFORMED_TOKEN", error.to_string())))?;
        Ok(Response::new(SignJwtResponse {
            token,
            alg: signed.algorithm.to_string(),
            expires: Some(timestamp(signed.expires)),
            kid: signed.kid,
        }))
    }

    async fn sign_jws(
        &self,
        request: Request<SignJwsRequest>,
    ) -> Result<Response<SignJwsResponse>, Status> {
        let waiting = Waiting::new(&request, self.limits.deadline);
        let caller = identity::caller(&request)?;
        let refuse = |fault| reported(&caller, fault);
        let SignJwsRequest {
            key_set,
            signing_input,
        } = request.into_inner();
        let _place = self.admit(&key_set, Operation::SignJws).map_err(refuse)?;
        let request = JwsRequest {
            key_set,
            signing_input,
        };
        let Signed {
            signature,
            kid,
            algorithm,
            expires,
            ..
        } = waiting
            .on(self.signing.sign_jws(&caller, request, waiting.until))
            .await
            .map_err(|error| refuse(Fault::sign(error, Call::SignJws)))?;
        Ok(Response::new(SignJwsResponse {
            signature,
            kid,
            alg: algorithm.to_string(),
            expires: Some(timestamp(expires)),
        }))
    }

    async fn get_jwks(
        &self,
        request: Request<GetJwksRequest>,
    ) -> Result<Response<GetJwksResponse>, Status> {
        let GetJwksRequest { key_set } = request.into_inner();
        let published = match key_set.as_str() {
            "" => self.signing.well_known(),
            name => self.signing.published(name),
        };
        let Some(published) = published else {
            let refusal = SignError::Refused(Refusal::new(
                Reason::UnknownKeySet,
                "key_set",
                "no such key set is configured",
                "name a configured key set",
            ));
            return Err(Fault::sign(refusal, Call::GetJwks).into_status());
        };
        Ok(Response::new(GetJwksResponse {
            jwks: published.body.to_vec(),
            etag: published.etag.to_string(),
            max_age: Some(seconds(published.max_age)),
        }))
    }
}

/// How long a caller waits, counted from when the request was here.
struct Waiting {
    since: Instant,
    until: Instant,
}

impl Waiting {
    fn new<T>(request: &Request<T>, longest: Duration) -> Self {
        let since = Instant::now();
        Self {
            since,
            until: since + deadline::allowed(request.metadata(), longest),
        }
    }

    /// The work's outcome, or none when the time is over: then the work is
    /// dropped where it stands, as when the caller hangs up.
    async fn on<T>(
        &self,
        work: impl Future<Output = Result<T, SignError>>,
    ) -> Result<T, SignError> {
        let over = || {
            Err(SignError::Deadline {
                waited: self.since.elapsed(),
            })
        };
        // The timer would let the work begin before it looks.
        if Instant::now() >= self.until {
            return over();
        }
        tokio::time::timeout_at(self.until.into(), work)
            .await
            .unwrap_or_else(|_| over())
    }
}

/// The track that is asked for, if one is.
fn algorithm(name: Option<&str>) -> Result<Option<Algorithm>, Refusal> {
    name.map(str::parse).transpose().map_err(|_| {
        // The name is the caller's own text, of any length.
        let known = Algorithm::ALL.map(Algorithm::name).join(", ");
        Refusal::new(
            Reason::UnknownAlgorithm,
            "builtin.algorithms",
            format!("expected one of {known}, got something else"),
            "use a registered name, or leave it out",
        )
    })
}

/// Logs who was refused, and by what; never what they asked for.
fn reported(caller: &Caller, fault: Fault) -> Status {
    if let Some((reason, rule)) = fault.refusal() {
        info!(%caller, reason, rule, "refused");
    }
    fault.into_status()
}

/// `exp` is whole seconds.
pub(super) fn timestamp(time: Time) -> prost_types::Timestamp {
    let ms = time.as_millis().rem_euclid(1000);
    prost_types::Timestamp {
        seconds: time.as_secs(),
        nanos: i32::try_from(ms).unwrap_or(0) * 1_000_000,
    }
}

fn seconds(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    }
}
