//! What gRPC alone takes: a service on a Unix socket that answers each request
//! with the same token, in a process of its own. No caller, no rule, no key.

use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command};

use sealkeeper::api::v1::signer_server::{Signer, SignerServer};
use sealkeeper::api::v1::{
    GetJwksRequest, GetJwksResponse, SignBatchRequest, SignBatchResponse, SignJwsRequest,
    SignJwsResponse, SignJwtRequest, SignJwtResponse, SignStreamRequest, SignStreamResponse,
    WatchJwksRequest, WatchJwksResponse,
};
use tokio::net::UnixListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming};

/// The first argument of such a process.
pub(crate) const MODE: &str = "echo";

/// Such a process, until it is dropped.
pub(crate) struct Echo(Child);

impl Echo {
    pub(crate) fn start(socket: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        Self(command.arg(MODE).arg(socket).spawn().unwrap())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves until it is killed. The runtime is like the agent's.
pub(crate) fn run(args: &[String]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = UnixListener::bind(&args[0]).unwrap();
        tonic::transport::Server::builder()
            .add_service(SignerServer::new(Canned))
            .serve_with_incoming(UnixListenerStream::new(listener))
            .await
            .unwrap();
    });
}

struct Canned;

type Never<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn never<T>() -> Result<T, Status> {
    Err(Status::unavailable("nobody asks for this"))
}

#[tonic::async_trait]
impl Signer for Canned {
    type SignStreamStream = Never<SignStreamResponse>;
    type WatchJwksStream = Never<WatchJwksResponse>;

    async fn sign_jwt(
        &self,
        _: Request<SignJwtRequest>,
    ) -> Result<Response<SignJwtResponse>, Status> {
        Ok(Response::new(SignJwtResponse {
            // As long as what the agent answers with.
            token: "t".repeat(400),
            kid: "k".repeat(43),
            alg: "ES256".to_owned(),
            expires: Some(prost_types::Timestamp {
                seconds: 2_000_000_000,
                nanos: 0,
            }),
        }))
    }

    async fn sign_jws(
        &self,
        _: Request<SignJwsRequest>,
    ) -> Result<Response<SignJwsResponse>, Status> {
        never()
    }

    async fn sign_batch(
        &self,
        _: Request<SignBatchRequest>,
    ) -> Result<Response<SignBatchResponse>, Status> {
        never()
    }

    async fn sign_stream(
        &self,
        _: Request<Streaming<SignStreamRequest>>,
    ) -> Result<Response<Self::SignStreamStream>, Status> {
        never()
    }

    async fn get_jwks(
        &self,
        _: Request<GetJwksRequest>,
    ) -> Result<Response<GetJwksResponse>, Status> {
        never()
    }

    async fn watch_jwks(
        &self,
        _: Request<WatchJwksRequest>,
    ) -> Result<Response<Self::WatchJwksStream>, Status> {
        never()
    }
}
