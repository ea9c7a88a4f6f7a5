//! Replies on their way to the daemon.

use std::io::Write;
use std::mem;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::{complain, leave};
use crate::hsm::frame;
use crate::hsm::message::Reply;

/// Whoever finishes first writes for all: there is no writer thread to wake,
/// and replies that come while one is being written leave together in the
/// next write.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Mutex<Vec<Reply>>,
    socket: Mutex<UnixStream>,
}

impl Outbox {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            waiting: Mutex::default(),
            socket: Mutex::new(socket),
        }
    }

    /// Sends a reply, now or together with the next.
    pub(super) fn send(&self, reply: Reply) {
        self.waiting().push(reply);
        // **Invariant:** no reply stays behind. Whoever fails to get the
        // socket pushed before its holder gives it back, and the holder looks
        // again after that.
        while !self.waiting().is_empty() {
            let mut socket = match self.socket.try_lock() {
                Ok(socket) => socket,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let batch = mem::take(&mut *self.waiting());
            if batch.is_empty() {
                continue;
            }
            let mut bytes = Vec::new();
            if let Err(e) =
                frame::encode(&batch, &mut bytes).and_then(|()| socket.write_all(&bytes))
            {
                // The daemon is gone, or cannot be told: it will start another.
                complain(&format!("cannot reply: {e}"));
                leave(1)
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Reply>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
