//! A key set in the operator's words.

use super::Context;
use super::admin::{
    ForgottenKey, HoldStatus, KeyPhase, KeySetStatus, KeyStatus, PlacementStatus, PrivateHalf,
    RequestStatus, RevocationReason, RevocationStatus, SightingStatus, Upcoming,
};
use super::context::Dates;
use super::origins::OriginHealth;
use super::reader::Reader;
use super::sentences::in_place_of;
use super::writer::Held;
use crate::hsm::Device;
use crate::keyring::{
    Crowd, Discrepancy, Doubt, Half, Key, KeySet, Phase, Plan, Reason, Revocation, Wait, Wish,
    Wrong,
};
use crate::time::Time;

/// A record's version, as operators quote it.
pub(super) fn version(held: &Held) -> String {
    held.version
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Why nothing moves, whatever the dates say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    /// The clock is in doubt.
    Doubt(Doubt),
    /// The store has not taken the revocation of this key (its `kid`).
    Owed(String),
}

impl Stuck {
    pub(super) fn waits_for(&self, key_set: &str) -> String {
        match self {
            Self::Doubt(_) => in_doubt(key_set),
            Self::Owed(kid) => format!("the store to take the revocation of the key {kid}"),
        }
    }
}

/// What everything waits for while the clock is in doubt.
pub(super) fn in_doubt(key_set: &str) -> String {
    format!("{}: the clock is in doubt", confirm(key_set))
}

/// The command that vouches for the clock.
pub(super) fn confirm(key_set: &str) -> String {
    format!("`sealkeeper clock confirm --key-set {key_set}`")
}

/// What to do about a clock in doubt.
pub(super) fn how_to_confirm(key_set: &str) -> String {
    format!(
        "compare `date -u` with a clock that you trust; if this one is right, {}",
        confirm(key_set)
    )
}

/// Everything that an operator sees of a key set.
pub(super) fn key_set(
    held: &Held,
    reader: &Reader,
    context: &Context,
    plan: &Plan,
    stuck: Option<Stuck>,
) -> KeySetStatus {
    let set = &held.record.set;
    let mut keys: Vec<&Key> = set
        .keys
        .values()
        .filter(|key| set.placeholder != Some(key.id))
        .collect();
    keys.sort_by_key(|key| (key.created, key.id));
    let seen = reader.overview();
    let mut next: Vec<Upcoming> = keys
        .iter()
        .flat_map(|key| {
            let wait = held.record.set.waits_for(key, plan, &seen.silent);
            upcoming(held, key, plan, wait.as_ref(), seen.at)
        })
        .collect();
    let doubt = match &stuck {
        Some(Stuck::Doubt(doubt)) => Some(doubt.to_string()),
        _ => None,
    };
    if let Some(stuck) = stuck {
        let why = stuck.waits_for(&set.name);
        for event in &mut next {
            event.waits_for = Some(why.clone());
        }
    }
    next.sort_by_key(|event| event.at);
    KeySetStatus {
        name: set.name.clone(),
        version: version(held),
        issuer: reader.terms().rules.issuer().to_owned(),
        keys: keys
            .into_iter()
            .map(|key| {
                let dates = context.dates(&set.name, &key.id.to_string());
                let known = status(held, key, plan, &seen.origins, seen.at).dated(key, dates);
                known.sought(key, reader, context)
            })
            .collect(),
        next,
        forgotten: set.forgotten().map(forgotten).collect(),
        clock_doubt: doubt,
        not_in_force: None,
        requests: (set.requests.iter())
            .map(|waiting| request(set, waiting))
            .collect(),
    }
}

/// What is left to say of a key set whose record cannot be read.
pub(super) fn unknown(reader: &Reader) -> KeySetStatus {
    KeySetStatus {
        name: reader.name.clone(),
        version: String::new(),
        issuer: reader.terms().rules.issuer().to_owned(),
        keys: Vec::new(),
        next: Vec::new(),
        forgotten: Vec::new(),
        clock_doubt: None,
        not_in_force: None,
        requests: Vec::new(),
    }
}

fn request(set: &KeySet, (number, request): (&u64, &crate::keyring::Request)) -> RequestStatus {
    let about = request.wish.about();
    let next = set.would_sign(&request.wish);
    RequestStatus {
        number: *number,
        wish: request.wish.name(),
        about: match (&request.wish, set.by_kid(about)) {
            (Wish::Activate { .. }, Some(key)) => in_place_of(key.algorithm, about),
            _ => about.to_owned(),
        },
        would_sign: next.and_then(|key| key.kid.clone()),
        by: request.mandate.by.clone(),
        person: request.person.clone(),
        note: request.mandate.note.clone(),
        at: request.at,
        expires: request.expires,
    }
}

