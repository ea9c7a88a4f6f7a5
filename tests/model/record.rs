//! A record in relative time: every instant is seen from now, and two records
//! that no rule can tell apart are one.
//!
//! A rotation goes on for ever, so its records would never repeat. What a step
//! decides hangs on differences alone: between an instant on record and now,
//! between two ids, between two epochs. So now is always [`NOW`], and what
//! differs without any difference is made equal:
//!
//! - An instant that lies further back than the longest wait that counts from
//!   it is moved up to that bound: `now >= instant + wait` holds for both.
//! - What is only ever compared with its like (when keys were published, the
//!   epochs in which they were left) keeps its order and loses its distance. Of
//!   when a key was made it only matters whether that was after a revocation.
//! - What nobody asks any more (the sightings of a key that left the set, the
//!   epoch in which an active key will have been left) is blank.
//!
//! Every field is named here once, so that a new one cannot be overlooked.
//! `frame.rs` walks at random through records with and
//! without all this, and sees the same steps.

use std::collections::{BTreeMap, BTreeSet};

use sealkeeper::keyring::{
    Genesis, Half, HardLimit, Hold, Intent, IntentId, Key, KeyId, KeySet, Mandate, Phase, Replica,
    Revocation, Seat, Switch, Timing, Waiver,
};
use sealkeeper::time::{Span, Time};

use super::clock;
use super::instance::Instance;

/// The present, in every state.
pub(crate) const NOW: Time = Time::from_secs(1_000_000_000);

/// Time passes in steps of this. Every wait of an instance is a whole number
/// of them, and every rule compares with "not before": what goes wrong between
/// two steps goes wrong at the later one.
pub(crate) const UNIT: Span = Span::from_secs(1);

/// For what only has to lie behind.
const LONG_AGO: Time = Time::from_secs(900_000_000);

/// For what is only compared with its like.
const INSTANT: Span = Span::from_millis(1);

/// How far back an instant still decides something: the longest wait that
/// counts from it, by any clock.
pub(crate) struct Frame {
    /// A key is active for a period, and is too old some time after it.
    active: Span,
    /// The handover, and B after it.
    retiring: Span,
    /// Rules 3 and 4.
    last_sign: Span,
    /// Rule 3.
    ceiling: Span,
    /// Rule 1.
    seen: Span,
    /// A look at an origin.
    looked: Span,
    /// A revocation, until every replica has heard of it.
    heard: Span,
}

impl Frame {
    /// For agents that go by a plan, in a world in which things may take
    /// longer.
    pub(crate) fn new(inst: &Instance) -> Self {
        let (plan, world) = (&inst.plan.timing, &inst.world.timing);
        let longest = |of: fn(&Timing) -> Span| of(plan).max(of(world));
        Self {
            active: inst.late
                + longest(|timing| match timing.hard_limit {
                    HardLimit::Page(_) => timing.rotate_every,
                    HardLimit::Stop(limit) => timing.rotate_every + limit,
                }),
            retiring: longest(|timing| timing.handover() + timing.rollback_window),
            last_sign: longest(|timing| {
                let Timing {
                    rollback_window,
                    max_token_lifetime,
                    skew,
                    ..
                } = *timing;
                rollback_window + max_token_lifetime + skew
            }),
            ceiling: longest(|timing| timing.skew),
            seen: longest(Timing::pre_publish),
            // Elsewhere agents look all the time.
            looked: match inst.gaps {
                true => inst.plan.timing.patience() + UNIT,
                false => Span::ZERO,
            },
            heard: longest(Timing::handover) + UNIT,
        }
    }

    /// What becomes the instant of an activation.
    fn switch(&self) -> Span {
        self.active
            .max(self.retiring)
            .max(self.heard + self.last_sign)
    }

