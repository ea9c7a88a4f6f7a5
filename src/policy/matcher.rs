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

    /// Which of the rule's fields keep this caller out, with what they expect
    /// and what the caller has; none where it is about the caller. For
    /// operators: it says whom else the rule is about.
    #[must_use]
    pub fn misses(&self, caller: &Caller) -> Vec<String> {
        let (uid, gids) = match caller {
            _ if self.matches(caller) => return Vec::new(),
            Caller::Tls { .. } if self.wants_certificate() => {
                return vec!["expected other names in the certificate".to_owned()];
            }
            Caller::Tls { .. } => return vec!["expected a local process".to_owned()],
            Caller::Unix { .. } if self.wants_certificate() => {
                return vec!["expected a certificate".to_owned()];
            }
            Caller::Unix {
                uid, gid, groups, ..
            } => (*uid, groups.iter().copied().chain([*gid])),
        };
        let gids: BTreeSet<u32> = gids.collect();
        let uid = (self.uids.as_ref())
            .filter(|wanted| !wanted.contains(&uid))
            .map(|wanted| format!("expected uid {}, got {uid}", one_of(wanted)));
        let gid = (self.gids.as_ref())
            .filter(|wanted| wanted.is_disjoint(&gids))
            .map(|wanted| format!("expected gid {}, got {}", one_of(wanted), one_of(&gids)));
        uid.into_iter().chain(gid).collect()
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

fn one_of(ids: &BTreeSet<u32>) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_which_field_keeps_a_caller_out() {
        let caller = |uid, groups: &[u32]| Caller::Unix {
            uid,
            gid: uid,
            groups: groups.iter().copied().collect(),
            pid: None,
        };
        let rule = |uids: &[u32], gids: &[u32]| {
            let set = |ids: &[u32]| (!ids.is_empty()).then(|| ids.iter().copied().collect());
            Matcher {
                uids: set(uids),
                gids: set(gids),
                ..Matcher::default()
            }
        };
        let us = caller(1000, &[27]);
        assert!(rule(&[1000], &[27]).misses(&us).is_empty());
        assert_eq!(
            rule(&[1001, 33], &[27]).misses(&us),
            ["expected uid 33 or 1001, got 1000"]
        );
        assert_eq!(
            rule(&[1001], &[33]).misses(&us),
            [
                "expected uid 1001, got 1000",
                "expected gid 33, got 27 or 1000"
            ]
        );
        let remote = Matcher {
            dns: Some(BTreeSet::new()),
            ..Matcher::default()
        };
        assert_eq!(remote.misses(&us), ["expected a certificate"]);
    }
}
