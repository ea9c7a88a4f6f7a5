//! The specification of rotation: seven numbered inequalities and their named
//! exceptions, one function each, one test of the same name each.
//!
//! The letters: C verifier cache, P propagation, S skew, L longest token
//! lifetime, R adoption by replicas, Q signing deadline, B rollback window
//! ([`Timing`] has them). Everything that decides *when* in this floor asks
//! one of these functions, so a rule is read, and changed, in one place.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::{Anchor, Doubt};
use super::key::Half;
use super::set::Genesis;
use super::timing::{HardLimit, Timing};
use crate::time::{Span, Time};

/// Rule 1, pre-publish: the earliest activation of a key that has been in the
/// set of every origin since `observed_everywhere`: `+ P + C + S`.
///
/// Why: a verifier may have fetched the set just before the key reached its
/// nearest cache, and keeps it for C. Nothing here counts on a re-fetch at an
/// unknown `kid`: it is rate-limited everywhere and absent in some verifiers.
#[must_use]
pub fn rule_1_pre_publish(observed_everywhere: Time, timing: &Timing) -> Time {
    observed_everywhere + timing.propagation + timing.verifier_cache + timing.skew
}

/// Rule 2, last use: the latest instant at which a signature of the
/// predecessor may leave: `activate + R + Q`.
///
/// Until then (the handover) a caller that fixed the old `kid` in a signing
/// input is still served.
#[must_use]
pub fn rule_2_last_use(activate: Time, timing: &Timing) -> Time {
    activate + timing.adoption + timing.signing_deadline
}

/// Rule 3, overlap: the earliest removal of a public key from the set:
/// `max(exp_ceiling + S, last_sign + B + L + S)`.
///
/// `exp_ceiling` bounds every `exp` that the key signed; `longest_lifetime` is
/// the greatest L that was in force while it signed; B, because until then a
/// rollback may have it sign again.
#[must_use]
pub fn rule_3_overlap(
    exp_ceiling: Time,
    last_sign: Time,
    longest_lifetime: Span,
    timing: &Timing,
) -> Time {
    let tokens_dead = exp_ceiling + timing.skew;
    let rollback_dead = last_sign + timing.rollback_window + longest_lifetime + timing.skew;
    tokens_dead.max(rollback_dead)
}

/// Rule 4, rollback: a retiring key may become active again only while the
/// destruction of its private half has not begun.
///
/// Begun, not done: once the intent is stored, any replica may carry it out
/// at any instant.
#[must_use]
pub fn rule_4_rollback(half: Half) -> bool {
    match half {
        Half::Present => true,
        Half::Destroying | Half::Destroyed => false,
    }
}

/// Rule 4, its other side: the earliest destruction of the private half of a
/// retiring key: `last_sign + max(B, S)`.
///
/// B is the time for a rollback. S, because `last_sign` comes that much later
/// at a replica whose clock is behind, and the handover there needs the half.
#[must_use]
pub fn rule_4_destruction(last_sign: Time, timing: &Timing) -> Time {
    last_sign + timing.rollback_window.max(timing.skew)
}

/// What a compromise means for those who verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// From here on no verifier that re-fetches within C trusts the key.
    pub bounded_until: Time,
    /// Verifiers that fetch only at an unknown `kid` trust it until they meet
    /// a key that was generated after this instant, or restart.
    pub fresh_after: Time,
}

/// Rule 5, compromise exposure: bounded verifiers may trust a revoked key
/// until `removal + P + C`; the others until they meet a key generated *after*
/// the revocation, because the standby of before is in their cache already.
#[must_use]
pub fn rule_5_compromise_exposure(removed: Time, timing: &Timing) -> Exposure {
    Exposure {
        bounded_until: removed + timing.propagation + timing.verifier_cache,
        fresh_after: removed,
    }
}

/// Rule 6, set size: at most `ceil((L + B + S + pre-publish) / period) + 2`
/// keys of one algorithm are published at once. Nothing more is generated
/// while that many are.
///
/// `rotate_every` must not be zero.
#[must_use]
pub fn rule_6_set_size(timing: &Timing) -> usize {
    let overlap =
        timing.max_token_lifetime + timing.rollback_window + timing.skew + timing.pre_publish();
    let periods = overlap
        .as_millis()
        .unsigned_abs()
        .div_ceil(timing.rotate_every.as_millis().unsigned_abs());
    usize::try_from(periods)
        .unwrap_or(usize::MAX)
        .saturating_add(2)
}

