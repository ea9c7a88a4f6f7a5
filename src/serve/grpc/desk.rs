//! What every way of asking for signatures shares: one item, from its message
//! to its outcome.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Request, Status};

use super::deadline;
use super::identity::Asker;
use super::room::Room;
use super::status::{Call, Fault};
use crate::agent::{SignError, Signed, Signing, TurnedAway};
pub(super) use crate::api::timestamp;
use crate::api::v1::{
    SignItem, SignJwsRequest, SignJwsResponse, SignJwtRequest, SignJwtResponse, SignOutcome,
    sign_item, sign_outcome,
};
use crate::jose::{self, Algorithm};
use crate::metrics::Operation;
use crate::policy::{Caller, JwsRequest, JwtRequest, Reason, Refusal};
use crate::serve::Limits;

/// Whatever signs, and what callers are granted.
pub(super) struct Desk<S> {
    pub(super) signing: Arc<S>,
    pub(super) limits: Limits,
    room: Arc<Room>,
}

impl<S: Signing> Desk<S> {
    pub(super) const fn new(signing: Arc<S>, limits: Limits, room: Arc<Room>) -> Self {
        Self {
            signing,
            limits,
            room,
        }
    }

    pub(super) async fn jwt(
        &self,
        caller: &Caller,
        request: SignJwtRequest,
        waiting: &Waiting,
    ) -> Result<SignJwtResponse, Fault> {
        let request = self.jwt_request(request)?;
        let signed = waiting
            .on(self.signing.sign_jwt(caller, request, waiting.until))
            .await
            .map_err(|error| Fault::sign(error, Call::SignJwt))?;
        let token = jose::compact(&signed.signing_input, &signed.signature)
            .map_err(|error| Fault::internal("MALFORMED_TOKEN", error.to_string()))?;
        Ok(SignJwtResponse {
            token,
            alg: signed.algorithm.to_string(),
            expires: Some(timestamp(signed.expires)),
            kid: signed.kid,
        })
    }

    fn jwt_request(&self, request: SignJwtRequest) -> Result<JwtRequest, Fault> {
        let algorithm = algorithm(request.alg.as_deref()).map_err(|refusal| {
            let why = TurnedAway::Refused(&refusal);
            self.signing
                .turned_away(&request.key_set, Operation::SignJwt, why);
            Fault::sign(SignError::Refused(refusal), Call::SignJwt)
        })?;
        Ok(JwtRequest {
            key_set: request.key_set,
            algorithm,
            typ: request.typ,
            claims: request.claims,
        })
    }

    pub(super) async fn jws(
        &self,
        caller: &Caller,
        request: SignJwsRequest,
        waiting: &Waiting,
    ) -> Result<SignJwsResponse, Fault> {
        let SignJwsRequest {
            key_set,
            signing_input,
        } = request;
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
            .on(self.signing.sign_jws(caller, request, waiting.until))
            .await
            .map_err(|error| Fault::sign(error, Call::SignJws))?;
        Ok(SignJwsResponse {
            signature,
            kid,
            alg: algorithm.to_string(),
            expires: Some(timestamp(expires)),
        })
    }

    /// One item of a batch or a stream. Where there is no room it waits: those
    /// who ask for volume are slowed down and not sent away.
    pub(super) async fn item(
        &self,
        caller: &Asker,
        item: Option<SignItem>,
        waiting: &Waiting,
    ) -> SignOutcome {
        let Some(request) = item.and_then(|item| item.request) else {
            let hint = "give each item a jwt or a jws";
            let fault = Fault::field("item.request", "expected a request, got none".into(), hint);
            return failed(fault.into_status());
        };
        caller.known().asked();
        let asked = Asked::of(&request);
        let mut no_room = None;
        loop {
            let fault = match self.attempt(caller, request.clone(), waiting).await {
                Ok(outcome) => return outcome,
                // There was never room: that is what used its time up. It is
                // counted already.
                Err(fault) if fault.is_deadline() => {
                    return failed(reported(caller, no_room.unwrap_or(fault)));
                }
                Err(fault) => fault,
            };
            match fault.room_after().map(spread) {
                Some(delay) if Instant::now() + delay < waiting.until => {
                    tokio::time::sleep(delay).await;
                    if Instant::now() >= waiting.until {
                        return failed(self.refuse(caller, &asked, fault));
                    }
                    no_room = Some(fault);
                }
                _ => return failed(self.refuse(caller, &asked, fault)),
            }
        }
    }

    /// What a caller is told instead of a signature, for good.
    pub(super) fn refuse(&self, caller: &Asker, asked: &Asked, fault: Fault) -> Status {
        if fault.room_after().is_some() {
            let Asked { operation, key_set } = asked;
            self.signing
                .turned_away(key_set, *operation, TurnedAway::Overloaded);
        }
        reported(caller, fault)
    }

    async fn attempt(
        &self,
        caller: &Asker,
        request: sign_item::Request,
        waiting: &Waiting,
    ) -> Result<SignOutcome, Fault> {
        // Each item as a call of its own: see the gate.
        let allowed = || {
            let known = caller.known().check();
            known.map_err(|error| Fault::sign(error, Call::SignJwt))
        };
        allowed()?;
        let _place = self.room.place(caller)?;
        let outcome = match request {
            sign_item::Request::Jwt(jwt) => {
                sign_outcome::Outcome::Jwt(self.jwt(caller, jwt, waiting).await?)
            }
            sign_item::Request::Jws(jws) => {
                sign_outcome::Outcome::Jws(self.jws(caller, jws, waiting).await?)
            }
        };
        allowed()?;
        Ok(SignOutcome {
            outcome: Some(outcome),
        })
    }
}

/// What is asked for, as it is counted.
pub(super) struct Asked {
    operation: Operation,
    key_set: String,
}

impl Asked {
    pub(super) fn new(operation: Operation, key_set: &str) -> Self {
        let key_set = key_set.to_owned();
        Self { operation, key_set }
    }

    fn of(request: &sign_item::Request) -> Self {
        match request {
            sign_item::Request::Jwt(jwt) => Self::new(Operation::SignJwt, &jwt.key_set),
            sign_item::Request::Jws(jws) => Self::new(Operation::SignJws, &jws.key_set),
        }
    }
}

/// How long a caller waits, counted from when the request was here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    since: Instant,
    pub(super) until: Instant,
}

impl Waiting {
    pub(super) fn new<T>(request: &Request<T>, longest: Duration) -> Self {
        Self::lasting(deadline::allowed(request.metadata(), longest))
    }

    /// From now on.
    pub(super) fn lasting(span: Duration) -> Self {
        let since = Instant::now();
        Self {
            since,
            until: since + span,
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

/// A delay and up to half as much again: those who were sent away together do
/// not come back together.
fn spread(delay: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    delay + delay.mul_f64(random as f64 / u64::MAX as f64 / 2.0)
}

/// An outcome that is an error, as a call of its own would have got it.
pub(super) fn failed(status: Status) -> SignOutcome {
    use prost::Message as _;
    // What is in there was encoded a moment ago; without it, what a client
    // needs least is missing.
    let error = tonic_types::Status::decode(status.details())
        .ok()
        .filter(|error| error.code != 0)
        .unwrap_or_else(|| tonic_types::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        });
    SignOutcome {
        outcome: Some(sign_outcome::Outcome::Error(error)),
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

/// Counts and logs who was refused, and by what; never what they asked for.
pub(super) fn reported(caller: &Asker, fault: Fault) -> Status {
    caller.report(&fault);
    fault.into_status()
}
