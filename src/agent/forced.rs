//! A key that signs before every verifier can hold it: what that costs, what
//! it would cost, and what becomes of an order for it where there is nothing
//! to do.

use tokio::sync::oneshot;

use super::admin::AdminError;
use super::impact::Tokens;
use super::orders::Did;
use super::refusal::refusal;
use super::status;
use super::writer::{Clock, StepError, Writer};
use crate::jose::Algorithm;
use crate::keyring::{
    Event, Forcing, Key, KeySet, Mandate, OWN_LISTENER, OperatorError, SeatId, What, rules,
};
use crate::policy::Caller;
use crate::time::{Span, Time};

/// A rotation that is thought of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The track.
    pub algorithm: Algorithm,
    /// The key that signs now, if one does.
    pub signs: Option<String>,
    /// The tokens by it that are about: whose callers get the next ones.
    pub tokens: Tokens,
    /// The key that is next, where it is published.
    pub next: Option<String>,
    /// When the next key signs by the rules, ordered now, at the earliest.
    pub safe_at: Option<Time>,
    /// What that waits for besides the clock.
    pub waits_for: Option<String>,
    /// What it would be to force it; none where that is refused.
    pub forced: Option<Early>,
    /// What else to know before the order.
    pub notes: Vec<String>,
}

/// An activation that is forced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Early {
    /// From when on the key would sign.
    pub at: Time,
    /// Until when verifiers may refuse its tokens; none where all hold it by
    /// then, and nothing is forced.
    pub refused_until: Option<Time>,
    /// The origins that do not show it yet.
    pub lacking: Vec<String>,
    /// From when until when one could go back to the key that signs now; none
    /// where none does, or verifiers may not hold that one either.
    pub back: Option<(Time, Time)>,
}

/// The question after a rotation, on its way to the writer.
pub(super) struct AskingAhead {
    pub(super) algorithm: Option<Algorithm>,
    pub(super) reply: oneshot::Sender<Result<Rotation, AdminError>>,
}

impl Writer {
    /// Has the next key of a track sign as soon as agents can have heard of it.
    /// Where every verifier holds it, that is a rotation as any other, and one
    /// person orders it.
    pub(super) async fn force(
        &mut self,
        caller: &Caller,
        algorithm: Algorithm,
        note: &str,
    ) -> Result<Did, AdminError> {
        let now = self.estimate();
        let Some(held) = &self.held else {
            return Err(self.dark());
        };
        let tick = self.tick_for(now);
        let wish = held.record.set.wish_to_force(algorithm, &self.plan, &tick);
        let mandate = Mandate {
            by: caller.to_string(),
            note: note.to_owned(),
        };
        let Some(wish) = wish.map_err(refusal)? else {
            return self
                .ask(|set, plan, tick| set.rotate(algorithm, &mandate, plan, tick))
                .await;
        };
        if let Some(asker) = self.asker(caller, note)? {
            return self.wish(&asker, &wish).await;
        }
        let step = self.step(Clock::Sure, |set, plan, tick| {
            let events = set.grant(&wish, &mandate, plan, tick)?;
            Ok((events.clone(), events))
        });
        let events = step
            .await
            .map_err(|e: StepError<OperatorError>| self.not_done(e))?;
        let mut did = Did::of(&events);
        self.tell_price(&mut did, &events);
        if events.is_empty() {
            did.done.push(format!(
                "the next {algorithm} key is about to sign already: `sealkeeper keys list` shows when"
            ));
        }
        Ok(did)
    }

    /// What the operator is told besides of a key that signs before its time.
    pub(super) fn tell_price(&mut self, did: &mut Did, events: &[Event]) {
        let now = self.estimate();
        let Some(held) = &self.held else { return };
        let set = &held.record.set;
        did.pending.extend(self.price(set, events, now));
        let back = events.iter().find_map(|event| match event.what {
            What::ActivationForced { activates } => self.way_back(set, event, activates),
            _ => None,
        });
        did.pending.extend(back);
    }

    fn way_back(&self, set: &KeySet, event: &Event, activates: Time) -> Option<String> {
        let seat = set.keys.get(&event.key).map(Key::seat)?;
        let before = set.keys.get(&set.seats.get(&seat)?.active?)?;
        let stop = format!(
            "`sealkeeper keys hold {}` stops it before that",
            event.kid.as_deref().unwrap_or("KID")
        );
        let kid = before.kid.as_deref()?;
        Some(match self.back(set, before, activates) {
            Some((from, until)) => format!(
                "if that breaks more than it mends: `sealkeeper keys rollback {kid}` goes back, from {from} until {until}; {stop}"
            ),
            None => format!("there is no way back to {kid}, which verifiers may not hold; {stop}"),
        })
    }

    /// From when until when one can go back to a key that signs until
    /// `activates`: as long as its private half is there, once every verifier
    /// holds it.
    fn back(&self, set: &KeySet, before: &Key, activates: Time) -> Option<(Time, Time)> {
        let timing = &self.plan.timing;
        let until = rules::rule_4_destruction(rules::rule_2_last_use(activates, timing), timing);
        let held = set.held_by_all(before, &self.plan, activates);
        let from = held.max(activates);
        (from < until).then_some((from, until))
    }