/// Rule 7, cache bound: C covers what the set's own headers allow a verifier
/// and a CDN to keep: `C >= max-age + CDN stale time`.
#[must_use]
pub fn rule_7_cache_bound(timing: &Timing) -> bool {
    timing.verifier_cache >= timing.max_age + timing.cdn_stale
}

/// Genesis: whether a key that nobody observed may become active. Only while
/// the explicit `init` of a key set is under way, with which the operator
/// asserts that no verifier holds an older set for this issuer. Importing
/// keys, adding a track and recovering are not genesis.
#[must_use]
pub fn exception_genesis(genesis: &Genesis) -> bool {
    match genesis {
        Genesis::Pending { .. } => true,
        Genesis::Done { .. } => false,
    }
}

/// Restrictions first: whether a signature by `kid` may leave. `blocked` is
/// memory, ahead of the store: a restriction holds before it is stored, a
/// permission only after.
#[must_use]
pub fn exception_restrictions_first(kid: &str, blocked: &BTreeSet<String>) -> bool {
    !blocked.contains(kid)
}

/// Never empty: a set without a live key shows the placeholder, so that
/// caches do learn of the removal; many verifiers take an empty set for a
/// broken one and keep what they had.
#[must_use]
pub fn exception_never_empty<T>(live: Vec<T>, placeholder: Option<T>) -> Vec<T> {
    if live.is_empty() {
        placeholder.into_iter().collect()
    } else {
        live
    }
}

/// What an operator may ask of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each name is the action")]
pub enum Action {
    Block,
    Unpublish,
    Hold,
    Rotate,
    Destroy,
    Rollback,
    ForceActivation,
}

/// Second person: whether an action waits for one, where the configuration
/// asks for two. Blocking and unpublishing never do: at 3 a.m. there is one.
#[must_use]
pub fn exception_second_person(action: Action) -> bool {
    match action {
        Action::Destroy | Action::Rollback | Action::ForceActivation => true,
        Action::Block | Action::Unpublish | Action::Hold | Action::Rotate => false,
    }
}

/// Revoked for ever: whether a key of this `kid` may (again) be in the set.
/// Not after a revocation: not by recovery, not by an old database.
#[must_use]
pub fn exception_revoked_for_ever<V>(kid: &str, revoked: &BTreeMap<String, V>) -> bool {
    !revoked.contains_key(kid)
}

/// Clock: the instant that may be acted upon, or the doubt.
///
/// While running, real time must have advanced as boot time did, within S. A
/// step back within S is clamped, so that time never runs backwards for the
/// keyring. `high_water` is the latest instant on record; before the first
/// reading of a process (`anchor` is `None`) only the record can contradict
/// the clock: a step back over S, or a gap over `max_gap`.
pub fn exception_clock(
    anchor: Option<&Anchor>,
    high_water: Time,
    wall: Time,
    boot: Span,
    timing: &Timing,
) -> Result<Time, Doubt> {
    if let Some(anchor) = anchor {
        let expected = anchor.expected(boot);
        if wall + timing.skew < expected {
            return Err(Doubt::SteppedBack { wall, expected });
        }
        if wall > expected + timing.skew {
            return Err(Doubt::LeaptForward { wall, expected });
        }
    } else if high_water != Time::default() && wall > high_water + timing.max_gap {
        return Err(Doubt::Gap { wall, high_water });
    }
    if wall + timing.skew < high_water {
        return Err(Doubt::SteppedBack {
            wall,
            expected: high_water,
        });
    }
    Ok(wall.max(high_water))
}

/// How late a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Since when it was due.
    pub late: Span,
    /// Whoever is on call should know.
    pub page: bool,
    /// The operator asked that signing stop at this lateness.
    pub stop: bool,
}

/// Overdue: the old key signs on, with rising alerts, up to the hard limit.
/// Lateness never activates a key that verifiers may not hold.
#[must_use]
pub fn exception_overdue(due: Time, now: Time, timing: &Timing) -> Option<Overdue> {
    let late = now.since(due);
    if late <= timing.handover() {
        return None;
    }
    let (page, stop) = match timing.hard_limit {
        HardLimit::Page(limit) => (late >= limit, false),
        HardLimit::Stop(limit) => (late >= limit, late >= limit),
    };
    Some(Overdue { late, page, stop })
}

