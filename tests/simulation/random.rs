//! Randomness that a seed repeats to the bit, on every machine.

use sealkeeper::time::Span;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number under `n`, which is not zero.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).expect("no collection is larger");
        usize::try_from(self.next() % n).expect("it is below n")
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = u64::try_from(high - low).expect("low is not above high") + 1;
        low + i64::try_from(self.next() % width).expect("it is below the width")
    }

    /// True `per_mille` times of a thousand.
    pub(crate) fn chance(&mut self, per_mille: i64) -> bool {
        self.between(0, 999) < per_mille
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len())])
    }

    /// A span from `low` to `high`; often one of the two, where mistakes live.
    pub(crate) fn span(&mut self, low: Span, high: Span) -> Span {
        let (low, high) = (low.as_millis(), high.as_millis().max(low.as_millis()));
        millis(match self.below(8) {
            0 => low,
            1 => high,
            _ => self.between(low, high),
        })
    }
}

/// A span of any length; the type's own constructors stop at 49 days.
pub(crate) fn millis(ms: i64) -> Span {
    let days = u32::try_from(ms / 86_400_000).expect("not negative, and within millennia");
    let rest = u32::try_from(ms % 86_400_000).expect("less than a day");
    Span::from_days(days) + Span::from_millis(rest)
}
