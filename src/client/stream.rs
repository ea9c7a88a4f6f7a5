//! Many signatures at a time over one call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Client, Error, Item, Signed, Tries, outcome};
use crate::api::v1::{SignItem, SignStreamRequest, SignStreamResponse};

/// How many items may wait to be sent; whoever has more waits. The agent reads
/// as many as it works on.
const AHEAD: usize = 64;

/// A stream of signatures that many tasks may share: cloning is cheap. It is
/// opened when it is first used, and again when it ended; items that were not
/// answered by then are sent again. When the last clone is dropped, the stream
/// ends.
#[derive(Clone, Debug)]
pub struct SigningStream {
    client: Client,
    open: Arc<tokio::sync::Mutex<Option<Open>>>,
    next_id: Arc<AtomicU64>,
}

/// One call.
#[derive(Clone, Debug)]
struct Open {
    items: mpsc::Sender<SignStreamRequest>,
    waiting: Waiting,
}

type Reply = oneshot::Sender<Result<Signed, Error>>;

/// Who waits for which answer; none once nobody answers any more.
#[derive(Clone, Debug)]
struct Waiting(Arc<Mutex<Option<HashMap<u64, Reply>>>>);

impl SigningStream {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            open: Arc::default(),
            next_id: Arc::default(),
        }
    }

    /// Signs one item, beside all others. Waits where the agent has enough to
    /// do, for at most the client's patience.
    ///
    /// # Errors
    /// As [`Client::sign`].
    pub async fn sign(&self, item: Item) -> Result<Signed, Error> {
        let mut tries = Tries::within(self.client.patience);
        loop {
            let once = self.attempt(item.0.clone(), &tries);
            match tokio::time::timeout(tries.left(), once).await {
                Ok(Ok(signed)) => return Ok(signed),
                Ok(Err(error)) => tries.pause(error).await?,
                Err(_elapsed) => return Err(Error::late()),
            }
        }
    }

    async fn attempt(&self, item: SignItem, tries: &Tries) -> Result<Signed, Error> {
        let open = self.open().await?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        if !open.waiting.add(id, reply) {
            return Err(Error::ended());
        }
        let _forget = Forget(&open.waiting, id);
        let request = SignStreamRequest {
            id,
            item: Some(item),
            timeout: tries.left().try_into().ok(),
        };
        if open.items.send(request).await.is_err() {
            return Err(Error::ended());
        }
        // An error says that the stream ended over it.
        answer.await.unwrap_or_else(|_| Err(Error::ended()))
    }

    /// The call there is, or a new one.
    async fn open(&self) -> Result<Open, Error> {
        let mut open = self.open.lock().await;
        if let Some(open) = open.as_ref().filter(|open| open.waiting.is_open()) {
            return Ok(open.clone());
        }
        let (items, stream) = mpsc::channel(AHEAD);
        let mut signer = self.client.signer.clone();
        let replies = signer.sign_stream(ReceiverStream::new(stream)).await?;
        let waiting = Waiting(Arc::new(Mutex::new(Some(HashMap::new()))));
        tokio::spawn(read(replies.into_inner(), waiting.clone()));
        Ok(open.insert(Open { items, waiting }).clone())
    }
}

/// Hands answers out until there are no more.
async fn read(mut replies: Streaming<SignStreamResponse>, waiting: Waiting) {
    let end = loop {
        match replies.message().await {
            Ok(Some(SignStreamResponse { id, outcome: found })) => {
                if let Some(reply) = waiting.take(id) {
                    let found = found.ok_or_else(|| Error::unexpected("no outcome"));
                    // Whoever gave up needs no answer.
                    let _ = reply.send(found.and_then(outcome));
                }
            }
            Ok(None) => break Error::ended(),
            Err(status) => break Error::from(status),
        }
    };
    for (_, reply) in waiting.close() {
        let _ = reply.send(Err(end.clone()));
    }
}

impl Waiting {
    /// Says whether answers still come.
    fn add(&self, id: u64, reply: Reply) -> bool {
        self.with(|waiting| {
            let waiting = waiting.as_mut()?;
            waiting.insert(id, reply);
            Some(())
        })
        .is_some()
    }

    fn take(&self, id: u64) -> Option<Reply> {
        self.with(|waiting| waiting.as_mut()?.remove(&id))
    }

    fn is_open(&self) -> bool {
        self.with(|waiting| waiting.is_some())
    }

    fn close(&self) -> HashMap<u64, Reply> {
        self.with(Option::take).unwrap_or_default()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<HashMap<u64, Reply>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whoever gives up leaves nothing behind.
struct Forget<'a>(&'a Waiting, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.take(self.1);
    }
}
