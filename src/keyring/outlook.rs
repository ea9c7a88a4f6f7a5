//! What lies ahead for a key: for people, and for the caches of the set.

use super::advance::removal;
use super::key::{Key, Phase};
use super::rules;
use super::set::{KeySet, Plan};
use crate::time::Time;

/// The instants that lie ahead for a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// When it becomes active.
    pub activates: Option<Time>,
    /// When its successor is due.
    pub retires: Option<Time>,
    /// When its private half is to be destroyed.
    pub destroyed: Option<Time>,
    /// When it is to leave the set.
    pub removed: Option<Time>,
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
            .map(|switch| switch.at);
        let retires = match key.phase {
            Phase::Active { .. } => switch
                .map(|switch| switch.at)
                .or_else(|| self.due(&key.seat(), plan)),
            _ => None,
        };
        let (destroyed, removed) = match key.phase {
            Phase::Retiring { last_sign, .. } if !key.is_held() => {
                let half = rules::rule_4_destruction(last_sign, &plan.timing);
                (
                    key.has_private_half().then_some(half),
                    Some(removal(key, last_sign, plan)),
                )
            }
            _ => (None, None),
        };
        Outlook {
            activates,
            retires,
            destroyed,
            removed,
        }
    }
}
