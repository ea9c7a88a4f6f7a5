//! What every request to the signing edge passes, whichever its service.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::timeout;

use super::identity;
use super::status::{Call, Fault};
use crate::agent::SignError;
use crate::serve::Limits;

/// Lets a request in, and its answer out, if its caller is not blocked; and
/// bounds how long it may take until the answer begins, a request that arrives
/// in dribs and drabs included.
///
/// Invariant: no answer that was made for a caller leaves after the caller was
/// blocked; this comes before policy and after everything else.
pub(super) async fn pass(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let asker = match identity::asker(request.extensions()) {
        Ok(asker) => asker,
        Err(fault) => return fault.into_status().into_http(),
    };
    let begun = Instant::now();
    asker.known().asked();
    let refusal = || {
        let error = asker.known().check().err()?;
        let fault = Fault::sign(error, Call::GetJwks);
        asker.report(&fault);
        Some(fault.into_status().into_http())
    };
    if let Some(refusal) = refusal() {
        return refusal;
    }
    // As long again as an answer may take, for the request to arrive.
    let answered = timeout(limits.deadline.saturating_mul(2), next.run(request)).await;
    let response = answered.unwrap_or_else(|_| {
        let waited = begun.elapsed();
        let error = SignError::Deadline { waited };
        Fault::sign(error, Call::GetJwks).into_status().into_http()
    });
    refusal().unwrap_or(response)
}
