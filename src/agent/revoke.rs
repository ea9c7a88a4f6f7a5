//! Ending a key: in memory first, then on disk, then for verifiers, then in the
//! store. A full disk delays none of the steps before it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::admin::AdminError;
use super::context::random_id;
use super::failpoint::{Effect, Side, hit};
use super::impact::Fresh;
use super::orders::Did;
use super::reader::Snapshot;
use super::refusal::refusal;
use super::sentences;
use super::status;
use super::writer::{Clock, StepError, Writer};
use crate::durable::DurableError;
use crate::keyring::{
    Ending, Event, Genesis, Half, IntentId, Key, KeySet, NotReplaced, Outcome, Revoked, Then, What,
};
use crate::time::Time;

/// How long the last key of a set may stay in it, blocked already, while a
/// device makes the one that takes its place. A device takes milliseconds for
/// an EC key and a second or two for an RSA key; verifiers trust what they
/// hold for P + C, which is minutes at least.
const FRESH_KEY: Duration = Duration::from_secs(5);

/// A revocation that holds in memory and is not in the store.
#[derive(Clone, Debug)]
pub(super) struct Owed {
    /// How the key is to end.
    pub(super) ending: Ending,
    /// When that was ordered.
    pub(super) at: Time,
    /// What a restart would find of it.
    pub(super) on_disk: OnDisk,
}

/// What is on disk of a revocation that the store has not got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDisk {
    /// A restart forgets it.
    Nothing,
    /// That the key has ended, and not how that was ordered last.
    Before,
    /// All of it.
    All,
}

impl Owed {
    /// With what came of writing it.
    fn written(self, entombed: &Result<(), DurableError>) -> Self {
        let on_disk = match entombed {
            Ok(()) => OnDisk::All,
            Err(_) => self.on_disk,
        };
        Self { on_disk, ..self }
    }
}

impl Writer {
    /// Ends a key.
    pub(super) async fn revoke(&mut self, kid: &str, ending: Ending) -> Result<Did, AdminError> {
        let now = self.estimate();
        let Some(held) = self.held.clone().or_else(|| self.last.clone()) else {
            return Ok(self.revoke_in_the_dark(kid, ending, now).await);
        };
        // On a copy first: an order that cannot be carried out changes nothing.
        let owed = self.with_owed(&held);
        let mut trial = owed.unwrap_or_else(|| held.record.set.clone());
        let tick = self.tick_for(now);
        let revoked = trial
            .revoke(kid, &ending, &self.plan, &tick)
            .map_err(refusal)?;

        self.reader.block(kid);
        let activates = ending.then == Some(Then::Activate);
        let owed = self.owe(kid, ending, now);
        let entombed = self.entomb(kid, &owed).await;
        let replaced = match &entombed {
            Ok(()) => self.replace_last(kid, &owed).await,
            // Nothing on disk says that it is revoked: the store comes first.
            Err(_) => None,
        };
        let (revoked, stored) = match replaced {
            Some(replaced) => (replaced, Ok(())),
            None => {
                self.owed.insert(kid.to_owned(), owed.written(&entombed));
                self.show_owed().await;
                (revoked, self.pay().await)
            }
        };

        self.tell_unwritten();

        let mut did = self.did(kid, &revoked.events, stored.as_ref().err());
        let until = revoked.exposure.bounded_until;
        let held = self.held.as_ref();
        let after = held.filter(|_| stored.is_ok());
        let after = after.map_or(&trial, |held| &held.record.set);
        let mut impact = self.impact(after, kid, until, now);
        if impact.placeholder && matches!(impact.fresh, Fresh::Expected(_)) {
            // A device was asked for one just now, and has made none.
            impact.fresh = Fresh::Undated;
        }
        did.pending.extend(self.price(after, &revoked.events, now));
        let forces = |event: &Event| matches!(event.what, What::Activated | What::SuccessorForced);
        if activates && stored.is_ok() && !revoked.events.iter().any(forces) {
            did.pending.push(self.nothing_to_activate(after, kid));
        }
        did.pending.extend(kept_by_hold(after, kid));
        did.pending.extend(self.kept_by_absence(after, kid));
        did.trusted_until = Some(until);
        did.pending.push(impact.unbounded());
        did.impact = Some(impact);
        let fresh = held.is_some_and(|held| held.record.set.keys.values().any(Key::is_published));
        let placeholder = !trial.keys.values().any(Key::is_published);
        let replaced = fresh && stored.is_ok();
        if placeholder && !replaced {
            did.pending.push(self.nothing_left(stored.as_ref().err()));
        }
        if let Err(e) = stored {
            did.durable = entombed.is_ok();
            did.pending
                .push(format!("the revocation is not in the store yet: {e}"));
            if let Err(e) = entombed {
                did.pending.push(self.not_on_disk(&e));
            }
        }
        Ok(did)
    }

