//! A record that was lost, made again from what others know.
//!
//! Four witnesses, none of which knows everything:
//!
//! - **The log of key events** says what became of each key, in order. What it
//!   says of the past is taken for true; a key whose removal it tells has no
//!   token alive.
//! - **An older record** (a backup, a store that went back) says the same up to
//!   its last event, and holds ceilings; the log goes on from there.
//! - **Devices** hold private halves under our own ids.
//! - **Sets on disk and at public origins** show what verifiers hold. An origin
//!   is *not trusted* to name a key that nobody else knows: whoever alters one
//!   answer could have us publish a key of theirs. The operator may vouch.
//!
//! Invariant: what is inferred breaks no verifier and permits nothing that the
//! lost record did not. Any witness that shows a key keeps it in the set until
//! no token of it can be alive, counted from now. Any witness that tells of a
//! revocation ends the key. Only a key that the log or the older record shows
//! active signs on; all others wait as if they had been published now: no
//! sighting is taken over, no activation that was fixed, no wish to force one.
//! Recovering is not genesis.

mod draft;
mod findings;
mod gone;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Event, What};
use super::intent::Task;
use super::key::{Half, Key, KeyId, Mandate, Phase};
use super::operator::ordered;
use super::rules::{self, Action};
use super::set::{Genesis, KeySet, Plan, Revocation, SeatId, Tick};
use super::view::PublishedKey;
use crate::jose::PublicKey;
use crate::time::Time;
use draft::{Draft, Drafts};
pub use told::Told;

/// What is known of a key set whose record is lost.
#[derive(Clone, Debug, Default)]
pub struct Witnesses {
    /// The log, oldest first.
    pub log: Vec<Told>,
    /// An older record, and how many key events it knew.
    pub record: Option<(KeySet, u64)>,
    /// What each device that answered holds and may be used, by id; without
    /// what is known to belong to other key sets.
    pub devices: BTreeMap<String, BTreeMap<KeyId, PublicKey>>,
    /// The serial of the token that answered, by device.
    pub tokens: BTreeMap<String, String>,
    /// The last JWKS on disk.
    pub last_good: Vec<PublishedKey>,
    /// The placeholder on disk.
    pub placeholder: Vec<PublishedKey>,
    /// What each origin that answered shows.
    pub origins: BTreeMap<String, Vec<PublishedKey>>,
    /// Revocations on disk.
    pub tombstones: BTreeMap<String, Revocation>,
    /// The latest instant with which anything on disk is dated.
    pub seen: Option<Time>,
    /// Whether the record, and all that is on disk, is older than what the
    /// others know: [`super::Outdated`].
    pub outdated: bool,
    /// Whether there are origins, and each of them answered.
    pub all_answered: bool,
    /// The keys in devices that carry an agent's label.
    pub labelled: BTreeSet<KeyId>,
}

/// What the operator vouches for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vouched {
    /// The private halves that no device holds are lost for good, though none
    /// is left.
    pub keys_are_lost: bool,
    /// What an origin shows is ours, though nobody else knows it.
    pub origins_are_true: bool,
}

/// A record made again.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The key set.
    pub set: KeySet,
    /// What is to be told: of each key of the set, what changed, and that it
    /// was recovered.
    pub events: Vec<Event>,
    /// What each witness says of each key, and what follows.
    pub findings: Vec<Finding>,
}

impl Recovery {
    /// Has the next key of each seat in which none is active sign as soon as
    /// there is one: verifiers that do not hold it refuse its tokens until they
    /// fetch. The log has it with the key that signed there last.
    pub fn activate_early(&mut self, mandate: &Mandate, now: Time) {
        let mut forced = Vec::new();
        for (id, seat) in &mut self.set.seats {
            if seat.active.is_some() {
                continue;
            }
            seat.force = true;
            let keys = self.set.keys.values();
            let last = keys
                .filter(|key| key.seat() == *id && key.kid.is_some())
                .max_by_key(|key| key.activated);
            forced.extend(last.map(|key| Event::of(key, now, What::SuccessorForced)));
        }
        let forced = ordered(forced, Action::ForceActivation, mandate);
        self.events.extend(forced);
    }
}

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its id in devices and in the log; none for a key that only sets show
    /// and that stays out.
    pub id: Option<KeyId>,
    /// Its `kid`.
    pub kid: Option<String>,
    /// What the log says last: a phase, or none where it does not know it.
    pub log: Option<&'static str>,
    /// What the older record says: a phase.
    pub record: Option<&'static str>,
    /// The devices that hold its private half.
    pub held_by: BTreeSet<String>,
    /// Whether a device answered that should hold it, and does not.
    pub missing: bool,
    /// Whether the last JWKS on disk shows it.
    pub on_disk: bool,
    /// The origins that show it.
    pub origins: BTreeSet<String>,
    /// Whether a tombstone names it.
    pub entombed: bool,
    /// Whether it left the set while the record was elsewhere: the token lacks
    /// it, and no origin shows it. It may have been revoked.
    pub gone: bool,
    /// What follows.
    pub inferred: Inferred,
}