fn status(held: &Held, key: &Key, plan: &Plan, origins: &[OriginHealth], now: Time) -> KeyStatus {
    let outlook = held.record.set.outlook(key, plan);
    let (active_since, retiring_since) = match key.phase {
        Phase::Active { since } => (Some(since), None),
        Phase::Retiring { since, .. } => (key.activated(), Some(since)),
        Phase::Retired { .. } | Phase::Revoked { .. } => (key.activated(), None),
        _ => (None, None),
    };
    let removed = match key.phase {
        Phase::Retired { since } | Phase::Revoked { since, .. } => Some(since),
        _ => outlook.removed,
    };
    KeyStatus {
        kid: key.kid.clone().unwrap_or_default(),
        algorithm: key.algorithm,
        phase: phase(&key.phase),
        private_half: if key.placements.is_empty() {
            PrivateHalf::None
        } else if key.placements.values().all(|half| *half == Half::Destroyed) {
            match key.given_up.is_empty() {
                true => PrivateHalf::Destroyed,
                false => PrivateHalf::GivenUp,
            }
        } else if key.placements.values().any(|half| *half == Half::Lost) {
            PrivateHalf::Missing
        } else if key.is_coming() {
            PrivateHalf::Wanted
        } else {
            PrivateHalf::Present
        },
        placements: key
            .placements
            .iter()
            .map(|(device, half)| PlacementStatus {
                device: device.clone(),
                handle_id: key.id.0.to_vec(),
                token: key.tokens.get(device).cloned(),
                state: match (key.is_coming(), half) {
                    (true, Half::Present) => "wanted".to_owned(),
                    _ if key.given_up.contains_key(device) => "given-up".to_owned(),
                    _ => half.name().to_owned(),
                },
            })
            .collect(),
        // Of a key of another system nobody knows it.
        created: Some(key.created).filter(|created| *created != Time::default()),
        activated: key.activated(),
        published: key.published,
        sightings: match key.is_published() {
            true => sightings(held, key, plan, origins),
            false => Vec::new(),
        },
        observed: held.record.set.observed(key, plan, now),
        activates: outlook.activates,
        active_since,
        retiring_since,
        private_destroyed: outlook.destroyed,
        private_given_up: key.given_up.values().max().copied(),
        removed,
        exp_ceiling: key.exp_ceiling,
        refused_until: held.record.set.refused_until(key, plan, now),
        hold: key.hold.clone().map(|hold| HoldStatus {
            since: hold.since,
            by: hold.mandate.by,
            note: hold.mandate.note,
        }),
        revocation: (key.kid.as_ref())
            .and_then(|kid| held.record.set.revoked.get(kid))
            .map(ended),
    }
}

fn ended(revocation: &Revocation) -> RevocationStatus {
    RevocationStatus {
        at: revocation.at,
        by: revocation.mandate.by.clone(),
        reason: revocation_reason(revocation.reason),
        note: revocation.mandate.note.clone(),
        in_memory_alone: false,
    }
}

fn forgotten((kid, revocation): (&str, &Revocation)) -> ForgottenKey {
    ForgottenKey {
        kid: kid.to_owned(),
        revocation: ended(revocation),
    }
}

impl KeyStatus {
    /// With what the log knows of the past, and the record does not.
    fn dated(mut self, key: &Key, dates: Dates) -> Self {
        if let Phase::Retired { .. } | Phase::Revoked { .. } = key.phase {
            self.retiring_since = dates.retiring;
        }
        if self.private_half == PrivateHalf::Destroyed {
            self.private_destroyed = dates.destroyed;
        }
        self
    }

    /// With what the device said of the private half, where it should be.
    fn sought(mut self, key: &Key, reader: &Reader, context: &Context) -> Self {
        let lacked = reader.missing().is_some() && reader.missing() == key.kid;
        let present = key
            .placements
            .iter()
            .filter(|(_, half)| **half == Half::Present);
        let mut elsewhere = present.map(|(device, _)| {
            let there = context.devices.get(device).and_then(Device::token);
            let there = there.map(|token| token.serial.clone());
            let wanted = key.tokens.get(device).cloned();
            matches!((there, wanted), (Some(there), Some(wanted)) if there != wanted)
        });
        let first = elsewhere.next().unwrap_or_default();
        let elsewhere = first && elsewhere.all(|it| it);
        if self.private_half == PrivateHalf::Present && (lacked || elsewhere) {
            self.private_half = PrivateHalf::Missing;
        }
        self
    }
}

/// Since when each origin shows a key, by the record; and what was wrong with it
/// there when this agent looked last.
fn sightings(held: &Held, key: &Key, plan: &Plan, origins: &[OriginHealth]) -> Vec<SightingStatus> {
    let is_it = |wrong: &&Discrepancy| {
        wrong.what != Wrong::ShowsRevoked && Some(&wrong.kid) == key.kid.as_ref()
    };
    let sighting = |name: &String| {
        let seen = origins.iter().find(|origin| origin.name == *name);
        let wrong = seen.and_then(|origin| origin.wrong.iter().find(is_it));
        SightingStatus {
            origin: name.clone(),
            since: key.sightings.get(name).copied(),
            wrong: wrong.cloned(),
            waived_until: (held.record.set.waivers.get(name)).map(|waiver| waiver.until),
        }
    };
    plan.origins.iter().map(sighting).collect()
}

