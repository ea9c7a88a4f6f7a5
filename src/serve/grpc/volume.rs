//! Many signatures for one call: batches and streams.
//!
//! Items are worked on a window at a time, each as if it had come alone: the
//! device's queue sees single requests of a key set and shares itself out
//! among them, whatever they came in.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::deadline;
use super::desk::{Desk, Waiting, failed, reported};
use super::gate::Holding;
use super::identity::{self, Asker, leaving};
use super::status::{Call, Fault};
use crate::agent::{SignError, Signing};
use crate::api::v1::{
    SignBatchRequest, SignBatchResponse, SignOutcome, SignStreamRequest, SignStreamResponse,
};
use crate::serve::connection::Leaving;

/// Signs the items of one message. When the call is dropped, so is its work.
pub(super) async fn batch<S: Signing>(
    desk: &Arc<Desk<S>>,
    caller: Asker,
    request: SignBatchRequest,
    waiting: Waiting,
) -> Result<SignBatchResponse, Status> {
    let (n, most) = (request.items.len(), desk.limits.batch);
    if n > most {
        let message = format!("expected at most {most} items, got {n}");
        let fault = Fault::field("items", message, "send several batches, or a stream");
        return Err(reported(&caller, fault));
    }
    let mut outcomes = vec![SignOutcome { outcome: None }; n];
    let mut working = JoinSet::new();
    let mut items = request.items.into_iter().enumerate();
    loop {
        while working.len() < desk.limits.window
            && let Some((n, item)) = items.next()
        {
            let (desk, caller) = (Arc::clone(desk), caller.clone());
            working.spawn(async move { (n, desk.item(&caller, Some(item), &waiting).await) });
        }
        match working.join_next().await {
            Some(Ok((n, outcome))) => outcomes[n] = outcome,
            Some(Err(error)) => return Err(broken(&error)),
            None => return Ok(SignBatchResponse { outcomes }),
        }
    }
}

/// Signs the items of a stream as they come.
pub(super) fn stream<S: Signing>(
    desk: &Arc<Desk<S>>,
    caller: Asker,
    request: Request<Streaming<SignStreamRequest>>,
) -> Result<ReceiverStream<Result<SignStreamResponse, Status>>, Status> {
    let (replies, stream) = mpsc::channel(desk.limits.window.max(1));
    let work = Work {
        desk: Arc::clone(desk),
        caller,
        leaving: leaving(&request)?,
        ends: deadline::asked(request.metadata()).map(|span| Instant::now() + span),
        replies,
        holding: identity::holding(&request)?,
    };
    tokio::spawn(work.run(request.into_inner()));
    Ok(ReceiverStream::new(stream))
}

struct Work<S> {
    desk: Arc<Desk<S>>,
    caller: Asker,
    leaving: Leaving,
    ends: Option<Instant>,
    replies: mpsc::Sender<Result<SignStreamResponse, Status>>,
    holding: Holding,
}

/// How a stream ends once all is answered.
type End = Result<(), Status>;

impl<S: Signing> Work<S> {
    /// Until the caller has no more and all is answered, or hangs up: then
    /// the work in the set is dropped with it.
    async fn run(mut self, mut items: Streaming<SignStreamRequest>) {
        let mut working = JoinSet::new();
        // Bytes of the items in it.
        let mut read = 0;
        let mut end: Option<End> = None;
        let (began, ends) = (Instant::now(), self.ends);
        let over = async {
            match ends {
                Some(at) => tokio::time::sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::pin!(over);
        while end.is_none() || !working.is_empty() {
            // What is worked on bounds what is read: the rest waits in the
            // connection, and the caller with it.
            let limits = &self.desk.limits;
            let room = end.is_none() && working.len() < limits.window && read < limits.message;
            tokio::select! {
                () = self.replies.closed() => return,
                () = &mut over => {
                    let waited = began.elapsed();
                    let fault = Fault::sign(SignError::Deadline { waited }, Call::SignJwt);
                    end = Some(Err(fault.into_status()));
                    working.abort_all();
                    break;
                }
                () = self.leaving.begun(), if end.is_none() => {
                    end = Some(Err(Fault::going_away().into_status()));
                }
                item = items.message(), if room => match item {
                    Ok(Some(item)) => {
                        let size = self.holding.read.next();
                        read += size;
                        self.begin(&mut working, item, size);
                    }
                    Ok(None) => end = Some(Ok(())),
                    Err(status) if status.code() == Code::OutOfRange => {
                        let fault = Fault::too_large(self.desk.limits.message);
                        end = Some(Err(reported(&self.caller, fault)));
                    }
                    Err(status) => end = Some(Err(status)),
                },
                Some(done) = working.join_next() => {
                    let reply = done.map_err(|error| broken(&error)).map(|(size, reply)| {
                        read -= size;
                        self.holding.taken.shrink(size);
                        reply
                    });
                    let failed = reply.is_err();
                    if self.replies.send(reply).await.is_err() || failed {
                        return;
                    }
                }
            }
        }
        if let Some(Err(status)) = end {
            // A caller that has gone needs no answer.
            let _ = self.replies.send(Err(status)).await;
        }
    }

    /// `size` is what the item takes up until it is done.
    fn begin(
        &self,
        working: &mut JoinSet<(usize, SignStreamResponse)>,
        request: SignStreamRequest,
        size: usize,
    ) {
        let (desk, caller) = (Arc::clone(&self.desk), self.caller.clone());
        let SignStreamRequest { id, item, timeout } = request;
        let longest = desk.limits.deadline;
        let waiting = match timeout.map(Duration::try_from) {
            None => Ok(Waiting::lasting(longest)),
            Some(Ok(asked)) => Ok(Waiting::lasting(asked.min(longest))),
            Some(Err(_)) => Err(Fault::field(
                "timeout",
                "expected a duration that is not negative".into(),
                "leave it out for the longest",
            )),
        };
        working.spawn(async move {
            let outcome = match waiting {
                Ok(waiting) => desk.item(&caller, item, &waiting).await,
                Err(fault) => failed(reported(&caller, fault)),
            };
            let outcome = Some(outcome);
            (size, SignStreamResponse { id, outcome })
        });
    }
}

fn broken(error: &JoinError) -> Status {
    Fault::internal("ITEM_BROKE", format!("an item was not worked on: {error}")).into_status()
}