/// What follows from the witnesses for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inferred {
    /// It is in the record again, in this phase.
    Recovered(&'static str),
    /// A device holds it, and neither a log nor a set knows it: it is left
    /// alone, neither published nor destroyed.
    Unknown,
    /// It was begun and never published: it is left alone.
    NeverPublished,
    /// Only an origin shows it: it is not published.
    OnlyAtOrigins,
    /// Two witnesses give its `kid` to different keys: the one that is shown
    /// is passed over.
    Contradicted,
}

/// Why nothing can be recovered as things are. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// Nobody knows a key.
    #[error("no witness knows a key of {0:?}")]
    NothingKnown(String),
    /// Verifiers would get an empty set.
    #[error("each key of {0:?} that is known was revoked, and nobody knows its placeholder")]
    NothingToShow(String),
    /// Ceilings would lie too early.
    #[error("the clock says {now}, and what is on disk is dated {seen}")]
    ClockBehind {
        /// The clock.
        now: Time,
        /// The latest date.
        seen: Time,
    },
    /// It looks like another token.
    #[error("the device holds none of the private keys that should be there, {0} of them")]
    KeysMissing(usize),
}

/// Makes the record again, in memory. `ids` names keys that only sets know.
///
/// # Errors
/// [`RecoverError`].
pub fn recover(
    name: &str,
    witnesses: &Witnesses,
    vouched: Vouched,
    mandate: &Mandate,
    plan: &Plan,
    tick: &Tick,
    ids: &mut dyn FnMut() -> KeyId,
) -> Result<Recovery, RecoverError> {
    let now = tick.now;
    let seen = witnesses.seen.unwrap_or(now);
    if seen > now + plan.timing.skew {
        return Err(RecoverError::ClockBehind { now, seen });
    }
    let mut drafts = Drafts::replay(witnesses, plan);
    let passed_over = drafts.show(witnesses, vouched, ids);
    drafts.look_into_devices(witnesses, vouched, plan, now);
    drafts.look_at_origins(witnesses);
    let keys = drafts.keys.values();
    if !keys.clone().any(|draft| draft.named.is_some()) {
        return Err(RecoverError::NothingKnown(name.to_owned()));
    }
    let missing = keys.clone().filter(|draft| draft.is_missing()).count();
    let there = keys.filter(|draft| !draft.held_by.is_empty()).count();
    if missing > 0 && there == 0 && !vouched.keys_are_lost {
        return Err(RecoverError::KeysMissing(missing));
    }
    let mut set = drafts.begin(name, witnesses, seen.min(now));
    let mut events = Vec::new();
    for draft in drafts.keys.values() {
        events.extend(set.take_in(draft, plan, tick));
    }
    set.seat(&drafts, plan, now);
    if set.view(plan, None).published.is_empty() {
        return Err(RecoverError::NothingToShow(name.to_owned()));
    }
    if set.placeholder.is_none() {
        events.extend(set.want_placeholder(plan, tick, ids));
    }
    set.leave_alone(&drafts, witnesses);
    set.forget();
    let recovered = set.keys.values().filter(|key| key.kid.is_some());
    let recovered = recovered.map(|key| Event::of(key, now, What::Recovered));
    events.extend(recovered.collect::<Vec<_>>());
    let mut findings = drafts.findings(&set);
    findings.extend(passed_over);
    findings.extend(drafts.unknown(witnesses));
    Ok(Recovery {
        events: ordered(events, Action::Recover, mandate),
        set,
        findings,
    })
}

