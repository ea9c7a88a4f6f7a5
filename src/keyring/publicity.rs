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
    /// What each of its addresses shows, where they differ; empty where all are
    /// alike.
    pub apart: BTreeMap<String, BTreeSet<Offer>>,
}

/// At one address.
impl From<BTreeSet<Offer>> for Shown {
    fn from(offers: BTreeSet<Offer>) -> Self {
        let kids = offers.iter().filter_map(|offer| offer.kid.clone());
        Self {
            everywhere: kids.collect(),
            anywhere: offers,
            apart: BTreeMap::new(),
        }
    }
}

impl Shown {
    /// At each of its addresses; `None` where there is none.
    #[must_use]
    pub fn at(addresses: BTreeMap<String, BTreeSet<Offer>>) -> Option<Self> {
        let mut each = addresses.values().cloned();
        let first = each.next()?;
        if each.all(|offers| offers == first) {
            return Some(Self::from(first));
        }
        let mut all = Self::from(first);
        for offers in addresses.values().skip(1).cloned() {
            let here = Self::from(offers);
            all.everywhere.retain(|kid| here.everywhere.contains(kid));
            all.anywhere.extend(here.anywhere);
        }
        all.apart = addresses;
        Some(all)
    }

    /// The addresses whose entries are so, where others' are not.
    fn addresses(&self, is_so: impl Fn(&BTreeSet<Offer>) -> bool) -> Vec<String> {
        let so = self.apart.iter().filter(|(_, offers)| is_so(offers));
        let so: Vec<_> = so.map(|(address, _)| address.clone()).collect();
        if so.len() == self.apart.len() {
            return Vec::new();
        }
        so
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
            ..self.clone()
        }
    }

    /// Without these `kid`s: of them it says nothing.
    #[must_use]
    pub fn less(mut self, kids: &BTreeSet<String>) -> Self {
        self.everywhere.retain(|kid| !kids.contains(kid));
        let among = |offer: &Offer| offer.kid.as_ref().is_some_and(|kid| kids.contains(kid));
        let each = self.apart.values_mut().chain([&mut self.anywhere]);
        each.for_each(|offers| offers.retain(|offer| !among(offer)));
        self
    }

    /// The entries of this `kid`.
    fn under<'a>(&'a self, kid: &'a str) -> impl Iterator<Item = &'a Offer> {
        under(&self.anywhere, kid)
    }

    /// What stands in place of a key under its `kid`, at one address at least;
    /// `None` where nothing else does.
    #[must_use]
    pub fn instead_of(&self, key: &Key) -> Option<Difference> {
        instead_of(key, &self.anywhere)
    }

    /// Whether verifiers find this very key at each address: its `kid` alone
    /// is but a name.
    #[must_use]
    pub fn shows(&self, key: &Key) -> bool {
        let kid = key.kid.as_ref();
        kid.is_some_and(|kid| self.everywhere.contains(kid)) && self.instead_of(key).is_none()
    }
}

fn under<'a>(offers: &'a BTreeSet<Offer>, kid: &'a str) -> impl Iterator<Item = &'a Offer> {
    let all = offers.iter();
    all.filter(move |offer| offer.kid.as_deref() == Some(kid))
}

fn instead_of(key: &Key, offers: &BTreeSet<Offer>) -> Option<Difference> {
    let (kid, public) = key.kid.as_deref().zip(key.public.as_ref())?;
    under(offers, kid).find_map(|offer| offer.differs_from(key.algorithm, public))
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
    /// The addresses of the origin where that is so; empty where it is so at
    /// all of them.
    pub addresses: Vec<String>,
}

/// ` at 192.0.2.7 and 192.0.2.8`, to be put behind what is said of the addresses
/// of an origin; nothing where none stands out.
#[must_use]
pub fn among(addresses: &[String]) -> String {
    match addresses {
        [] => String::new(),
        _ => format!(" at {}", addresses.join(" and ")),
    }
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
        let revoked = self.revoked_at(shown).into_iter().map(|(kid, it)| {
            let revocation = self.revoked.get(kid);
            Discrepancy {
                kid: kid.clone(),
                what: Wrong::ShowsRevoked,
                page: revocation.is_none_or(|it| now >= it.at + propagation),
                detail: it.detail,
                addresses: shown
                    .addresses(|offers| it.entries.iter().any(|it| offers.contains(*it))),
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
        let wrong = |what, page| Discrepancy {
            kid: kid.clone(),
            what,
            page,
            detail: String::new(),
            addresses: shown.addresses(|offers| under(offers, kid).next().is_none()),
        };
        if let Some(instead) = shown.instead_of(key) {
            return Some(Discrepancy {
                detail: instead.to_string(),
                addresses: shown.addresses(|offers| instead_of(key, offers).is_some()),
                ..wrong(Wrong::Impostor, true)
            });
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
        (seen >= key.published? + propagation).then(|| wrong(what, page))
    }

    /// The revoked keys that stand somewhere.
    ///
    /// The name alone is enough, and so is the key alone: a thief's tokens
    /// carry whatever `kid` it stands under. Keys that were made here are known
    /// by their thumbprint after the record has forgotten them.
    fn revoked_at<'a>(&'a self, shown: &'a Shown) -> BTreeMap<&'a String, Standing<'a>> {
        let mut found: BTreeMap<_, Standing> = BTreeMap::new();
        if self.revoked.is_empty() {
            return found;
        }
        for offer in &shown.anywhere {
            let named = offer.kid.as_ref();
            if let Some((kid, _)) = named.and_then(|kid| self.revoked.get_key_value(kid)) {
                let standing = found.entry(kid).or_default();
                standing.detail.clear();
                standing.entries.insert(offer);
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
                let first = || Standing {
                    detail: under,
                    ..Standing::default()
                };
                found.entry(kid).or_insert_with(first).entries.insert(offer);
            }
        }
        found
    }
}

/// How a revoked key still stands somewhere.
#[derive(Default)]
struct Standing<'a> {
    /// A word on the name, where it is not its own.
    detail: String,
    entries: BTreeSet<&'a Offer>,
}

/// Whoever serves it may write anything.
fn shortened(kid: &str) -> String {
    kid.chars().take(64).collect()
}
