//! What the public gets, as the agent saw it last: which origin lacks a key,
//! lags, still shows a revoked one, or does not answer.

use std::collections::{BTreeMap, BTreeSet};

use super::admin::AdminError;
use super::orders::Did;
use super::writer::Writer;
use crate::keyring::{Discrepancy, KeySet, Mandate, Seat, Shown, Waiver, Wrong, among};
use crate::time::{Span, Time};

/// An origin as its agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginHealth {
    /// Its name: the address as it was configured, or `own-listener`.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// When it last answered; never since the start where absent.
    pub answered: Option<Time>,
    /// Why it did not, where it did not the last time.
    pub why: Option<String>,
    /// Whether it has been silent for longer than a new key may take to get
    /// there: no key is activated meanwhile.
    pub silent: bool,
    /// The keys with which something is wrong there.
    pub wrong: Vec<Discrepancy>,
    /// That nobody waits for it.
    pub waiver: Option<Waiver>,
}

/// What is known of the origins, all of it since the start.
#[derive(Debug, Default)]
pub(super) struct Origins {
    seen: BTreeMap<String, Seen>,
    /// Since when this agent has looked.
    since: Option<Time>,
    /// Those that the log calls waived.
    waived: BTreeSet<String>,
    /// What the log says already.
    told: BTreeSet<(String, Finding)>,
}

#[derive(Debug, Default)]
struct Seen {
    shown: Option<(Shown, Time)>,
    why: Option<String>,
    /// It was silent for too long, and has not answered since.
    silent: bool,
}

/// Something to tell of once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    Silent,
    Key(Discrepancy),
}

impl Origins {
    pub(super) fn answered(&mut self, origin: &str, shown: Shown, at: Time) {
        let seen = self.seen.entry(origin.to_owned()).or_default();
        *seen = Seen {
            shown: Some((shown, at)),
            ..Seen::default()
        };
    }

    /// The time was wrong until now: by it, each origin would have been silent
    /// for as long as the clock was moved. Patience with them begins anew, as
    /// at a start; whoever was silent before that still is.
    pub(super) fn clock_moved(&mut self, now: Time) {
        self.since = Some(now);
        for (_, at) in self
            .seen
            .values_mut()
            .filter_map(|seen| seen.shown.as_mut())
        {
            // A clock that was fast dated it later.
            *at = now.min(*at);
        }
    }

    /// What was seen of these keys was right then: they have just been
    /// revoked. The next look shows what is wrong.
    pub(super) fn saw_nothing_of(&mut self, kids: &BTreeSet<String>) {
        for (shown, _) in self
            .seen
            .values_mut()
            .filter_map(|seen| seen.shown.as_mut())
        {
            *shown = std::mem::take(shown).less(kids);
        }
    }

    /// Forgets all others.
    pub(super) fn only(&mut self, asked: impl Fn(&str) -> bool) {
        self.seen.retain(|name, _| asked(name));
        self.told.retain(|(name, _)| asked(name));
    }

    pub(super) fn did_not_answer(&mut self, origin: &str, why: String) {
        self.seen.entry(origin.to_owned()).or_default().why = Some(why);
    }
}

impl Writer {
    /// How the public is served, as far as anybody knows.
    pub(super) fn origins_now(
        &mut self,
        silent: &BTreeSet<String>,
        now: Time,
    ) -> Vec<OriginHealth> {
        let propagation = self.plan.timing.propagation;
        let since = *self.origins.since.get_or_insert(now);
        let known = self.held.as_ref().or(self.last.as_ref());
        let names = self.plan.origins.iter();
        let patience = self.patience();
        let all = names.map(|name| {
            let seen = self.origins.seen.entry(name.clone()).or_default();
            let shown = seen.shown.as_ref();
            let wrong = known.zip(shown).map(|(held, (shown, at))| {
                (held.record.set).discrepancies(shown, *at, now, propagation)
            });
            // An agent that has just started has heard of nobody yet.
            let heard = shown.map_or(since, |(_, at)| (*at).max(since));
            let long = seen.silent || now.since(heard) > patience;
            seen.silent = silent.contains(name) && long;
            OriginHealth {
                name: name.clone(),
                url: String::new(),
                answered: shown.map(|(_, at)| *at),
                why: seen.why.clone(),
                silent: seen.silent,
                wrong: wrong.unwrap_or_default(),
                waiver: known.and_then(|held| held.record.set.waivers.get(name).cloned()),
            }
        });
        all.collect()
    }

