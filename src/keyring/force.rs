//! A key that signs before its time, while another one does: what an operator
//! may want when the one that signs must not go on, and is no reason to end it.
//!
//! It touches rule 1 alone: the instant lies as far ahead as any other, the key
//! before it retires as after any rotation, and one can go back to it. What was
//! made before a revocation is not forced in front of a key that signs (rule 5).

use super::OWN_LISTENER;
use super::advance::ahead;
use super::approval::Wish;
use super::event::{Event, What};
use super::key::{Key, KeyId, Mandate, Phase};
use super::operator::ordered;
use super::refusal::OperatorError;
use super::rules::{self, Action};
use super::set::{KeySet, Plan, SeatId, Switch, Tick};
use crate::jose::Algorithm;
use crate::time::Time;

/// What it would mean to have a key sign as soon as all agents can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forcing {
    /// The key.
    pub key: KeyId,
    /// From when on it would sign.
    pub at: Time,
    /// Whether rule 1 has nothing against that instant.
    pub safe: bool,
}

/// Whether one could go back from a forced key to the one that signs until then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WayBack {
    /// Between these instants.
    #[error("from {from} until {until}")]
    Open {
        /// Once every verifier holds it.
        from: Time,
        /// When its private half goes.
        until: Time,
    },
    /// Not before these origins show it, and their verifiers had time for it.
    #[error("once {} has shown it for long enough, until {until}", origins.join(" and "))]
    Unseen {
        /// Which.
        origins: Vec<String>,
        /// When its private half goes.
        until: Time,
    },
    /// Every verifier holds it once its private half is gone.
    #[error("its private half goes before every verifier holds it")]
    TooLate,
    /// By another rule.
    #[error("{0}")]
    Refused(OperatorError),
}

impl KeySet {
    /// Whether, and when, [`KeySet::rollback`] would go back from a key that is
    /// to sign from `activates` on. None where no key signs until then.
    #[must_use]
    pub fn way_back(
        &self,
        next: KeyId,
        activates: Time,
        plan: &Plan,
        tick: &Tick,
    ) -> Option<(KeyId, WayBack)> {
        let seat = self.seats.get(&self.keys.get(&next)?.seat())?;
        let before = seat.active.filter(|before| *before != next)?;
        let timing = &plan.timing;
        let until = rules::rule_4_destruction(rules::rule_2_last_use(activates, timing), timing);
        let open = |from: Time| match from < until {
            true => WayBack::Open { from, until },
            false => WayBack::TooLate,
        };
        // As it will be: what the order is refused for then, it knows itself.
        let mut then = self.clone();
        then.activate(next, activates, timing);
        let tick = Tick {
            now: activates,
            ..tick.clone()
        };
        let kid = self.key(before).kid.clone()?;
        let refused = then.rollback(&kid, &Mandate::default(), plan, &tick);
        let way = match refused {
            Ok(_) => open(activates),
            Err(OperatorError::NotObserved { .. }) => {
                let key = self.key(before);
                let required = self.required(plan, activates);
                let unseen = required.iter().filter(|origin| {
                    // The agent's own listener shows it within moments.
                    *origin != OWN_LISTENER && !key.sightings.contains_key(*origin)
                });
                let origins: Vec<_> = unseen.cloned().collect();
                match origins.is_empty() {
                    true => open(self.held_by_all(key, plan, activates).max(activates)),
                    false => WayBack::Unseen { origins, until },
                }
            }
            Err(e) => WayBack::Refused(e),
        };
        Some((before, way))
    }

    /// The track of those who ask for none: the first that has an active key.
    #[must_use]
    pub fn default_track(&self, plan: &Plan) -> Option<SeatId> {
        let tracks = plan.tracks.iter().map(|&(algorithm, _)| SeatId {
            algorithm,
            group: plan.group.clone(),
        });
        let mut tracks = tracks.filter(|id| {
            let seat = self.seats.get(id);
            seat.is_some_and(|seat| seat.active.is_some())
        });
        tracks.next()
    }

