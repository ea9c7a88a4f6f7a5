//! How many connections each source holds.

use std::sync::Arc;

use super::Limits;
use super::listener::{Refused, Source};
use super::shares::{Share, Shares};

/// Connections by source.
#[derive(Debug)]
pub(super) struct Sources {
    /// All connections.
    connections: Arc<Shares<Source>>,
    /// Those among them whose peer is not known yet.
    unknown: Arc<Shares<Source>>,
}

/// A connection's place among those of its source, for as long as it is held.
#[derive(Debug)]
pub(super) struct Place {
    _connection: Option<Share<Source>>,
    unknown: Option<Share<Source>>,
}

impl Sources {
    /// Nobody has connected. Each may have as many connections as it leaves to
    /// others; and where no proxy may stand in front, so that one address is
    /// one peer, no more than the limits grant one.
    pub(super) fn new(limits: &Limits, behind_proxy: bool) -> Self {
        Self {
            connections: match behind_proxy {
                true => Shares::new(limits.connections),
                false => Shares::capped(limits.connections, limits.connections_per_peer),
            },
            unknown: Shares::capped(limits.handshakes, limits.handshakes_per_peer),
        }
    }

    /// A place for a connection whose peer is not known yet.
    pub(super) fn admit(&self, source: Option<Source>) -> Result<Place, Refused> {
        let Some(source) = source else {
            return Ok(Place {
                _connection: None,
                unknown: None,
            });
        };
        let connection = self.connections.take(&source, 1).map_err(|full| Refused {
            reason: "TOO_MANY_CONNECTIONS",
            why: format!("the peer has {} connections already", full.own),
        })?;
        let unknown = self.unknown.take(&source, 1).map_err(|full| Refused {
            reason: "TOO_MANY_HANDSHAKES",
            why: format!("the peer has {} handshakes in progress", full.own),
        })?;
        Ok(Place {
            _connection: Some(connection),
            unknown: Some(unknown),
        })
    }
}

impl Place {
    /// The peer is known now.
    pub(super) fn known(&mut self) {
        self.unknown = None;
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
        let sources = Sources::new(&limits, false);
        let admit = |n| sources.admit(Some(Source::User(n)));
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
        admit(1).unwrap();

        // Of whom nobody can be told apart, any number.
        let crowd: Vec<_> = (0..10).map(|_| sources.admit(None)).collect();
        assert!(crowd.iter().all(Result::is_ok));
    }

    #[test]
    fn behind_a_proxy_an_address_leaves_room_for_others() {
        let limits = Limits {
            connections: 100,
            connections_per_peer: 3,
            ..Limits::default()
        };
        let sources = Sources::new(&limits, true);
        let all_of = |n| {
            let admit = || {
                let mut place = sources.admit(Some(Source::User(n))).ok()?;
                place.known();
                Some(place)
            };
            std::iter::from_fn(admit).collect::<Vec<_>>()
        };
        let first = all_of(1);
        assert_eq!(first.len(), 50);
        assert_eq!(all_of(2).len(), 25);
    }
}
