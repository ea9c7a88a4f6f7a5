//! How many signatures a rule grants each of its callers.
//!
//! Time is an argument: a reading of a clock that never runs backwards, since
//! a wall clock that steps would lock callers out, or let them flood.

use std::collections::BTreeMap;

use crate::time::Span;

/// How many callers of one rule have an allowance of their own. Those beyond
/// share one, so that no number of callers makes memory grow, and none gets
/// more than the rule grants.
const CALLERS: usize = 1024;

/// The most signatures in one period, and at once.
pub(super) const MOST: u32 = 1_000_000;

/// Signatures over time: `count` in each `per`, evenly, and up to `burst` of
/// them at once by whoever asked for none in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// 1 to 1,000,000.
    pub count: u32,
    /// 1 ms to 1 day.
    pub per: Span,
    /// 1 to 1,000,000.
    pub burst: u32,
}

impl Rate {
    /// What is wrong with it, with values.
    pub(super) fn problem(&self) -> Option<String> {
        let Self { count, per, burst } = *self;
        if !(1..=MOST).contains(&count) {
            return Some(format!("expected a count of 1 to {MOST}, got {count}"));
        }
        if !(1..=MOST).contains(&burst) {
            return Some(format!("expected a burst of 1 to {MOST}, got {burst}"));
        }
        if per < Span::from_millis(1) || per > Span::from_days(1) {
            return Some(format!("expected a period of 1ms to 1day, got {per}"));
        }
        None
    }
}

/// Who has used how much of a [`Rate`]: the generic cell rate algorithm, exact
/// to the millisecond of its clock.
///
/// Invariant: it knows at most 1024 callers; those beyond share one allowance.
#[derive(Clone, Debug)]
pub struct Limiter {
    rate: Rate,
    callers: BTreeMap<String, Arrival>,
    /// Of all callers beyond those.
    others: Arrival,
    /// Nobody in `callers` has a whole allowance again before this.
    sweep: Arrival,
}

/// When a caller who kept to the even rate would ask next (the *theoretical
/// arrival time*), in milliseconds times [`Rate::count`]: so no division
/// rounds.
type Arrival = u128;

