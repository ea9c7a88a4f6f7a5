//! What only a person asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::advance::ahead;
use super::event::{Event, What};
use super::key::{Key, KeyId, Mandate, Phase, Reason};
use super::refusal::OperatorError;
use super::rules::{self, Action, Exposure};
use super::set::{KeySet, Plan, Revocation, SeatId, Switch, Tick};
use crate::jose::Algorithm;
use crate::time::Time;

/// What to do when the active key is revoked and no standby is in every
/// verifier's cache yet. Each has its price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Nothing is signed until the standby is safe.
    Wait,
    /// The standby signs at once; verifiers that do not hold it refuse its
    /// tokens until they fetch the set again.
    Activate,
}

/// How a key is to end: what an operator says of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// For the historical keys.
    pub reason: Reason,
    /// What to do when no standby is safe.
    pub then: Option<Then>,
    /// When it was ordered, if that was before now.
    pub at: Option<Time>,
    /// Who asked for it.
    pub mandate: Mandate,
}

impl Ending {
    /// The same where nobody is there to choose: a key that verifiers may not
    /// hold is not activated.
    #[must_use]
    pub fn or_wait(&self) -> Self {
        Self {
            then: self.then.or(Some(Then::Wait)),
            ..self.clone()
        }
    }

    /// The same, and no key signs before its time for it.
    #[must_use]
    pub fn or_later(self) -> Self {
        Self {
            then: Some(Then::Wait),
            ..self
        }
    }

    /// What holds where it was ordered `before` as well, and no record has it:
    /// what was said last, as far as it says something.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let noted = !self.mandate.note.is_empty() || before.mandate.note.is_empty();
        Self {
            reason: self.reason.or(before.reason),
            then: self.then.or(before.then),
            at: before.at.or(self.at),
            mandate: match noted {
                true => self.mandate,
                false => before.mandate.clone(),
            },
        }
    }
}

/// What a revocation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// For the record.
    pub events: Vec<Event>,
    /// The `kid` that signs now in its place, if the key was active.
    pub successor: Option<String>,
    /// Until when who may still trust the key.
    pub exposure: Exposure,
}

