//! What the end of a key means: for tokens that are about, for their callers,
//! and for verifiers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::admin::AdminError;
use super::context::{Context, blocking};
use super::reader::PublishedSet;
use super::refusal::refusal;
use super::revoke::kept_by_hold;
use super::whole_device::by_the_jwks;
use super::writer::Writer;
use crate::audit::{Tally, Wanted};
use crate::hsm::State;
use crate::keyring::{
    Ending, Event, Key, KeySet, Mandate, OperatorError, Phase, Reason, Then, rules,
};
use crate::time::{Span, Time};

/// Verifiers that are known to fetch the set only when they meet a `kid` that
/// they do not know, however old what they have is.
pub const UNBOUNDED: [&str; 2] = ["go-oidc", "OpenBao"];

/// What is said of a fresh key of which no date is known.
pub const UNDATED: &str = "for which there is no date as long as no device is known to make one";

/// How many callers are told by name.
const TOLD: usize = 100;

/// How long the answer to a revocation waits for the log. The key is blocked
/// long before.
pub(super) const BRIEFLY: Duration = Duration::from_secs(5);

/// How long it may take where nothing is changed.
pub(super) const AT_LEISURE: Duration = Duration::from_secs(60);

/// What the end of a key breaks, and for how long it is trusted all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impact {
    /// The key.
    pub kid: String,
    /// Its tokens that are about.
    pub tokens: Tokens,
    /// The key that signs in its track then.
    pub signs: Option<String>,
    /// Where none does: when one will, at the earliest, and which, where it
    /// exists.
    pub next: Option<(Option<String>, Time)>,
    /// The keys that verifiers get then.
    pub jwks: Vec<String>,
    /// Whether that is the placeholder alone.
    pub placeholder: bool,
    /// Whether a key that is still to be made enters the set in the same
    /// change: it has no id yet.
    pub fresh_enters: bool,
    /// When the last bounded verifier has dropped the key.
    pub trusted_until: Time,
    /// Whether a key signs that was made after the revocation.
    pub fresh: Fresh,
    /// What the dates of `next` and `fresh` wait for besides the clock, as far
    /// as that is known: origins that are silent, or lag.
    pub waits_for: Vec<String>,
}

/// Where the key stands that [`UNBOUNDED`] verifiers have to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// It signs.
    Signs,
    /// It is expected to from then on.
    Expected(Time),
    /// No date is known: of no key, or the device that would make one does not
    /// answer, or the track was taken off.
    Undated,
}

/// The tokens by a key that have not expired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// How many the log knows of.
    pub alive: u64,
    /// The latest `exp` among them, or what bounds it.
    pub latest_exp: Option<Time>,
    /// Whether that is the log's word; else it is the key's `exp_ceiling`.
    pub from_log: bool,
    /// Who got how many, until when: those with the most first.
    pub callers: Vec<(String, u64, Option<Time>)>,
    /// How many went to others.
    pub others: u64,
    /// What of the log could not be read.
    pub gaps: Vec<String>,
    /// The log is read from here on: what was signed before has expired.
    pub since: Time,
    /// As of when they are alive.
    pub now: Time,
}

/// A revocation that is thought of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// What it would mean.
    pub impact: Impact,
    /// What else to know before the order.
    pub notes: Vec<String>,
}

/// What somebody thinks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thought {
    /// The key that is to end.
    pub kid: String,
    /// What is to become of its place.
    pub then: Option<Then>,
    /// The keys that are to end along with it.
    pub along: Vec<String>,
}

/// The question after a revocation, on its way to the writer.
pub(super) struct Asking {
    pub(super) thought: Thought,
    pub(super) reply: oneshot::Sender<Result<Foreseen, AdminError>>,
}

impl Tokens {
    /// Nothing was counted yet: no token of the key expires after `ceiling`.
    pub(super) const fn uncounted(ceiling: Option<Time>, since: Time, now: Time) -> Self {
        Self {
            alive: 0,
            latest_exp: ceiling,
            from_log: false,
            callers: Vec::new(),
            others: 0,
            gaps: Vec::new(),
            since,
            now,
        }
    }

