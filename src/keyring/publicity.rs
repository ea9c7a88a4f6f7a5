//! What is wrong with what the public gets.

use std::collections::{BTreeMap, BTreeSet};

use super::key::{Key, Phase};
use super::set::KeySet;
use crate::jose::{Difference, Offer, thumbprint};
use crate::time::{Span, Time};

/// What an origin shows, at all of its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The `kid`s that stand at each of its addresses. Whether our keys stand
    /// behind them, `anywhere` says.
    pub everywhere: BTreeSet<String>,
    /// Each entry that stands at one of its addresses at least.
    pub anywhere: BTreeSet<Offer>,
}

/// Of one address.
impl From<BTreeSet<Offer>> for Shown {
    fn from(offers: BTreeSet<Offer>) -> Self {
        let kids = offers.iter().filter_map(|offer| offer.kid.clone());
        Self {
            everywhere: kids.collect(),
            anywhere: offers,
        }
    }
}

impl Shown {
    /// With what one more address shows.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let Self {
            everywhere,
            mut anywhere,
        } = self;
        anywhere.extend(other.anywhere);
        Self {
            everywhere: everywhere
                .intersection(&other.everywhere)
                .cloned()
                .collect(),
            anywhere,
        }
    }

    /// The latest answer, with only those `kid`s that stood in the one before
    /// it as well, with the same behind them: a run of sightings goes on for
    /// these alone.
    #[must_use]
    pub fn after(&self, before: &Self) -> Self {
        let goes_on = |kid: &&String| {
            before.everywhere.contains(*kid) && before.under(kid).eq(self.under(kid))
        };
        Self {
            everywhere: self.everywhere.iter().filter(goes_on).cloned().collect(),
            anywhere: self.anywhere.clone(),
        }
    }

    /// Without these `kid`s: of them it says nothing.
    #[must_use]
    pub fn less(mut self, kids: &BTreeSet<String>) -> Self {
        self.everywhere.retain(|kid| !kids.contains(kid));
        let among = |offer: &Offer| offer.kid.as_ref().is_some_and(|kid| kids.contains(kid));
        self.anywhere.retain(|offer| !among(offer));
        self
    }

    /// The entries of this `kid`.
    fn under<'a>(&'a self, kid: &'a str) -> impl Iterator<Item = &'a Offer> {
        let all = self.anywhere.iter();
        all.filter(move |offer| offer.kid.as_deref() == Some(kid))
    }

    /// What stands in place of a key under its `kid`, at one address at least;
    /// `None` where nothing else does.
    #[must_use]
    pub fn instead_of(&self, key: &Key) -> Option<Difference> {
        let (kid, public) = key.kid.as_deref().zip(key.public.as_ref())?;
        self.under(kid)
            .find_map(|offer| offer.differs_from(key.algorithm, public))
    }

    /// Whether verifiers find this very key at each address: its `kid` alone
    /// is but a name.
    #[must_use]
    pub fn shows(&self, key: &Key) -> bool {
        let kid = key.kid.as_ref();
        kid.is_some_and(|kid| self.everywhere.contains(kid)) && self.instead_of(key).is_none()
    }
}

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
    /// More on it, for people; empty where there is no more.
    pub detail: String,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// A key whose tokens are being verified is not there.
    Lacks,
    /// The next key is not there yet, though it should be. Its activation
    /// waits.
    Lags,
    /// A revoked key is still there, under its `kid` or another.
    ShowsRevoked,
    /// Something else stands there under the `kid` of a key.
    Impostor,
}

impl Wrong {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lacks, Self::Lags, Self::ShowsRevoked, Self::Impostor];

    /// What an origin does, in three words or so.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Lacks => "lacks a key that it should show",
            Self::Lags => "does not show the next key yet",
            Self::ShowsRevoked => "still shows a revoked key",
            Self::Impostor => "shows something else under the id of a key",
        }
    }

    /// A stable word for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lacks => "lacks_key",
            Self::Lags => "lags",
            Self::ShowsRevoked => "shows_revoked",
            Self::Impostor => "impostor",
        }
    }
}

