//! Whom a rule is about.

use std::collections::BTreeSet;

use super::identity::{DnsName, SpiffePattern};
use super::{Caller, CallerId};

/// Whom a rule concerns. What is given must all hold: a caller of one of the
/// `uids` that is also of one of the `gids`. A process has ids and a
/// certificate has names, so no rule asks for both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    /// Effective user ids.
    pub uids: Option<BTreeSet<u32>>,
    /// Group ids: the effective one or a supplementary one.
    pub gids: Option<BTreeSet<u32>>,
    /// DNS names of a certificate, compared exactly.
    pub dns: Option<BTreeSet<DnsName>>,
    /// SPIFFE IDs of a certificate.
    pub spiffe: Option<BTreeSet<SpiffePattern>>,
}

impl Matcher {
    /// Whether the rule is about this caller.
    #[must_use]
    pub fn matches(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Unix {
                uid, gid, groups, ..
            } => {
                let in_one_of = |gids: &BTreeSet<u32>| {
                    gids.contains(gid) || gids.intersection(groups).next().is_some()
                };
                let given = self.uids.is_some() || self.gids.is_some();
                given
                    && !self.wants_certificate()
                    && self.uids.as_ref().is_none_or(|uids| uids.contains(uid))
                    && self.gids.as_ref().is_none_or(in_one_of)
            }
            Caller::Tls { names } => {
                let is_named =
                    |wanted: &BTreeSet<DnsName>| wanted.intersection(names.dns()).next().is_some();
                let is_below = |wanted: &BTreeSet<SpiffePattern>| {
                    let id = names.spiffe();
                    id.is_some_and(|id| wanted.iter().any(|pattern| pattern.matches(id)))
                };
                self.wants_certificate()
                    && self.uids.is_none()
                    && self.gids.is_none()
                    && self.dns.as_ref().is_none_or(is_named)
                    && self.spiffe.as_ref().is_none_or(is_below)
            }
        }
    }

    /// Whether the rule could be about a caller of this id, whatever else it
    /// asks for.
    #[must_use]
    pub fn names(&self, id: &CallerId) -> bool {
        match id {
            CallerId::Unix(uid) => self.uids.as_ref().is_some_and(|uids| uids.contains(uid)),
            CallerId::Dns(name) => self.dns.as_ref().is_some_and(|dns| dns.contains(name)),
            CallerId::Spiffe(id) => {
                let patterns = self.spiffe.iter().flatten();
                patterns.into_iter().any(|pattern| pattern.matches(id))
            }
        }
    }

    /// Whether it is about somebody, and makes sense.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let Self {
            uids,
            gids,
            dns,
            spiffe,
        } = self;
        let process = uids.is_some() || gids.is_some();
        let certificate = dns.is_some() || spiffe.is_some();
        let empty = [
            uids.as_ref().is_some_and(BTreeSet::is_empty),
            gids.as_ref().is_some_and(BTreeSet::is_empty),
            dns.as_ref().is_some_and(BTreeSet::is_empty),
            spiffe.as_ref().is_some_and(BTreeSet::is_empty),
        ];
        if !(process || certificate) || empty.contains(&true) {
            return Err("expected at least one uid, gid, dns or spiffe, got none");
        }
        if process && certificate {
            return Err("expected uid and gid, or dns and spiffe, got some of both");
        }
        Ok(())
    }

    const fn wants_certificate(&self) -> bool {
        self.dns.is_some() || self.spiffe.is_some()
    }
}