    fn count(&mut self, tally: Tally) {
        if tally.gaps.is_empty() && tally.undated == 0 {
            self.latest_exp = tally.latest_exp;
            self.from_log = true;
        }
        let callers = tally.callers.into_iter();
        let told = |at: Option<Time>| at.filter(|_| self.from_log);
        let callers = callers.map(|(name, share)| (name, share.alive, told(share.latest_exp)));
        self.callers = callers.collect();
        self.callers
            .sort_by(|(a, n, _), (b, m, _)| m.cmp(n).then_with(|| a.cmp(b)));
        self.callers.truncate(TOLD);
        let told: u64 = self.callers.iter().map(|(_, alive, _)| alive).sum();
        self.alive = tally.alive;
        self.others = tally.alive - told;
        self.gaps = tally.gaps;
    }
}

/// Counts the tokens by a key, from the log. Takes nobody's time but that of whoever
/// waits for the answer, and of that no more than `patience`.
pub(super) async fn count_tokens(
    context: &Arc<Context>,
    key_set: &str,
    (kid, tokens): (&str, &mut Tokens),
    patience: Duration,
) {
    let wanted = Wanted {
        key_set: key_set.to_owned(),
        kid: kid.to_owned(),
        since: tokens.since,
        now: tokens.now,
    };
    let (context, began) = (Arc::clone(context), Instant::now());
    let tally = blocking(move || {
        let in_time = || began.elapsed() < patience;
        context.audit.tally(&wanted, in_time)
    });
    tokens.count(tally.await);
}

impl Writer {
    /// What a revocation would mean. Changes nothing.
    pub(super) fn foresee(&mut self, thought: &Thought) -> Result<Foreseen, AdminError> {
        let kid = thought.kid.as_str();
        let now = self.estimate();
        let Some(held) = self.held.clone().or_else(|| self.last.clone()) else {
            return self.foresee_in_the_dark(thought, now);
        };
        let owed = self.with_owed(&held);
        let mut set = owed.unwrap_or_else(|| held.record.set.clone());
        let tick = self.tick_for(now);
        let mut notes = Vec::new();
        if let Some(before) = set.revoked.get(kid) {
            notes.push(format!(
                "the key {kid} was revoked before, at {}",
                before.at
            ));
        }
        let ending = Ending {
            reason: Reason::Unspecified,
            then: thought.then,
            at: None,
            mandate: Mandate::default(),
        };
        for other in thought.along.iter().filter(|other| *other != kid) {
            // Named by somebody who thinks that it is there: nothing ends else.
            let _ = set.revoke(other, &ending.or_wait(), &self.plan, &tick);
        }
        let last = set.is_last(kid);
        notes.extend(last.then(|| self.end_of_last()));
        let two = self.plan.two_people && thought.then == Some(Then::Activate);
        let ending = if two { ending.or_later() } else { ending };
        let mut trial = set.clone();
        let revoked = match trial.revoke(kid, &ending, &self.plan, &tick) {
            Err(OperatorError::NoSafeStandby { safe_at }) => {
                notes.push(self.choice(&set, kid, safe_at, now));
                trial.revoke(kid, &ending.or_wait(), &self.plan, &tick)
            }
            revoked => revoked,
        };
        let revoked = revoked.map_err(refusal)?;
        let mut impact = self.impact(&trial, kid, revoked.exposure.bounded_until, now);
        if last && self.answers(&self.plan.device) {
            self.replaced(&mut impact, thought, &trial, now);
        }
        notes.extend(self.foreseen_of_then(thought, &trial, &revoked.events, now));
        notes.extend(kept_by_hold(&trial, kid));
        let key = trial.by_kid(kid).filter(|key| !key.is_held());
        let kept = key.and_then(|key| trial.kept_for_second(key, &self.plan));
        notes.extend(kept.map(|at| {
            format!("the private half is kept until a second person agrees to its destruction, or until {at}")
        }));
        Ok(Foreseen { impact, notes })
    }

    /// What becomes of the last key of a set, ahead of its end.
    fn end_of_last(&self) -> String {
        let device = &self.plan.device;
        let instead = match (self.answers(device), self.context.works_with(device)) {
            (true, _) => {
                return format!(
                    "it is the last key of the set: {device} is asked for a fresh one first, which enters the set as this one leaves; where none comes within five seconds, verifiers get the placeholder, and nothing is signed until one is made"
                );
            }
            (false, true) => format!("{device}, which does not answer now, has made a key"),
            (false, false) => "an agent runs and has made a key".to_owned(),
        };
        format!(
            "it is the last key of the set: verifiers get the placeholder, and nothing is signed, until {instead}"
        )
    }

