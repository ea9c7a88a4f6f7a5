//! Bodies whose bytes take up room: a request's as they come, an answer's until
//! they have gone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::room::Taken;
use super::status::Fault;

/// A body, each frame of which is measured before it goes on. What finds no
/// room ends it.
pub(super) struct Through<M> {
    body: Body,
    meter: M,
}

/// What a frame costs, and what becomes of it.
pub(super) trait Meter {
    /// The frame as it goes on.
    fn pass(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Fault>;
}

/// The bytes of a request's body, counted against a caller's room.
pub(super) type Metered = Through<Coming>;

/// The bytes of an answer, counted against its caller's room until they have
/// gone to the socket: a peer that does not read keeps what it asked for here.
pub(super) type Answer = Through<Going>;

/// Measures a request.
pub(super) struct Coming {
    taken: Arc<Taken>,
    frames: Frames,
    read: Read,
}

/// Measures an answer.
pub(super) struct Going {
    taken: Arc<Taken>,
}

/// The sizes of the messages that were read and not taken up, in order, each
/// with its prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct Read(Arc<Mutex<VecDeque<usize>>>);

impl Metered {
    pub(super) fn new(body: Body, taken: Arc<Taken>, read: Read) -> Self {
        let meter = Coming {
            taken,
            frames: Frames::default(),
            read,
        };
        Self { body, meter }
    }
}

impl Answer {
    pub(super) const fn new(body: Body, taken: Arc<Taken>) -> Self {
        let meter = Going { taken };
        Self { body, meter }
    }
}

impl Read {
    /// The size of the next message that a handler is given.
    pub(super) fn next(&self) -> usize {
        self.sizes().pop_front().unwrap_or_default()
    }

    fn sizes(&self) -> std::sync::MutexGuard<'_, VecDeque<usize>> {
        // Changed in one step each.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter for Coming {
    fn pass(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Fault> {
        if let Some(data) = frame.data_ref() {
            self.taken.grow(data.len())?;
            let Self { frames, read, .. } = self;
            frames.read(data, |size| read.sizes().push_back(size));
        }
        Ok(frame)
    }
}

impl Meter for Going {
    fn pass(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Fault> {
        match frame.into_data() {
            Ok(bytes) => self.taken.sending(bytes).map(Frame::data),
            Err(trailers) => Ok(trailers),
        }
    }
}

impl<M: Meter + Unpin> HttpBody for Through<M> {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(frame)) => frame?,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        // Tonic looks for a status among the causes of a request's end. An
        // answer's stream is reset: there is no room to say why.
        let passed = self.meter.pass(frame);
        Poll::Ready(Some(passed.map_err(|fault| fault.into_status().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where in its messages a body is: each comes after a byte for its
/// compression and four for its length (gRPC over HTTP/2,
/// `Length-Prefixed-Message`).
#[derive(Debug, Default)]
struct Frames {
    prefix: Vec<u8>,
    /// What is missing of the message that has begun, and its whole size.
    begun: Option<(usize, usize)>,
}

const PREFIX: usize = 5;

impl Frames {
    /// Reads on, and says the size of each message that is whole now.
    fn read(&mut self, mut bytes: &[u8], mut whole: impl FnMut(usize)) {
        while !bytes.is_empty() || self.begun.is_some_and(|(left, _)| left == 0) {
            if let Some((left, size)) = &mut self.begun {
                let now = bytes.len().min(*left);
                (*left, bytes) = (*left - now, &bytes[now..]);
                if *left == 0 {
                    whole(*size);
                    self.begun = None;
                }
                continue;
            }
            let now = bytes.len().min(PREFIX - self.prefix.len());
            let (head, rest) = bytes.split_at(now);
            self.prefix.extend_from_slice(head);
            bytes = rest;
            if let [_, length @ ..] = self.prefix.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                // Tonic refuses what is longer than it may be.
                let length = u32::from_be_bytes(length) as usize;
                self.begun = Some((length, PREFIX + length));
                self.prefix.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).expect("small").to_be_bytes());
        bytes.extend(vec![7; length]);
        bytes
    }

    #[test]
    fn messages_are_told_apart_wherever_the_bytes_are_cut() {
        let sizes = [0, 3, 0, 300, 1, 0];
        let body: Vec<u8> = sizes.iter().flat_map(|size| message(*size)).collect();
        for step in 1..=body.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for bytes in body.chunks(step) {
                frames.read(bytes, |size| seen.push(size - PREFIX));
            }
            assert_eq!(seen, sizes, "{step} bytes at a time");
        }
    }

    #[test]
    fn what_is_not_whole_is_not_told() {
        let mut frames = Frames::default();
        let body = message(10);
        frames.read(&body[..14], |size| panic!("{size}"));
        let mut seen = None;
        frames.read(&body[14..], |size| seen = Some(size));
        assert_eq!(seen, Some(15));
    }
}
