//! A key that signs before every verifier can hold it: what that costs, and
//! what becomes of an order for it where there is nothing to do.

use super::writer::Writer;
use crate::keyring::{Event, Key, KeySet, OWN_LISTENER, What, rules};
use crate::time::Time;

impl Writer {
    /// What the activations among these events cost, where they came before
    /// their time.
    pub(super) fn price(&self, set: &KeySet, events: &[Event], now: Time) -> Option<String> {
        events.iter().find_map(|event| match event.what {
            What::Activated => {
                let key = set.keys.get(&event.key)?;
                key.forced.then(|| self.price_of(set, key, now))
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