impl Limiter {
    /// Nobody has used anything.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self {
            rate,
            callers: BTreeMap::new(),
            others: 0,
            sweep: 0,
        }
    }

    /// Takes one signature of `caller`'s allowance. `now` is time since any
    /// fixed instant.
    ///
    /// # Errors
    /// After how long one is there again, to the millisecond; nothing was
    /// taken.
    pub fn take(&mut self, caller: &str, now: Span) -> Result<(), Span> {
        let Rate { count, per, burst } = self.rate;
        let count = u128::from(count);
        let scaled = |span: Span| u128::from(span.as_millis().unsigned_abs());
        let now = scaled(now) * count;
        let interval = scaled(per);
        let due = self.arrival(caller, now);
        let next = (*due).max(now) + interval;
        let furthest = now + interval * u128::from(burst);
        if next > furthest {
            let ms = (next - furthest).div_ceil(count);
            return Err(Span::from_millis(u32::try_from(ms).unwrap_or(u32::MAX)));
        }
        *due = next;
        Ok(())
    }

    /// Gives back one signature that was taken and not made. Callers who share
    /// an allowance get none back: they have had less than they might.
    pub fn give_back(&mut self, caller: &str) {
        if let Some(due) = self.callers.get_mut(caller) {
            *due = due.saturating_sub(u128::from(self.rate.per.as_millis().unsigned_abs()));
        }
    }

    fn arrival(&mut self, caller: &str, now: Arrival) -> &mut Arrival {
        if self.callers.contains_key(caller) {
            // Twice looked up, because a borrow cannot be returned from one
            // branch and given up in the other.
            return self.callers.entry(caller.to_owned()).or_default();
        }
        if self.callers.len() >= CALLERS && now >= self.sweep {
            // Whose arrival has passed is as good as unknown.
            self.callers.retain(|_, due| *due > now);
            self.sweep = self.callers.values().min().copied().unwrap_or_default();
        }
        if self.callers.len() >= CALLERS {
            return &mut self.others;
        }
        self.callers.entry(caller.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u32) -> Span {
        Span::from_millis(ms)
    }

    const TEN_A_SECOND: Rate = Rate {
        count: 10,
        per: Span::from_secs(1),
        burst: 3,
    };

    #[test]
    fn a_burst_and_then_an_even_pace() {
        let mut limiter = Limiter::new(TEN_A_SECOND);
        let mut take = |at: u32| limiter.take("a", ms(at));
        for _ in 0..3 {
            assert_eq!(take(5000), Ok(()));
        }
        assert_eq!(take(5000), Err(ms(100)));
        assert_eq!(take(5001), Err(ms(99)));
        assert_eq!(take(5100), Ok(()));
        assert_eq!(take(5100), Err(ms(100)));
        // Two periods later there are two.
        assert_eq!(take(5300), Ok(()));
        assert_eq!(take(5300), Ok(()));
        assert_eq!(take(5300), Err(ms(100)));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let mut limiter = Limiter::new(TEN_A_SECOND);
        limiter.give_back("a");
        for _ in 0..3 {
            assert_eq!(limiter.take("a", ms(5000)), Ok(()));
        }
        limiter.give_back("a");
        limiter.give_back("b");
        assert_eq!(limiter.take("a", ms(5000)), Ok(()));
        assert_eq!(limiter.take("a", ms(5000)), Err(ms(100)));
    }

    #[test]
    fn callers_do_not_use_each_others_up() {
        let mut limiter = Limiter::new(Rate {
            burst: 1,
            ..TEN_A_SECOND
        });
        assert_eq!(limiter.take("a", ms(0)), Ok(()));
        assert_eq!(limiter.take("b", ms(0)), Ok(()));
        assert_eq!(limiter.take("a", ms(0)), Err(ms(100)));
    }

    /// Callers beyond the bound share one allowance; nobody gets more by
    /// sending more callers, and nobody's place is taken from them.
    #[test]
    fn the_callers_that_are_known_are_bounded() {
        let mut limiter = Limiter::new(Rate {
            count: 1,
            per: Span::from_secs(1),
            burst: 1,
        });
        for n in 0..CALLERS {
            assert_eq!(limiter.take(&n.to_string(), ms(0)), Ok(()));
        }
        assert_eq!(limiter.take("one more", ms(0)), Ok(()));
        for n in 0..1000 {
            let stranger = format!("stranger {n}");
            assert_eq!(limiter.take(&stranger, ms(999)), Err(ms(1)));
        }
        assert_eq!(limiter.take("0", ms(999)), Err(ms(1)));
        assert_eq!(limiter.callers.len(), CALLERS);
        // When their allowances are whole again, places are free.
        assert_eq!(limiter.take("stranger", ms(1000)), Ok(()));
        assert_eq!(limiter.take("stranger 2", ms(1000)), Ok(()));
        assert_eq!(limiter.callers.len(), 2);
    }

    #[test]
    fn rates_without_sense_are_named() {
        assert_eq!(TEN_A_SECOND.problem(), None);
        for (count, per, burst, what) in [
            (0, ms(1), 1, "count"),
            (MOST + 1, ms(1), 1, "count"),
            (1, ms(1), 0, "burst"),
            (1, ms(1), MOST + 1, "burst"),
            (1, Span::ZERO, 1, "period"),
            (1, Span::from_days(2), 1, "period"),
        ] {
            let said = Rate { count, per, burst }.problem().unwrap_or_default();
            assert!(said.contains(what), "{said}");
        }
    }

    proptest! {
        /// In no stretch of time is more granted than the burst and the even
        /// pace; and the delay that is told is exact.
        #[test]
        fn never_more_than_granted_and_the_delay_is_exact(
            count in 1_u32..500,
            per in 1_u32..5_000,
            burst in 1_u32..50,
            steps in proptest::collection::vec(0_u32..200, 1..200),
        ) {
            let rate = Rate { count, per: ms(per), burst };
            let mut limiter = Limiter::new(rate);
            let (mut now, mut granted) = (1_000_000_u32, Vec::new());
            for step in steps {
                now += step;
                match limiter.take("a", ms(now)) {
                    Ok(()) => granted.push(now),
                    Err(wait) => {
                        let wait = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
                        prop_assert!(wait >= 1);
                        let early = limiter.clone().take("a", ms(now + wait - 1));
                        prop_assert!(early.is_err(), "1 ms before: {early:?}");
                        prop_assert_eq!(limiter.clone().take("a", ms(now + wait)), Ok(()));
                    }
                }
            }
            for (first, from) in granted.iter().enumerate() {
                for (last, to) in granted.iter().enumerate().skip(first) {
                    let got = (last - first + 1) as u64;
                    let pace = u64::from(to - from) * u64::from(count) / u64::from(per);
                    prop_assert!(got <= u64::from(burst) + pace, "{got} in {} ms", to - from);
                }
            }
        }
    }
}