impl KeySet {
    /// The `kid`s under which an origin shows this set's own keys at each of
    /// its addresses: what [`KeySet::observe`] is told.
    #[must_use]
    pub fn recognised(&self, shown: &Shown) -> BTreeSet<String> {
        let ours = self.keys.values().filter(|key| shown.shows(key));
        ours.filter_map(|key| key.kid.clone()).collect()
    }

    /// Compares with what an origin was seen to show at `seen`.
    ///
    /// An answer says nothing of a key that was published, or became active,
    /// after it: the origin may have been silent since.
    ///
    /// `propagation` (the term `P` of the rotation rules) is how long an
    /// origin may take to show a change; only what takes longer is wrong, but
    /// for a revoked key, which is told at once and is urgent after that, and
    /// for what nobody should ever serve under the `kid` of a key.
    #[must_use]
    pub fn discrepancies(
        &self,
        shown: &Shown,
        seen: Time,
        now: Time,
        propagation: Span,
    ) -> Vec<Discrepancy> {
        let keys = self.keys.values();
        let ours = keys.filter_map(|key| self.misses(key, shown, seen, propagation));
        let revoked = self.revoked_at(shown).into_iter().map(|(kid, detail)| {
            let revocation = self.revoked.get(kid);
            Discrepancy {
                kid: kid.clone(),
                what: Wrong::ShowsRevoked,
                page: revocation.is_none_or(|it| now >= it.at + propagation),
                detail,
            }
        });
        ours.chain(revoked).collect()
    }

    /// What is wrong with a key of the set, or of before, that is not revoked.
    fn misses(
        &self,
        key: &Key,
        shown: &Shown,
        seen: Time,
        propagation: Span,
    ) -> Option<Discrepancy> {
        let kid = (key.kid.as_ref()).filter(|kid| !self.revoked.contains_key(*kid))?;
        let wrong = |what, page, detail| Discrepancy {
            kid: kid.clone(),
            what,
            page,
            detail,
        };
        if let Some(instead) = shown.instead_of(key) {
            return Some(wrong(Wrong::Impostor, true, instead.to_string()));
        }
        if shown.everywhere.contains(kid) {
            return None;
        }
        let (what, page) = match key.phase {
            Phase::Active { .. } | Phase::Retiring { .. } => {
                // It was asked several times within P, if it answered at all.
                let of_before = key.activated().is_some_and(|at| seen + propagation < at);
                if of_before {
                    return None;
                }
                (Wrong::Lacks, true)
            }
            Phase::Published { .. } => (Wrong::Lags, false),
            _ => return None,
        };
        (seen >= key.published? + propagation).then(|| wrong(what, page, String::new()))
    }

    /// The revoked keys that stand somewhere, each with a word on where.
    ///
    /// The name alone is enough, and so is the key alone: a thief's tokens
    /// carry whatever `kid` it stands under. Keys that were made here are known
    /// by their thumbprint after the record has forgotten them.
    fn revoked_at(&self, shown: &Shown) -> BTreeMap<&String, String> {
        let mut found = BTreeMap::new();
        if self.revoked.is_empty() {
            return found;
        }
        for offer in &shown.anywhere {
            let named = offer.kid.as_ref();
            if let Some((kid, _)) = named.and_then(|kid| self.revoked.get_key_value(kid)) {
                found.insert(kid, String::new());
                continue;
            }
            let Some(public) = &offer.key else { continue };
            let by_record = || {
                let mut revoked = self
                    .keys
                    .values()
                    .filter(|key| matches!(key.phase, Phase::Revoked { .. }));
                let key = revoked.find(|key| key.public.as_ref() == Some(public))?;
                self.revoked.get_key_value(key.kid.as_ref()?)
            };
            let revoked = self.revoked.get_key_value(&thumbprint(public));
            if let Some((kid, _)) = revoked.or_else(by_record) {
                let under = match named {
                    Some(kid) => format!("under the id {:?}", shortened(kid)),
                    None => "under no id".to_owned(),
                };
                found.entry(kid).or_insert(under);
            }
        }
        found
    }
}

/// Whoever serves it may write anything.
fn shortened(kid: &str) -> String {
    kid.chars().take(64).collect()
}
