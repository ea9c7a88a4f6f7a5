//! Who asks.

use tonic::{Request, Status};

use super::status::Fault;
use crate::policy::Caller;
use crate::serve::connection::Leaving;

/// The peer that the acceptor saw when the connection came.
///
/// # Errors
/// `INTERNAL` for a request without one: it did not come through the
/// acceptor, and nobody can say whose it is.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>();
    caller.cloned().ok_or_else(|| {
        Fault::internal("NO_PEER", "the request carries no peer".into()).into_status()
    })
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
