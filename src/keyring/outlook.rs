//! What lies ahead for a key: for people, and for the caches of the set.

use std::collections::BTreeSet;

use super::advance::{ahead, removal};
use super::crowd::Crowd;
use super::intent::Task;
use super::key::{Half, Key, Phase};
use super::rules;
use super::set::{KeySet, Plan, Seat, SeatId};
use crate::time::Time;

/// The instants that lie ahead for a key. One may have passed while what it
/// waits for has not come ([`KeySet::waits_for`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// When it becomes active.
    pub activates: Option<Time>,
    /// When its successor is due: no earlier than every rule allows, as far as
    /// that can be told.
    pub retires: Option<Time>,
    /// When its private half is to be destroyed.
    pub destroyed: Option<Time>,
    /// When it is to leave the set.
    pub removed: Option<Time>,
}

/// What keeps a key from its next step, besides the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// An operator holds this key (its `kid`).
    Hold(String),
    /// A device has not made the next key yet.
    Generation {
        /// Which device.
        device: String,
    },
    /// There is no next key, and none is on its way.
    NoSuccessor,
    /// There is none, and none is made before others have left the set (rule
    /// 6).
    Room(Crowd),
    /// An origin that showed the next key does not answer just now.
    Silent {
        /// Which origin.
        origin: String,
    },
    /// An origin does not show the next key.
    Unseen {
        /// Which origin.
        origin: String,
        /// The key's `kid`.
        kid: String,
    },
    /// Not every verifier can hold the next key before this instant (rule 1).
    Rule1 {
        /// The earliest.
        until: Time,
        /// The key's `kid`.
        kid: String,
    },
    /// A device is to destroy the private half.
    Destruction {
        /// Which device.
        device: String,
    },
    /// The key is held, and its destruction had begun: a device is to say
    /// whether it still holds the private half.
    Stopped {
        /// Which device.
        device: String,
    },
    /// An agent has not said that it signs no more with the key.
    Replica(String),
    /// A rollback makes the key active again.
    Rollback,
    /// Another person may have the private half destroyed before its time.
    SecondPerson {
        /// The request that asks for it, while one is on record.
        request: Option<u64>,
    },
}

impl KeySet {
    /// The instants that lie ahead for a key, as the plan has them now: for
    /// people.
    #[must_use]
    pub fn outlook(&self, key: &Key, plan: &Plan) -> Outlook {
        let seat = self.seats.get(&key.seat());
        let switch = seat.and_then(|seat| seat.switch.as_ref());
        let activates = switch
            .filter(|switch| switch.to == key.id)
            .map(|switch| switch.at)
            .or_else(|| self.fills(key, seat?, plan));
        let retires = match key.phase {
            Phase::Active { .. } => switch
                .map(|switch| switch.at)
                .or_else(|| self.succession(&key.seat(), plan)),
            _ => None,
        };
        let stopped = key.hold.as_ref().filter(|_| key.destroying().is_some());
        let (destroyed, removed) = match key.phase {
            _ if stopped.is_some() => (stopped.map(|hold| hold.since), None),
            Phase::Retiring { last_sign, .. } if !key.is_held() => {
                let due = rules::rule_4_destruction(last_sign, &plan.timing);
                let mut halves = key.placements.values();
                (
                    halves.any(|half| *half != Half::Destroyed).then_some(due),
                    Some(removal(key, last_sign, plan)),
                )
            }
            Phase::Revoked { .. } if !key.is_held() => (self.kept_for_second(key, plan), None),
            _ => (None, None),
        };
        Outlook {
            activates,
            retires,
            destroyed,
            removed,
        }
    }

    /// Where nothing is active: when the next key is, at the earliest.
    fn fills(&self, key: &Key, seat: &Seat, plan: &Plan) -> Option<Time> {
        let seat_id = key.seat();
        let next = self.standby(&seat_id).or_else(|| self.coming(&seat_id));
        let is_it = seat.active.is_none() && next.is_some_and(|next| next.id == key.id);
        is_it.then(|| match seat.force {
            false => self.earliest(key, plan),
            // As soon as it is in the set.
            true => key.published.unwrap_or(key.created),
        })
    }