    /// What has happened of the order, and what is to come once the store has
    /// it: without, only that the key signs no more and has left the set.
    fn did(&self, kid: &str, events: &[Event], not_stored: Option<&StepError<Infallible>>) -> Did {
        let known = self.held.as_ref().or(self.last.as_ref());
        let known = known.map(|held| &held.record.set);
        let ends = |event: &&Event| matches!(event.what, What::Revoked { .. });
        let mut did = Did::of(events);
        if let Some(why) = not_stored {
            let mut once = self.cure(why, "the store takes it");
            if known.is_some_and(|set| set.revoked.contains_key(kid)) {
                // A start looks for revocations that the record lacks, and
                // this one it has.
                once.push_str("; a restart before that forgets it: order it again then");
            }
            let to_come = events.iter();
            let to_come = to_come.filter_map(|event| sentences::to_come(event, &once));
            let holds: Vec<Event> = events.iter().filter(ends).cloned().collect();
            did = Did {
                pending: to_come.collect(),
                // One person has ordered it, and nobody is asked again.
                alone: did.alone,
                ..Did::of(&holds)
            };
        }
        if !events.iter().any(|event| ends(&event)) {
            let recorded = known.and_then(|set| Some(set.revoked.get(kid)?.at));
            let at = recorded.or_else(|| Some(self.owed.get(kid)?.at));
            let at = at.map(|at| format!(", at {at}")).unwrap_or_default();
            let before = format!("the key {kid} was revoked before{at}");
            did.done.insert(0, before);
            if known.is_some_and(|set| set.by_kid(kid).is_none()) {
                did.pending.push(FORGOTTEN.to_owned());
            }
        }
        did
    }

    /// What is left of a revoked key in a device that is away.
    fn kept_by_absence(&self, set: &KeySet, kid: &str) -> Option<String> {
        let key = set.by_kid(kid).filter(|key| !key.is_held())?;
        let mut left = key.placements.iter();
        let (device, _) = left.find(|(device, half)| {
            let away = self.context.works_with(device) && !self.answers(device);
            **half != Half::Destroyed && away
        })?;
        let two = match self.plan.two_people {
            true => ", and a second person has agreed",
            false => "",
        };
        Some(format!(
            "the private half of {kid} still exists: the device {device} does not answer, and destroys it once it is back{two}"
        ))
    }

    /// What an operator must know of the end of the last key, where none was
    /// made in its place.
    fn nothing_left(&self, not_stored: Option<&StepError<Infallible>>) -> String {
        let first = not_stored.map(|why| self.cure(why, "the store takes changes again"));
        let first = first.map(|first| format!("{first}, and "));
        format!(
            "verifiers get the placeholder, and nothing is signed until {}a device has made a key; with `--then wait` that key signs once every verifier can hold it, with `--then activate` as soon as it is in the set",
            first.unwrap_or_default()
        )
    }

    /// What must happen before a change can be stored.
    fn cure(&self, why: &StepError<Infallible>, store: &str) -> String {
        match why {
            StepError::Doubt(_) => {
                let confirm = status::confirm(&self.reader.name);
                format!("the time is confirmed: {confirm}")
            }
            _ => store.to_owned(),
        }
    }

    /// Ends a key of which nothing but its name is known: the store could not
    /// be read since the start. It leaves the last good set, and never signs.
    async fn revoke_in_the_dark(&mut self, kid: &str, ending: Ending, now: Time) -> Did {
        self.reader.block(kid);
        let owed = self.owe(kid, ending, now);
        let entombed = self.entomb(kid, &owed).await;
        self.owed.insert(kid.to_owned(), owed.written(&entombed));
        self.show_owed().await;
        self.tell_unwritten();
        let impact = self.impact_in_the_dark(kid, now);
        let mut pending =
            vec!["the revocation is not in the store, which cannot be read".to_owned()];
        pending.extend(entombed.as_ref().err().map(|e| self.not_on_disk(e)));
        pending.push(impact.unbounded());
        Did {
            done: vec![format!("the key {kid} is blocked and has left the set")],
            pending,
            trusted_until: Some(impact.trusted_until),
            impact: Some(impact),
            durable: entombed.is_ok(),
            alone: false,
        }
    }

