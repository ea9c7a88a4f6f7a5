//! What states ask of a record.

use sealkeeper::keyring::{KeyId, KeySet, Phase, Task, View};

use super::instance::{Instance, origin};
use super::lab::name;
use super::record::{Mask, NOW, bit, halves, mask, slot, slots};

/// What a record says, in bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// In the set, the placeholder included.
    pub(crate) shown: Mask,
    /// The record counts on their objects.
    pub(crate) present: Mask,
    /// The record knows of their objects.
    pub(crate) named: Mask,
    pub(crate) revoked: Mask,
    /// Not every verifier can hold them, because an operator said so.
    pub(crate) forced: Mask,
    pub(crate) active: Mask,
    /// The next key is to be one that was made after a revocation.
    pub(crate) wants_fresh: bool,
    /// Published, and not taken for the next activation any more than can be
    /// taken back.
    pub(crate) may_be_lost: Mask,
    /// Of these, those whose activation is not fixed yet. What happens out of
    /// sight between that and the activation no agent can know.
    pub(crate) may_stray: Mask,
    pub(crate) retiring: Mask,
    pub(crate) held: Mask,
    /// The origins for which nobody waits now.
    pub(crate) waived: Mask,
    /// For each agent, the keys that it is to have made, and destroyed, and
    /// those that a hold keeps from it, which it is to look for.
    pub(crate) tasks: [[Mask; 3]; 2],
}

impl Facts {
    /// What is read of a record and its view.
    pub(crate) fn of(inst: &Instance, set: &KeySet, view: &View) -> Self {
        let (present, named) = halves(set);
        let shown = mask(set, |key| {
            let mut published = view.published.iter();
            published.any(|shown| Some(&shown.kid) == key.kid.as_ref())
        });
        let seats = || set.seats.values();
        let fixed = |id: KeyId| {
            let mut switches = seats().filter_map(|seat| seat.switch.as_ref());
            switches.any(|s| s.to == id && s.at < NOW + inst.plan.timing.adoption)
        };
        let forced = |id: KeyId| {
            seats().any(|seat| {
                let next = seat.switch.as_ref().filter(|switch| switch.to == id);
                next.is_some_and(|switch| seat.force || switch.forced)
            })
        };
        let phase = |wanted: fn(&Phase) -> bool| mask(set, |key| wanted(&key.phase));
        Self {
            shown,
            present,
            named,
            revoked: phase(|phase| matches!(phase, Phase::Revoked { .. })),
            // Readers switch by themselves, before the record says it.
            forced: mask(set, |key| key.forced || forced(key.id)),
            active: phase(|phase| matches!(phase, Phase::Active { .. })),
            wants_fresh: set.seats.keys().any(|seat| set.owes_fresh(seat)),
            may_be_lost: mask(set, |key| {
                matches!(key.phase, Phase::Published { .. }) && !fixed(key.id)
            }),
            may_stray: mask(set, |key| {
                let next = seats().filter_map(|seat| seat.switch.as_ref());
                let fixed = next.into_iter().any(|switch| switch.to == key.id);
                matches!(key.phase, Phase::Published { .. }) && !fixed
            }),
            retiring: phase(|phase| matches!(phase, Phase::Retiring { .. })),
            held: mask(set, |key| key.is_held()),
            waived: slots(inst.origin_mask())
                .filter(|o| {
                    let waiver = set.waivers.get(&origin(*o));
                    waiver.is_some_and(|waiver| NOW < waiver.until)
                })
                .fold(0, |mask, o| mask | bit(o)),
            tasks: [0, 1].map(|r| {
                let intents = set.intents.values();
                let mine = intents.filter(|intent| intent.owner == name(r));
                mine.fold([0; 3], |[make, destroy, look], intent| {
                    let key = bit(slot(intent.task.key()));
                    match intent.task {
                        Task::Generate { .. } => [make | key, destroy, look],
                        _ if set.holds_back(&intent.task) => [make, destroy, look | key],
                        Task::Destroy { .. } => [make, destroy | key, look],
                    }
                })
            }),
        }
    }
}
