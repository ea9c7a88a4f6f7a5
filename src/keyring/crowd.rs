//! A set that is as large as rule 6 allows: after rotations that came quickly
//! no standby is made until others have left.

use super::advance::removal;
use super::key::{Key, Phase};
use super::rules;
use super::set::{KeySet, Plan, SeatId};
use crate::time::{Span, Time};

/// That a seat has as many keys in the set as rule 6 allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crowd {
    /// How many are published.
    pub published: usize,
    /// How many may be.
    pub allowed: usize,
    /// When enough of them have left; `None` where no date is known, as one is
    /// held.
    pub until: Option<Time>,
}

impl KeySet {
    /// Why a seat has no room for one more key (rule 6); `None` where it has.
    pub(super) fn crowd(&self, seat_id: &SeatId, plan: &Plan) -> Option<Crowd> {
        // Keys of an older system take no room from ours.
        let ours = |key: &&Key| key.is_published() && !key.placements.is_empty();
        let mine = self.keys.values().filter(|key| key.seat() == *seat_id);
        let mut there: Vec<&Key> = mine.filter(ours).collect();
        let allowed = |there: &[&Key]| {
            let longest = plan.timing.max_token_lifetime;
            let longest = there
                .iter()
                .map(|key| key.longest_lifetime)
                .fold(longest, Span::max);
            rules::rule_6_set_size(longest, &plan.timing)
        };
        let (published, allowed_now) = (there.len(), allowed(&there));
        if published < allowed_now {
            return None;
        }
        // As they leave, one after the other.
        let leaves = |key: &Key| match key.phase {
            Phase::Retiring { last_sign, .. } if !key.is_held() => {
                Some(removal(key, last_sign, plan))
            }
            _ => None,
        };
        there.sort_by_key(|key| {
            std::cmp::Reverse((leaves(key).unwrap_or(Time::FAR_FUTURE), key.id))
        });
        let mut until = None;
        while there.len() >= allowed(&there) {
            until = there.pop().and_then(leaves);
            if until.is_none() {
                break;
            }
        }
        Some(Crowd {
            published,
            allowed: allowed_now,
            until,
        })
    }

    /// Why no standby is made for a seat whose key is active, and when one is:
    /// the set is as large as rule 6 allows, after rotations that came quickly.
    /// `None` where there is a standby, or one may be made.
    #[must_use]
    pub fn no_room(&self, seat_id: &SeatId, plan: &Plan) -> Option<Crowd> {
        let mine = self.keys.values().filter(|key| key.seat() == *seat_id);
        let mut ahead = mine.filter(|key| {
            let published = matches!(key.phase, Phase::Published { .. });
            (published || key.is_coming()) && self.placeholder != Some(key.id)
        });
        let active = self.seats.get(seat_id)?.active.is_some();
        (active && ahead.next().is_none() && !self.owes_fresh(seat_id))
            .then(|| self.crowd(seat_id, plan))?
    }
}