/// Observers: since when every origin has shown the key without a break, or
/// `None` while one does not, or while one has not answered lately (`live`).
/// An origin that is dead blocks activation; it is never assumed to agree.
#[must_use]
pub fn exception_observers(
    origins: &BTreeSet<String>,
    sightings: &BTreeMap<String, Time>,
    live: &BTreeSet<String>,
) -> Option<Time> {
    origins
        .iter()
        .map(|origin| {
            live.contains(origin)
                .then(|| sightings.get(origin).copied())
                .flatten()
        })
        .try_fold(None, |latest: Option<Time>, since| {
            Some(latest.max(Some(since?)))
        })?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that no two sums share.
    fn timing() -> Timing {
        Timing {
            rotate_every: Span::from_secs(10_000),
            verifier_cache: Span::from_secs(1000),
            propagation: Span::from_secs(100),
            skew: Span::from_secs(10),
            max_token_lifetime: Span::from_secs(2000),
            rollback_window: Span::from_secs(3000),
            adoption: Span::from_secs(30),
            signing_deadline: Span::from_secs(5),
            max_age: Span::from_secs(600),
            cdn_stale: Span::from_secs(400),
            max_gap: Span::from_secs(50_000),
            hard_limit: HardLimit::Page(Span::from_secs(7000)),
        }
    }

    fn at(s: i64) -> Time {
        Time::from_secs(1_000_000 + s)
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&n| n.to_owned()).collect()
    }

    #[test]
    fn rule_1_pre_publish() {
        assert_eq!(super::rule_1_pre_publish(at(0), &timing()), at(1110));
    }

    #[test]
    fn rule_2_last_use() {
        assert_eq!(super::rule_2_last_use(at(0), &timing()), at(35));
    }

    #[test]
    fn rule_3_overlap() {
        let l = Span::from_secs(2000);
        // The rollback window decides: 0 + 3000 + 2000 + 10.
        assert_eq!(
            super::rule_3_overlap(at(4000), at(0), l, &timing()),
            at(5010)
        );
        // A ceiling raised higher decides: 9000 + 10.
        assert_eq!(
            super::rule_3_overlap(at(9000), at(0), l, &timing()),
            at(9010)
        );
        // A lifetime that was longer once counts, whatever is configured now.
        let long = Span::from_secs(8000);
        assert_eq!(
            super::rule_3_overlap(at(4000), at(0), long, &timing()),
            at(11_010)
        );
    }

    #[test]
    fn rule_4_rollback() {
        assert!(super::rule_4_rollback(Half::Present));
        assert!(!super::rule_4_rollback(Half::Destroying));
        assert!(!super::rule_4_rollback(Half::Destroyed));
    }

    #[test]
    fn rule_4_destruction() {
        assert_eq!(super::rule_4_destruction(at(0), &timing()), at(3000));
        let none = Timing {
            rollback_window: Span::ZERO,
            ..timing()
        };
        assert_eq!(super::rule_4_destruction(at(0), &none), at(10));
    }

    #[test]
    fn rule_5_compromise_exposure() {
        let exposure = super::rule_5_compromise_exposure(at(0), &timing());
        assert_eq!(
            exposure,
            Exposure {
                bounded_until: at(1100),
                fresh_after: at(0)
            }
        );
    }

    #[test]
    fn rule_6_set_size() {
        // 2000 + 3000 + 10 + 1110 = 6120 s of 10,000 s periods: one, plus two.
        assert_eq!(super::rule_6_set_size(&timing()), 3);
        let quick = Timing {
            rotate_every: Span::from_secs(1530),
            ..timing()
        };
        assert_eq!(super::rule_6_set_size(&quick), 6);
        let quicker = Timing {
            rotate_every: Span::from_secs(1529),
            ..timing()
        };
        assert_eq!(super::rule_6_set_size(&quicker), 7);
    }

    #[test]
    fn rule_7_cache_bound() {
        assert!(super::rule_7_cache_bound(&timing()));
        let over = Timing {
            cdn_stale: Span::from_secs(401),
            ..timing()
        };
        assert!(!super::rule_7_cache_bound(&over));
        let over = Timing {
            max_age: Span::from_secs(1001),
            cdn_stale: Span::ZERO,
            ..timing()
        };
        assert!(!super::rule_7_cache_bound(&over));
    }

    #[test]
    fn exception_genesis() {
        assert!(super::exception_genesis(&Genesis::Pending { since: at(0) }));
        assert!(!super::exception_genesis(&Genesis::Done { at: at(0) }));
    }

    #[test]
    fn exception_restrictions_first() {
        assert!(super::exception_restrictions_first("a", &names(&["b"])));
        assert!(!super::exception_restrictions_first("b", &names(&["b"])));
    }

    #[test]
    fn exception_never_empty() {
        assert_eq!(super::exception_never_empty(vec![], Some(0)), [0]);
        assert_eq!(super::exception_never_empty(vec![1, 2], Some(0)), [1, 2]);
    }

    #[test]
    fn exception_second_person() {
        use Action::{Block, Destroy, ForceActivation, Hold, Rollback, Rotate, Unpublish};
        let waits = [Destroy, Rollback, ForceActivation].map(super::exception_second_person);
        assert_eq!(waits, [true; 3]);
        let acts = [Block, Unpublish, Hold, Rotate].map(super::exception_second_person);
        assert_eq!(acts, [false; 4]);
    }

    #[test]
    fn exception_revoked_for_ever() {
        let revoked = BTreeMap::from([("a".to_owned(), ())]);
        assert!(!super::exception_revoked_for_ever("a", &revoked));
        assert!(super::exception_revoked_for_ever("b", &revoked));
    }

    #[test]
    fn exception_clock() {
        let clock = |anchor: Option<(i64, u32)>, high: i64, wall: i64, boot: u32| {
            let anchor = anchor.map(|(w, b)| Anchor {
                wall: at(w),
                boot: Span::from_secs(b),
            });
            super::exception_clock(
                anchor.as_ref(),
                at(high),
                at(wall),
                Span::from_secs(boot),
                &timing(),
            )
        };
        // Running: 100 s of boot time have passed since the anchor.
        assert_eq!(clock(Some((0, 7)), 0, 100, 107), Ok(at(100)));
        assert_eq!(clock(Some((0, 7)), 0, 110, 107), Ok(at(110)));
        assert_eq!(
            clock(Some((0, 7)), 0, 111, 107),
            Err(Doubt::LeaptForward {
                wall: at(111),
                expected: at(100)
            })
        );
        assert_eq!(
            clock(Some((0, 7)), 95, 90, 107),
            Ok(at(95)),
            "clamped within the skew"
        );
        assert_eq!(
            clock(Some((0, 7)), 0, 89, 107),
            Err(Doubt::SteppedBack {
                wall: at(89),
                expected: at(100)
            })
        );
        // At a start: the record's latest instant is all there is.
        assert_eq!(clock(None, 0, 50_000, 1), Ok(at(50_000)));
        assert_eq!(
            clock(None, 0, 50_001, 1),
            Err(Doubt::Gap {
                wall: at(50_001),
                high_water: at(0)
            })
        );
        assert_eq!(clock(None, 100, 90, 1), Ok(at(100)));
        assert_eq!(
            clock(None, 100, 89, 1),
            Err(Doubt::SteppedBack {
                wall: at(89),
                expected: at(100)
            })
        );
    }

    #[test]
    fn exception_overdue() {
        let overdue = |s, timing: &Timing| super::exception_overdue(at(0), at(s), timing);
        assert_eq!(overdue(-5, &timing()), None);
        assert_eq!(overdue(35, &timing()), None);
        let late = Span::from_secs(6999);
        assert_eq!(
            overdue(6999, &timing()),
            Some(Overdue {
                late,
                page: false,
                stop: false
            })
        );
        let late = Span::from_secs(7000);
        assert_eq!(
            overdue(7000, &timing()),
            Some(Overdue {
                late,
                page: true,
                stop: false
            })
        );
        let strict = Timing {
            hard_limit: HardLimit::Stop(late),
            ..timing()
        };
        assert_eq!(
            overdue(7000, &strict),
            Some(Overdue {
                late,
                page: true,
                stop: true
            })
        );
    }

    #[test]
    fn exception_observers() {
        let origins = names(&["a", "b"]);
        let seen = |pairs: &[(&str, i64)]| -> BTreeMap<String, Time> {
            pairs.iter().map(|&(o, s)| (o.to_owned(), at(s))).collect()
        };
        let both = seen(&[("a", 5), ("b", 9)]);
        assert_eq!(
            super::exception_observers(&origins, &both, &origins),
            Some(at(9))
        );
        // One origin lacks the key.
        assert_eq!(
            super::exception_observers(&origins, &seen(&[("a", 5)]), &origins),
            None
        );
        // One origin is dead, whatever it showed once.
        assert_eq!(
            super::exception_observers(&origins, &both, &names(&["a"])),
            None
        );
        // An origin that is no longer configured does not count.
        let only_a = names(&["a"]);
        assert_eq!(
            super::exception_observers(&only_a, &both, &only_a),
            Some(at(5))
        );
        // No origin at all is not agreement.
        assert_eq!(
            super::exception_observers(&names(&[]), &both, &origins),
            None
        );
    }
}