    /// The key whose revocation left its seat without an active key. Where
    /// that is ordered again with [`Then::Activate`](super::Then), the next
    /// key signs before its time.
    #[must_use]
    pub fn emptied_by(&self, seat_id: &SeatId) -> Option<&Key> {
        let seat = self.seats.get(seat_id)?;
        if seat.active.is_some() || seat.force {
            return None;
        }
        let mine = self.keys.values().filter(|key| key.seat() == *seat_id);
        let revoked = mine.filter_map(|key| match key.phase {
            Phase::Revoked { since, .. } => Some((since, key.id, key)),
            _ => None,
        });
        revoked
            .max_by_key(|(since, id, _)| (*since, *id))
            .map(|(_, _, key)| key)
    }

    /// When the active key of a seat is replaced: when that is wanted, and no
    /// earlier than its successor may be active.
    fn succession(&self, seat_id: &SeatId, plan: &Plan) -> Option<Time> {
        let seat = self.seats.get(seat_id)?;
        let next = self.standby(seat_id).or_else(|| self.coming(seat_id));
        let allowed = match next {
            Some(next) => Some(self.earliest(next, plan)),
            // Not even asked for: after a revocation it is younger than that.
            None => (seat.fresh_after)
                .filter(|_| self.owes_fresh(seat_id))
                .map(|at| self.held_everywhere(at, plan)),
        };
        self.wanted(seat_id, allowed.unwrap_or_default(), plan)
    }

    /// After a revocation: when a key that was made after it is expected to be
    /// active (rule 5). None where one is, or nothing was revoked.
    #[must_use]
    pub fn fresh_expected(&self, seat_id: &SeatId, plan: &Plan, now: Time) -> Option<Time> {
        if !self.owes_fresh(seat_id) {
            return None;
        }
        let seat = self.seats.get(seat_id)?;
        let fresh = |key: &Key| rules::rule_5_fresh_key(key.created, seat.fresh_after);
        let soon = now + ahead(plan);
        match &seat.switch {
            Some(switch) if fresh(self.key(switch.to)) => return Some(switch.at),
            _ if seat.force => return Some(soon),
            _ => {}
        }
        let mine = self.keys.values().filter(|key| key.seat() == *seat_id);
        let coming = mine.filter(|key| {
            let ahead = key.is_coming() || matches!(key.phase, Phase::Published { .. });
            ahead && fresh(key) && !key.is_held()
        });
        let first = coming.map(|key| self.earliest(key, plan)).min();
        // Not even asked for.
        let from_now = self.held_everywhere(now, plan);
        Some(first.unwrap_or(from_now).max(soon))
    }

    /// The key of a seat that a device is making.
    fn coming(&self, seat: &SeatId) -> Option<&Key> {
        let mut keys = self.keys.values();
        keys.find(|key| {
            let placeholder = self.placeholder == Some(key.id);
            key.seat() == *seat && key.is_coming() && !placeholder
        })
    }

