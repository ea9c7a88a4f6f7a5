//! What callers may take up of the signing edge at a time.
//!
//! **Invariant:** no caller, with a rule or without one, keeps another out:
//! each may hold as much as it leaves to all others. And all of them together
//! make the agent no larger than [`Limits`] says: a place is taken before the
//! first byte of a request is read, and room for its bytes as they come.

use std::sync::{Arc, Mutex, PoisonError};

use super::identity::Asker;
use super::status::Fault;
use crate::agent::callers::Open;
use crate::metrics::{Room as Figures, RoomOf};
use crate::policy::CallerId;
use crate::serve::Limits;
use crate::serve::shares::{Each, Full, Share, Shares};

/// Shares of everything that a call takes up.
#[derive(Debug)]
pub(super) struct Room {
    calls: Arc<Shares<CallerId>>,
    streams: Arc<Shares<CallerId>>,
    bytes: Arc<Shares<CallerId>>,
    figures: Figures,
}

/// How long a call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// Until it is answered.
    Briefly,
    /// Until somebody ends it: streams of signatures, and what watches.
    ForLong,
}

/// What one call takes up, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    _place: Share<CallerId>,
    _open: Open,
    bytes: Mutex<Share<CallerId>>,
    room: Arc<Room>,
    asker: Asker,
}

impl Room {
    pub(super) fn new(limits: &Limits, figures: Figures) -> Arc<Self> {
        let shares = |all| Shares::new(all, Each::AsMuchAsIsLeft);
        Arc::new(Self {
            calls: shares(limits.in_flight),
            streams: shares(limits.long_lived),
            bytes: shares(limits.bytes),
            figures,
        })
    }

    /// A place for a call of which nothing but the header is here.
    pub(super) fn enter(
        self: &Arc<Self>,
        asker: &Asker,
        lasting: Lasting,
    ) -> Result<Arc<Taken>, Fault> {
        let id = asker.known().id();
        let place = match lasting {
            Lasting::Briefly => self.place(asker)?,
            Lasting::ForLong => (self.streams.take(id, 1))
                .map_err(|full| self.full(asker, RoomOf::Streams, full))?,
        };
        let none =
            (self.bytes.take(id, 0)).map_err(|full| self.full(asker, RoomOf::Bytes, full))?;
        Ok(Arc::new(Taken {
            _place: place,
            _open: asker.known().opens(),
            bytes: Mutex::new(none),
            room: Arc::clone(self),
            asker: asker.clone(),
        }))
    }

    /// A place for one item of many, as if it had come alone.
    pub(super) fn place(&self, asker: &Asker) -> Result<Share<CallerId>, Fault> {
        let place = self.calls.take(asker.known().id(), 1);
        place.map_err(|full| self.full(asker, RoomOf::Calls, full))
    }

    fn full(&self, asker: &Asker, of: RoomOf, full: Full) -> Fault {
        self.figures.turned_away(of);
        let what = match of {
            RoomOf::Calls => "requests in flight",
            RoomOf::Streams => "streams and watches open",
            RoomOf::Bytes => "bytes of requests here",
        };
        asker.crowds(of, full.own);
        let Full { own, total } = full;
        Fault::overloaded(format!(
            "{asker} has {own} {what}, of {total} in all, and has to leave as many to others"
        ))
    }
}

impl Taken {
    /// Room for `n` more bytes of the request.
    pub(super) fn grow(&self, n: usize) -> Result<(), Fault> {
        let grown = self.bytes().grow(n);
        grown.map_err(|full| self.room.full(&self.asker, RoomOf::Bytes, full))
    }

    /// `n` bytes of it are not needed any more.
    pub(super) fn shrink(&self, n: usize) {
        self.bytes().shrink(n);
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Share<CallerId>> {
        // Changed in one step each.
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