    /// What a rotation would mean. Changes nothing.
    pub(super) fn foresee_rotation(
        &mut self,
        algorithm: Option<Algorithm>,
    ) -> Result<Rotation, AdminError> {
        let algorithm = algorithm.unwrap_or(self.default_track());
        let now = self.estimate();
        let Some(held) = &self.held else {
            return Err(self.dark());
        };
        let (plan, tick) = (&self.plan, self.tick_for(now));
        let mut set = held.record.set.clone();
        let seat_id = SeatId {
            algorithm,
            group: plan.group.clone(),
        };
        let mut notes = Vec::new();
        let forcing = match set.forcing(algorithm, plan, &tick) {
            Err(e @ OperatorError::UnknownTrack { .. }) => return Err(refusal(e)),
            Err(e) => {
                notes.push(format!("--force: {e}"));
                None
            }
            Ok(forcing) => Some(forcing),
        };
        if plan.two_people && forcing.as_ref().is_some_and(|it| !it.safe) {
            notes.push("--force waits for a second person".to_owned());
        }
        set.rotate(algorithm, &Mandate::default(), plan, &tick)
            .map_err(refusal)?;
        let active = set.seats.get(&seat_id).and_then(|seat| seat.active);
        let active = active.and_then(|id| set.keys.get(&id));
        let next = set.standby(&seat_id);
        let silent = plan.origins.difference(&tick.live).cloned().collect();
        let outlook = match active {
            Some(active) => Some((set.outlook(active, plan).retires, active)),
            None => next.map(|next| (set.outlook(next, plan).activates, next)),
        };
        let waits = outlook.and_then(|(_, key)| {
            let wait = set.waits_for(key, plan, &silent)?;
            Some(status::waits_for(&wait, key, &set.name))
        });
        let lifetime = active.map_or(Span::ZERO, |key| key.longest_lifetime);
        Ok(Rotation {
            algorithm,
            signs: active.and_then(|key| key.kid.clone()),
            tokens: self.uncounted(lifetime, active.and_then(|key| key.exp_ceiling), now),
            next: next.and_then(|key| key.kid.clone()),
            safe_at: outlook.and_then(|(at, _)| at),
            waits_for: waits,
            forced: forcing.and_then(|it| self.early(&set, &it, active, now)),
            notes,
        })
    }

    fn early(
        &self,
        set: &KeySet,
        forcing: &Forcing,
        before: Option<&Key>,
        now: Time,
    ) -> Option<Early> {
        let key = set.keys.get(&forcing.key)?;
        let required = set.required(&self.plan, forcing.at);
        // The agent's own listener shows it within moments.
        let lacking = required
            .iter()
            .filter(|origin| !key.sightings.contains_key(*origin) && *origin != OWN_LISTENER);
        Some(Early {
            at: forcing.at,
            refused_until: (!forcing.safe).then(|| set.held_by_all(key, &self.plan, now)),
            lacking: lacking.cloned().collect(),
            back: before.and_then(|before| self.back(set, before, forcing.at)),
        })
    }

    /// What the activations among these events cost, where they came before
    /// their time.
    pub(super) fn price(&self, set: &KeySet, events: &[Event], now: Time) -> Option<String> {
        events.iter().find_map(|event| match event.what {
            What::Activated => {
                let key = set.keys.get(&event.key)?;
                key.forced.then(|| self.price_of(set, key, now))
            }
            What::ActivationForced { .. } => {
                let key = set.keys.get(&event.key)?;
                Some(self.price_of(set, key, now))
            }
            What::SuccessorForced => Some(self.price_to_come(now)),
            _ => None,
        })
    }

    /// What it costs that this key signs now.
    pub(super) fn price_of(&self, set: &KeySet, key: &Key, now: Time) -> String {
        let kid = key.kid.as_deref().unwrap_or_default();
        let until = set.held_by_all(key, &self.plan, now);
        let mut lacking = self.plan.origins.iter();
        let lacking = lacking.find(|origin| !key.sightings.contains_key(*origin));
        let seen = match lacking {
            None => String::new(),
            Some(origin) if origin == OWN_LISTENER => {
                ", and later where a cache before them gets it later".to_owned()
            }
            Some(origin) => format!(", and later where {origin} shows it later"),
        };
        format!(
            "until {until} (rule 1) verifiers that do not hold {kid} yet refuse its tokens: each until it fetches the set, which most do at an unknown kid, and all that cache for verifier_cache by then{seen}"
        )
    }

    /// What it costs that a key signs which is not in the set yet.
    pub(super) fn price_to_come(&self, now: Time) -> String {
        let until = match self.held.as_ref().map(|held| &held.record.set) {
            Some(set) => set.held_everywhere(now, &self.plan),
            None => rules::rule_1_pre_publish(now, &self.plan.timing, None),
        };
        let wait = until.since(now);
        format!(
            "for {wait} from when the next key is in the set (rule 1), verifiers that do not hold it yet refuse its tokens: each until it fetches the set, which most do at an unknown kid"
        )
    }

    /// Why an order to activate the next key had nothing to do.
    pub(super) fn nothing_to_activate(&self, set: &KeySet, kid: &str) -> String {
        const THEN: &str = "`--then activate` had nothing to do";
        let seat_id = set.by_kid(kid).map(Key::seat);
        let seat = seat_id.as_ref().and_then(|id| set.seats.get(id));
        let (Some(seat_id), Some(seat)) = (seat_id.as_ref(), seat) else {
            return format!("{THEN}: nobody knows what signs in the place of {kid}");
        };
        let active = seat.active.and_then(|id| set.keys.get(&id)?.kid.clone());
        if let Some(active) = active {
            // One of several that end together: those that sign do so last.
            if self.reader.is_blocked(&active) {
                return format!(
                    "{kid} did not sign: `--then activate` counts at the end of {active}, which signs no more"
                );
            }
            return format!("{THEN}: {active} signs");
        }
        if seat.force {
            return format!("{THEN}: the next key signs as soon as it is in the set already");
        }
        let last = set.emptied_by(seat_id).and_then(|key| key.kid.as_deref());
        format!(
            "{THEN}: {kid} did not sign, and nothing does in its track; `sealkeeper keys revoke {} --then activate` has the next key sign before its time",
            last.unwrap_or(kid)
        )
    }
}
