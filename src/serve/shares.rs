//! Shares of something that all callers have together.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So much of something, and who has how much of it.
///
/// **Invariant:** each may hold as much as is left for all others, and no
/// more: one alone gets half, and `n` who take all they can leave one part in
/// `n + 1`.
#[derive(Debug)]
pub(super) struct Shares<K> {
    all: usize,
    each: usize,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    total: usize,
    by: HashMap<K, usize>,
}

/// What one holds, until it is dropped.
#[derive(Debug)]
pub(super) struct Share<K: Eq + Hash> {
    shares: Arc<Shares<K>>,
    who: K,
    n: usize,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// What the one who asked holds of it.
    pub(super) own: usize,
    /// What all hold.
    pub(super) total: usize,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// Of `all`, which nobody holds yet.
    pub(super) fn new(all: usize) -> Arc<Self> {
        Self::capped(all, usize::MAX)
    }

    /// The same, of which each may hold `each` besides.
    pub(super) fn capped(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            all,
            each,
            held: Mutex::new(Held {
                total: 0,
                by: HashMap::new(),
            }),
        })
    }

    /// A share of `n` for `who`.
    pub(super) fn take(self: &Arc<Self>, who: &K, n: usize) -> Result<Share<K>, Full> {
        let mut share = Share {
            shares: Arc::clone(self),
            who: who.clone(),
            n: 0,
        };
        share.grow(n)?;
        Ok(share)
    }

    fn lock(&self) -> MutexGuard<'_, Held<K>> {
        // Nothing below the lock can panic half-way through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Share<K> {
    /// Takes `n` more, or nothing.
    pub(super) fn grow(&mut self, n: usize) -> Result<(), Full> {
        let Shares { all, each, .. } = *self.shares;
        let mut held = self.shares.lock();
        let (own, left) = (held.of(&self.who), all.saturating_sub(held.total));
        // Of an odd number, one may have the odd one.
        if n > left || own + n > each || own + n > left - n + 1 {
            let total = held.total;
            return Err(Full { own, total });
        }
        if n > 0 {
            held.total += n;
            *held.by.entry(self.who.clone()).or_default() += n;
            self.n += n;
        }
        Ok(())
    }
}

impl<K: Eq + Hash> Share<K> {
    /// How much it is.
    pub(super) const fn n(&self) -> usize {
        self.n
    }

    /// Gives `n` back, or all of it where it is less.
    pub(super) fn shrink(&mut self, n: usize) {
        let n = n.min(self.n);
        self.n -= n;
        // Nothing below the lock can panic half-way through a change.
        let mut held = (self.shares.held.lock()).unwrap_or_else(PoisonError::into_inner);
        held.total -= n;
        if let Some(own) = held.by.get_mut(&self.who) {
            *own -= n;
            if *own == 0 {
                held.by.remove(&self.who);
            }
        }
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        self.shrink(self.n);
    }
}

impl<K: Eq + Hash> Held<K> {
    fn of(&self, who: &K) -> usize {
        self.by.get(who).copied().unwrap_or_default()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;

    /// Takes one after the other until there is no room.
    fn fill(shares: &Arc<Shares<u32>>, who: u32) -> Vec<Share<u32>> {
        std::iter::from_fn(|| shares.take(&who, 1).ok()).collect()
    }

    #[test]
    fn one_alone_gets_half_and_each_newcomer_finds_room() {
        let shares = Shares::new(1000);
        let mut crowd = Vec::new();
        for (who, most) in [(1, 500), (2, 250), (3, 125), (4, 63)] {
            let got = fill(&shares, who);
            assert_eq!(got.len(), most, "of {who}");
            crowd.push(got);
        }
        // Whoever is over what is left gets no more until it gives back.
        assert_eq!(
            shares.take(&1, 1).unwrap_err(),
            Full {
                own: 500,
                total: 938
            }
        );
        crowd.clear();
        assert_eq!(fill(&shares, 4).len(), 500);
        assert!(shares.lock().by.is_empty());
        assert_eq!(shares.lock().total, 0);
    }

    #[test]
    fn a_number_for_each_bounds_them_besides() {
        let shares = Shares::capped(10, 3);
        let first = fill(&shares, 1);
        let second = fill(&shares, 2);
        assert_eq!((first.len(), second.len()), (3, 3));
        // And however many there are, somebody else finds room.
        let third = fill(&shares, 3);
        assert_eq!(third.len(), 2);
        assert_eq!(fill(&shares, 4).len(), 1);
    }

    #[test]
    fn a_share_grows_whole_and_shrinks_to_nothing() {
        let shares = Shares::new(100);
        let mut share = shares.take(&1, 0).unwrap();
        share.grow(40).unwrap();
        share.grow(11).unwrap_err();
        share.grow(10).unwrap();
        assert_eq!(shares.lock().total, 50);
        share.shrink(30);
        share.shrink(70);
        assert!(shares.lock().by.is_empty());
        share.grow(50).unwrap();
        drop(share);
        assert_eq!(shares.lock().total, 0);
        // What can never fit takes nothing from anybody.
        shares.take(&2, 101).unwrap_err();
        assert!(shares.lock().by.is_empty());
    }
}
