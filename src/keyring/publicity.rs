//! What is wrong with what the public gets.

use std::collections::BTreeSet;

use super::key::Phase;
use super::set::KeySet;
use crate::time::{Span, Time};

/// A key that an origin serves and should not, or the other way round.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Discrepancy {
    /// The key.
    pub kid: String,
    /// What is wrong with it.
    pub what: Wrong,
    /// Whether somebody has to look at once: verifiers refuse good tokens, or
    /// take bad ones.
    pub page: bool,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// A key whose tokens are being verified is not there.
    Lacks,
    /// The next key is not there yet, though it should be. Its activation
    /// waits.
    Lags,
    /// A revoked key is still there.
    ShowsRevoked,
}

impl Wrong {
    /// What an origin does, in three words or so.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Lacks => "lacks a key that it should show",
            Self::Lags => "does not show the next key yet",
            Self::ShowsRevoked => "still shows a revoked key",
        }
    }
}

impl KeySet {
    /// Compares with what an origin was seen to show: `everywhere` at each of
    /// its addresses, `anywhere` at one of them at least.
    ///
    /// `propagation` (the term `P` of the rotation rules) is how long an
    /// origin may take to show a change; only what takes longer is wrong, but
    /// for a revoked key, which is told at once and is urgent after that.
    #[must_use]
    pub fn discrepancies(
        &self,
        everywhere: &BTreeSet<String>,
        anywhere: &BTreeSet<String>,
        now: Time,
        propagation: Span,
    ) -> Vec<Discrepancy> {
        let lacking = self.keys.values().filter_map(|key| {
            let kid = key.kid.as_ref().filter(|kid| !everywhere.contains(*kid))?;
            let (what, page) = match key.phase {
                Phase::Active { .. } | Phase::Retiring { .. } => (Wrong::Lacks, true),
                Phase::Published { .. } => (Wrong::Lags, false),
                _ => return None,
            };
            (now >= key.published? + propagation).then(|| Discrepancy {
                kid: kid.clone(),
                what,
                page,
            })
        });
        let shown = |(kid, _): &(&String, _)| anywhere.contains(*kid);
        let revoked = self.revoked.iter().filter(shown);
        let revoked = revoked.map(|(kid, revocation)| Discrepancy {
            kid: kid.clone(),
            what: Wrong::ShowsRevoked,
            page: now >= revocation.at + propagation,
        });
        lacking.chain(revoked).collect()
    }
}
