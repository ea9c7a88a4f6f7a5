//! Each caller since the start, up to a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::durable::Blocked;
use crate::policy::identity::SpiffePattern;
use crate::policy::rules::{Matcher, Rule};
use crate::policy::{Caller, CallerId, Rules};
use crate::time::Time;

/// Callers that are remembered. Of more than these, whoever was not seen for
/// longest is forgotten; one that is connected only after all others.
pub(super) const CAPACITY: usize = 1024;

/// A caller as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerStatus {
    /// Its stable id; for what is no single caller, how a rule names it.
    pub id: String,
    /// What it is.
    pub kind: CallerKind,
    /// Every id by which it can be blocked; none for what is no single caller.
    pub ids: Vec<CallerId>,
    /// The rules about it, in order.
    pub rules: Vec<RuleName>,
    /// When it connected first since the start; never where absent.
    pub first_seen: Option<Time>,
    /// When it connected or asked last.
    pub last_seen: Option<Time>,
    /// Requests since the start.
    pub requests: u64,
    /// How many of them were refused.
    pub refusals: u64,
    /// Calls that are open now: requests, streams and watches.
    pub open: u64,
    /// What it found no room for since the start.
    pub turned_away: u64,
    /// Since when it is blocked, by whom and why.
    pub block: Option<Blocked>,
    /// Whether that is stored.
    pub block_is_durable: bool,
}

/// What a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerKind {
    /// A local user.
    Unix,
    /// The holder of a certificate with a SPIFFE ID.
    Spiffe,
    /// The holder of a certificate with a DNS name.
    Dns,
    /// Every member of a local group that a rule names.
    Group,
    /// Every SPIFFE ID below a path that a rule names.
    SpiffeBelow,
}

/// A rule of a key set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName {
    /// The key set.
    pub key_set: String,
    /// The rule.
    pub rule: String,
}

/// What is counted for one caller.
#[derive(Debug)]
pub(super) struct Account {
    first_seen: Time,
    /// Milliseconds.
    last_seen: AtomicI64,
    requests: AtomicU64,
    refusals: AtomicU64,
    open: AtomicU64,
    turned_away: AtomicU64,
}

/// A call of a caller, open until it is dropped.
#[derive(Debug)]
pub struct Open(Arc<Account>);

impl Open {
    pub(super) fn of(account: &Arc<Account>) -> Self {
        account.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(account))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    fn new(now: Time) -> Self {
        Self {
            first_seen: now,
            last_seen: AtomicI64::new(now.as_millis()),
            requests: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            open: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
        }
    }

    pub(super) fn asked(&self, now: Time) {
        self.last_seen.store(now.as_millis(), Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }
}

/// Accounts by the id of the caller.
#[derive(Debug, Default)]
pub(super) struct Table {
    seen: BTreeMap<CallerId, Seen>,
}

#[derive(Debug)]
struct Seen {
    /// As it connected last.
    caller: Caller,
    account: Arc<Account>,
}

impl Table {
    /// The account of a caller that connects.
    pub(super) fn enter(&mut self, caller: &Caller, now: Time) -> Arc<Account> {
        let id = caller.id();
        if !self.seen.contains_key(&id) && self.seen.len() >= CAPACITY {
            self.forget_one();
        }
        let seen = self.seen.entry(id).or_insert_with(|| Seen {
            caller: caller.clone(),
            account: Arc::new(Account::new(now)),
        });
        seen.caller = caller.clone();
        seen.account
            .last_seen
            .store(now.as_millis(), Ordering::Relaxed);
        Arc::clone(&seen.account)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    fn forget_one(&mut self) {
        let oldest = self.seen.iter().min_by_key(|(_, seen)| {
            let connected = Arc::strong_count(&seen.account) > 1;
            (connected, seen.account.last_seen.load(Ordering::Relaxed))
        });
        if let Some(id) = oldest.map(|(id, _)| id.clone()) {
            self.seen.remove(&id);
        }
    }

    /// Those who called, and those whom a rule names, by id.
    pub(super) fn statuses(&self, rules: &[Rules]) -> BTreeMap<String, CallerStatus> {
        let mut all = BTreeMap::new();
        for Seen { caller, account } in self.seen.values() {
            let status = CallerStatus {
                rules: naming(rules, |who| who.matches(caller)),
                ids: caller.ids(),
                first_seen: Some(account.first_seen),
                last_seen: Some(Time::from_millis(account.last_seen.load(Ordering::Relaxed))),
                requests: account.requests.load(Ordering::Relaxed),
                refusals: account.refusals.load(Ordering::Relaxed),
                open: account.open.load(Ordering::Relaxed),
                turned_away: account.turned_away.load(Ordering::Relaxed),
                ..CallerStatus::nobody(caller.id().to_string(), kind(&caller.id()))
            };
            all.insert(status.id.clone(), status);
        }
        for rule in rules.iter().flat_map(Rules::rules) {
            for status in named(rule, rules) {
                all.entry(status.id.clone()).or_insert(status);
            }
        }
        all
    }
}

impl CallerStatus {
    /// One that has not called since the start.
    pub(super) fn unseen(id: &CallerId, rules: &[Rules]) -> Self {
        Self {
            rules: naming(rules, |who| who.names(id)),
            ids: vec![id.clone()],
            ..Self::nobody(id.to_string(), kind(id))
        }
    }