    /// The key that [`KeySet::force`] would have sign in a track, and when.
    ///
    /// # Errors
    /// Where there is none, or the order would be refused.
    pub fn forcing(
        &self,
        algorithm: Algorithm,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Forcing, OperatorError> {
        let seat_id = SeatId {
            algorithm,
            group: plan.group.clone(),
        };
        if !self.seats.contains_key(&seat_id) {
            return Err(self.unknown_track(algorithm));
        }
        let next = self.standby(&seat_id);
        let next = next.ok_or(OperatorError::NoStandby { algorithm })?;
        self.forced(next, plan, tick)
    }

    /// What an operator wants who has the next key of a track sign at once; none
    /// where every verifier holds it already, and so nothing is to be forced.
    ///
    /// # Errors
    /// As [`KeySet::forcing`].
    pub fn wish_to_force(
        &self,
        algorithm: Algorithm,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Option<Wish>, OperatorError> {
        let seat_id = SeatId {
            algorithm,
            group: plan.group.clone(),
        };
        // As if it had been said with the revocation: then one need not exist.
        let emptied = self.emptied_by(&seat_id).and_then(|key| key.kid.clone());
        if let Some(kid) = emptied {
            return Ok(Some(Wish::Activate { kid }));
        }
        let Forcing { key, safe, .. } = self.forcing(algorithm, plan, tick)?;
        let kid = self.key(key).kid.clone().filter(|_| !safe);
        Ok(kid.map(|kid| Wish::Force { kid }))
    }

    /// Has a standby sign before every verifier can hold it: as soon as every
    /// agent has heard of it, and at once where no key signs in its track.
    ///
    /// Nothing where that is decided already. Where rule 1 has nothing against
    /// the instant, it is a rotation as any other.
    pub fn force(
        &mut self,
        kid: &str,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        let key = self.find(kid)?;
        if matches!(key.phase, Phase::Active { .. }) || self.is_next(key.id) {
            return Ok(Vec::new());
        }
        let (seat, Forcing { key, at, safe }) = (key.seat(), self.forced(key, plan, tick)?);
        let action = if safe {
            Action::Rotate
        } else {
            Action::ForceActivation
        };
        if self.seats.get(&seat).is_none_or(|it| it.active.is_none()) {
            let activated = self.activate_now(key, safe, plan, tick);
            return Ok(ordered(activated, action, mandate));
        }
        let switch = Switch {
            to: key,
            at,
            rollback: false,
            forced: !safe,
        };
        let event = self.set_switch(switch, plan, tick.now);
        Ok(vec![event.ordered(action, mandate)])
    }

    /// Has a key sign at once, where none does: said so where it is before its
    /// time.
    pub(super) fn activate_now(
        &mut self,
        key: KeyId,
        safe: bool,
        plan: &Plan,
        tick: &Tick,
    ) -> Vec<Event> {
        let activates = tick.now;
        let mut events = Vec::new();
        if !safe {
            self.key_mut(key).forced = true;
            let what = What::ActivationForced { activates };
            events.push(Event::of(self.key(key), activates, what));
        }
        events.extend(self.activate(key, activates, &plan.timing));
        events
    }

    /// Until when verifiers that do not hold a key refuse its tokens, where it
    /// signs, or is about to, before every one of them can hold it.
    #[must_use]
    pub fn refused_until(&self, key: &Key, plan: &Plan, now: Time) -> Option<Time> {
        let seat = self.seats.get(&key.seat());
        let next = seat.and_then(|seat| seat.switch.as_ref());
        let is_next = next.is_some_and(|next| next.to == key.id && next.forced);
        let signs = matches!(key.phase, Phase::Active { .. }) && key.forced;
        let until = self.held_by_all(key, plan, now);
        ((is_next || signs) && now < until).then_some(until)
    }

    fn forced(&self, key: &Key, plan: &Plan, tick: &Tick) -> Result<Forcing, OperatorError> {
        let kid = || key.kid.clone().unwrap_or_default();
        if key.is_held() {
            return Err(OperatorError::Held { kid: kid() });
        }
        if !matches!(key.phase, Phase::Published { .. }) || !key.has_private_half() {
            let phase = key.phase.name();
            return Err(OperatorError::NotStandby { kid: kid(), phase });
        }
        let seat = self.seats.get(&key.seat());
        let seat = seat.ok_or_else(|| self.unknown_track(key.algorithm))?;
        let Some(active) = seat.active else {
            let at = tick.now;
            let safe = self.allowed(key, plan, tick, at) == Some(at);
            return Ok(Forcing {
                key: key.id,
                at,
                safe,
            });
        };
        if self.key(active).is_held() {
            let kid = self.key(active).kid.clone().unwrap_or_default();
            return Err(OperatorError::Held { kid });
        }
        if let Some(after) = seat.fresh_after
            && !rules::rule_5_fresh_key(key.created, Some(after))
        {
            return Err(OperatorError::BeforeRevocation { kid: kid(), after });
        }
        if let Some(near) = &seat.switch
            && near.to != key.id
            && near.at < tick.now + plan.timing.adoption
        {
            return Err(OperatorError::SwitchNear { at: near.at });
        }
        let at = tick.now + ahead(plan);
        let safe = self.allowed(key, plan, tick, at) == Some(at);
        Ok(Forcing {
            key: key.id,
            at,
            safe,
        })
    }

    pub(super) fn unknown_track(&self, algorithm: Algorithm) -> OperatorError {
        OperatorError::UnknownTrack {
            algorithm,
            key_set: self.name.clone(),
        }
    }
}

impl Switch {
    /// What is told where it is decided.
    pub(super) const fn told(&self) -> What {
        let activates = self.at;
        match (self.rollback, self.forced) {
            (true, _) => What::RollbackScheduled { activates },
            (false, true) => What::ActivationForced { activates },
            (false, false) => What::ActivationScheduled { activates },
        }
    }
}