    /// The record as it is `passed` later, in its frame.
    pub(crate) fn settle(&self, set: KeySet, passed: Span) -> KeySet {
        let KeySet {
            name,
            genesis,
            epoch: _,
            high_water,
            seats,
            keys,
            placeholder,
            intents,
            next_intent: _,
            replicas,
            revoked,
            // People are not in it.
            requests,
            last_request,
            waivers,
            looked,
            // The schedule never changes, and nothing is lowered.
            bounds,
            left_alone,
        } = set;
        let order = Order::of(&seats, &keys);
        let seats = seats
            .into_iter()
            .map(|(id, seat)| (id, self.seat(seat, passed)));
        let next_intent = 1 + intents.len() as u64;
        let intents = (1..).zip(intents.into_values()).map(|(number, intent)| {
            let Intent {
                owner,
                since: _,
                task,
            } = intent;
            let since = NOW;
            (IntentId(number), Intent { owner, since, task })
        });
        let replicas = replicas.into_iter().map(|(name, replica)| {
            let Replica {
                confirmed,
                seen: _,
                clock,
            } = replica;
            let replica = Replica {
                confirmed: order.epoch(confirmed),
                seen: NOW,
                clock: clock.map(|note| clock::settled(note, NOW)),
            };
            (name, replica)
        });
        let revoked = revoked.into_iter().map(|(kid, revocation)| {
            let Revocation {
                at: _,
                reason,
                mandate,
            } = revocation;
            let at = LONG_AGO;
            (
                kid,
                Revocation {
                    at,
                    reason,
                    mandate,
                },
            )
        });
        KeySet {
            name,
            genesis: match genesis {
                Genesis::Pending { .. } => Genesis::Pending { since: LONG_AGO },
                Genesis::Done { .. } => Genesis::Done { at: LONG_AGO },
            },
            epoch: order.lefts.len() as u64,
            // It only keeps time from running backwards: what lies before the
            // slowest clock says nothing.
            high_water: (high_water - passed).max(NOW),
            seats: seats.collect(),
            keys: keys
                .into_iter()
                .map(|(id, key)| (id, self.key(key, passed, &order)))
                .collect(),
            placeholder,
            intents: intents.collect(),
            next_intent,
            replicas: replicas.collect(),
            revoked: revoked.collect(),
            requests,
            last_request,
            waivers: waivers
                .into_iter()
                .map(|(origin, waiver)| {
                    let waiver = Waiver {
                        since: LONG_AGO,
                        until: (waiver.until - passed).max(NOW),
                        ..waiver
                    };
                    (origin, waiver)
                })
                .collect(),
            looked: looked
                .into_iter()
                .map(|(origin, at)| (origin, (at - passed).max(NOW - self.looked)))
                .collect(),
            bounds,
            left_alone,
        }
    }

    fn seat(&self, seat: Seat, passed: Span) -> Seat {
        let Seat {
            active,
            switch,
            rotate_at,
            fresh_after,
            force,
        } = seat;
        Seat {
            active,
            switch: switch.map(|switch| Switch {
                at: (switch.at - passed).max(NOW - self.switch()),
                ..switch
            }),
            // The wish lies in the past as soon as it is written.
            rotate_at: rotate_at.map(|_| LONG_AGO),
            fresh_after: fresh_after.map(|_| LONG_AGO + INSTANT),
            force,
        }
    }