    /// Says in the log what has become wrong at an origin, and what is good
    /// again. Once each: whoever is on call is woken by one line as well as by
    /// a thousand.
    pub(super) fn tell_of_origins(&mut self, all: &[OriginHealth]) {
        let key_set = &self.reader.name;
        let waived = all.iter().filter(|origin| origin.waiver.is_some());
        let waived = waived.map(|origin| origin.name.clone()).collect();
        for origin in self.origins.waived.difference(&waived) {
            tracing::warn!(
                key_set,
                origin,
                "an origin is waived no longer: activations wait for it"
            );
        }
        for origin in waived.difference(&self.origins.waived) {
            tracing::warn!(
                key_set,
                origin,
                "an origin is waived: no activation waits for it"
            );
        }
        self.origins.waived = waived;
        let mut found = BTreeSet::new();
        for OriginHealth {
            name,
            why,
            silent,
            wrong,
            waiver,
            ..
        } in all
        {
            let silence = silent.then_some(Finding::Silent);
            let findings = wrong.iter().cloned().map(Finding::Key).chain(silence);
            for finding in findings {
                // Somebody has seen that, and waived the wait for it.
                let waived = waiver.is_some() && finding.only_delays();
                let seen = (name.clone(), finding.clone().of_the_origin());
                if !self.origins.told.contains(&seen) {
                    if waived {
                        continue;
                    }
                    tell(key_set, name, &finding, why.as_deref());
                }
                found.insert(seen);
            }
        }
        for (origin, finding) in self.origins.told.difference(&found) {
            let what = finding.what();
            // What became urgent is told of as such.
            let still = found
                .iter()
                .any(|(at, now)| at == origin && now.is_about(finding));
            if !still {
                let kid = finding.kid();
                tracing::info!(key_set, origin, kid, "it is over that an origin {what}");
            }
        }
        self.origins.told = found;
    }

    /// Does not wait for an origin; what that may break is said.
    pub(super) async fn waive(
        &mut self,
        origin: &str,
        span: Span,
        by: &Mandate,
    ) -> Result<Did, AdminError> {
        let change = self.ask(|set, plan, tick| set.waive(origin, span, by, plan, tick));
        let mut did = change.await?;
        let Some(held) = &self.held else {
            return Ok(did);
        };
        let waivers = &held.record.set.waivers;
        if let Some(Waiver { until, .. }) = waivers.get(origin) {
            did.pending.push(format!(
                "verifiers that ask at {origin} may meet the id of a key that they do not hold, and refuse good tokens until it shows that key; it is watched all the same, and counts again from {until} on, or from `sealkeeper origins restore` on"
            ));
        }
        if self
            .plan
            .origins
            .iter()
            .all(|name| waivers.contains_key(name))
        {
            did.pending.push(
                "every origin is waived: a key is activated once the agent's own listener has shown it for long enough; whether any verifier gets it, nobody knows".to_owned(),
            );
        }
        Ok(did)
    }

    /// Waits for an origin again; what cannot be taken back is said.
    pub(super) async fn restore(&mut self, origin: &str, by: &Mandate) -> Result<Did, AdminError> {
        let change = self.ask(|set, plan, tick| set.restore(origin, by, plan, tick));
        let mut did = change.await?;
        if did.done.is_empty() {
            did.done.push(format!("the origin {origin} is not waived"));
        }
        let set = self.held.as_ref().map(|held| &held.record.set);
        let near = set.map(|set| set.activations_unseen_by(origin));
        for at in near.into_iter().flatten() {
            did.pending.push(format!(
                "the activation at {at} of a key that {origin} does not show is too near to be taken back, and goes on: agents may have it already. `sealkeeper keys rollback` goes back after it"
            ));
        }
        Ok(did)
    }

