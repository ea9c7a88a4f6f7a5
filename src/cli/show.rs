//! `keys show`: everything that is known of one key.

use std::path::Path;

use prost_types::Timestamp;
use serde_json::json;

use super::advice::Advice;
use super::compose;
use super::keys::{self, date, half, hex, json_of_key, phase, time};
use super::kid::{self, Known};
use super::output::{Failure, say, table};
use crate::api::v1::{Event, ForgottenKey, Key, KeySet, ListKeysRequest, Phase};
use crate::clock::{Clock, SystemClock};
use crate::keyring::among;
use crate::time::{Span, Time};

/// Shows the key with this `kid`, or the only one whose `kid` begins so.
pub(super) fn run(config: &Path, wanted: &str, as_json: bool) -> Result<(), Failure> {
    let advice = Advice::of(config);
    let config = compose::config(config)?;
    let answer = compose::block_on(async {
        let mut admin = compose::admin(&config).await?;
        let everything = ListKeysRequest::default();
        Ok::<_, Failure>(admin.list_keys(everything).await?.into_inner())
    })??;
    let keys = answer.key_sets.iter().flat_map(|set| {
        kid::of_set(set).map(move |key| Known {
            kid: key.kid,
            phase: key.phase,
            found: (set, Found::Key(key.found)),
        })
    });
    let forgotten = answer.key_sets.iter().flat_map(|set| {
        set.forgotten.iter().map(move |key| Known {
            kid: &key.kid,
            phase: Some(Phase::Revoked),
            found: (set, Found::Forgotten(key)),
        })
    });
    let (set, key) = match kid::find(keys.chain(forgotten), wanted)? {
        (set, Found::Key(key)) => (set, key),
        (set, Found::Forgotten(key)) => return tell_forgotten(set, key, as_json),
    };
    let next: Vec<&Event> = set.next.iter().filter(|next| next.kid == key.kid).collect();
    if as_json {
        let mut shown = json_of_key(key, SystemClock::new().read().wall);
        shown["key_set"] = json!(set.name);
        shown["issuer"] = json!(set.issuer);
        shown["next"] = next
            .iter()
            .map(|event| keys::json_of_event(event))
            .collect();
        return say(shown);
    }
    let text = text_of(set, key, &next, SystemClock::new().read().wall);
    say(advice.in_full(&text))
}