    fn key(&self, key: Key, passed: Span, order: &Order) -> Key {
        let is_left = matters(&key);
        let is_published = key.is_published();
        let Key {
            id,
            algorithm,
            key_type,
            group,
            created,
            kid,
            public,
            phase,
            published,
            activated,
            placements,
            tokens,
            given_up,
            sightings,
            exp_ceiling,
            longest_lifetime,
            left_epoch,
            hold,
            forced,
            adopted,
            was_to_sign_until,
        } = key;
        let before = |age: Span| move |at: Time| (at - passed).max(NOW - age);
        Key {
            id,
            algorithm,
            key_type,
            group,
            created: match order.wanted.is_some_and(|after| created > after) {
                true => LONG_AGO + INSTANT.times(2),
                false => LONG_AGO,
            },
            kid,
            public,
            phase: match phase {
                Phase::Generating => Phase::Generating,
                Phase::Placeholder => Phase::Placeholder,
                Phase::Published { .. } => Phase::Published { since: NOW },
                Phase::Active { since } => Phase::Active {
                    since: before(self.active)(since),
                },
                Phase::Retiring { since, last_sign } => Phase::Retiring {
                    since: before(self.retiring)(since),
                    last_sign: before(self.last_sign)(last_sign),
                },
                Phase::Retired { .. } => Phase::Retired { since: NOW },
                Phase::Revoked { since, reason } => Phase::Revoked {
                    since: before(self.heard)(since),
                    reason,
                },
            },
            published: published.map(|at| order.shown(at)),
            // Whether is what counts: one that never was hands nothing over.
            activated: match phase {
                Phase::Active { .. } | Phase::Retiring { .. } => activated.map(|_| LONG_AGO),
                _ => None,
            },
            placements,
            tokens,
            given_up,
            sightings: match is_published {
                true => sightings
                    .into_iter()
                    .map(|(origin, since)| (origin, before(self.seen)(since)))
                    .collect(),
                false => BTreeMap::new(),
            },
            exp_ceiling: match is_published {
                true => exp_ceiling.map(before(self.ceiling)),
                false => exp_ceiling.map(|_| LONG_AGO),
            },
            longest_lifetime,
            left_epoch: match is_left {
                true => order.epoch(left_epoch),
                false => 0,
            },
            hold: hold.map(|hold| Hold {
                since: NOW,
                mandate: Mandate {
                    by: String::new(),
                    ..hold.mandate
                },
            }),
            forced,
            adopted,
            // One person is enough here, and nothing is kept for a second.
            was_to_sign_until,
        }
    }
}

/// Whether somebody may yet ask who has left this key.
fn matters(key: &Key) -> bool {
    key.has_private_half() && !matches!(key.phase, Phase::Active { .. } | Phase::Generating)
}

/// What keeps its order and loses its distance.
struct Order {
    lefts: BTreeSet<u64>,
    /// What a key must be younger than.
    wanted: Option<Time>,
    shown: BTreeSet<Time>,
}

impl Order {
    fn of(
        seats: &BTreeMap<sealkeeper::keyring::SeatId, Seat>,
        keys: &BTreeMap<KeyId, Key>,
    ) -> Self {
        let left = keys.values().filter(|key| matters(key));
        let wanted = seats.values().filter_map(|seat| seat.fresh_after);
        let shown = keys.values().filter(|key| key.is_published());
        Self {
            lefts: left
                .map(|key| key.left_epoch)
                .filter(|epoch| *epoch > 0)
                .collect(),
            wanted: wanted.max(),
            shown: shown.filter_map(|key| key.published).collect(),
        }
    }

    /// How many of the epochs that matter are not after this one.
    fn epoch(&self, epoch: u64) -> u64 {
        self.lefts.range(..=epoch).count() as u64
    }

    fn shown(&self, at: Time) -> Time {
        let rank = u32::try_from(self.shown.range(..at).count());
        LONG_AGO + INSTANT.times(rank.expect("there are a few keys"))
    }
}

/// The keys of an instance have the numbers of their making.
pub(crate) fn slot(id: KeyId) -> usize {
    usize::from(id.0[0])
}

pub(crate) fn id(slot: usize) -> KeyId {
    KeyId([u8::try_from(slot).expect("there are a few keys"); 16])
}

/// A set of keys, by their numbers.
pub(crate) type Mask = u8;

pub(crate) const fn bit(slot: usize) -> Mask {
    1 << slot
}

/// The numbers in a set.
pub(crate) fn slots(mask: Mask) -> Slots {
    Slots(mask)
}

pub(crate) struct Slots(Mask);

impl Iterator for Slots {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

/// The keys of a record of which something holds.
pub(crate) fn mask(set: &KeySet, holds: impl Fn(&Key) -> bool) -> Mask {
    let those = set.keys.values().filter(|key| holds(key));
    those.fold(0, |mask, key| mask | bit(slot(key.id)))
}

/// The keys whose objects the record counts on, and those that it names.
pub(crate) fn halves(set: &KeySet) -> (Mask, Mask) {
    let there = |half: &Half| matches!(half, Half::Present | Half::Destroying);
    let present = |key: &Key| key.has_private_half() && !matches!(key.phase, Phase::Generating);
    let named = |key: &Key| key.placements.values().any(there);
    (mask(set, present), mask(set, named))
}