impl Drafts {
    /// The record without its keys.
    fn begin(&self, name: &str, witnesses: &Witnesses, seen: Time) -> KeySet {
        let record = witnesses.record.as_ref().map(|(set, _)| set);
        let first = witnesses.log.iter().map(|told| told.at).min();
        let began = record.and_then(|set| match set.genesis {
            Genesis::Done { at } => Some(at),
            Genesis::Pending { .. } => None,
        });
        KeySet {
            name: name.to_owned(),
            genesis: Genesis::Done {
                at: began.or(first).unwrap_or(seen),
            },
            epoch: record.map_or(1, |set| set.epoch + 1),
            high_water: seen,
            seats: BTreeMap::new(),
            keys: BTreeMap::new(),
            placeholder: self.placeholder,
            intents: BTreeMap::new(),
            next_intent: record.map_or(1, |set| set.next_intent),
            replicas: BTreeMap::new(),
            revoked: self.revoked.clone(),
            // What people wanted is asked for again: nobody knows whether they
            // still do.
            requests: BTreeMap::new(),
            last_request: record.map_or(0, |set| set.last_request),
            waivers: BTreeMap::new(),
            looked: BTreeMap::new(),
            bounds: record.and_then(|set| set.bounds),
            left_alone: record.map_or_else(BTreeSet::new, |set| set.left_alone.clone()),
        }
    }
}

impl KeySet {
    /// Takes a key into the record, and says what of it is new to the log.
    fn take_in(&mut self, draft: &Draft, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let now = tick.now;
        let Some(named) = &draft.named else {
            return Vec::new();
        };
        let revocation = self.revoked.get(&named.kid);
        let phase = draft.concluded(revocation, plan, now);
        // A standby as well: the witnesses may not know of its activation.
        let may_have_signed = matches!(
            phase,
            Phase::Published { .. } | Phase::Active { .. } | Phase::Retiring { .. }
        );
        let timing = &plan.timing;
        // Every token of before, by a signer whose clock was ahead; and what
        // was fixed up to three R ahead.
        let latest = now
            + timing.max_token_lifetime
            + timing.ceiling_step()
            + timing.adoption.times(3)
            + timing.skew;
        let key = Key {
            id: draft.id,
            algorithm: named.algorithm,
            key_type: named.public.key_type(),
            group: draft.group.clone(),
            // Of a key of which nobody knows when it was made, rule 5 must not
            // think that it was after a revocation.
            created: match (draft.created, self.revoked.is_empty()) {
                (Some(created), _) => created,
                (None, true) => self.high_water,
                (None, false) => Time::default(),
            },
            kid: Some(named.kid.clone()),
            public: Some(named.public.clone()),
            published: match phase {
                Phase::Placeholder => None,
                _ => Some(draft.published.unwrap_or(self.high_water)),
            },
            activated: draft.activated,
            placements: draft.halves.clone(),
            tokens: draft.tokens.clone(),
            given_up: draft.given_up.clone(),
            sightings: BTreeMap::new(),
            exp_ceiling: match may_have_signed {
                true => draft.exp_ceiling.max(Some(latest)),
                false => draft.exp_ceiling,
            },
            longest_lifetime: match may_have_signed {
                true => draft.longest_lifetime.max(timing.max_token_lifetime),
                false => draft.longest_lifetime,
            },
            left_epoch: 0,
            hold: draft.hold.clone(),
            forced: draft.forced,
            adopted: draft.adopted.clone(),
            was_to_sign_until: None,
            phase,
        };
        let told = draft.phase.name();
        let what = match &key.phase {
            phase if phase.name() == told => None,
            Phase::Published { .. } => Some(What::Published),
            Phase::Retiring { .. } => Some(What::Retiring),
            Phase::Retired { .. } => Some(What::Removed),
            Phase::Revoked { reason, .. } => Some(What::Revoked { reason: *reason }),
            Phase::Placeholder => Some(What::PlaceholderMade),
            Phase::Generating | Phase::Active { .. } => None,
        };
        let mut events = Vec::new();
        if told == Phase::Generating.name() && !matches!(what, Some(What::Published)) {
            // The log is to know that it was in the set.
            events.extend((what.is_some()).then(|| Event::of(&key, now, What::Published)));
        }
        events.extend(what.map(|what| Event::of(&key, now, what)));
        let (id, held) = (key.id, key.is_held());
        let destroying = key.placements.iter();
        let destroying = destroying.filter(|(_, half)| **half == Half::Destroying);
        let destroying: Vec<String> = destroying.map(|(device, _)| device.clone()).collect();
        self.keys.insert(id, key);
        for device in destroying.into_iter().filter(|_| !held) {
            self.intend(Task::Destroy { key: id, device }, tick);
        }
        events
    }

