//! `sealkeeper.v1.Signer`.

use std::sync::Arc;
use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::desk::{Asked, Desk, Waiting};
use super::room::Room;
use super::status::{Call, Fault};
use super::{identity, volume, watch};
use crate::agent::{Published, SignError, Signing};
use crate::api::v1::{
    GetJwksRequest, GetJwksResponse, SignBatchRequest, SignBatchResponse, SignJwsRequest,
    SignJwsResponse, SignJwtRequest, SignJwtResponse, SignStreamRequest, SignStreamResponse,
    WatchJwksRequest, WatchJwksResponse, signer_server,
};
use crate::metrics::Operation;
use crate::policy::{Reason, Refusal};
use crate::serve::Limits;

/// The signing edge over whatever signs.
pub(super) struct Signer<S>(Arc<Desk<S>>);

impl<S: Signing> Signer<S> {
    pub(super) fn new(signing: Arc<S>, limits: Limits, room: Arc<Room>) -> Self {
        Self(Arc::new(Desk::new(signing, limits, room)))
    }
}

#[tonic::async_trait]
impl<S: Signing> signer_server::Signer for Signer<S> {
    type SignStreamStream = ReceiverStream<Result<SignStreamResponse, Status>>;
    type WatchJwksStream = ReceiverStream<Result<WatchJwksResponse, Status>>;

    async fn sign_jwt(
        &self,
        request: Request<SignJwtRequest>,
    ) -> Result<Response<SignJwtResponse>, Status> {
        let waiting = Waiting::new(&request, self.0.limits.deadline);
        let caller = identity::caller(&request)?;
        let request = request.into_inner();
        let asked = Asked::new(Operation::SignJwt, &request.key_set);
        let refuse = |fault| self.0.refuse(&caller, &asked, fault);
        let signed = self.0.jwt(&caller, request, &waiting).await;
        Ok(Response::new(signed.map_err(refuse)?))
    }

    async fn sign_jws(
        &self,
        request: Request<SignJwsRequest>,
    ) -> Result<Response<SignJwsResponse>, Status> {
        let waiting = Waiting::new(&request, self.0.limits.deadline);
        let caller = identity::caller(&request)?;
        let request = request.into_inner();
        let asked = Asked::new(Operation::SignJws, &request.key_set);
        let refuse = |fault| self.0.refuse(&caller, &asked, fault);
        let signed = self.0.jws(&caller, request, &waiting).await;
        Ok(Response::new(signed.map_err(refuse)?))
    }

    async fn sign_batch(
        &self,
        request: Request<SignBatchRequest>,
    ) -> Result<Response<SignBatchResponse>, Status> {
        let waiting = Waiting::new(&request, self.0.limits.deadline);
        let caller = identity::caller(&request)?;
        volume::batch(&self.0, caller, request.into_inner(), waiting)
            .await
            .map(Response::new)
    }

    async fn sign_stream(
        &self,
        request: Request<Streaming<SignStreamRequest>>,
    ) -> Result<Response<Self::SignStreamStream>, Status> {
        let caller = identity::caller(&request)?;
        volume::stream(&self.0, caller, request).map(Response::new)
    }

    async fn get_jwks(
        &self,
        request: Request<GetJwksRequest>,
    ) -> Result<Response<GetJwksResponse>, Status> {
        let GetJwksRequest { key_set } = request.into_inner();
        let published = published(&*self.0.signing, &key_set).ok_or_else(unknown_key_set)?;
        Ok(Response::new(jwks(&published)))
    }

    async fn watch_jwks(
        &self,
        request: Request<WatchJwksRequest>,
    ) -> Result<Response<Self::WatchJwksStream>, Status> {
        watch::jwks(&self.0, request).map(Response::new)
    }
}

/// The set of that name, or the well-known one.
pub(super) fn published(signing: &impl Signing, key_set: &str) -> Option<Published> {
    match key_set {
        "" => signing.well_known(),
        name => signing.published(name),
    }
}

pub(super) fn jwks(published: &Published) -> GetJwksResponse {
    GetJwksResponse {
        jwks: published.body.to_vec(),
        etag: published.etag.to_string(),
        max_age: Some(seconds(published.max_age)),
    }
}

pub(super) fn unknown_key_set() -> Status {
    let refusal = SignError::Refused(Refusal::new(
        Reason::UnknownKeySet,
        "key_set",
        "no such key set is configured",
        "name a configured key set",
    ));
    Fault::sign(refusal, Call::GetJwks).into_status()
}

fn seconds(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    }
}
