//! gRPC: signing on one socket, administration on another.

mod admin;
mod deadline;
mod identity;
mod signer;
mod status;

use std::sync::Arc;

use tonic::service::Routes;

use super::connection::{self, Limits, Protocol};
use super::listener::Listener;
use crate::agent::{Administration, Signing};
use crate::api::v1::key_admin_server::KeyAdminServer;
use crate::api::v1::signer_server::SignerServer;
use crate::policy::Caller;

/// Serves `sealkeeper.v1.Signer` until `shutdown` ends and what has begun is
/// answered.
pub async fn serve_signer<L: Listener<Peer = Caller>, S: Signing>(
    listener: L,
    signing: Arc<S>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let service = SignerServer::new(signer::Signer::new(signing, limits))
        .max_decoding_message_size(limits.message);
    let router = Routes::new(service).prepare().into_axum_router();
    connection::serve(listener, router, Protocol::Http2, limits, shutdown).await;
}

/// Serves `sealkeeper.v1.KeyAdmin` until `shutdown` ends and what has begun
/// is answered.
///
/// Trust: whoever may open the socket may administer; its mode and owner are
/// the rule.
pub async fn serve_admin<L: Listener<Peer = Caller>, A: Administration>(
    listener: L,
    administration: Arc<A>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let service = KeyAdminServer::new(admin::Admin::new(administration))
        .max_decoding_message_size(limits.message);
    let router = Routes::new(service).prepare().into_axum_router();
    connection::serve(listener, router, Protocol::Http2, limits, shutdown).await;
}
