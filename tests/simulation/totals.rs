//! How often each kind of thing happened, so that the simulation cannot stop
//! testing without anybody noticing.

use std::collections::BTreeMap;
use std::fmt;

use sealkeeper::time::Span;

#[derive(Clone, Default)]
pub(crate) struct Totals {
    counts: BTreeMap<String, u64>,
    pub(crate) simulated: Span,
    pub(crate) events: u64,
    pub(crate) signatures: u64,
}

/// What must happen in any run of more than a few hundred seeds.
pub(crate) const EXPECTED: &[&str] = &[
    "activated",
    "activation-cancelled",
    "activation-scheduled",
    "clock: confirmed",
    "clock: doubted after a leap forward",
    "clock: doubted after a step back",
    "clock: doubted at a start after a gap",
    "clock: in doubt across a restart",
    "clock: small step",
    "crash: after the device call",
    "crash: after the intents",
    "crash: after the outcome, before the view",
    "crash: before the write",
    "crash: out of the blue",
    "destroy: gives a rollback up",
    "destroy: refused",
    "destroyed",
    "destruction-begun",
    "device: made it and said no",
    "device: refused",
    "device: slow",
    "generation-abandoned",
    "held",
    "held in doubt",
    "init asked for again",
    "observed-everywhere",
    "origin: died",
    "origin: went back to an older set",
    "placeholder shown",
    "placeholder-made",
    "published",
    "recovered",
    "recovery: an empty token",
    "recovery: refused",
    "regressed",
    "released",
    "removed",
    "retiring",
    "revoked",
    "revoked: active, with a safe standby",
    "revoked: active, without",
    "revoked: the last, a fresh one with it",
    "revoked: the last, and no device",
    "revoked: while a switch was ahead",
    "revoked: not yet durable",
    "rollback: too late",
    "rollback-scheduled",
    "rotation-requested",
    "sign: dropped at the release",
    "sign: during the handover",
    "sign: refused, hard limit",
    "sign: refused, lease over",
    "sign: refused, none active",
    "store: conflict",
    "store: refused",
    "timing changed",
    "track added",
    "track taken off",
];

impl Totals {
    pub(crate) fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(what.to_owned(), 1);
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
        self.simulated = self.simulated + other.simulated;
        self.events += other.events;
        self.signatures += other.signatures;
    }

    /// What was expected and never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let never = |what: &&&str| !self.counts.contains_key(**what);
        EXPECTED.iter().filter(never).copied().collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{count:>10}  {what}")?;
        }
        Ok(())
    }
}
