//! What an operator orders of single keys.

use sealkeeper::keyring::{Mandate, OperatorError, Phase, rules};

use super::agent::Stop;
use super::world::World;

impl World {
    pub(crate) fn roll_back(&mut self, r: usize) {
        let kids = self.kids(|phase| matches!(phase, Phase::Retiring { .. }));
        let Some(kid) = self.random.pick(&kids).cloned() else {
            return;
        };
        let done = self.change(r, &|set, plan, tick| {
            set.rollback(&kid, &Mandate::default(), plan, tick)
        });
        if let Err(Stop::Refused(OperatorError::DestructionBegun { .. })) = done {
            self.totals.count("rollback: too late");
        }
        self.say(|| format!("roll back to {kid} at {r}: {done:?}"));
    }

    /// Has a standby sign before its time.
    pub(crate) fn force(&mut self, r: usize) {
        let kids = self.kids(|phase| matches!(phase, Phase::Published { .. }));
        let Some(kid) = self.random.pick(&kids).cloned() else {
            return;
        };
        let done = self.change(r, &|set, plan, tick| {
            set.force(&kid, &Mandate::default(), plan, tick)
        });
        self.say(|| format!("force {kid} at {r}: {done:?}"));
    }

    pub(crate) fn order_destruction(&mut self, r: usize) {
        let kids = self.kids(|phase| !matches!(phase, Phase::Placeholder));
        let Some(kid) = self.random.pick(&kids).cloned() else {
            return;
        };
        let end_rollback = self.random.chance(500);
        if end_rollback {
            self.ledger.given_up.insert(kid.clone());
        }
        let done = self.change(r, &|set, plan, tick| {
            set.destroy(&kid, end_rollback, &Mandate::default(), plan, tick)
        });
        if let Err(Stop::Refused(_)) = done {
            self.ledger.given_up.remove(&kid);
            self.totals.count("destroy: refused");
        } else if done.is_ok() && self.is_given_up(&kid) {
            self.totals.count("destroy: gives a rollback up");
        }
        self.say(|| format!("destroy {kid} at {r}: {done:?}"));
        self.carry_out(r);
    }

    /// Whether the half of a key is being destroyed within its rollback window.
    fn is_given_up(&self, kid: &str) -> bool {
        let Some(key) = self.store.record.by_kid(kid) else {
            return false;
        };
        let Phase::Retiring { last_sign, .. } = key.phase else {
            return false;
        };
        let over = rules::rule_4_destruction(last_sign, &self.plan.timing);
        !key.has_private_half() && self.now + self.plan.timing.skew < over
    }

    /// In doubt too, since it only restricts.
    pub(crate) fn hold(&mut self, r: usize) {
        let kids = self.kids(|_| true);
        let Some(kid) = self.random.pick(&kids).cloned() else {
            return;
        };
        let done = self.change(r, &|set, plan, tick| {
            set.hold(&kid, &Mandate::default(), plan, tick)
        });
        self.say(|| format!("hold {kid} at {r}: {done:?}"));
        if let Err(Stop::Doubt) = done {
            self.hold_in_doubt(r, &kid);
        }
    }

    pub(crate) fn release_all(&mut self, r: usize) {
        let held: Vec<String> = self
            .store
            .record
            .keys
            .values()
            .filter(|key| key.is_held())
            .filter_map(|key| key.kid.clone())
            .collect();
        for kid in held {
            let _ = self.change(r, &|set, _, tick| {
                set.release(&kid, &Mandate::default(), tick)
            });
        }
    }
}
