//! What callers may take up of the signing edge at a time.
//!
//! **Invariant:** no caller, with a rule or without one, keeps another out:
//! each may hold as much as it leaves to others. Those whom no rule names have
//! a part of their own, and find none in that of the others. And all of them
//! together make the agent no larger than [`Limits`] says: a place is taken
//! before the first byte of a request is read, room for its bytes as they
//! come, and both are given back when the last byte of the answer has gone to
//! the socket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;

use super::identity::Asker;
use super::status::Fault;
use crate::agent::callers::{Known, Open};
use crate::metrics::{Room as Figures, RoomOf};
use crate::policy::CallerId;
use crate::serve::Limits;
use crate::serve::lines::Lines;
use crate::serve::listener::Refused;
use crate::serve::shares::{Full, Share, Shares};

/// The part of everything that those whom no rule names have together: one in
/// so many.
const STRANGERS: usize = 8;

/// What a call takes besides the text of its header: where it stands in the
/// books of the connection.
const CALL: usize = 256;

/// Shares of everything that callers take up.
#[derive(Debug)]
pub(super) struct Room {
    named: Shared,
    strangers: Shared,
    figures: Figures,
    /// How often the log is told of each.
    pub(super) lines: Lines,
}

#[derive(Debug)]
struct Shared {
    connections: Arc<Shares<CallerId>>,
    calls: Arc<Shares<CallerId>>,
    streams: Arc<Shares<CallerId>>,
    bytes: Arc<Shares<CallerId>>,
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

impl Shared {
    /// One in `parts` of what the limits grant.
    fn new(limits: &Limits, parts: usize) -> Self {
        let shares = |all: usize| Shares::new(all.div_ceil(parts));
        Self {
            connections: shares(limits.connections),
            calls: shares(limits.in_flight),
            streams: shares(limits.long_lived),
            bytes: shares(limits.bytes),
        }
    }
}

impl Room {
    pub(super) fn new(limits: &Limits, figures: Figures) -> Arc<Self> {
        Arc::new(Self {
            named: Shared::new(limits, 1),
            strangers: Shared::new(limits, STRANGERS),
            figures,
            lines: Lines::default(),
        })
    }

    /// A place for one more connection of a caller, wherever it comes from.
    pub(super) fn connect(&self, known: &Known) -> Result<Share<CallerId>, Refused> {
        let place = self.of(known).connections.take(known.id(), 1);
        place.map_err(|full| {
            self.figures.turned_away(RoomOf::Connections);
            known.turned_away();
            Refused {
                reason: "TOO_MANY_CONNECTIONS",
                why: format!("{known} has {} connections already", full.own),
            }
        })
    }

    /// A place for a call of which nothing but the header is here, of so many
    /// bytes.
    pub(super) fn enter(
        self: &Arc<Self>,
        asker: &Asker,
        lasting: Lasting,
        header: usize,
    ) -> Result<Arc<Taken>, Fault> {
        let (id, shared) = (asker.known().id(), self.of(asker.known()));
        let place = match lasting {
            Lasting::Briefly => self.place(asker)?,
            Lasting::ForLong => {
                let place = shared.streams.take(id, 1);
                place.map_err(|full| self.full(asker, RoomOf::Streams, full))?
            }
        };
        let bytes = shared.bytes.take(id, header + CALL);
        let bytes = bytes.map_err(|full| self.full(asker, RoomOf::Bytes, full))?;
        Ok(Arc::new(Taken {
            _place: place,
            _open: asker.known().opens(),
            bytes: Mutex::new(bytes),
            room: Arc::clone(self),
            asker: asker.clone(),
        }))
    }

    /// A place for one item of many, as if it had come alone.
    pub(super) fn place(&self, asker: &Asker) -> Result<Share<CallerId>, Fault> {
        let known = asker.known();
        let place = self.of(known).calls.take(known.id(), 1);
        place.map_err(|full| self.full(asker, RoomOf::Calls, full))
    }

    fn of(&self, known: &Known) -> &Shared {
        match known.is_named() {
            true => &self.named,
            false => &self.strangers,
        }
    }

    fn full(&self, asker: &Asker, of: RoomOf, full: Full) -> Fault {
        self.figures.turned_away(of);
        asker.known().turned_away();
        let what = match of {
            RoomOf::Calls => "requests in flight",
            RoomOf::Streams => "streams and watches open",
            RoomOf::Bytes => "bytes of requests and answers here",
            RoomOf::Connections => "connections",
        };
        let Full { own, total } = full;
        // Of what others hold, nobody is to blame whom it hits.
        if own > 0 {
            asker.crowds(of, own);
        }
        Fault::overloaded(format!(
            "{asker} has {own} {what}, all callers have {total}; each leaves as many to others"
        ))
    }
}

impl Taken {
    /// Room for `n` more bytes.
    pub(super) fn grow(&self, n: usize) -> Result<(), Fault> {
        let grown = self.bytes().grow(n);
        grown.map_err(|full| self.room.full(&self.asker, RoomOf::Bytes, full))
    }