    /// The origins without which nothing becomes active at `at` in this place,
    /// and which are in trouble now: until that is over, the date is none.
    pub(super) fn in_the_way(&self, set: &KeySet, seat: &Seat, at: Time) -> Vec<String> {
        // An instant that is fixed, or forced, waits for nobody.
        if seat.force || seat.switch.is_some() {
            return Vec::new();
        }
        let required = set.required(&self.plan, at);
        let seen = self.reader.overview();
        let counts = seen.origins.iter();
        let counts = counts.filter(|origin| required.contains(&origin.name));
        let in_the_way = counts.filter_map(
            |OriginHealth {
                 name,
                 silent,
                 wrong,
                 ..
             }| {
                if *silent {
                    return Some(format!("the origin {name} to answer"));
                }
                let lacking = wrong.iter().find(|it| it.what != Wrong::ShowsRevoked)?;
                let at = among(&lacking.addresses);
                Some(format!(
                    "the origin {name} to show the keys that it should{at}"
                ))
            },
        );
        in_the_way.collect()
    }

    /// How long an origin may be silent before what it showed counts no more.
    pub(super) fn patience(&self) -> Span {
        self.plan.timing.patience()
    }
}

fn tell(key_set: &str, origin: &str, finding: &Finding, why: Option<&str>) {
    let what = finding.what();
    // The addresses where that is so, where others of the origin are right.
    let addresses = match finding {
        Finding::Key(wrong) if !wrong.addresses.is_empty() => Some(wrong.addresses.join(" ")),
        _ => None,
    };
    match finding {
        Finding::Silent => tracing::error!(
            key_set,
            origin,
            reason = "ORIGIN_SILENT",
            why,
            "an origin {what}: no key is activated until it does, or is no longer observed"
        ),
        Finding::Key(Discrepancy {
            kid,
            what: Wrong::Impostor,
            detail,
            ..
        }) => tracing::error!(
            key_set,
            origin,
            addresses,
            kid,
            reason = "ORIGIN_SHOWS_IMPOSTOR",
            instead = detail,
            "an origin {what}: verifiers that ask there refuse good tokens, and may take what somebody else signs"
        ),
        Finding::Key(Discrepancy {
            kid,
            what: Wrong::Lacks,
            ..
        }) => tracing::error!(
            key_set,
            origin,
            addresses,
            kid,
            reason = "ORIGIN_LACKS_KEY",
            "an origin {what}: verifiers that ask there refuse good tokens"
        ),
        Finding::Key(Discrepancy {
            kid,
            what: Wrong::ShowsRevoked,
            page: true,
            detail,
            ..
        }) => tracing::error!(
            key_set,
            origin,
            addresses,
            kid,
            shown = detail,
            reason = "ORIGIN_SHOWS_REVOKED",
            "an origin {what}: verifiers that ask there take what a thief signs"
        ),
        Finding::Key(Discrepancy { kid, .. }) => {
            tracing::warn!(key_set, origin, addresses, kid, "an origin {what}")
        }
    }
}

impl Finding {
    const fn what(&self) -> &'static str {
        match self {
            Self::Silent => "does not answer as it should",
            Self::Key(wrong) => wrong.what.sentence(),
        }
    }

    /// Whether all that it does is to keep activations waiting.
    const fn only_delays(&self) -> bool {
        match self {
            Self::Silent => true,
            Self::Key(wrong) => matches!(wrong.what, Wrong::Lags),
        }
    }

    /// Wherever it is so: a name leads to other addresses now and then, and that
    /// is no news.
    fn of_the_origin(mut self) -> Self {
        if let Self::Key(wrong) = &mut self {
            wrong.addresses.clear();
        }
        self
    }

    fn kid(&self) -> Option<&str> {
        match self {
            Self::Silent => None,
            Self::Key(wrong) => Some(&wrong.kid),
        }
    }

    /// Whether it is the same trouble, urgent or not.
    fn is_about(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(one), Self::Key(other)) => (&one.kid, one.what) == (&other.kid, other.what),
            (one, other) => one == other,
        }
    }
}