    /// What is owed from here on. Ordered again, it keeps its date.
    fn owe(&self, kid: &str, ending: Ending, now: Time) -> Owed {
        let before = self.owed.get(kid);
        Owed {
            at: before.map_or(now, |owed| owed.at),
            ending: match before {
                Some(owed) => ending.after(&owed.ending),
                None => ending,
            },
            on_disk: match before.map(|owed| owed.on_disk) {
                None | Some(OnDisk::Nothing) => OnDisk::Nothing,
                Some(OnDisk::Before | OnDisk::All) => OnDisk::Before,
            },
        }
    }

    /// Takes what is owed out of the set that verifiers get, ahead of the store.
    async fn show_owed(&mut self) {
        let signers = self.reader.load().signers.clone();
        match self.held.clone() {
            Some(held) if signers.is_ok() => self.show(&held).await,
            // An order is no reason to sign again: what stopped that still
            // stands. Only the set changes.
            _ => {
                let published = self.published_in_the_dark();
                if let Some(set) = &published {
                    self.keep_in_the_dark(&set.body).await;
                }
                self.reader.swap(Snapshot { signers, published });
            }
        }
    }

    // -- The disk --------------------------------------------------------

    async fn entomb(&self, kid: &str, owed: &Owed) -> Result<(), DurableError> {
        hit(Side::Before, Effect::WriteTombstone);
        let name = &self.reader.name;
        let entombed = self.context.entomb(name, kid, &owed.ending, owed.at).await;
        hit(Side::After, Effect::WriteTombstone);
        entombed
    }

    /// Puts several on disk before any of them goes to the store, which may be
    /// slow. What fails is tried again with each, and told there.
    pub(super) async fn entomb_all(&self, kids: &[String], ending: &Ending) {
        let now = self.context.clock.read().wall;
        for kid in kids {
            let owed = self.owe(kid, ending.clone(), now);
            let _ = self.entomb(kid, &owed).await;
        }
    }

    /// Tries again to put on disk what only memory knows: once the disk has
    /// room, a restart brings no revoked key back, whatever the store does. Each
    /// of them: what is in the way of one may not be in that of another.
    pub(super) async fn entomb_owed(&mut self) {
        let unwritten = self.owed.iter();
        let unwritten = unwritten.filter(|(_, owed)| owed.on_disk != OnDisk::All);
        let unwritten: Vec<_> = unwritten.map(|(k, o)| (k.clone(), o.clone())).collect();
        for (kid, owed) in unwritten {
            let entombed = self.entomb(&kid, &owed).await;
            // Where that failed, the operator knows.
            self.owed.insert(kid, owed.written(&entombed));
        }
        self.tell_unwritten();
    }

    /// What an operator must know of a revocation that a restart would lose.
    fn not_on_disk(&self, why: &DurableError) -> String {
        let until = match self.context.works_with(&self.plan.device) {
            true => {
                "do not stop or restart the agent: once there is room it writes it within seconds, and `sealkeeper doctor` names it until then"
            }
            false => "make room, and order it again",
        };
        format!("and not on disk either: {why}; {until}")
    }

    // -- The last key ----------------------------------------------------

    /// Where this is the last key that verifiers get: ends it in the change
    /// that publishes a fresh one. None where there are others, or where that
    /// cannot be done soon; then the placeholder has to do.
    ///
    /// A crash in here leaves the tombstone, and perhaps an intent: the next
    /// start revokes the key as any other.
    async fn replace_last(&mut self, kid: &str, owed: &Owed) -> Option<Revoked> {
        let held = self.held.as_ref()?;
        if matches!(held.record.set.genesis, Genesis::Pending { .. }) {
            return None;
        }
        // Why: a key that is asked for before the revocation and made after it
        // is no fresh one. With the agent dead there is nothing to make it.
        if !self.context.works_with(&self.plan.device) {
            return None;
        }
        let others_owed = self.with_owed(held);
        let set = others_owed.as_ref().unwrap_or(&held.record.set);
        if !set.is_last(kid) {
            return None;
        }
        let mut endings = self.endings();
        let ending = Ending {
            at: Some(owed.at),
            ..owed.ending.clone()
        };
        endings.insert(kid.to_owned(), ending);
        match self.try_replace_last(kid, &endings).await {
            Ok(revoked) => {
                self.owed.remove(kid);
                self.paid();
                Some(revoked)
            }
            Err(why) => {
                tracing::warn!(
                    key_set = self.reader.name,
                    kid,
                    "no fresh key takes the place of the last one yet: {why}"
                );
                None
            }
        }
    }