    /// `n` bytes are not needed any more.
    pub(super) fn shrink(&self, n: usize) {
        self.bytes().shrink(n);
    }

    /// None of the bytes so far is needed any more.
    pub(super) fn forget_request(&self) {
        let mut bytes = self.bytes();
        let n = bytes.n();
        bytes.shrink(n.saturating_sub(CALL));
    }

    /// Bytes of an answer, which take up room until they have gone to the
    /// socket: whoever sends them keeps them until then, and the call with
    /// them.
    pub(super) fn sending(self: &Arc<Self>, bytes: Bytes) -> Result<Bytes, Fault> {
        self.grow(bytes.len())?;
        let taken = Arc::clone(self);
        Ok(Bytes::from_owner(Sending { bytes, taken }))
    }

    fn bytes(&self) -> MutexGuard<'_, Share<CallerId>> {
        // Changed in one step each.
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sending {
    bytes: Bytes,
    taken: Arc<Taken>,
}

impl AsRef<[u8]> for Sending {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.taken.shrink(self.bytes.len());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;
    use crate::agent::callers::{Callers, tests::rules};
    use crate::clock::SystemClock;
    use crate::durable::BlockList;
    use crate::durable::sim::SimDisk;
    use crate::metrics::Metrics;
    use crate::policy::Caller;

    struct House {
        room: Arc<Room>,
        callers: Arc<Callers>,
    }

    impl House {
        fn new(limits: &Limits) -> Self {
            let list = BlockList::open(Arc::new(SimDisk::new()), "/callers").unwrap();
            Self {
                room: Room::new(limits, Metrics::new().room("signing")),
                callers: Callers::open(Arc::new(SystemClock::new()), list, vec![rules()]),
            }
        }

        /// The rules are about the users 1 and 2.
        fn asker(&self, uid: u32) -> Asker {
            let caller = Caller::Unix {
                uid,
                gid: 9,
                groups: [].into(),
                pid: None,
            };
            Asker::enter(&self.callers, &self.room, caller, None).known
        }

        /// As many as there is room for.
        fn fill(&self, asker: &Asker, lasting: Lasting) -> Vec<Arc<Taken>> {
            let enter = || self.room.enter(asker, lasting, 0).ok();
            std::iter::from_fn(enter).collect()
        }
    }

    /// Found by review: eleven callers, eight of them without a rule, left no
    /// stream to one with a rule.
    #[test]
    fn those_whom_no_rule_names_take_nothing_of_the_others() {
        let house = House::new(&Limits::default());
        for lasting in [Lasting::ForLong, Lasting::Briefly] {
            let crowd: Vec<_> = (1000..1100).map(|uid| house.asker(uid)).collect();
            let held: Vec<_> = crowd.iter().map(|one| house.fill(one, lasting)).collect();
            let all: usize = held.iter().map(Vec::len).sum();
            let limits = Limits::default();
            let most = match lasting {
                Lasting::ForLong => limits.long_lived,
                Lasting::Briefly => limits.in_flight,
            };
            assert_eq!(all, most / 8);
            // Nothing of it is missing to whom a rule names.
            assert_eq!(house.fill(&house.asker(1), lasting).len(), most / 2);
        }
    }

    /// Found by review: they were counted by address alone.
    #[test]
    fn a_caller_leaves_connections_to_others_wherever_it_comes_from() {
        let house = House::new(&Limits {
            connections: 8,
            ..Limits::default()
        });
        let (first, other) = (house.asker(1), house.asker(2));
        let mut places = Vec::new();
        let full = loop {
            match house.room.connect(first.known()) {
                Ok(place) => places.push(place),
                Err(refused) => break refused,
            }
        };
        // Its own, and that of the other, are among the eight.
        assert_eq!(places.len() + 1, 4);
        assert_eq!(full.reason, "TOO_MANY_CONNECTIONS");
        house.room.connect(other.known()).unwrap();
    }

    #[test]
    fn a_call_takes_the_bytes_of_its_header_request_and_answer() {
        let limits = Limits {
            bytes: 10_000,
            ..Limits::default()
        };
        let house = House::new(&limits);
        let asker = house.asker(1);
        let taken = house.room.enter(&asker, Lasting::Briefly, 1000).unwrap();
        taken.grow(3500).unwrap();
        taken.grow(500).unwrap_err();
        // The answer is there; the request is not needed any more.
        taken.forget_request();
        let answer = taken.sending(Bytes::from(vec![0; 4500])).unwrap();
        taken.sending(Bytes::from(vec![0; 500])).unwrap_err();
        // Its bytes are kept by whoever sends them, in parts too.
        let rest = answer.slice(4000..);
        drop((answer, taken));
        assert!(house.fill(&asker, Lasting::Briefly).is_empty());
        drop(rest);
        assert!(house.fill(&asker, Lasting::Briefly).len() > 10);
    }
}