fn upcoming(held: &Held, key: &Key, plan: &Plan, wait: Option<&Wait>, now: Time) -> Vec<Upcoming> {
    let outlook = held.record.set.outlook(key, plan);
    let event = |at, kind: &str, wait: Option<&Wait>| Upcoming {
        at,
        kind: kind.to_owned(),
        kid: key.kid.clone(),
        algorithm: key.algorithm,
        waits_for: wait
            // Agents say so with their next write, long before it matters.
            .filter(|wait| at <= now || !matches!(wait, Wait::Replica(_)))
            .map(|wait| waits_for(wait, key, &held.record.set.name)),
    };
    let activates = outlook.activates.map(|at| {
        let mut event = event(at, "activate", wait);
        event.waits_for = event.waits_for.map(|waits| waits + &way_out(held, key));
        event
    });
    // The standby that is to be made once there is room: it has no id yet.
    let generates = match wait {
        Some(Wait::Room(crowd)) => crowd.until.map(|at| Upcoming {
            kid: None,
            ..event(at, "generate", wait)
        }),
        _ => None,
    };
    // The public half leaves the set by the clock, whatever a device does.
    let removal = wait.filter(|wait| matches!(wait, Wait::Hold(_) | Wait::Rollback));
    [
        activates,
        generates,
        outlook.retires.map(|at| event(at, "retire", wait)),
        outlook.destroyed.map(|at| event(at, "destroy", wait)),
        outlook.removed.map(|at| event(at, "remove", removal)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What has a key sign earlier, where nothing does.
fn way_out(held: &Held, key: &Key) -> String {
    let emptied_by = held.record.set.emptied_by(&key.seat());
    let Some(kid) = emptied_by.and_then(|key| key.kid.as_ref()) else {
        return String::new();
    };
    format!("; `sealkeeper keys revoke {kid} --then activate` has it sign earlier")
}

/// Why there is no standby, and until when.
pub(crate) fn no_standby(crowd: &Crowd) -> String {
    let Crowd {
        published,
        allowed,
        until,
    } = crowd;
    let many = format!("{published} keys are published, and rule 6 allows {allowed}");
    match until {
        Some(until) if published == allowed => {
            format!("no standby until {until}: {many}; the oldest leaves then")
        }
        Some(until) => format!("no standby until {until}: {many}; enough of them have left then"),
        None => format!("no standby: {many}, and none of them leaves before it is released"),
    }
}

pub(super) fn waits_for(wait: &Wait, key: &Key, key_set: &str) -> String {
    match wait {
        Wait::Hold(kid) if key.kid.as_ref() == Some(kid) => "the key is held".to_owned(),
        Wait::Hold(kid) => format!("the next key {kid} is held"),
        Wait::Generation { device } => format!("the device {device} to make the next key"),
        Wait::Room(crowd) => format!("a next key: {}", no_standby(crowd)),
        Wait::NoSuccessor => "a next key: none is there yet".to_owned(),
        Wait::Silent { origin } => format!("the origin {origin} to answer"),
        Wait::Unseen { origin, kid } => format!("the origin {origin} to show the key {kid}"),
        Wait::Rule1 { until, kid } => {
            format!("every verifier to hold the key {kid}: not before {until} (rule 1)")
        }
        Wait::Destruction { device } => format!("the device {device} to destroy the private half"),
        Wait::Stopped { device } => format!(
            "the device {device} to say whether it still holds the private half: the key is held, and keeps it then"
        ),
        Wait::Replica(name) => format!("the agent {name} to sign no more with it"),
        Wait::Rollback => "it is to be active again".to_owned(),
        Wait::SecondPerson { request } => match (request, &key.kid) {
            (Some(number), _) => format!(
                "a second person until then: `sealkeeper approvals approve {number} --key-set {key_set}`"
            ),
            (None, kid) => format!(
                "two people until then: `sealkeeper keys destroy {}` asks for the second",
                kid.as_deref().unwrap_or("KID")
            ),
        },
    }
}

fn phase(phase: &Phase) -> KeyPhase {
    match phase {
        Phase::Generating | Phase::Placeholder => KeyPhase::Generating,
        Phase::Published { .. } => KeyPhase::Published,
        Phase::Active { .. } => KeyPhase::Active,
        Phase::Retiring { .. } => KeyPhase::Retiring,
        Phase::Retired { .. } => KeyPhase::Retired,
        Phase::Revoked { .. } => KeyPhase::Revoked,
    }
}

const fn revocation_reason(reason: Reason) -> RevocationReason {
    match reason {
        Reason::Unspecified => RevocationReason::Unspecified,
        Reason::Compromised => RevocationReason::Compromised,
        Reason::Superseded => RevocationReason::Superseded,
    }
}