    const fn nobody(id: String, kind: CallerKind) -> Self {
        Self {
            id,
            kind,
            ids: Vec::new(),
            rules: Vec::new(),
            first_seen: None,
            last_seen: None,
            requests: 0,
            refusals: 0,
            open: 0,
            turned_away: 0,
            block: None,
            block_is_durable: false,
        }
    }
}

const fn kind(id: &CallerId) -> CallerKind {
    match id {
        CallerId::Unix(_) => CallerKind::Unix,
        CallerId::Spiffe(_) => CallerKind::Spiffe,
        CallerId::Dns(_) => CallerKind::Dns,
    }
}

fn naming(rules: &[Rules], is_about: impl Fn(&Matcher) -> bool) -> Vec<RuleName> {
    let mut found = Vec::new();
    for set in rules {
        for rule in set.rules().iter().filter(|rule| is_about(&rule.who)) {
            found.push(RuleName {
                key_set: set.key_set().to_owned(),
                rule: rule.name.clone(),
            });
        }
    }
    found
}

/// Whom a rule names, whether they called or not.
fn named(rule: &Rule, rules: &[Rules]) -> Vec<CallerStatus> {
    let who = &rule.who;
    let mut found = Vec::new();
    let mut one = |id: CallerId| found.push(CallerStatus::unseen(&id, rules));
    for uid in who.uids.iter().flatten() {
        one(CallerId::Unix(*uid));
    }
    for name in who.dns.iter().flatten() {
        one(CallerId::Dns(name.clone()));
    }
    let mut many = Vec::new();
    for pattern in who.spiffe.iter().flatten() {
        match pattern {
            SpiffePattern::Exact(id) => one(CallerId::Spiffe(id.clone())),
            SpiffePattern::Below(_) => many.push((pattern.to_string(), CallerKind::SpiffeBelow)),
        }
    }
    if who.uids.is_none() {
        let groups = who.gids.iter().flatten();
        many.extend(groups.map(|gid| (format!("gid:{gid}"), CallerKind::Group)));
    }
    for (id, kind) in many {
        let about = |who: &Matcher| match kind {
            CallerKind::Group => lists(who.gids.as_ref(), |gid| format!("gid:{gid}") == id),
            _ => lists(who.spiffe.as_ref(), |pattern| pattern.to_string() == id),
        };
        found.push(CallerStatus {
            rules: naming(rules, about),
            ..CallerStatus::nobody(id.clone(), kind)
        });
    }
    found
}

fn lists<T>(of: Option<&BTreeSet<T>>, is_it: impl Fn(&T) -> bool) -> bool {
    of.is_some_and(|of| of.iter().any(is_it))
}