    async fn try_replace_last(
        &mut self,
        kid: &str,
        endings: &BTreeMap<String, Ending>,
    ) -> Result<Revoked, String> {
        let deadline = Instant::now() + FRESH_KEY;
        let step = self.step(Clock::Sure, |set, plan, tick| {
            set.prepare_replacement(kid, plan, tick, &mut random_id)
        });
        let replacement = step.await.map_err(|e| e.to_string())?;
        let outcome = self.carried_out(replacement.intent, deadline).await?;
        let step = self.step(Clock::Sure, |set, plan, tick| {
            let made = (replacement, outcome.clone());
            let revoked = set.replace_last(kid, endings, made, plan, tick)?;
            let events = revoked.events.clone();
            Ok::<_, NotReplaced>((revoked, events))
        });
        step.await.map_err(|e| e.to_string())
    }

    /// What comes of one intent, if that is known before the deadline. It is
    /// carried out now, even if it failed lately. What else ends meanwhile is
    /// stored as usual.
    async fn carried_out(&mut self, wanted: IntentId, by: Instant) -> Result<Outcome, String> {
        self.tasks.forget_failures(wanted);
        self.start_intents();
        loop {
            let Ok((id, result)) = timeout_at(by, self.tasks.next()).await else {
                return Err(format!("the device has not made it within {FRESH_KEY:?}"));
            };
            if id != wanted {
                self.report(id, result).await;
                continue;
            }
            return match result {
                Ok(outcome) => Ok(outcome),
                Err(why) => {
                    self.report(id, Err(why.clone())).await;
                    Err(why)
                }
            };
        }
    }

    // -- The store -------------------------------------------------------

    /// How all that is owed ends: where nobody is there to choose, a key that
    /// verifiers may not hold is not activated.
    pub(super) fn endings(&self) -> BTreeMap<String, Ending> {
        let ending = |owed: &Owed| Ending {
            at: Some(owed.at),
            ..owed.ending.or_wait()
        };
        let owed = self.owed.iter();
        owed.map(|(kid, owed)| (kid.clone(), ending(owed)))
            .collect()
    }

    /// Stores what holds in memory and on disk, all of it in one change: no key
    /// that is to end takes the place of another one on the way.
    async fn pay(&mut self) -> Result<(), StepError<Infallible>> {
        let endings = self.endings();
        // While the clock is in doubt nothing is activated, a successor
        // neither: the keys stay blocked and out of the set meanwhile.
        self.step(Clock::Sure, |set, plan, tick| {
            let all = set.revoke_all(&endings, plan, tick).into_iter();
            let events = all.filter_map(|(_, revoked)| Some(revoked.ok()?.events));
            Ok(((), events.flatten().collect()))
        })
        .await?;
        self.paid();
        Ok(())
    }

    /// Drops what the store has now.
    fn paid(&mut self) {
        let Some(held) = &self.held else { return };
        let key_set = &self.reader.name;
        self.owed.retain(|kid, owed| {
            if held.record.set.revoked.contains_key(kid) {
                return false;
            }
            // Ordered while nobody could tell. It stays blocked, and its
            // tombstone waits for a record that knows it.
            tracing::warn!(key_set, kid, "a revocation has nothing to end: no such key");
            owed.on_disk != OnDisk::All
        });
    }

    /// Tries again: after a store that was full, or a crash between the
    /// tombstone and the store.
    pub(super) async fn pay_owed(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        match self.pay().await {
            // The log has a line already, from where that was found out.
            Ok(()) | Err(StepError::Doubt(_) | StepError::Store(_)) => {}
            Err(e) => {
                let key_set = &self.reader.name;
                tracing::error!(key_set, "revocations are not stored yet: {e}");
            }
        }
    }
}

/// What a hold keeps of a key that is over.
pub(super) fn kept_by_hold(set: &KeySet, kid: &str) -> Option<String> {
    let key = set.by_kid(kid)?;
    let kept = key.is_held() && key.has_private_half();
    kept.then(|| {
        format!("held: the private half of {kid} is kept until `sealkeeper keys release {kid}`")
    })
}

/// What becomes of a reason or a note that comes late.
const FORGOTTEN: &str =
    "the record has forgotten the key but for its end: a reason and a note are not kept any more";