    /// What a key's next step waits for besides the clock; none where its
    /// instant alone decides. `silent` are the origins that do not answer just
    /// now.
    #[must_use]
    pub fn waits_for(&self, key: &Key, plan: &Plan, silent: &BTreeSet<String>) -> Option<Wait> {
        let hold = |key: &Key| Wait::Hold(key.kid.clone().unwrap_or_default());
        if key.is_held() {
            let stopped = key.destroying().cloned();
            return Some(stopped.map_or_else(|| hold(key), |device| Wait::Stopped { device }));
        }
        let seat_id = key.seat();
        let switched = (self.seats.get(&seat_id)).is_some_and(|seat| seat.switch.is_some());
        match key.phase {
            // An instant that is fixed waits for nothing more.
            Phase::Active { .. } | Phase::Published { .. } if switched => None,
            Phase::Published { .. } => self
                .unseen(key, plan, silent)
                .or_else(|| self.rule_1(key, plan)),
            Phase::Generating => {
                let device = self.generated_on(key, plan);
                Some(Wait::Generation { device })
            }
            Phase::Active { .. } => {
                let Some(next) = self.standby(&seat_id) else {
                    let mut keys = self.keys.values();
                    let held = keys.find(|key| {
                        let published = matches!(key.phase, Phase::Published { .. });
                        key.seat() == seat_id && published && key.is_held()
                    });
                    return Some(match (held, self.coming(&seat_id)) {
                        (_, Some(coming)) => Wait::Generation {
                            device: self.generated_on(coming, plan),
                        },
                        (Some(held), None) => hold(held),
                        (None, None) => self
                            .no_room(&seat_id, plan)
                            .map_or(Wait::NoSuccessor, Wait::Room),
                    });
                };
                self.unseen(next, plan, silent).or_else(|| {
                    let until = self.earliest(next, plan);
                    let kid = next.kid.clone().unwrap_or_default();
                    (self.wanted(&seat_id, until, plan) == Some(until))
                        .then_some(Wait::Rule1 { until, kid })
                })
            }
            Phase::Retiring { .. } => self.leaving(key),
            Phase::Revoked { .. } if self.kept_for_second(key, plan).is_some() => {
                let request = key
                    .kid
                    .as_deref()
                    .and_then(|kid| self.asked_to_destroy(kid));
                Some(Wait::SecondPerson { request })
            }
            _ => None,
        }
    }

    /// Where nothing is active, the clock alone decides, and there is a way
    /// around it: that is worth a word.
    fn rule_1(&self, key: &Key, plan: &Plan) -> Option<Wait> {
        let seat = self.seats.get(&key.seat()).filter(|seat| !seat.force)?;
        let until = self.fills(key, seat, plan)?;
        let kid = key.kid.clone().unwrap_or_default();
        Some(Wait::Rule1 { until, kid })
    }

    fn generated_on(&self, key: &Key, plan: &Plan) -> String {
        let mut intents = self.intents.values();
        let made_on = intents.find_map(|intent| match &intent.task {
            Task::Generate { device, .. } if intent.task.key() == key.id => Some(device.clone()),
            _ => None,
        });
        made_on.unwrap_or_else(|| plan.device.clone())
    }

    /// What keeps a retiring key's private half.
    fn leaving(&self, key: &Key) -> Option<Wait> {
        if self.is_next(key.id) {
            return Some(Wait::Rollback);
        }
        if let Some(device) = key.destroying().cloned() {
            return Some(Wait::Destruction { device });
        }
        let behind = self.still_signs(key).filter(|_| key.has_private_half());
        behind.map(Wait::Replica)
    }

    /// When every verifier that fetches in time holds a key (rule 1), by what
    /// is known now: before that, its tokens may be refused.
    #[must_use]
    pub fn held_by_all(&self, key: &Key, plan: &Plan, now: Time) -> Time {
        let seen = self.observed(key, plan, now);
        self.held_everywhere(seen.unwrap_or(now), plan)
    }

    /// The earliest activation that rule 1 allows: counted from the last
    /// sighting by the last origin, or from what comes before it.
    fn earliest(&self, key: &Key, plan: &Plan) -> Time {
        let seen = self.observed(key, plan, self.wanted_at(key, plan));
        let since = seen.or(key.published).unwrap_or(key.created);
        self.held_everywhere(since, plan)
    }

    /// An origin that keeps a key from being activated.
    fn unseen(&self, key: &Key, plan: &Plan, silent: &BTreeSet<String>) -> Option<Wait> {
        let required = self.required(plan, self.wanted_at(key, plan));
        let lacks = |origin: &&String| !key.sightings.contains_key(*origin);
        let unseen = required.iter().find(lacks).map(|origin| Wait::Unseen {
            origin: origin.clone(),
            kid: key.kid.clone().unwrap_or_default(),
        });
        unseen.or_else(|| {
            let origin = required.iter().find(|origin| silent.contains(*origin))?;
            Some(Wait::Silent {
                origin: origin.clone(),
            })
        })
    }

    /// When a key is wanted, at the earliest: whoever is waived then is not
    /// waited for.
    fn wanted_at(&self, key: &Key, plan: &Plan) -> Time {
        let due = self.due(&key.seat(), plan);
        due.unwrap_or_default().max(self.high_water)
    }
}
