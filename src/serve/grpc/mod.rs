//! gRPC: signing on one socket, administration on another.

mod admin;
mod approvals;
mod callers;
mod condition;
mod configuration;
mod deadline;
mod desk;
mod device;
mod gate;
mod health;
mod identity;
mod impact;
mod metered;
mod origins;
mod reflection;
mod room;
mod rotation;
mod signer;
mod status;
mod volume;
mod watch;

use std::sync::Arc;

pub use configuration::{Reload, ReloadError, Reloaded, Reloads};

use axum::response::Response;
use axum::{Router, middleware};
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::{Code, Status};

use super::connection::{self, Guest, Limits, Protocol};
use super::listener::{Arrival, Listener};
use crate::agent::admin::AdminError;
use crate::agent::callers::Callers;
use crate::agent::{Administration, Signing, TurnedAway, Watched};
use crate::api::v1::approvals_server::ApprovalsServer;
use crate::api::v1::configuration_server::ConfigurationServer;
use crate::api::v1::key_admin_server::KeyAdminServer;
use crate::api::v1::signer_server::SignerServer;
use crate::metrics::Room as Figures;
use crate::policy::Caller;
pub use admin::change_response;
pub use device::response as device_response;
use gate::Gate;
use identity::Asker;
pub use impact::preview;
use room::Room;

/// Serves `sealkeeper.v1.Signer`, health and reflection until `shutdown` ends
/// and what has begun is answered. Who comes is entered into `callers`; who is
/// blocked there is refused, whatever it asks for.
pub async fn serve_signer<L, S>(
    listener: L,
    signing: Arc<S>,
    callers: Arc<Callers>,
    figures: Figures,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) where
    L: Listener<Arrival: Arrival<Peer = Caller>>,
    S: Signing + Watched,
{
    let counted = Arc::clone(&signing);
    let room = Room::new(&limits, figures);
    let gate = Gate {
        limits,
        room: Arc::clone(&room),
        turned_away: Arc::new(move |operation| {
            counted.turned_away("", operation, TurnedAway::Overloaded);
        }),
    };
    let signer = signer::Signer::new(Arc::clone(&signing), limits, Arc::clone(&room));
    let service = SignerServer::new(signer).max_decoding_message_size(limits.message);
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = health::Health::new(signing, reporter).await;
    let routes = Routes::new(service).add_service(health_service);
    let shown = ["sealkeeper.v1.Signer", "grpc.health.v1.Health"];
    let router = router(reflection::add(routes, &shown), limits);
    let router = router.layer(middleware::from_fn_with_state(gate, gate::pass));
    let enter = move |caller, address| Asker::enter(&callers, &room, caller, address);
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        shutdown.await;
        // Its receiver waits until then.
        let _ = stop.send(());
    };
    tokio::join!(
        connection::serve(listener, router, Protocol::Http2, limits, enter, shutdown),
        health.follow(stopped),
    );
}

/// Serves `sealkeeper.v1.KeyAdmin`, `Approvals` and `Configuration` until `shutdown` ends and what has begun
/// is answered.
///
/// Trust: whoever may open the socket may administer; its mode and owner are
/// the rule. A caller that is blocked may still administer: it could not let
/// itself in again otherwise, and an operator may be locked out by mistake.
pub async fn serve_admin<L: Listener<Arrival: Arrival<Peer = Caller>>, A: Administration>(
    listener: L,
    administration: Arc<A>,
    callers: Arc<Callers>,
    configuration: Arc<dyn Reloads>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let admin = Arc::new(admin::Admin::new(administration, callers));
    let service =
        KeyAdminServer::from_arc(Arc::clone(&admin)).max_decoding_message_size(limits.message);
    let approvals = ApprovalsServer::from_arc(admin).max_decoding_message_size(limits.message);
    let configuration = ConfigurationServer::new(configuration::Configuration(configuration))
        .max_decoding_message_size(limits.message);
    let shown = [
        "sealkeeper.v1.KeyAdmin",
        "sealkeeper.v1.Approvals",
        "sealkeeper.v1.Configuration",
    ];
    let routes = Routes::new(service)
        .add_service(approvals)
        .add_service(configuration);
    let router = router(reflection::add(routes, &shown), limits);
    let enter = |caller: Caller, _| Guest::staying(caller);
    connection::serve(listener, router, Protocol::Http2, limits, enter, shutdown).await;
}

/// Why an order was not carried out, as a call tells it.
#[must_use]
pub fn failure(error: AdminError) -> Status {
    status::Fault::admin(error).into_status()
}

/// A remark that the record and terminals can take.
///
/// # Errors
/// `INVALID_ARGUMENT`, as a call tells it.
pub fn remark(note: String) -> Result<String, Status> {
    admin::checked_note(note).map_err(status::Fault::into_status)
}

fn router(routes: Routes, limits: Limits) -> Router {
    let told = move |answer| async move { told(answer, limits.message) };
    let router = routes.prepare().into_axum_router();
    router.layer(middleware::map_response(told))
}

/// What tonic refuses by itself in the words that every error of ours has.
///
/// Trust: what is read here is our own answer. Nothing of ours is
/// `OUT_OF_RANGE`; tonic says so of a message whose length it does not accept.
fn told(answer: Response, limit: usize) -> Response {
    let code = answer.headers().get(tonic::Status::GRPC_STATUS);
    if code.is_none_or(|code| Code::from_bytes(code.as_bytes()) != Code::OutOfRange) {
        return answer;
    }
    status::Fault::too_large(limit).into_status().into_http()
}
