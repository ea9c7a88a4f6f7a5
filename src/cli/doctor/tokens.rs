//! Which token stands in a device: is it the one that holds the keys?

use std::collections::BTreeMap;

use super::sockets::Agent;
use super::state::Records;
use super::{Report, counted};
use crate::keyring::Half;

/// The keys that should be in a device, by the serial of their token.
pub(super) type Kept = BTreeMap<String, Vec<String>>;

/// As the agent lists them.
pub(super) fn listed(agent: &Agent, device: &str) -> Kept {
    let keys = agent.key_sets.iter().flat_map(|set| &set.keys);
    let placed = keys.flat_map(|key| key.placements.iter().map(move |place| (key, place)));
    let here = placed.filter(|(_, place)| {
        let there = [Half::Present, Half::Destroying].map(Half::name);
        place.device == device && there.contains(&place.state.as_str())
    });
    kept(here.map(|(key, place)| (place.token_serial.as_str(), key.kid.as_str())))
}

/// As the records have them.
pub(super) fn recorded(records: &Records, device: &str) -> Kept {
    let keys = records.values().flat_map(|set| set.keys.values());
    let here = keys.filter(|key| {
        let half = key.placements.get(device);
        half.is_some_and(|half| *half != Half::Destroyed)
    });
    kept(here.map(|key| {
        let token = key.tokens.get(device).map_or("", String::as_str);
        (token, key.kid.as_deref().unwrap_or_default())
    }))
}

fn kept<'a>(keys: impl Iterator<Item = (&'a str, &'a str)>) -> Kept {
    let mut kept = Kept::new();
    for (serial, kid) in keys {
        kept.entry(serial.to_owned())
            .or_default()
            .push(kid.to_owned());
    }
    // Of the keys of before it is not known.
    kept.remove("");
    kept
}

/// Whether the token that is there, by its serial, is the one that `kept` keys
/// are in. Says so where it is not.
pub(super) fn look(device: &str, there: &str, kept: &Kept, report: &mut Report) -> bool {
    let mut elsewhere = kept.iter().filter(|(serial, _)| *serial != there);
    let Some((serial, kids)) = elsewhere.next() else {
        return true;
    };
    let others = elsewhere.map(|(serial, kids)| format!("; {}", in_token(serial, kids)));
    let found = format!(
        "the token with serial {there:?} is there, and {}{}",
        in_token(serial, kids),
        others.collect::<String>()
    );
    let hint = format!(
        "nothing is made or destroyed in another token: put the one with serial {serial:?} back, then restart the agent. Only if it is gone for good: stop the agent, run `sealkeeper recover --keys-are-lost`, and start the agent"
    );
    report.fail("token", device, found, hint);
    false
}

fn in_token(serial: &str, kids: &[String]) -> String {
    let keys = counted(kids.len(), "key");
    let verb = if kids.len() == 1 { "is" } else { "are" };
    format!(
        "{keys} {verb} in the one with serial {serial:?}: {}",
        kids.join(", ")
    )
}
