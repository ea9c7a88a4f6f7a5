//! How many connections each source holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Limits;
use super::listener::{Refused, Source};

/// Connections by source.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<HashMap<Source, Held>>);

#[derive(Debug, Default)]
struct Held {
    /// All connections.
    connections: usize,
    /// Those among them whose peer is not known yet.
    unknown: usize,
}

/// A connection's place among those of its source, for as long as it is held.
#[derive(Debug)]
pub(super) struct Place {
    sources: Arc<Sources>,
    source: Option<Source>,
    known: bool,
}

impl Sources {
    /// A place for a connection whose peer is not known yet.
    pub(super) fn admit(
        self: &Arc<Self>,
        source: Option<Source>,
        limits: &Limits,
    ) -> Result<Place, Refused> {
        if let Some(source) = source {
            let mut all = self.lock();
            let held = all.entry(source).or_default();
            if held.connections >= limits.connections_per_peer {
                return Err(Refused {
                    reason: "TOO_MANY_CONNECTIONS",
                    why: format!("the peer has {} connections already", held.connections),
                });
            }
            if held.unknown >= limits.handshakes_per_peer {
                return Err(Refused {
                    reason: "TOO_MANY_HANDSHAKES",
                    why: format!("the peer has {} handshakes in progress", held.unknown),
                });
            }
            held.connections += 1;
            held.unknown += 1;
        }
        Ok(Place {
            sources: Arc::clone(self),
            source,
            known: false,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Source, Held>> {
        // Counts are changed in one step each.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The peer is known now.
    pub(super) fn known(&mut self) {
        if let (Some(source), false) = (self.source, self.known)
            && let Some(held) = self.sources.lock().get_mut(&source)
        {
            held.unknown -= 1;
        }
        self.known = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.known();
        let Some(source) = self.source else { return };
        let mut all = self.sources.lock();
        if let Some(held) = all.get_mut(&source) {
            held.connections -= 1;
            if held.connections == 0 {
                all.remove(&source);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let limits = Limits {
            connections_per_peer: 3,
            handshakes_per_peer: 2,
            ..Limits::default()
        };
        let sources = Arc::<Sources>::default();
        let admit = |n| sources.admit(Some(Source::User(n)), &limits);
        let reason = |n| admit(n).unwrap_err().reason;
        let mut first = admit(1).unwrap();
        let second = admit(1).unwrap();
        assert_eq!(reason(1), "TOO_MANY_HANDSHAKES");
        first.known();
        first.known();
        let third = admit(1).unwrap();
        assert_eq!(reason(1), "TOO_MANY_CONNECTIONS");
        // Another peer has places of its own.
        let other = admit(2).unwrap();
        drop(second);
        let fourth = admit(1).unwrap();
        assert_eq!(reason(1), "TOO_MANY_CONNECTIONS");
        drop((first, third, fourth, other));
        assert!(sources.lock().is_empty());

        // Of whom nobody can be told apart, any number.
        let crowd: Vec<_> = (0..10).map(|_| sources.admit(None, &limits)).collect();
        assert!(crowd.iter().all(Result::is_ok));
    }
}
