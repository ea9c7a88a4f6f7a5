//! What the configuration wants of a key set, as its readers use it. A reload
//! replaces the whole of it; a request goes by the one that it began with.

use std::collections::BTreeMap;

use super::Wanted;
use super::rates::Rates;
use super::signing::SignError;
use crate::clock::Reading;
use crate::keyring::Timing;
use crate::policy::{Approvals, Caller, Rules};

/// Who may sign what, and by which numbers.
pub(super) struct Terms {
    /// Who may sign what.
    pub(super) rules: Rules,
    /// The schedule's numbers.
    pub(super) timing: Timing,
    /// What rules have granted.
    pub(super) rates: Rates,
    /// Whether some orders wait for a second person.
    pub(super) approvals: Option<Approvals>,
    /// Where the JWKS is observed: addresses by name.
    pub(super) observed_at: BTreeMap<String, String>,
}

impl Terms {
    /// Those of a configuration. What callers have used of a rate goes on to
    /// count where the rule has it still: a reload is no way to get more.
    pub(super) fn of(wanted: &Wanted, before: Option<&Self>) -> Self {
        let rules = wanted.rules.clone();
        let origins = wanted.origins.iter().chain(&wanted.own);
        Self {
            rates: Rates::new(&rules, before.map(|before| &before.rates)),
            rules,
            timing: wanted.plan.timing,
            approvals: wanted.approvals.clone(),
            observed_at: origins
                .map(|origin| (origin.name().to_owned(), origin.url().to_string()))
                .collect(),
        }
    }

    /// Takes one signature of what a rule grants a caller.
    pub(super) fn take_rate(
        &self,
        rule: &str,
        caller: &Caller,
        reading: Reading,
    ) -> Result<(), SignError> {
        let taken = self.rates.take(&self.rules, rule, caller, reading.boot);
        taken.map_err(SignError::Refused)
    }

    /// What found no place at the device costs nothing: its caller comes again.
    pub(super) fn give_back(&self, rule: &str, caller: &Caller) {
        self.rates.give_back(rule, caller);
    }
}
