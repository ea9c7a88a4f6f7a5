//! That an origin is not waited for: for a while, and on record.
//!
//! A dead origin blocks every activation, as it should: its verifiers may not
//! hold the next key. Where nobody asks there any more, or the rotation
//! matters more than those who do, an operator waives it. It is watched all
//! the same, and it counts again by itself: a waiver that lasted for ever would
//! be a configuration that nobody reads.
//!
//! An activation asks for the waivers that hold at *its own* instant. So one
//! that ends before never had an effect on it, and one that ends after takes
//! nothing back; [`KeySet::restore`] does.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::event::{Event, What};
use super::key::{Key, Mandate};
use super::operator::ordered;
use super::refusal::OperatorError;
use super::rules::{self, Action};
use super::set::{KeySet, Plan, Tick};
use crate::time::{Span, Time};

/// The origin that is the agent's own listener. It shows what the agent itself
/// serves, and is never waived.
pub const OWN_LISTENER: &str = "own-listener";

/// The longest waiver: a period of the default schedule. Whoever wants more
/// looks at it again for each rotation, or takes the origin off the
/// configuration.
pub const LONGEST_WAIVER: Span = Span::from_days(90);

/// That an origin is not waited for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Waiver {
    /// Since when.
    pub since: Time,
    /// From this instant on the origin counts again.
    pub until: Time,
    /// Who asked for it.
    #[serde(flatten)]
    pub mandate: Mandate,
}

impl KeySet {
    /// Does not wait for an origin any more, for `span`; another waiver of it
    /// gives way.
    ///
    /// # Errors
    /// [`OperatorError::UnknownOrigin`], [`OperatorError::OwnListener`], and
    /// [`OperatorError::WaiverSpan`] for none at all or more than
    /// [`LONGEST_WAIVER`].
    pub fn waive(
        &mut self,
        origin: &str,
        span: Span,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        if origin == OWN_LISTENER {
            return Err(OperatorError::OwnListener);
        }
        if !plan.origins.contains(origin) {
            return Err(self.unknown_origin(origin, plan));
        }
        if span == Span::ZERO || span > LONGEST_WAIVER {
            return Err(OperatorError::WaiverSpan { span });
        }
        let until = tick.now + span;
        let waiver = Waiver {
            since: tick.now,
            until,
            mandate: mandate.clone(),
        };
        self.waivers.insert(origin.to_owned(), waiver);
        let what = What::OriginWaived {
            origin: origin.to_owned(),
            until,
        };
        let event = Event::of_no_key(plan, tick.now, what);
        Ok(ordered(vec![event], Action::Waive, mandate))
    }

    /// Waits for an origin again. An activation whose key it does not show is
    /// taken back, as long as every replica can still hear of that.
    ///
    /// # Errors
    /// [`OperatorError::UnknownOrigin`] for one that is neither waived nor
    /// configured.
    pub fn restore(
        &mut self,
        origin: &str,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        if self.waivers.remove(origin).is_none() {
            if plan.origins.contains(origin) {
                return Ok(Vec::new());
            }
            return Err(self.unknown_origin(origin, plan));
        }
        let what = What::OriginRestored {
            origin: origin.to_owned(),
        };
        let mut events = vec![Event::of_no_key(plan, tick.now, what)];
        events.extend(self.cancel_unsafe(plan, tick));
        Ok(ordered(events, Action::Restore, mandate))
    }

    /// The instants of activations whose key this origin does not show: after
    /// [`KeySet::restore`], those that are too near to be taken back.
    #[must_use]
    pub fn activations_unseen_by(&self, origin: &str) -> Vec<Time> {
        let switches = self.seats.values().filter_map(|seat| seat.switch.as_ref());
        let unseen = switches.filter(|switch| {
            let key = self.keys.get(&switch.to);
            key.is_some_and(|key| !key.sightings.contains_key(origin))
        });
        unseen.map(|switch| switch.at).collect()
    }

    /// Takes waivers that are over off the record. They had no effect on what
    /// happens from then on in any case.
    pub(super) fn end_waivers(&mut self, plan: &Plan, now: Time) -> Vec<Event> {
        let mut events = Vec::new();
        self.waivers.retain(|origin, waiver| {
            let lasts = now < waiver.until;
            if !lasts {
                let what = What::WaiverEnded {
                    origin: origin.clone(),
                };
                events.push(Event::of_no_key(plan, waiver.until, what));
            }
            lasts
        });
        events
    }

    /// The origins that must show a key which is active from `at` on.
    #[must_use]
    pub fn required<'a>(&self, plan: &'a Plan, at: Time) -> Cow<'a, BTreeSet<String>> {
        rules::exception_waiver(&plan.origins, &self.waivers, at)
    }

    /// Since when every origin has shown a key that is required at `at`.
    #[must_use]
    pub fn observed(&self, key: &Key, plan: &Plan, at: Time) -> Option<Time> {
        let required = self.required(plan, at);
        rules::exception_observers(&required, &key.sightings, &required)
    }

    /// The earliest activation that rule 1 allows, not before `from`, by the
    /// waivers that hold at `from`: what comes later is judged anew. `None` while
    /// an origin that counts does not show the key, or is not live.
    pub(super) fn allowed(&self, key: &Key, plan: &Plan, tick: &Tick, from: Time) -> Option<Time> {
        let required = self.required(plan, from);
        let live = self.live_on_record(plan, tick);
        let observed = rules::exception_observers(&required, &key.sightings, &live)?;
        Some(self.held_everywhere(observed, plan).max(from))
    }

    /// The origins that answered lately, to this agent, and on record: where an
    /// answer did not get there, the runs of sightings say nothing of the time
    /// before it, in which nobody may have looked.
    fn live_on_record(&self, plan: &Plan, tick: &Tick) -> BTreeSet<String> {
        let patience = plan.timing.patience();
        let on_record = |origin: &&String| {
            let looked = self.looked.get(*origin);
            *origin == OWN_LISTENER || looked.is_some_and(|at| tick.now.since(*at) <= patience)
        };
        tick.live.iter().filter(on_record).cloned().collect()
    }

    fn unknown_origin(&self, origin: &str, plan: &Plan) -> OperatorError {
        OperatorError::UnknownOrigin {
            origin: origin.to_owned(),
            key_set: self.name.clone(),
            known: plan.origins.iter().cloned().collect(),
        }
    }
}
