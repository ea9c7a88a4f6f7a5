//! gRPC: signing on one socket, administration on another.

mod admin;
mod deadline;
mod desk;
mod health;
mod identity;
mod reflection;
mod signer;
mod status;
mod volume;
mod watch;

use std::sync::Arc;

use tokio::sync::oneshot;
use tonic::service::Routes;

use super::connection::{self, Limits, Protocol};
use super::listener::Listener;
use crate::agent::{Administration, Signing, Watched};
use crate::api::v1::key_admin_server::KeyAdminServer;
use crate::api::v1::signer_server::SignerServer;
use crate::policy::Caller;

/// Serves `sealkeeper.v1.Signer`, health and reflection until `shutdown` ends
/// and what has begun is answered.
pub async fn serve_signer<L: Listener<Peer = Caller>, S: Signing + Watched>(
    listener: L,
    signing: Arc<S>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let service = SignerServer::new(signer::Signer::new(Arc::clone(&signing), limits))
        .max_decoding_message_size(limits.message);
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = health::Health::new(signing, reporter).await;
    let routes = Routes::new(service).add_service(health_service);
    let shown = ["sealkeeper.v1.Signer", "grpc.health.v1.Health"];
    let router = reflection::add(routes, &shown).prepare().into_axum_router();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        shutdown.await;
        // Its receiver waits until then.
        let _ = stop.send(());
    };
    tokio::join!(
        connection::serve(listener, router, Protocol::Http2, limits, shutdown),
        health.follow(stopped),
    );
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
    let shown = ["sealkeeper.v1.KeyAdmin"];
    let routes = reflection::add(Routes::new(service), &shown);
    let router = routes.prepare().into_axum_router();
    connection::serve(listener, router, Protocol::Http2, limits, shutdown).await;
}
