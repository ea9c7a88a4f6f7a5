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
    Event, Forcing, Key, KeySet, Mandate, OWN_LISTENER, OperatorError, SeatId, Switch, WayBack,
    What, rules,
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
    /// The key whose callers get tokens of the next one: the one that signs now,
    /// or where none does and the track becomes the default, the one of the
    /// default until then.
    pub instead_of: Option<String>,
    /// The tokens by that key that are about.
    pub tokens: Tokens,
    /// From when on the next key signs by what is on record already.
    pub decided: Option<Time>,
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
    /// Whether one could go back to the key that signs now; none where none
    /// does.
    pub back: Option<WayBack>,
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
        let moves = self.default_moves(&held.record.set, algorithm);
        let step = self.step(Clock::Sure, |set, plan, tick| {
            let events = set.grant(&wish, &mandate, plan, tick)?;
            Ok((events.clone(), events))
        });
        let events = step
            .await
            .map_err(|e: StepError<OperatorError>| self.not_done(e))?;
        let mut did = Did::of(&events);
        self.tell_price(&mut did, &events);
        let activated = events.iter().any(|event| event.what == What::Activated);
        did.pending.extend(moves.filter(|_| activated));
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
        let mut forced = events.iter();
        let forced = forced.find(|event| matches!(event.what, What::ActivationForced { .. }));
        let next = forced.and_then(|event| set.keys.get(&event.key));
        did.pending.extend(next.and_then(|next| self.away(next)));
        let tick = self.tick_for(now);
        let back = events.iter().find_map(|event| match event.what {
            What::ActivationForced { activates } => {
                let (before, way) = set.way_back(event.key, activates, &self.plan, &tick)?;
                let kid = set.keys.get(&before)?.kid.as_deref()?;
                let stop = event.kid.as_deref().unwrap_or("KID");
                Some(format!(
                    "if that breaks more than it mends: {}; `sealkeeper keys hold {stop}` stops it before it signs",
                    way_back(kid, &way)
                ))
            }
            _ => None,
        });
        did.pending.extend(back);
    }

    /// That a key helps nobody until a device answers that is to sign with it.
    fn away(&self, next: &Key) -> Option<String> {
        let mut devices = next.placements.keys();
        let away = devices.find(|device| !self.answers(device))?;
        Some(format!(
            "the device {away} does not answer: nothing is signed with {} until it does",
            next.kid.as_deref().unwrap_or_default()
        ))
    }

    /// That those who name no algorithm get tokens of another track, once a key
    /// of this one signs, in which none does.
    fn default_moves(&self, set: &KeySet, algorithm: Algorithm) -> Option<String> {
        let before = self.gives_way(set, algorithm)?;
        let (kid, former) = (before.kid.as_deref()?, before.algorithm);
        Some(format!(
            "with it {algorithm} is the default: who names no algorithm gets its tokens, and those of {kid} ({former}) no more; the {former} track first in the configuration and `sealkeeper config reload` undo that"
        ))
    }

    /// The active key of the default track, where that gives way to this one as
    /// soon as one of its keys signs.
    fn gives_way<'a>(&self, set: &'a KeySet, algorithm: Algorithm) -> Option<&'a Key> {
        let default = set.default_track(&self.plan)?;
        let place = |wanted: Algorithm| {
            let mut tracks = self.plan.tracks.iter();
            tracks.position(|(algorithm, _)| *algorithm == wanted)
        };
        let first = place(algorithm)? < place(default.algorithm)?;
        set.keys
            .get(&set.seats.get(&default)?.active?)
            .filter(|_| first)
    }

    /// The track that an order is about which names none: the one whose key
    /// signs for callers who name none.
    pub(super) fn default_track(&self) -> Algorithm {
        let held = self.held.as_ref();
        let default = held.and_then(|held| held.record.set.default_track(&self.plan));
        let first = self.plan.tracks.first();
        match (default, first) {
            (Some(default), _) => default.algorithm,
            (None, Some((first, _))) => *first,
            (None, None) => Algorithm::Es256,
        }
    }

    /// What is on record already for the active key of a track.
    pub(super) fn decided_in(&self, algorithm: Algorithm) -> Option<String> {
        let set = &self.held.as_ref()?.record.set;
        let seat = set.seats.get(&SeatId {
            algorithm,
            group: self.plan.group.clone(),
        });
        Some(self.decided(set, seat?.switch.as_ref()?))
    }

    /// What a rotation would mean. Changes nothing.
    pub(super) fn foresee_rotation(
        &mut self,
        algorithm: Option<Algorithm>,
    ) -> Result<Rotation, AdminError> {
        let algorithm = algorithm.unwrap_or_else(|| self.default_track());
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
        let mut notes: Vec<String> = self.default_moves(&set, algorithm).into_iter().collect();
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
        let seat = set.seats.get(&seat_id);
        let decided = seat.and_then(|seat| seat.switch.clone());
        notes.extend(decided.as_ref().map(|switch| self.decided(&set, switch)));
        notes.extend(set.standby(&seat_id).and_then(|next| self.away(next)));
        let gives_way = self.gives_way(&set, algorithm).map(|key| key.id);
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
        let instead_of = active.or(gives_way.and_then(|id| set.keys.get(&id)));
        let lifetime = instead_of.map_or(Span::ZERO, |key| key.longest_lifetime);
        let ceiling = instead_of.and_then(|key| key.exp_ceiling);
        // What is on record goes on, and is neither asked for nor forced anew.
        let asked = decided.is_none();
        let forcing =
            forcing.filter(|it| asked || decided.as_ref().is_some_and(|d| d.to != it.key));
        Ok(Rotation {
            algorithm,
            signs: active.and_then(|key| key.kid.clone()),
            instead_of: instead_of.and_then(|key| key.kid.clone()),
            tokens: self.uncounted(lifetime, ceiling, now),
            decided: decided.map(|switch| switch.at),
            next: next.and_then(|key| key.kid.clone()),
            safe_at: outlook
                .and_then(|(at, _)| at)
                .filter(|_| asked && next.is_some()),
            waits_for: waits.filter(|_| asked),
            forced: forcing.and_then(|it| self.early(&set, &it, now)),
            notes,
        })
    }

    /// What becomes active next by what is on record.
    pub(super) fn decided(&self, set: &KeySet, switch: &Switch) -> String {
        let key = set.keys.get(&switch.to);
        let kid = key.and_then(|key| key.kid.as_deref()).unwrap_or_default();
        let how = match (switch.forced, switch.rollback) {
            (true, _) => ", before every verifier can hold it: that was forced",
            (false, true) => ", by a rollback",
            (false, false) => "",
        };
        format!(
            "{kid} signs from {} on already{how}; `sealkeeper keys hold {kid}` stops it",
            switch.at
        )
    }

    fn early(&self, set: &KeySet, forcing: &Forcing, now: Time) -> Option<Early> {
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
            back: set
                .way_back(forcing.key, forcing.at, &self.plan, &self.tick_for(now))
                .map(|(_, way)| way),
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

/// Whether one can go back to a key, as a part of a sentence.
fn way_back(kid: &str, way: &WayBack) -> String {
    match way {
        WayBack::Open { from, until } => {
            format!("`sealkeeper keys rollback {kid}` goes back, from {from} until {until}")
        }
        WayBack::Unseen { origins, until } => format!(
            "`sealkeeper keys rollback {kid}` goes back only once {} has shown {kid} for long enough, and not after {until}",
            origins.join(" and ")
        ),
        no => format!("there is no way back to {kid}: {no}"),
    }
}
