//! A person ends a private half before its time.

use super::event::Event;
use super::key::{Half, Key, Mandate, Phase};
use super::operator::ordered;
use super::refusal::OperatorError;
use super::rules::{self, Action};
use super::set::{KeySet, Plan, Tick};
use crate::time::Time;

impl KeySet {
    /// Destroys the private half of a key that signs no more. The public half
    /// stays in the set for as long as rule 3 wants it; no token suffers.
    ///
    /// A retiring key within its rollback window is destroyed only where
    /// `end_rollback` says that nobody is to go back to it. Nothing is done to
    /// a half that is gone already, or whose destruction has begun.
    ///
    /// Of a half that is lost the device is asked once more, and the record is
    /// at rest about it.
    ///
    /// Refused for what signs or will sign: to end that is to revoke it.
    pub fn destroy(
        &mut self,
        kid: &str,
        end_rollback: bool,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        let key = self.find(kid)?;
        let kid = kid.to_owned();
        if key.placements.is_empty() {
            return Err(OperatorError::NoPrivateHalf { kid });
        }
        if !key.may_have_private_half() {
            return Ok(Vec::new());
        }
        if key.is_held() {
            return Err(OperatorError::Held { kid });
        }
        if !key.placements.values().copied().any(Half::may_be_destroyed) {
            return Ok(Vec::new());
        }
        match key.phase {
            Phase::Retired { .. } | Phase::Revoked { .. } => {}
            Phase::Retiring { last_sign, .. } => {
                let mut switches = self.seats.values().filter_map(|seat| seat.switch.as_ref());
                if let Some(back) = switches.find(|switch| switch.to == key.id) {
                    return Err(OperatorError::RollsBack { kid, at: back.at });
                }
                let handed_over = rules::rule_4_destruction_by_order(last_sign, &plan.timing);
                if tick.now < handed_over {
                    let left = handed_over.since(tick.now);
                    return Err(OperatorError::HandingOver { kid, left });
                }
                let over = rules::rule_4_destruction(last_sign, &plan.timing);
                if tick.now < over && !end_rollback {
                    let left = over.since(tick.now);
                    return Err(OperatorError::EndsRollback { kid, left });
                }
            }
            Phase::Generating
            | Phase::Placeholder
            | Phase::Published { .. }
            | Phase::Active { .. } => {
                let phase = key.phase.name();
                return Err(OperatorError::Signs { kid, phase });
            }
        }
        if let Some(replica) = self.still_signs(key) {
            return Err(OperatorError::InUse { kid, replica });
        }
        let id = key.id;
        let events = self.begin_destruction(id, tick);
        Ok(ordered(events, Action::Destroy, mandate))
    }

    /// Until when the private half of a revoked key waits for a second person;
    /// none where it waits for nobody. Then it is destroyed all the same, as if
    /// the key had retired when it was revoked (rules 2 and 4), or when it did
    /// where it was retiring already.
    ///
    /// Why then: one person alone has automation destroy the half of any key
    /// by that time, with a rotation. A revocation brings it no nearer.
    #[must_use]
    pub fn kept_for_second(&self, key: &Key, plan: &Plan) -> Option<Time> {
        let Phase::Revoked { since, .. } = key.phase else {
            return None;
        };
        let waits = plan.two_people && key.has_private_half();
        let retires = rules::rule_2_last_use(since, &plan.timing);
        let last_sign = key
            .was_to_sign_until
            .map_or(retires, |retired| retired.min(retires));
        waits.then(|| rules::rule_4_destruction(last_sign, &plan.timing))
    }

    /// A replica that has not said that it signs no more with a key.
    pub(super) fn still_signs(&self, key: &Key) -> Option<String> {
        let mut replicas = self.replicas.iter();
        let behind = replicas.find(|(_, replica)| replica.confirmed < key.left_epoch);
        behind.map(|(name, _)| name.clone())
    }
}
