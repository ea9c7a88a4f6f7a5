//! What verifiers are promised, looked at in each state.

use super::instance::Instance;
use super::lab::{Broken, Lab, kid, units};
use super::record::{Mask, bit, slots};
use super::world::State;

impl State {
    /// Every bounded verifier can check every token that is alive, but for
    /// those of revoked keys, of keys that an operator forced, and at an origin
    /// of keys that came to sign while nobody waited for it.
    pub(super) fn promise_tokens(
        &self,
        signed: Mask,
        excused: Mask,
        inst: &Instance,
    ) -> Result<(), Broken> {
        for key in slots(!excused) {
            let alive = self.tokens[key] > 0 || signed & bit(key) != 0;
            if !alive {
                continue;
            }
            for (o, run) in self.runs[..inst.plan.origins.len()].iter().enumerate() {
                // Nobody waited for it, and that was told.
                let unseen = self.unseen[o] & bit(key) != 0;
                if !unseen && run[key] < whole_run(inst) {
                    return Err(format!(
                        "a verifier of origin {o} cannot check a token of {}",
                        kid(key)
                    ));
                }
            }
        }
        Ok(())
    }

    /// After a revocation the schedule goes on to a key that was made later,
    /// and whoever fetches only what it does not know has dropped the revoked
    /// one when it meets that key.
    pub(super) fn promise_fresh(&self, before: &Self, lab: &Lab) -> Result<(), Broken> {
        let (before, facts) = (lab.facts(before.record), lab.facts(self.record));
        if facts.wants_fresh {
            if !before.wants_fresh && before.revoked == facts.revoked {
                return Err("a key of before the last revocation is active again".to_owned());
            }
            return Ok(());
        }
        for key in slots(facts.active) {
            if let Some(old) = slots(self.beside[key] & facts.revoked).next() {
                return Err(format!(
                    "a verifier that knows {} still trusts {}, which was revoked",
                    kid(key),
                    kid(old)
                ));
            }
        }
        Ok(())
    }
}

/// From here on every verifier holds what the origin serves: it keeps a set for
/// C, or for as long as the set's own headers let it.
pub(super) fn whole_run(inst: &Instance) -> u8 {
    let timing = &inst.world.timing;
    let kept = (timing.verifier_cache).max(timing.max_age + timing.cdn_stale);
    units(timing.propagation + kept) + 1
}
