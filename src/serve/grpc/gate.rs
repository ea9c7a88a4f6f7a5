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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use tower::ServiceExt as _;

    use super::*;
    use crate::agent::callers::Callers;
    use crate::clock::SystemClock;
    use crate::durable::BlockList;
    use crate::durable::sim::SimDisk;
    use crate::policy::Caller;
    use crate::serve::grpc::identity::Asker;

    /// What was signed while its caller was being blocked stays here.
    #[tokio::test]
    async fn no_answer_leaves_after_its_caller_was_blocked() {
        let list = BlockList::open(Arc::new(SimDisk::new()), "/callers").unwrap();
        let callers = Callers::open(Arc::new(SystemClock::new()), list, vec![]);
        let caller = Caller::Unix {
            uid: 1,
            gid: 1,
            groups: BTreeSet::new(),
            pid: None,
        };
        let asker = Asker::enter(&callers, caller.clone(), None).known;
        let signs = |block: bool| {
            let (callers, caller) = (Arc::clone(&callers), caller.clone());
            let sign = move || async move {
                if block {
                    callers.block(caller.id(), &caller, String::new()).await;
                }
                "token"
            };
            Router::new()
                .route("/", post(sign))
                .layer(from_fn_with_state(Limits::default(), pass))
        };
        let request = || {
            let mut request = Request::post("/").body(Body::empty()).unwrap();
            request.extensions_mut().insert(asker.clone());
            request
        };
        let status = |response: Response| {
            let status = response.headers().get("grpc-status").cloned();
            status.map(|status| status.to_str().unwrap().to_owned())
        };
        assert_eq!(status(signs(false).oneshot(request()).await.unwrap()), None);
        let refused = Some((tonic::Code::PermissionDenied as i32).to_string());
        assert_eq!(
            status(signs(true).oneshot(request()).await.unwrap()),
            refused
        );
        // And nobody is let in without a name.
        let nobody = Request::post("/").body(Body::empty()).unwrap();
        let internal = Some((tonic::Code::Internal as i32).to_string());
        assert_eq!(
            status(signs(false).oneshot(nobody).await.unwrap()),
            internal
        );
    }
}
