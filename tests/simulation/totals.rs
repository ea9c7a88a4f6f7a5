//! How often each kind of thing happened, so that the simulation cannot stop
//! testing without anybody noticing.

use std::collections::BTreeMap;
use std::fmt;

use sealkeeper::time::Span;

use super::verifiers::Crowd;

#[derive(Clone, Default)]
pub(crate) struct Totals {
    counts: BTreeMap<String, u64>,
    pub(crate) simulated: Span,
    pub(crate) events: u64,
    pub(crate) signatures: u64,
    /// What verifiers met.
    pub(crate) crowd: Crowd,
}

/// What must happen in any run of more than a few hundred seeds.
pub(crate) const EXPECTED: &[&str] = &[
    "activated",
    "activation-cancelled",
    "activation-forced",
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
    "destruction-stopped",
    "device: made it and said no",
    "device: refused",
    "device: slow",
    "generation-abandoned",
    "held",
    "held in doubt",
    "init asked for again",
    "observed-everywhere",
    "origin: died",
    "origin: went back out of sight",
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
    "unobserved",
    "verifier cache lowered",
    "verifier: refused what was revoked",
    "verifier: refused, its origin had nothing yet",
    "verifier: refused, its origin was dead",
    "verifier: refused, its origin went back",
    "verifier: refused, keeps sets for longer than the plan",
    "verifier: refused, nobody waited for it",
    "verifier: refused, with an old set of an origin that is dead",
    "verifier: refused, woke with an old set",
    "verifier: trusted what was revoked, and nobody was told",
    "verifier: trusted what was revoked, for as long as was told",
    "verifier: trusted what was revoked, has met no later key",
    "verifier: trusted what was revoked, its origin showed it on",
    "verifier: trusted what was revoked, its origin was dead",
    "verifier: trusted what was revoked, keeps sets for longer than the plan",
    "verifier: trusted what was revoked, woke with an old set",
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
        self.crowd.add(&other.crowd);
    }

    /// What was expected and never happened.
    pub(crate) fn missing(&self) -> Vec<String> {
        let never = |what: &&&str| !self.counts.contains_key(**what);
        let missing = EXPECTED.iter().filter(never);
        let missing = missing.map(|what| (*what).to_owned());
        missing.chain(self.crowd.missing()).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{count:>10}  {what}")?;
        }
        write!(f, "{}", self.crowd)
    }
}
