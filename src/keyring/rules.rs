//! The specification of rotation: seven numbered inequalities and their named
//! exceptions, one function each, one test of the same name each.
//!
//! The letters: C verifier cache, P propagation, S skew, L longest token
//! lifetime, R adoption by replicas, Q signing deadline, B rollback window
//! ([`Timing`] has them). Everything that decides *when* in this floor asks
//! one of these functions, so a rule is read, and changed, in one place.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::bounds::Lowered;
use super::clock::{Anchor, Doubt};
use super::key::Half;
use super::set::Genesis;
use super::timing::{HardLimit, Timing};
use super::waiver::{OWN_LISTENER, Waiver};
use crate::time::{Span, Time};

/// Rule 1, pre-publish: the earliest activation of a key that has been in the
/// set of every origin since `observed_everywhere`: `+ P + C + S`.
///
/// Why: a verifier may have fetched the set just before the key reached its
/// nearest cache, and keeps it for C. Nothing here counts on a re-fetch at an
/// unknown `kid`: it is rate-limited everywhere and absent in some verifiers.
///
/// Where one of the three was `lowered`, no earlier than by the longer ones of
/// before, as long as those hold.
#[must_use]
pub fn rule_1_pre_publish(
    observed_everywhere: Time,
    timing: &Timing,
    lowered: Option<Lowered>,
) -> Time {
    let wait = timing.propagation + timing.verifier_cache + timing.skew;
    let held = lowered
        .map(|Lowered { bounds, until }| (observed_everywhere + bounds.pre_publish()).min(until));
    (observed_everywhere + wait).max(held.unwrap_or_default())
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
        Half::Lost => false,
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

/// Rule 4, where an operator gives the rollback up: the earliest destruction
/// of the private half of a retiring key: `last_sign + S`.
///
/// B may be given up. S may not: the handover at a replica whose clock is
/// behind needs the half until then.
#[must_use]
pub fn rule_4_destruction_by_order(last_sign: Time, timing: &Timing) -> Time {
    last_sign + timing.skew
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
/// `newest` is when the youngest key of the seat was made: a clock that stands
/// still makes none of those fresh. What was `lowered` counts as in rule 1.
#[must_use]
pub fn rule_5_compromise_exposure(
    removed: Time,
    newest: Option<Time>,
    timing: &Timing,
    lowered: Option<Lowered>,
) -> Exposure {
    let bounded_until = removed + timing.propagation + timing.verifier_cache;
    let held = lowered.map(|Lowered { bounds, until }| {
        (removed + bounds.propagation + bounds.verifier_cache).min(until)
    });
    Exposure {
        bounded_until: bounded_until.max(held.unwrap_or_default()),
        fresh_after: newest.map_or(removed, |newest| newest.max(removed)),
    }
}

/// Rule 5, its other side: whether a key may be what is owed after a
/// compromise, or come after it: one that was made later than `fresh_after`.
///
/// Why a rollback and a standby of before ask this too: a verifier that fetches
/// only at an unknown `kid`, and met no token of the fresh key while that
/// signed, knows every key of before and would go on trusting the revoked one.
#[must_use]
pub fn rule_5_fresh_key(created: Time, fresh_after: Option<Time>) -> bool {
    fresh_after.is_none_or(|after| created > after)
}

/// Rule 6, set size: at most `ceil((L + B + S + pre-publish) / period) + 2`
/// keys of one algorithm are published at once. Nothing more is generated
/// while that many are. `longest_lifetime` is the L of the tokens that are
/// about: where a configuration shortened it, that of the keys of before.
///
/// [`Timing::shortest_period`] must not be zero.
#[must_use]
pub fn rule_6_set_size(longest_lifetime: Span, timing: &Timing) -> usize {
    let overlap = longest_lifetime + timing.rollback_window + timing.skew + timing.pre_publish();
    let periods = overlap
        .as_millis()
        .unsigned_abs()
        .div_ceil(timing.shortest_period().as_millis().unsigned_abs());
    usize::try_from(periods)
        .unwrap_or(usize::MAX)
        .saturating_add(2)
}

/// Window: when a rotation that is due at `due` by the schedule is done, no
/// earlier than `safe`: in the last window that opens before it is due. Where
/// that was missed, once it is due: a preference makes no key older than
/// `rotate_every`, and none active before it is safe.
#[must_use]
pub fn exception_window(due: Time, safe: Time, timing: &Timing) -> Time {
    let overdue = due.max(safe);
    let Some(window) = timing.window else {
        return overdue;
    };
    match window.last_opening(due).map(|opening| opening.max(safe)) {
        Some(at) if window.contains(at) => at,
        _ => overdue,
    }
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
    Release,
    Rotate,
    Destroy,
    Rollback,
    ForceActivation,
    Waive,
    Restore,
    ConfirmClock,
    Import,
    Adopt,
    Recover,
}

/// Second person: whether an action waits for one, where the configuration
/// asks for two. Blocking and unpublishing never do: at 3 a.m. there is one.
/// Nor do importing and adopting: they add a key that `keys revoke` ends, and
/// the agent whose approvals could be asked for is stopped.
#[must_use]
pub fn exception_second_person(action: Action) -> bool {
    match action {
        Action::Destroy
        | Action::Rollback
        | Action::ForceActivation
        | Action::Waive
        | Action::Recover => true,
        Action::Block
        | Action::Unpublish
        | Action::Hold
        | Action::Release
        | Action::Restore
        | Action::ConfirmClock
        | Action::Rotate
        | Action::Import
        | Action::Adopt => false,
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

/// Waiver: the origins that must show a key which becomes active `at` an
/// instant: all that are configured but those whose waiver lasts beyond it.
///
/// Where every one is waived, the agent's own listener must show the key:
/// waivers say whom nobody waits for, never that nobody looks.
#[must_use]
pub fn exception_waiver<'a>(
    origins: &'a BTreeSet<String>,
    waivers: &BTreeMap<String, Waiver>,
    at: Time,
) -> Cow<'a, BTreeSet<String>> {
    let waived = |origin: &String| waivers.get(origin).is_some_and(|it| at < it.until);
    if !origins.iter().any(waived) {
        return Cow::Borrowed(origins);
    }
    let mut left: BTreeSet<String> = origins.iter().filter(|o| !waived(o)).cloned().collect();
    if left.is_empty() {
        left.insert(OWN_LISTENER.to_owned());
    }
    Cow::Owned(left)
}

#[cfg(test)]
mod tests;
