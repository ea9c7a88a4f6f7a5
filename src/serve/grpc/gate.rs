//! What every request to the signing edge passes, whichever its service.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::timeout;

use super::identity;
use super::metered::{Answer, Metered, Read};
use super::room::{Lasting, Room, Taken};
use super::status::{Call, Fault};
use crate::agent::SignError;
use crate::metrics::Operation;
use crate::serve::Limits;

/// What the gate goes by.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) limits: Limits,
    pub(super) room: Arc<Room>,
    /// Counts a request that was turned away before anybody read what it is
    /// for.
    pub(super) turned_away: Arc<dyn Fn(Operation) + Send + Sync>,
}

/// What a request takes up. Each carries it as an extension.
#[derive(Clone)]
pub(super) struct Holding {
    pub(super) taken: Arc<Taken>,
    pub(super) read: Read,
}

/// Lets a request in, and its answer out, if its caller is not blocked and
/// there is room for it; and bounds how long it may take until the answer
/// begins, a request that arrives in dribs and drabs included.
///
/// Invariant: no answer that was made for a caller leaves after the caller was
/// blocked; this comes before policy and after everything else.
pub(super) async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
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
    let (lasting, operation) = kind(request.uri().path());
    let header = length(request.headers());
    let taken = match gate.room.enter(&asker, lasting, header) {
        Ok(taken) => taken,
        Err(fault) => {
            if let Some(operation) = operation {
                (gate.turned_away)(operation);
            }
            return fault.into_status().into_http();
        }
    };
    let read = Read::default();
    let holding = Holding {
        taken: Arc::clone(&taken),
        read: read.clone(),
    };
    request.extensions_mut().insert(holding);
    let metered = |body| Body::new(Metered::new(body, Arc::clone(&taken), read));
    let request = request.map(metered);
    // As long again as an answer may take, for the request to arrive.
    let patience = gate.limits.deadline.saturating_mul(2);
    let answered = timeout(patience, next.run(request)).await;
    let response = answered.unwrap_or_else(|_| {
        let waited = begun.elapsed();
        let error = SignError::Deadline { waited };
        Fault::sign(error, Call::GetJwks).into_status().into_http()
    });
    refusal().unwrap_or_else(|| {
        if lasting == Lasting::Briefly {
            taken.forget_request();
        }
        response.map(|body| Body::new(Answer::new(body, taken)))
    })
}

/// What a header takes up, about as HTTP/2 counts it (RFC 9113 section 6.5.2).
fn length(header: &HeaderMap) -> usize {
    let lengths = header
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32);
    lengths.sum()
}

/// What a call of this path is: how long it goes on, and how it is counted.
fn kind(path: &str) -> (Lasting, Option<Operation>) {
    match path.rsplit('/').next() {
        Some("SignJwt") => (Lasting::Briefly, Some(Operation::SignJwt)),
        Some("SignJws") => (Lasting::Briefly, Some(Operation::SignJws)),
        // Ours, and those of health and reflection.
        Some("SignStream" | "WatchJwks" | "Watch" | "ServerReflectionInfo") => {
            (Lasting::ForLong, None)
        }
        _ => (Lasting::Briefly, None),
    }
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
    use crate::metrics::Metrics;
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
        let limits = Limits::default();
        let room = Room::new(&limits, Metrics::new().room("signing"));
        let asker = Asker::enter(&callers, &room, caller.clone(), None).known;
        let gate = Gate {
            limits,
            room,
            turned_away: Arc::new(|_| {}),
        };
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
                .layer(from_fn_with_state(gate.clone(), pass))
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
