//! What each rule has granted whom: the only thing that requests change.
//!
//! A lock for each rule that has a rate, held for one look into a map and
//! never across anything that waits. Rules without a rate take none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::policy::{Caller, Limiter, Rate, Refusal, Rules};
use crate::time::Span;

/// The limiters of one key set, by rule. Kept in memory: a restart forgets
/// what was used.
pub(super) struct Rates(BTreeMap<String, (Rate, Arc<Mutex<Limiter>>)>);

impl Rates {
    /// The limiters of `rules`; those of `before` for rules that have the rate
    /// that they had.
    pub(super) fn new(rules: &Rules, before: Option<&Self>) -> Self {
        let limited = rules.rules().iter().filter_map(|rule| {
            let rate = rule.rate?;
            let kept = before.and_then(|before| before.0.get(&rule.name));
            let limiter = match kept {
                Some((had, limiter)) if *had == rate => Arc::clone(limiter),
                _ => Arc::new(Mutex::new(Limiter::new(rate))),
            };
            Some((rule.name.clone(), (rate, limiter)))
        });
        Self(limited.collect())
    }

    /// Takes one signature of what `rule` grants `caller`. Asked last, when
    /// everything else speaks for the request: a mistake costs nothing, and
    /// what is refused here would otherwise have reached the device.
    ///
    /// `boot` and not the wall clock: a step must neither lock callers out nor
    /// let them flood.
    pub(super) fn take(
        &self,
        rules: &Rules,
        rule: &str,
        caller: &Caller,
        boot: Span,
    ) -> Result<(), Refusal> {
        let Some((rate, limiter)) = self.0.get(rule) else {
            return Ok(());
        };
        // The identity, and not the process: more processes are no more
        // callers.
        let caller = caller.to_string();
        let taken = {
            // Plain data: a panic elsewhere cannot have left it torn.
            let mut limiter = limiter.lock().unwrap_or_else(PoisonError::into_inner);
            limiter.take(&caller, boot)
        };
        taken.map_err(|wait| rules.rate_limited(rule, *rate, wait))
    }

    /// Gives back what [`Self::take`] took a moment ago.
    pub(super) fn give_back(&self, rule: &str, caller: &Caller) {
        if let Some((_, limiter)) = self.0.get(rule) {
            let mut limiter = limiter.lock().unwrap_or_else(PoisonError::into_inner);
            limiter.give_back(&caller.to_string());
        }
    }
}