    /// Asks for a placeholder, of the default track's kind.
    fn want_placeholder(
        &mut self,
        plan: &Plan,
        tick: &Tick,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Option<Event> {
        let seat = self.seats_of(plan).into_iter().next()?;
        let (_, key_type) = plan.tracks.first()?;
        let begun = self.generate(&seat, *key_type, plan, tick, ids)?;
        self.placeholder = Some(begun.key);
        Some(begun)
    }

    /// Says who signs: the key that was active last, where it still is.
    fn seat(&mut self, drafts: &Drafts, plan: &Plan, now: Time) {
        for seat in self.seats_of(plan) {
            self.seats.entry(seat).or_default();
        }
        let active = self.keys.values().filter_map(|key| match key.phase {
            Phase::Active { since } => Some((key.seat(), since, key.id)),
            _ => None,
        });
        let mut active: Vec<(SeatId, Time, KeyId)> = active.collect();
        active.sort();
        let last_sign = rules::rule_2_last_use(now, &plan.timing);
        for (seat, _, id) in active {
            let before = self.seats.entry(seat).or_default().active.replace(id);
            // One at a time: the log lacks what became of the other.
            if let Some(before) = before {
                self.key_mut(before).phase = Phase::Retiring {
                    since: now,
                    last_sign,
                };
            }
        }
        // Rule 5: after a compromise the next key is one that was made later;
        // and where every key was lost, which take up room (rule 6), one is
        // made at once.
        let able: BTreeSet<SeatId> = (self.keys.values())
            .filter(|key| matches!(key.phase, Phase::Published { .. } | Phase::Active { .. }))
            .filter(|key| key.has_private_half())
            .map(Key::seat)
            .collect();
        for (id, seat) in &mut self.seats {
            let mine = self.keys.values().filter(|key| key.seat() == *id);
            let revoked = mine.filter_map(|key| match key.phase {
                Phase::Revoked { since, .. } => Some(since),
                _ => None,
            });
            let mut after = revoked.max();
            if drafts.revoked_unseen || !able.contains(id) {
                after = Some(now);
            }
            let made = seat.active.and_then(|id| drafts.keys.get(&id)?.created);
            let fresh = |after: &Time| made.is_some_and(|made| made > *after);
            seat.fresh_after = after.filter(|after| !fresh(after));
        }
    }
}

impl Draft {
    /// The phase that follows from what all witnesses say.
    fn concluded(&self, revocation: Option<&Revocation>, plan: &Plan, now: Time) -> Phase {
        let retiring = Phase::Retiring {
            since: now,
            last_sign: rules::rule_2_last_use(now, &plan.timing),
        };
        if let Some(revocation) = revocation {
            return match self.phase {
                Phase::Revoked { .. } => self.phase.clone(),
                _ => Phase::Revoked {
                    since: now,
                    reason: revocation.reason,
                },
            };
        }
        match self.phase {
            Phase::Placeholder | Phase::Retired { .. } => self.phase.clone(),
            _ if self.gone => Phase::Retired { since: now },
            // A revocation that nobody else remembers; the log does.
            Phase::Revoked { .. } => self.phase.clone(),
            Phase::Retiring { .. } if self.switch => retiring,
            Phase::Retiring { .. } => self.phase.clone(),
            _ if self.is_missing() => retiring,
            Phase::Active { .. } if self.unshown => retiring,
            Phase::Published { .. } | Phase::Active { .. } => self.phase.clone(),
            Phase::Generating if self.held_by.is_empty() => retiring,
            Phase::Generating => Phase::Published { since: now },
        }
    }
}