impl KeySet {
    /// Ends a key for ever. The caller has blocked it in memory already.
    ///
    /// The activation of a safe standby is at once, not R ahead: that distance
    /// bounds the last use of the predecessor, and a revoked predecessor has
    /// no last use to bound.
    pub fn revoke(
        &mut self,
        kid: &str,
        ending: &Ending,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Revoked, OperatorError> {
        let now = tick.now;
        let then = ending.then;
        if let Some(revocation) = self.revoked.get(kid) {
            let left = match self.by_kid(kid).map(|key| &key.phase) {
                Some(Phase::Revoked { since, .. }) => *since,
                // The key itself may be forgotten by now.
                _ => revocation.at,
            };
            let mut events: Vec<Event> = self.note(kid, ending, now).into_iter().collect();
            if then == Some(Then::Activate) {
                events.extend(self.sign_again(kid, &ending.mandate, plan, tick));
            }
            return Ok(Revoked {
                successor: successor(&events),
                events,
                exposure: self.exposed(left, None, plan),
            });
        }
        let key = self.find(kid)?;
        let (id, seat_id) = (key.id, key.seat());
        let exposure = self.exposure(&seat_id, plan, now);
        let was_active = self
            .seats
            .get(&seat_id)
            .is_some_and(|seat| seat.active == Some(id));
        let (safe, safe_at) = self.successor_of(id, &seat_id, plan, now);
        if was_active && safe.is_none() && then.is_none() {
            return Err(OperatorError::NoSafeStandby { safe_at });
        }
        let mut events = vec![self.end(id, ending, exposure, plan, now)];
        match safe.filter(|_| was_active) {
            Some(next) => {
                let activated = self.activate_now(next, true, plan, tick);
                events.extend(ordered(activated, activation(safe), &ending.mandate));
            }
            // Also where it did not sign, and nothing else does.
            None if then == Some(Then::Activate) => {
                events.extend(self.sign_again(kid, &ending.mandate, plan, tick));
            }
            None => {}
        }
        Ok(Revoked {
            successor: successor(&events),
            events,
            exposure,
        })
    }

    /// Ends keys, and has none sign in their place: what holds of revocations
    /// that no store has yet. What was revoked before, or is no key of this
    /// set, stays as it is.
    pub fn restrict(&mut self, endings: &BTreeMap<String, Ending>, plan: &Plan, tick: &Tick) {
        for (kid, ending) in endings {
            if self.revoked.contains_key(kid) {
                continue;
            }
            let Ok(key) = self.find(kid) else { continue };
            let (id, seat) = (key.id, key.seat());
            let exposure = self.exposure(&seat, plan, tick.now);
            self.end(id, ending, exposure, plan, tick.now);
        }
    }

    /// The half of a revocation that permits nothing: the key leaves the set,
    /// and its seat.
    fn end(
        &mut self,
        id: KeyId,
        ending: &Ending,
        exposure: Exposure,
        plan: &Plan,
        now: Time,
    ) -> Event {
        let reason = ending.reason;
        let at = ending.at.unwrap_or(now);
        self.epoch += 1;
        let left_epoch = self.epoch;
        let key = self.key_mut(id);
        key.was_to_sign_until = match key.phase {
            Phase::Retiring { last_sign, .. } if plan.two_people => Some(last_sign),
            _ => None,
        };
        key.phase = Phase::Revoked { since: now, reason };
        key.left_epoch = left_epoch;
        let (kid, seat) = (key.kid.clone(), key.seat());
        let event = Event::of(key, at, What::Revoked { reason });
        if let Some(kid) = kid {
            let mandate = ending.mandate.clone();
            let revocation = Revocation {
                at,
                reason,
                mandate,
            };
            self.revoked.insert(kid, revocation);
        }
        if let Some(seat) = self.seats.get_mut(&seat) {
            seat.fresh_after = Some(exposure.fresh_after);
            seat.switch.take_if(|switch| switch.to == id);
            seat.active.take_if(|active| *active == id);
        }
        event.ordered(Action::Block, &ending.mandate)
    }

    fn exposure(&self, seat: &SeatId, plan: &Plan, now: Time) -> Exposure {
        let mine = self.keys.values().filter(|key| key.seat() == *seat);
        let newest = mine.map(|key| key.created).max();
        self.exposed(now, newest, plan)
    }

    /// Ends several keys in one change. The order is the one in which each
    /// means what was said of it: first those that do not sign, so that none of
    /// them takes a place on the way; then those that were revoked before,
    /// which have one sign only where nothing does; last those that sign, of
    /// which alone it is said what becomes of their seat.
    pub fn revoke_all(
        &mut self,
        endings: &BTreeMap<String, Ending>,
        plan: &Plan,
        tick: &Tick,
    ) -> Vec<(String, Result<Revoked, OperatorError>)> {
        let rank = |kid: &str| {
            let id = self.by_kid(kid).map(|key| key.id);
            let signs = id.is_some() && self.seats.values().any(|seat| seat.active == id);
            (signs, self.revoked.contains_key(kid))
        };
        let mut ordered: Vec<_> = endings.iter().collect();
        ordered.sort_by_key(|(kid, _)| rank(kid));
        let ordered = ordered.into_iter();
        ordered
            .map(|(kid, ending)| (kid.clone(), self.revoke(kid, ending, plan, tick)))
            .collect()
    }

    /// Takes up what is said of a revocation on record: the reason, where none
    /// was given before. Who ended the key, when, and with what note stays; the
    /// log has who says more. A key that was forgotten has no more events.
    fn note(&mut self, kid: &str, ending: &Ending, now: Time) -> Option<Event> {
        let Ending {
            reason, mandate, ..
        } = ending;
        let id = self.by_kid(kid)?.id;
        let revocation = self.revoked.get_mut(kid)?;
        let why = reason.or(revocation.reason) != revocation.reason;
        let note = !mandate.note.is_empty() && mandate.note != revocation.mandate.note;
        if !why && !note {
            return None;
        }
        revocation.reason = revocation.reason.or(*reason);
        let on_record = revocation.reason;
        let key = self.key_mut(id);
        if let Phase::Revoked { reason, .. } = &mut key.phase {
            *reason = on_record;
        }
        let event = Event::of(key, now, What::RevocationNoted { reason: *reason });
        Some(event.ordered(Action::Block, mandate))
    }

    /// Has any standby sign in place of a key that was revoked before, or the
    /// first one that comes. Nothing where a key signs already.
    pub(super) fn sign_again(
        &mut self,
        kid: &str,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Vec<Event> {
        let Some(revoked) = self.by_kid(kid) else {
            return Vec::new();
        };
        let (id, seat_id) = (revoked.id, revoked.seat());
        let forced = Event::of(revoked, tick.now, What::SuccessorForced);
        let (safe, _) = self.successor_of(id, &seat_id, plan, tick.now);
        let next = safe.or(self.any_standby(id, &seat_id));
        match (self.seats.get_mut(&seat_id), next) {
            (Some(seat), Some(next)) if seat.active.is_none() => {
                let activated = self.activate_now(next, safe.is_some(), plan, tick);
                ordered(activated, activation(safe), mandate)
            }
            (Some(seat), None) if seat.active.is_none() && !seat.force => {
                seat.force = true;
                vec![forced.ordered(Action::ForceActivation, mandate)]
            }
            _ => Vec::new(),
        }
    }

    /// The key that may sign in place of `revoked` at once, or when there will
    /// be one. Whether origins answer right now is not asked: the sightings
    /// on record suffice, and an outage must not add to an emergency.
    fn successor_of(
        &self,
        revoked: KeyId,
        seat: &SeatId,
        plan: &Plan,
        now: Time,
    ) -> (Option<KeyId>, Option<Time>) {
        let earliest = |key: &Key| {
            self.observed(key, plan, now)
                .map(|observed| self.held_everywhere(observed, plan))
        };
        let fresh_after = self.seats.get(seat).and_then(|seat| seat.fresh_after);
        // Of those that are ready, one that was made after an earlier
        // compromise comes first.
        let first = self
            .standbys(revoked, seat)
            .filter_map(|key| {
                let fresh = rules::rule_5_fresh_key(key.created, fresh_after);
                let at = earliest(key)?;
                Some((at.max(now), !fresh, at, key.id))
            })
            .min();
        match first {
            Some((_, _, at, id)) if at <= now => (Some(id), Some(at)),
            Some((_, _, at, _)) => (None, Some(at)),
            None => (None, None),
        }
    }

    fn any_standby(&self, revoked: KeyId, seat: &SeatId) -> Option<KeyId> {
        self.standbys(revoked, seat)
            .min_by_key(|key| (key.published, key.id))
            .map(|key| key.id)
    }

    fn standbys<'a>(&'a self, revoked: KeyId, seat: &'a SeatId) -> impl Iterator<Item = &'a Key> {
        self.standbys_of(seat).filter(move |key| key.id != revoked)
    }

    /// Goes back to a retiring key, at an instant that every replica hears of.
    pub fn rollback(
        &mut self,
        kid: &str,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        let key = self.find(kid)?;
        let (id, seat_id, kid) = (key.id, key.seat(), kid.to_owned());
        if !matches!(key.phase, Phase::Retiring { .. }) {
            return Err(OperatorError::NotRetiring {
                kid,
                phase: key.phase.name(),
            });
        }
        if !key
            .placements
            .values()
            .any(|half| rules::rule_4_rollback(*half))
        {
            return Err(OperatorError::DestructionBegun { kid });
        }
        let seat = self
            .seats
            .get(&seat_id)
            .ok_or_else(|| self.unknown_track(seat_id.algorithm))?;
        if let Some(after) = seat.fresh_after
            && !rules::rule_5_fresh_key(key.created, Some(after))
        {
            return Err(OperatorError::BeforeRevocation { kid, after });
        }
        let held = [Some(id), seat.active]
            .into_iter()
            .flatten()
            .find(|id| self.key(*id).is_held());
        if let Some(held) = held {
            let kid = self.key(held).kid.clone().unwrap_or_default();
            return Err(OperatorError::Held { kid });
        }
        match &seat.switch {
            Some(switch) if switch.to == id => return Ok(Vec::new()),
            Some(near) if near.at < tick.now + plan.timing.adoption => {
                return Err(OperatorError::SwitchNear { at: near.at });
            }
            _ => {}
        }
        let at = tick.now + ahead(plan);
        let observed = self.observed(key, plan, at);
        if observed.is_none_or(|since| self.held_everywhere(since, plan) > at) {
            return Err(OperatorError::NotObserved { kid });
        }
        let switch = Switch {
            to: id,
            at,
            rollback: true,
            forced: false,
        };
        let event = self.set_switch(switch, plan, tick.now);
        Ok(vec![event.ordered(Action::Rollback, mandate)])
    }

    /// Asks for the next key of a track as soon as it is safe.
    pub fn rotate(
        &mut self,
        algorithm: Algorithm,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        let seat_id = SeatId {
            algorithm,
            group: plan.group.clone(),
        };
        let unknown = self.unknown_track(algorithm);
        let seat = self.seats.get_mut(&seat_id).ok_or(unknown)?;
        seat.rotate_at = Some(tick.now);
        let active = seat.active;
        Ok(active
            .map(|id| Event::of(self.key(id), tick.now, What::RotationRequested))
            .map(|event| event.ordered(Action::Rotate, mandate))
            .into_iter()
            .collect())
    }

    /// The device has lost the key that signs: the next one is wanted as soon
    /// as it is safe. Nothing where the key does not sign, or a rotation is
    /// wanted already.
    pub fn rotate_lost(&mut self, kid: &str, tick: &Tick) -> Vec<Event> {
        let Some(key) = self.by_kid(kid) else {
            return Vec::new();
        };
        let event = Event::of(key, tick.now, What::RotationRequested);
        let (id, seat) = (key.id, key.seat());
        match self.seats.get_mut(&seat) {
            Some(seat) if seat.active == Some(id) && seat.rotate_at.is_none() => {
                seat.rotate_at = Some(tick.now);
                vec![event]
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn find(&self, kid: &str) -> Result<&Key, OperatorError> {
        self.by_kid(kid)
            .filter(|key| key.phase != Phase::Placeholder)
            .ok_or_else(|| match self.revoked.get(kid) {
                Some(revocation) => OperatorError::Forgotten {
                    kid: kid.to_owned(),
                    at: revocation.at,
                },
                None => OperatorError::UnknownKid {
                    kid: kid.to_owned(),
                    key_set: self.name.clone(),
                },
            })
    }
}

/// What kind of action it is to activate a key: one that is `safe` is part of
/// the end of the key before it.
fn activation(safe: Option<KeyId>) -> Action {
    safe.map_or(Action::ForceActivation, |_| Action::Block)
}

pub(super) fn ordered(events: Vec<Event>, action: Action, mandate: &Mandate) -> Vec<Event> {
    let events = events.into_iter();
    events.map(|event| event.ordered(action, mandate)).collect()
}

/// The key that an order had sign at once.
fn successor(events: &[Event]) -> Option<String> {
    let mut activated = events.iter().filter(|it| it.what == What::Activated);
    activated.next().and_then(|event| event.kid.clone())
}
