//! How often a line of the log may be about the same peer.

use std::sync::{Mutex, PoisonError};

use crate::clock;
use crate::policy::{Limiter, Rate};
use crate::time::Span;

/// Of one peer: a jail counts a handful within minutes.
const EACH: Rate = Rate {
    count: 10,
    per: Span::from_secs(1),
    burst: 20,
};

/// Of all together: some 100 KB a second, whoever asks.
const ALL: Rate = Rate {
    count: 200,
    per: Span::from_secs(1),
    burst: 400,
};

/// Bounds what peers can make of the log: so many lines about each, and so
/// many about all of them. Every refusal is counted whether it is told or not.
#[derive(Debug)]
pub(super) struct Lines(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    each: Limiter,
    all: Limiter,
    left_out: u64,
}

/// For [`Lines::admit`].
pub(super) fn now() -> Span {
    clock::monotonic().into()
}

impl Default for Lines {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            each: Limiter::new(EACH),
            all: Limiter::new(ALL),
            left_out: 0,
        }))
    }
}

impl Lines {
    /// Whether a line about `whom` is written; and then how many about anybody
    /// were left out since the last that was. `now` is time since any fixed
    /// instant.
    pub(super) fn admit(&self, whom: &str, now: Span) -> Option<u64> {
        // Plain data: a panic elsewhere cannot have left it torn.
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = inner.each.take(whom, now).is_ok() && inner.all.take("", now).is_ok();
        if written {
            return Some(std::mem::take(&mut inner.left_out));
        }
        inner.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(lines: &Lines, whom: &str, asked: usize, at: u32) -> (usize, u64) {
        let told = (0..asked).filter_map(|_| lines.admit(whom, Span::from_millis(at)));
        told.fold((0, 0), |(n, left), more| (n + 1, left + more))
    }

    #[test]
    fn a_flood_of_one_is_a_few_lines_and_hides_nobody() {
        let lines = Lines::default();
        assert_eq!(written(&lines, "a", 1000, 0), (20, 0));
        assert_eq!(written(&lines, "b", 1, 0), (1, 980));
        // And ten a second from then on.
        assert_eq!(written(&lines, "a", 1000, 1000), (10, 0));
        assert_eq!(written(&lines, "a", 1000, 2000), (10, 990));
    }

    #[test]
    fn a_flood_of_many_is_bounded_too() {
        let lines = Lines::default();
        let told = (0..1000).filter(|n| lines.admit(&n.to_string(), Span::ZERO).is_some());
        assert_eq!(told.count(), 400);
        let later = Span::from_secs(1);
        let told = (0..1000).filter(|n| lines.admit(&n.to_string(), later).is_some());
        assert_eq!(told.count(), 200);
    }
}
