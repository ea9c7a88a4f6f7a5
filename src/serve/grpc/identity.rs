//! Who asks.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::http::Extensions;
use tonic::{Request, Status};
use tracing::warn;

use super::status::Fault;
use crate::agent::callers::{Callers, Known};
use crate::policy::{Caller, Reason};
use crate::serve::connection::{Guest, Leaving};
use crate::serve::listener::Refused;

/// A caller of the signing edge, and where its connection comes from. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    known: Known,
    address: Option<SocketAddr>,
}

impl Asker {
    /// Welcomes a peer, who must leave when it is blocked.
    pub(super) fn enter(
        callers: &Arc<Callers>,
        caller: Caller,
        address: Option<SocketAddr>,
    ) -> Guest<Self> {
        let known = callers.enter(caller);
        let guest = known.clone();
        Guest {
            known: Self { known, address },
            dismissed: Box::pin(async move {
                guest.dismissed().await;
                Refused {
                    reason: Reason::CallerBlocked.code(),
                    why: format!("{guest} was blocked"),
                }
            }),
        }
    }

    /// The caller's account.
    pub(super) const fn known(&self) -> &Known {
        &self.known
    }

    /// Counts and logs a fault, if it is a refusal: who, and by what; never
    /// what they asked for. One line, which a jail can match.
    pub(super) fn report(&self, fault: &Fault) {
        let Some((reason, rule)) = fault.refusal() else {
            return;
        };
        self.known.refused();
        let caller = &self.known;
        let peer = self.address.map(|at| at.ip().to_canonical());
        let peer = peer.map(tracing::field::display);
        let about_caller = [Reason::NotAllowed, Reason::CallerBlocked];
        // Who may do nothing here, and who asked for something wrong.
        if about_caller.iter().any(|about| about.code() == reason) {
            warn!(event = "caller_refused", reason, peer, %caller, rule, "caller refused");
        } else {
            warn!(event = "request_refused", reason, peer, %caller, rule, "request refused");
        }
    }
}

impl Deref for Asker {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.known
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.known.fmt(f)
    }
}

/// The caller that the acceptor saw when the connection came.
///
/// # Errors
/// `INTERNAL` for a request without one: it did not come through the
/// acceptor, and nobody can say whose it is.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Asker, Status> {
    asker(request.extensions()).map_err(Fault::into_status)
}

/// The same, of a request that is not gRPC's yet.
pub(super) fn asker(extensions: &Extensions) -> Result<Asker, Fault> {
    let asker = extensions.get::<Asker>();
    asker.cloned().ok_or_else(no_peer)
}

/// The same, at the administration edge, where everybody may ask.
pub(super) fn administrator<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>();
    caller.cloned().ok_or_else(|| no_peer().into_status())
}

fn no_peer() -> Fault {
    Fault::internal("NO_PEER", "the request carries no peer".into())
}

/// When the request's connection is to end.
///
/// # Errors
/// As [`caller`].
pub(super) fn leaving<T>(request: &Request<T>) -> Result<Leaving, Status> {
    let leaving = request.extensions().get::<Leaving>();
    leaving.cloned().ok_or_else(|| {
        Fault::internal("NO_PEER", "the request carries no connection".into()).into_status()
    })
}