    /// What a key means that enters the set as the last one leaves.
    fn replaced(&self, impact: &mut Impact, thought: &Thought, trial: &KeySet, now: Time) {
        impact.fresh_enters = true;
        impact.placeholder = false;
        impact.jwks.clear();
        // Of several, the one that ends last has its track signed for.
        let of = |kid: &str| trial.by_kid(kid).map(Key::seat);
        let last = thought.along.last().unwrap_or(&thought.kid);
        if of(last) != of(&thought.kid) {
            return;
        }
        if thought.then == Some(Then::Activate) && !self.plan.two_people {
            impact.next = None;
            impact.fresh = Fresh::Signs;
        } else {
            impact.next = Some((None, trial.held_everywhere(now, &self.plan)));
        }
    }

    /// Whether a device answers, as far as is known before it is asked.
    pub(super) fn answers(&self, device: &str) -> bool {
        #[cfg(test)]
        if self.context.hands.is_some() {
            return true;
        }
        let device = self.context.devices.get(device);
        device.is_some_and(|device| matches!(*device.state().borrow(), State::Up { .. }))
    }

    /// The same where no record was ever read.
    fn foresee_in_the_dark(&self, thought: &Thought, now: Time) -> Result<Foreseen, AdminError> {
        let Thought { kid, along, .. } = thought;
        let placeholders = self.placeholders();
        if placeholders.contains(kid) {
            return Err(refusal(OperatorError::UnknownKid {
                kid: kid.clone(),
                key_set: self.reader.name.clone(),
            }));
        }
        let mut impact = self.impact_in_the_dark(kid, now);
        let ends = |shown: &String| shown == kid || along.contains(shown);
        impact.jwks.retain(|shown| !ends(shown));
        impact.placeholder |= impact.jwks.is_empty();
        let mut notes = vec!["the record cannot be read: what signs next is not known".to_owned()];
        if !along.is_empty() {
            notes.push(by_the_jwks(&self.plan.device));
        }
        Ok(Foreseen { impact, notes })
    }

    /// The ids in the set that verifiers get where no key is left.
    pub(super) fn placeholders(&self) -> Vec<String> {
        let kept = self.context.read_placeholder(&self.reader.name);
        let kept = kept.and_then(|bytes| PublishedSet::last_good(&bytes, &BTreeSet::new()));
        kept.map(|kept| kept.kids()).unwrap_or_default()
    }

    /// What becomes of the `--then` that was chosen.
    fn foreseen_of_then(
        &self,
        thought: &Thought,
        trial: &KeySet,
        events: &[Event],
        now: Time,
    ) -> Option<String> {
        let kid = thought.kid.as_str();
        let seat = trial.by_kid(kid).map(Key::seat);
        let last = seat.and_then(|seat| trial.emptied_by(&seat));
        let empties = last.is_some_and(|last| last.kid.as_deref() == Some(kid));
        let first = || {
            trial
                .by_kid(kid)
                .and_then(|key| self.first_standby(trial, key))
        };
        match thought.then? {
            Then::Activate if self.plan.two_people && empties => Some(format!(
                "--then activate: waits for a second person; then: {}",
                match first() {
                    Some(next) => self.price_of(trial, next, now),
                    None => self.price_to_come(now),
                }
            )),
            Then::Activate => Some(match self.price(trial, events, now) {
                Some(price) => format!("--then activate: {price}"),
                None if empties => self.nothing_to_activate(trial, kid),
                None => {
                    "--then activate: there is nothing to choose, and it changes nothing".to_owned()
                }
            }),
            Then::Wait if empties => Some(
                "--then wait: nothing is signed in its track until the next key may be active"
                    .to_owned(),
            ),
            Then::Wait => {
                Some("--then wait: there is nothing to choose, and it changes nothing".to_owned())
            }
        }
    }