/// What an id stands for.
enum Found<'a> {
    Key(&'a Key),
    /// Revoked, and nothing else of it is on record.
    Forgotten(&'a ForgottenKey),
}

fn tell_forgotten(set: &KeySet, key: &ForgottenKey, as_json: bool) -> Result<(), Failure> {
    let revocation = key.revocation.clone().unwrap_or_default();
    if as_json {
        return say(json!({
            "kid": key.kid,
            "key_set": set.name,
            "issuer": set.issuer,
            "phase": phase(Phase::Revoked),
            "revocation": keys::json_of_revocation(&revocation),
        }));
    }
    say(format!(
        "{} of {} was revoked {} ({}){}; the record keeps nothing else of it, `sealkeeper keys history` has what the log knows",
        key.kid,
        set.name,
        date(revocation.at.as_ref()),
        keys::reason(revocation.reason()),
        keys::told(&revocation.by, &revocation.note),
    ))
}

fn text_of(set: &KeySet, key: &Key, next: &[&Event], now: Time) -> String {
    let when = |at: &Option<Timestamp>| at.as_ref().map(|at| told(at, now));
    let placements: Vec<String> = key
        .placements
        .iter()
        .map(|place| {
            let token = match place.token_serial.as_str() {
                "" => String::new(),
                serial => format!(" (token serial {serial})"),
            };
            let (device, id) = (&place.device, hex(&place.handle_id));
            format!("{} on {device}{token} as {id}", place.state)
        })
        .collect();
    let held = key.hold.as_ref().map(|hold| {
        let since = hold.since.as_ref().map(|at| told(at, now));
        let (since, by) = (since.unwrap_or_default(), keys::told(&hold.by, &hold.note));
        format!("since {since}{by}, until it is released")
    });
    let revoked = key.revocation.as_ref().map(|revocation| {
        let at = revocation.at.as_ref().map(|at| told(at, now));
        let by = keys::told(&revocation.by, &revocation.note);
        let reason = keys::reason(revocation.reason());
        let alone = match revocation.in_memory_alone {
            true => format!(", {}", keys::IN_MEMORY_ALONE),
            false => String::new(),
        };
        format!("{} ({reason}){by}{alone}", at.unwrap_or_default())
    });
    let but = unseen_waived(key);
    let facts = [
        ("kid", Some(key.kid.clone())),
        ("key set", Some(format!("{} ({})", set.name, set.issuer))),
        ("algorithm", Some(key.alg.clone())),
        ("phase", Some(phase(key.phase()).to_owned())),
        ("private half", Some(half(key.private_half()).to_owned())),
        (
            "device",
            Some(placements.join(", ")).filter(|text| !text.is_empty()),
        ),
        ("generated", when(&key.created)),
        ("published", when(&key.published)),
        (
            "seen everywhere",
            when(&key.observed).filter(|_| but.is_empty()),
        ),
        (
            "seen",
            when(&key.observed)
                .filter(|_| !but.is_empty())
                .map(|at| format!("{at}, by all but the waived {}", but.join(", "))),
        ),
        ("activates", when(&key.activates)),
        ("first active", when(&key.activated)),
        ("active since", when(&key.active_since)),
        ("retiring since", when(&key.retiring_since)),
        ("private half gone", when(&key.private_destroyed)),
        ("private half given up", when(&key.private_given_up)),
        ("leaves the JWKS", when(&key.removed)),
        ("signs nothing beyond", when(&key.exp_ceiling)),
        (
            "refused by some",
            when(&key.refused_until).map(|at| {
                let least = super::rotate::at_least(key);
                format!("{least}until {at}: it was forced before every verifier held it")
            }),
        ),
        ("held", held),
        ("revoked", revoked),
        ("waits for", waits_for(set, key, next)),
    ];
    let rows = facts
        .into_iter()
        .filter_map(|(name, fact)| Some(vec![name.to_owned(), fact?]));
    let mut text = table(&["KEY", ""], rows);
    if !key.sightings.is_empty() {
        let rows = key.sightings.iter().map(|seen| {
            let missing = || format!("not shown there{}", among(&seen.addresses));
            let since = match &*seen.instead {
                "" => when(&seen.since).unwrap_or_else(missing),
                instead => format!("{}: under its id stands {instead}", missing()),
            };
            let since = match &seen.waived_until {
                Some(until) => format!("{since} (waived until {})", keys::date(Some(until))),
                None => since,
            };
            vec![seen.origin.clone(), since]
        });
        text.push_str("\n\n");
        text.push_str(&table(&["SEEN AT", "SINCE"], rows));
    }
    if !next.is_empty() {
        let rows = next.iter().map(|event| {
            let at = event.at.as_ref().map(|at| told(at, now));
            vec![event.kind.clone(), at.unwrap_or_default()]
        });
        text.push_str("\n\n");
        text.push_str(&table(&["NEXT", "AT"], rows));
    }
    text
}

/// The waived origins that did not show a key yet when all others did: where
/// there are any, it was not seen everywhere.
pub(super) fn unseen_waived(key: &Key) -> Vec<&str> {
    let Some(observed) = key.observed.as_ref().map(time) else {
        return Vec::new();
    };
    let late = |since: &Option<Timestamp>| since.as_ref().is_none_or(|at| time(at) > observed);
    let waived = key.sightings.iter();
    let waived = waived.filter(|seen| seen.waived_until.is_some() && late(&seen.since));
    waived.map(|seen| seen.origin.as_str()).collect()
}

/// What keeps the key from its next step, besides the clock.
fn waits_for(set: &KeySet, key: &Key, next: &[&Event]) -> Option<String> {
    if set.clock_in_doubt {
        let confirm = keys::confirm_clock(set);
        return Some(format!("`{confirm}`: the clock is in doubt"));
    }
    if key.hold.is_some() {
        return Some(format!("`sealkeeper keys release {}`", key.kid));
    }
    let waits = next.iter().map(|event| &event.waits_for);
    if let Some(waits) = waits.into_iter().find(|waits| !waits.is_empty()) {
        return Some(waits.clone());
    }
    match key.phase() {
        Phase::Published if key.observed.is_none() => {
            Some("every observed address to show it".to_owned())
        }
        Phase::Generating => Some("its device to make it".to_owned()),
        _ => None,
    }
}

/// `2027-01-15T08:00:00Z, in 3days`.
fn told(at: &Timestamp, now: Time) -> String {
    let then = time(at);
    let away = if then > now {
        format!("in {}", rough(then.since(now)))
    } else {
        format!("{} ago", rough(now.since(then)))
    };
    format!("{}, {away}", date(Some(at)))
}

/// Two units are enough: `3days 4h`.
pub(super) fn rough(span: Span) -> String {
    let exact = Span::from_secs(u32::try_from(span.as_secs()).unwrap_or(u32::MAX)).to_string();
    exact.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::Sighting;

    #[test]
    fn dates_are_told_from_now() {
        let now = Time::from_secs(1_800_000_000);
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let days = 3 * 86_400 + 4 * 3600 + 5;
        assert_eq!(
            told(&at(1_800_000_000 + days), now),
            "2027-01-18T12:00:05Z, in 3days 4h"
        );
        assert_eq!(
            told(&at(1_799_999_990), now),
            "2027-01-15T07:59:50Z, 10s ago"
        );
        assert_eq!(
            told(&at(1_800_000_000), now),
            "2027-01-15T08:00:00Z, 0s ago"
        );
    }

    /// Found by review: a waived origin, which shows nothing, counted as one
    /// that shows the key.
    #[test]
    fn a_waived_origin_is_no_witness() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let seen = |origin: &str, since, waived_until| Sighting {
            origin: origin.into(),
            since,
            waived_until,
            ..Default::default()
        };
        let key = Key {
            phase: Phase::Published.into(),
            observed: at(100),
            sightings: vec![
                seen("a", at(100), None),
                seen("b", None, at(900)),
                seen("c", at(101), at(900)),
                seen("d", at(99), at(900)),
            ],
            ..Default::default()
        };
        let now = Time::from_secs(200);
        assert_eq!(unseen_waived(&key), ["b", "c"]);
        assert_eq!(json_of_key(&key, now)["observed_but_by"], json!(["b", "c"]));
        let text = text_of(&KeySet::default(), &key, &[], now);
        let told = "1970-01-01T00:01:40Z, 1m 40s ago, by all but the waived b, c";
        assert!(
            text.contains(told) && !text.contains("everywhere"),
            "{text}"
        );
    }
}
