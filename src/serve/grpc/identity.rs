//! Who asks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;

use axum::http::Extensions;
use tonic::{Request, Status};
use tracing::field::DisplayValue;
use tracing::warn;

use super::gate::Holding;
use super::room::Room;
use super::status::Fault;
use crate::agent::callers::{Callers, Known};
use crate::metrics::RoomOf;
use crate::policy::{Caller, CallerId, Reason};
use crate::serve::connection::{Guest, Leaving};
use crate::serve::lines::now;
use crate::serve::listener::Refused;
use crate::serve::shares::Share;

/// A caller of the signing edge, and where its connection comes from. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    known: Known,
    room: Arc<Room>,
    /// Its connection's, until it and its requests have ended; none for one
    /// that is to leave at once.
    _place: Option<Arc<Share<CallerId>>>,
    address: Option<SocketAddr>,
}

impl Asker {
    /// Welcomes a peer, who must leave when it is blocked; and at once where it
    /// has more connections than it leaves to others.
    pub(super) fn enter(
        callers: &Arc<Callers>,
        room: &Arc<Room>,
        caller: Caller,
        address: Option<SocketAddr>,
    ) -> Guest<Self> {
        let known = callers.enter(caller);
        let guest = known.clone();
        let (place, refused) = match room.connect(&known) {
            Ok(place) => (Some(Arc::new(place)), None),
            Err(refused) => (None, Some(refused)),
        };
        Guest {
            known: Self {
                known,
                room: Arc::clone(room),
                _place: place,
                address,
            },
            dismissed: Box::pin(async move {
                if let Some(refused) = refused {
                    return refused;
                }
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
    /// what they asked for. One line, which a jail can match; of a flood of
    /// one caller not every one.
    pub(super) fn report(&self, fault: &Fault) {
        let Some((reason, rule)) = fault.refusal() else {
            return;
        };
        self.known.refused();
        let Some(Line { peer, left_out }) = self.line() else {
            return;
        };
        let caller = &self.known;
        let about_caller = [Reason::NotAllowed, Reason::CallerBlocked];
        // Who may do nothing here, and who asked for something wrong.
        if about_caller.iter().any(|about| about.code() == reason) {
            warn!(event = "caller_refused", reason, peer, %caller, rule, left_out, "caller refused");
        } else {
            warn!(event = "request_refused", reason, peer, %caller, rule, left_out, "request refused");
        }
    }

    /// Logs that there is no room for more of this caller, which holds `own`.
    pub(super) fn crowds(&self, of: RoomOf, own: usize) {
        let Some(Line { peer, left_out }) = self.line() else {
            return;
        };
        let (caller, of) = (&self.known, of.name());
        warn!(
            event = "caller_turned_away",
            reason = "OVERLOADED",
            peer,
            %caller,
            of,
            own,
            left_out,
            "no room for more of a caller"
        );
    }

    /// What a line about the caller says, if there is to be one.
    fn line(&self) -> Option<Line> {
        let left_out = self.room.lines.admit(&self.known.id().to_string(), now())?;
        let peer = self.address.map(|at| at.ip().to_canonical());
        Some(Line {
            peer: peer.map(tracing::field::display),
            left_out: (left_out > 0).then_some(left_out),
        })
    }
}

struct Line {
    /// Where it comes from.
    peer: Option<DisplayValue<IpAddr>>,
    /// Lines about anybody that were left out before this one.
    left_out: Option<u64>,
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

/// What the request takes up.
///
/// # Errors
/// As [`caller`].
pub(super) fn holding<T>(request: &Request<T>) -> Result<Holding, Status> {
    let holding = request.extensions().get::<Holding>();
    holding.cloned().ok_or_else(|| no_peer().into_status())
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