    /// The key that is active where one is forced to be.
    fn first_standby<'a>(&self, set: &'a KeySet, revoked: &Key) -> Option<&'a Key> {
        let next = set.standby(&revoked.seat())?;
        Some(next).filter(|next| next.id != revoked.id)
    }

    /// What an operator has to choose between, each with its price.
    fn choice(&self, set: &KeySet, kid: &str, safe_at: Option<Time>, now: Time) -> String {
        let from = match safe_at {
            Some(at) => format!("before {at}"),
            None => "until a key is made and every verifier can hold it".to_owned(),
        };
        let key = set.by_kid(kid);
        let mut standbys = set.keys.values().filter(|next| {
            let mine = key.is_some_and(|key| key.seat() == next.seat() && key.id != next.id);
            mine && matches!(next.phase, Phase::Published { .. }) && next.has_private_half()
        });
        let price = match standbys.find(|next| !next.is_held()) {
            Some(next) => self.price_of(set, next, now),
            None => self.price_to_come(now),
        };
        format!(
            "no standby is in every verifier's cache: the order needs `--then wait`, and nothing is signed {from}, or `--then activate`, and {price}"
        )
    }

    /// What the end of a key means, by the key set without it.
    pub(super) fn impact(&self, set: &KeySet, kid: &str, trusted_until: Time, now: Time) -> Impact {
        let (plan, key) = (&self.plan, set.by_kid(kid));
        let seat_id = key.map(Key::seat);
        let seat = seat_id.as_ref().and_then(|id| set.seats.get(id));
        let active = seat.and_then(|seat| set.keys.get(&seat.active?));
        let mine = || set.keys.values().filter(|key| Some(key.seat()) == seat_id);
        let planned = mine().filter_map(|key| {
            let at = set.outlook(key, plan).activates?;
            Some((at, key.kid.clone()))
        });
        let next = planned.min().map(|(at, kid)| (kid, at));
        let owes = seat_id.as_ref().filter(|_| seat.is_some());
        let fresh = match owes {
            None => Fresh::Undated,
            Some(id) => set
                .fresh_expected(id, plan, now)
                .map_or(Fresh::Signs, |at| match self.answers(&plan.device) {
                    true => Fresh::Expected(at),
                    false => Fresh::Undated,
                }),
        };
        let planned = match fresh {
            Fresh::Expected(at) => Some(at),
            Fresh::Signs | Fresh::Undated => None,
        };
        let next = next.filter(|_| active.is_none());
        let planned = planned.max(next.as_ref().map(|(_, at)| *at));
        let waits = seat.zip(planned);
        let waits = waits.map(|(seat, at)| self.in_the_way(set, seat, at));
        let view = set.view(plan, None);
        let lifetime = key.map_or(Span::ZERO, |key| key.longest_lifetime);
        Impact {
            kid: kid.to_owned(),
            tokens: self.uncounted(lifetime, key.and_then(|key| key.exp_ceiling), now),
            signs: active.and_then(|key| key.kid.clone()),
            next,
            jwks: view.published.into_iter().map(|key| key.kid).collect(),
            placeholder: !set.keys.values().any(Key::is_published),
            fresh_enters: false,
            trusted_until,
            fresh,
            waits_for: waits.unwrap_or_default(),
        }
    }

    /// The same where no record was ever read.
    pub(super) fn impact_in_the_dark(&self, kid: &str, now: Time) -> Impact {
        let timing = &self.plan.timing;
        let published = self.published_in_the_dark();
        let jwks = published.map(|set| set.kids()).unwrap_or_default();
        let kept = self.placeholders();
        Impact {
            kid: kid.to_owned(),
            tokens: self.uncounted(Span::ZERO, None, now),
            signs: None,
            next: None,
            placeholder: !kept.is_empty() && kept == jwks,
            fresh_enters: false,
            jwks,
            trusted_until: rules::rule_5_compromise_exposure(now, None, timing, None).bounded_until,
            fresh: Fresh::Undated,
            waits_for: Vec::new(),
        }
    }

    pub(super) fn uncounted(&self, longest: Span, ceiling: Option<Time>, now: Time) -> Tokens {
        let timing = &self.plan.timing;
        let lifetime = longest.max(timing.max_token_lifetime);
        Tokens::uncounted(ceiling, now - lifetime - timing.skew, now)
    }
}

impl Impact {
    /// What is said of verifiers that no time bounds.
    pub(super) fn unbounded(&self) -> String {
        let kinds = UNBOUNDED.join(", ");
        let met = match self.fresh {
            Fresh::Signs => "with its next token".to_owned(),
            Fresh::Expected(at) if self.waits_for.is_empty() => {
                format!("which is expected to be active at {at}")
            }
            Fresh::Expected(at) => format!(
                "which is expected to be active at {at}, and that waits for {}",
                self.waits_for.join(" and ")
            ),
            Fresh::Undated => UNDATED.to_owned(),
        };
        format!(
            "verifiers that fetch only at an unknown kid ({kinds}, and others) trust the key until they meet one made after the revocation, {met}, or restart"
        )
    }
}
