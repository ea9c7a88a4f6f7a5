//! `WatchJwks`: the newest set, whenever there is a newer one.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::desk::Desk;
use super::identity::leaving;
use super::signer::{jwks as message, published, unknown_key_set};
use super::status::Fault;
use crate::agent::Signing;
use crate::api::v1::{WatchJwksRequest, WatchJwksResponse};
use crate::serve::connection::Leaving;

/// Follows a key set until the caller hangs up or the connection is to end.
pub(super) fn jwks<S: Signing>(
    desk: &Arc<Desk<S>>,
    request: Request<WatchJwksRequest>,
) -> Result<ReceiverStream<Result<WatchJwksResponse, Status>>, Status> {
    let leaving = leaving(&request)?;
    let WatchJwksRequest { key_set } = request.into_inner();
    if !desk.signing.knows(&key_set) {
        return Err(unknown_key_set());
    }
    // One: what is not read yet would be outdated by the next.
    let (replies, stream) = mpsc::channel(1);
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        follow(&*desk.signing, &key_set, leaving, replies).await;
    });
    Ok(ReceiverStream::new(stream))
}

async fn follow(
    signing: &impl Signing,
    key_set: &str,
    mut leaving: Leaving,
    replies: mpsc::Sender<Result<WatchJwksResponse, Status>>,
) {
    let mut changes = signing.changes();
    changes.mark_changed();
    let mut shown = None;
    loop {
        let there_is_more = async {
            // Room first, then the newest: a slow reader gets no older one.
            let room = replies.reserve().await.ok()?;
            changes.changed().await.ok()?;
            Some(room)
        };
        let room = tokio::select! {
            room = there_is_more => room,
            () = replies.closed() => None,
            () = leaving.begun() => {
                // A reader that does not read learns it from the connection.
                let _ = replies.try_send(Err(Fault::going_away().into_status()));
                return;
            }
        };
        let Some(room) = room else {
            return;
        };
        let Some(published) = published(signing, key_set) else {
            continue;
        };
        if shown.as_ref() != Some(&published.etag) {
            room.send(Ok(WatchJwksResponse {
                jwks: Some(message(&published)),
            }));
            shown = Some(published.etag);
        }
    }
}
