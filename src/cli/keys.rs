//! `keys list`: the present, and what is coming.

use std::path::Path;

use prost_types::Timestamp;
use serde_json::{Value, json};

use super::advice::Advice;
use super::compose;
use super::output::{Failure, say, table};
use super::show::{rough, unseen_waived};
use super::timeline;
use crate::api;
use crate::api::v1::{self, ListKeysRequest, Phase, PrivateHalf, RevocationReason};
use crate::clock::{Clock, SystemClock};
use crate::time::Time;

/// How many characters of a note a table shows.
const LONGEST_NOTE: usize = 40;

/// Lists keys.
pub(super) fn list(
    config: &Path,
    key_set: Option<String>,
    all: bool,
    as_json: bool,
) -> Result<(), Failure> {
    let advice = Advice::of(config);
    let config = compose::config(config)?;
    let answer = compose::block_on(async {
        let mut admin = compose::admin(&config).await?;
        let request = ListKeysRequest {
            key_set: key_set.unwrap_or_default(),
        };
        Ok::<_, Failure>(admin.list_keys(request).await?.into_inner())
    })??;
    if as_json {
        let sets: Vec<Value> = answer.key_sets.iter().map(json_of).collect();
        return say(json!({ "key_sets": sets }));
    }
    let now = now();
    for set in &answer.key_sets {
        say(advice.in_full(&text_of(set, all, now)))?;
        let drawn = timeline::width().and_then(|width| timeline::draw(set, now, width));
        drawn.map_or(Ok(()), say)?;
    }
    Ok(())
}

/// A key set for people; retired keys, which nothing can happen to any more,
/// where all are wanted.
fn text_of(set: &v1::KeySet, all: bool, now: Time) -> String {
    let (listed, left_out): (Vec<_>, Vec<_>) = (set.keys.iter())
        .partition(|key| all || key.phase() != Phase::Retired || key.hold.is_some());
    let rows = listed.into_iter().map(|key| {
        vec![
            key.alg.clone(),
            shortened(&key.kid),
            phase(key.phase()).to_owned(),
            half(key.private_half()).to_owned(),
            age(key.created.as_ref(), now),
            age(key.activated.as_ref(), now),
            date(key.published.as_ref()),
            date(key.active_since.as_ref().or(key.activates.as_ref())),
            date(key.retiring_since.as_ref()),
            date(key.removed.as_ref()),
            notes(key),
        ]
    });
    let head = [
        "ALG",
        "KID",
        "PHASE",
        "PRIVATE",
        "AGE",
        "SINCE ACTIVE",
        "PUBLISHED",
        "ACTIVE",
        "RETIRING",
        "REMOVED",
        "NOTES",
    ];
    let mut text = format!(
        "key set {} ({})\n{}\n",
        set.name,
        set.issuer,
        table(&head, rows)
    );
    if !left_out.is_empty() {
        let count = left_out.len();
        text.push_str(&format!(
            "retired and not listed: {count} (--all lists them)\n"
        ));
    }
    if !set.not_in_force.is_empty() {
        text.push_str(&format!("\nnothing is signed: {}\n", set.not_in_force));
    }
    if set.clock_in_doubt {
        text.push_str(&format!(
            "\nthe clock is in doubt: nothing moves until `{}`\n{}\n",
            confirm_clock(set),
            set.clock_doubt
        ));
    }
    if !set.next.is_empty() {
        let rows = set.next.iter().take(8).map(|event| {
            vec![
                date(event.at.as_ref()),
                event.kind.clone(),
                event.alg.clone(),
                shortened(&event.kid),
                event.waits_for.clone(),
            ]
        });
        text.push_str("\nnext\n");
        text.push_str(&table(&["AT", "WHAT", "ALG", "KID", "WAITS FOR"], rows));
        text.push('\n');
    }
    text
}

/// The command that vouches for the clock of a key set.
pub(super) fn confirm_clock(set: &v1::KeySet) -> String {
    format!("sealkeeper clock confirm --key-set {}", set.name)
}

fn now() -> Time {
    SystemClock::new().read().wall
}

/// For people, in two units at most.
fn age(since: Option<&Timestamp>, now: Time) -> String {
    since.map_or_else(|| "-".to_owned(), |at| rough(now.since(time(at))))
}

/// A key set for programs.
pub(super) fn json_of(set: &v1::KeySet) -> Value {
    let now = now();
    let keys = set.keys.iter().map(|key| json_of_key(key, now));
    let keys: Vec<Value> = keys.collect();
    let next: Vec<Value> = set.next.iter().map(json_of_event).collect();
    let forgotten = set.forgotten.iter().map(|key| {
        json!({ "kid": key.kid, "revocation": key.revocation.as_ref().map(json_of_revocation) })
    });
    let forgotten: Vec<Value> = forgotten.collect();
    json!({
        "name": set.name,
        "issuer": set.issuer,
        "version": set.version,
        "clock_in_doubt": set.clock_in_doubt,
        "clock_doubt": Some(&set.clock_doubt).filter(|why| !why.is_empty()),
        "not_in_force": Some(&set.not_in_force).filter(|why| !why.is_empty()),
        "keys": keys,
        "forgotten": forgotten,
        "next": next,
    })
}

/// A key for programs; its ages by this machine's clock.
pub(super) fn json_of_key(key: &v1::Key, now: Time) -> Value {
    let age = |since: &Option<Timestamp>| since.as_ref().map(|at| now.since(time(at)).as_secs());
    json!({
        "created": rfc3339(key.created.as_ref()),
        "activated": rfc3339(key.activated.as_ref()),
        "age_seconds": age(&key.created),
        "seconds_since_active": age(&key.activated),
        "kid": key.kid,
        "alg": key.alg,
        "phase": phase(key.phase()),
        "private_half": half(key.private_half()),
        "published": rfc3339(key.published.as_ref()),
        "observed": rfc3339(key.observed.as_ref()),
        "observed_but_by": unseen_waived(key),
        "sightings": key.sightings.iter().map(|seen| json!({
            "origin": seen.origin,
            "since": rfc3339(seen.since.as_ref()),
            "waived_until": rfc3339(seen.waived_until.as_ref()),
            "instead": Some(&seen.instead).filter(|instead| !instead.is_empty()),
            "addresses": seen.addresses,
        })).collect::<Vec<_>>(),
        "activates": rfc3339(key.activates.as_ref()),
        "active_since": rfc3339(key.active_since.as_ref()),
        "retiring_since": rfc3339(key.retiring_since.as_ref()),
        "private_destroyed": rfc3339(key.private_destroyed.as_ref()),
        "private_given_up": rfc3339(key.private_given_up.as_ref()),
        "removed": rfc3339(key.removed.as_ref()),
        "exp_ceiling": rfc3339(key.exp_ceiling.as_ref()),
        "refused_until": rfc3339(key.refused_until.as_ref()),
        "hold": key.hold.as_ref().map(|hold| json!({
            "since": rfc3339(hold.since.as_ref()),
            "by": hold.by,
            "note": hold.note,
        })),
        "revocation": key.revocation.as_ref().map(json_of_revocation),
        "placements": key.placements.iter().map(|p| json!({
            "device": p.device,
            "handle_id": hex(&p.handle_id),
            "state": p.state,
            "token_serial": Some(&p.token_serial).filter(|serial| !serial.is_empty()),
        })).collect::<Vec<_>>(),
    })
}

pub(super) fn json_of_revocation(revocation: &v1::Revocation) -> Value {
    json!({
        "at": rfc3339(revocation.at.as_ref()),
        "by": revocation.by,
        "reason": reason(revocation.reason()),
        "note": revocation.note,
        "in_memory_alone": revocation.in_memory_alone,
    })
}

/// Something that is coming, for programs.
pub(super) fn json_of_event(event: &v1::Event) -> Value {
    json!({
        "at": rfc3339(event.at.as_ref()),
        "kind": event.kind,
        "alg": event.alg,
        "kid": event.kid,
        "waits_for": event.waits_for,
    })
}

fn notes(key: &v1::Key) -> String {
    let mut notes = Vec::new();
    if let Some(hold) = &key.hold {
        let since = date(hold.since.as_ref());
        let told = told(&hold.by, &cut(&hold.note));
        notes.push(format!("held since {since}{told}"));
    }
    if key.phase() == Phase::Published {
        let but = unseen_waived(key);
        match key.observed {
            None => notes.push("not seen everywhere".to_owned()),
            Some(_) if but.is_empty() => {}
            Some(_) => notes.push(format!("seen by all but the waived {}", but.join(", "))),
        }
    }
    if let Some(at) = &key.refused_until {
        notes.push(format!("forced: refused by some until {}", date(Some(at))));
    }
    if let Some(at) = &key.private_given_up {
        notes.push(format!("private half given up {}", date(Some(at))));
    }
    if let Some(revocation) = &key.revocation {
        notes.push(format!(
            "revoked {} ({}){}",
            date(revocation.at.as_ref()),
            reason(revocation.reason()),
            told(&revocation.by, &cut(&revocation.note))
        ));
        if revocation.in_memory_alone {
            notes.push(IN_MEMORY_ALONE.to_owned());
        }
    }
    notes.join(", ")
}

/// What is said of a revocation that a restart would forget.
pub(super) const IN_MEMORY_ALONE: &str =
    "IN MEMORY ALONE: a restart forgets it, see `sealkeeper doctor`";

/// Who asked, and what they noted, where that is known.
pub(super) fn told(by: &str, note: &str) -> String {
    let by = if by.is_empty() {
        String::new()
    } else {
        format!(" by {by}")
    };
    let note = if note.is_empty() {
        String::new()
    } else {
        format!(": {note}")
    };
    // What was noted before such characters were refused.
    let escape = |c: char| match api::is_control(c) {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    };
    (by + &note).chars().map(escape).collect()
}

/// As much of a note as a table has room for; `keys show` has all of it.
fn cut(note: &str) -> String {
    match note.char_indices().nth(LONGEST_NOTE) {
        Some((end, _)) => format!("{}…", &note[..end]),
        None => note.to_owned(),
    }
}

/// Enough of a thumbprint to tell keys apart.
fn shortened(kid: &str) -> String {
    match kid.char_indices().nth(12) {
        Some((end, _)) => format!("{}…", &kid[..end]),
        None => kid.to_owned(),
    }
}

pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "unknown",
        Phase::Generating => "generating",
        Phase::Published => "published",
        Phase::Active => "active",
        Phase::Retiring => "retiring",
        Phase::Retired => "retired",
        Phase::Revoked => "revoked",
    }
}

pub(super) fn reason(reason: RevocationReason) -> &'static str {
    match reason {
        RevocationReason::Unspecified => "unspecified",
        RevocationReason::Compromised => "compromised",
        RevocationReason::Superseded => "superseded",
    }
}

pub(super) fn half(half: PrivateHalf) -> &'static str {
    match half {
        PrivateHalf::Unspecified => "unknown",
        PrivateHalf::Present => "present",
        PrivateHalf::Missing => "missing",
        PrivateHalf::Destroyed => "destroyed",
        PrivateHalf::GivenUp => "given-up",
        PrivateHalf::None => "none",
        PrivateHalf::Wanted => "wanted",
    }
}

pub(super) fn time(at: &Timestamp) -> Time {
    Time::from_millis(at.seconds.saturating_mul(1000) + i64::from(at.nanos) / 1_000_000)
}

/// To the second: what a person compares.
pub(super) fn date(at: Option<&Timestamp>) -> String {
    at.map_or_else(
        || "-".to_owned(),
        |at| Time::from_secs(time(at).as_secs()).to_string(),
    )
}

pub(super) fn rfc3339(at: Option<&Timestamp>) -> Option<String> {
    at.map(|at| time(at).to_string())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1_800_000_000);

    #[test]
    fn ages_are_told_from_generation_and_from_activation() {
        let mut set = set();
        let ago = |days: i64| {
            Some(Timestamp {
                seconds: NOW.as_secs() - days * 86_400,
                nanos: 0,
            })
        };
        (set.keys[0].created, set.keys[0].activated) = (ago(92), ago(2));
        let text = text_of(&set, false, NOW);
        assert!(text.contains("AGE"), "{text}");
        // As `humantime` has it: 92 days are three months and some.
        let told = [
            rough(crate::time::Span::from_days(92)),
            rough(crate::time::Span::from_days(2)),
        ];
        assert!(told.iter().all(|told| text.contains(told)), "{text}");
        let json = json_of_key(&set.keys[0], NOW);
        assert_eq!(json["age_seconds"], 92 * 86_400);
        assert_eq!(json["seconds_since_active"], 2 * 86_400);
        let unknown = json_of_key(&v1::Key::default(), NOW);
        assert!(unknown["age_seconds"].is_null(), "{unknown}");
    }

    fn set() -> v1::KeySet {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let revocation = v1::Revocation {
            at: at(1_800_000_000),
            by: "unix:7".into(),
            reason: RevocationReason::Compromised.into(),
            note: "ticket 12".into(),
            in_memory_alone: false,
        };
        let hold = v1::Hold {
            since: at(1_700_000_000),
            by: "unix:8".into(),
            note: "forensics".into(),
        };
        v1::KeySet {
            keys: vec![v1::Key {
                kid: "key-1".into(),
                hold: Some(hold),
                revocation: Some(revocation),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn people_read_who_held_and_revoked_a_key() {
        let text = text_of(&set(), false, NOW);
        for told in [
            "held since 2023-11-14T22:13:20Z by unix:8: forensics",
            "revoked 2027-01-15T08:00:00Z (compromised) by unix:7: ticket 12",
        ] {
            assert!(text.contains(told), "{text}");
        }
        // What is not known is not said.
        let mut unknown = set();
        for key in &mut unknown.keys {
            key.hold = Some(v1::Hold::default());
        }
        assert!(
            text_of(&unknown, false, NOW).contains("held since -, "),
            "no by"
        );
    }

    #[test]
    fn a_clock_in_doubt_is_confirmed_for_its_key_set() {
        let mut doubted = set();
        doubted.name = "orders".to_owned();
        doubted.clock_in_doubt = true;
        let text = text_of(&doubted, false, NOW);
        assert!(
            text.contains("`sealkeeper clock confirm --key-set orders`"),
            "{text}"
        );
    }

    #[test]
    fn retired_keys_are_listed_where_all_are_wanted() {
        let mut set = set();
        set.keys.push(v1::Key {
            kid: "key-2".into(),
            phase: Phase::Retired.into(),
            ..Default::default()
        });
        let few = text_of(&set, false, NOW);
        assert!(few.contains("key-1") && !few.contains("key-2"), "{few}");
        assert!(few.contains("not listed: 1"), "{few}");
        let all = text_of(&set, true, NOW);
        assert!(all.contains("key-2") && !all.contains("not listed"));
        // One that an operator keeps is always listed.
        set.keys[1].hold = Some(v1::Hold::default());
        assert!(text_of(&set, false, NOW).contains("key-2"));
    }

    #[test]
    fn a_long_note_is_cut_in_a_table_and_whole_elsewhere() {
        let mut long = set();
        let note = "ü".repeat(200);
        for hold in long.keys.iter_mut().filter_map(|key| key.hold.as_mut()) {
            hold.note.clone_from(&note);
        }
        let text = text_of(&long, false, NOW);
        let cut = format!(": {}…", "ü".repeat(LONGEST_NOTE));
        assert!(text.contains(&cut) && !text.contains(&note), "{text}");
        assert_eq!(json_of(&long)["keys"][0]["hold"]["note"], note);
        assert!(told("uid:7", &note).contains(&note), "`keys show`");
    }

    /// From a record of before they were refused.
    #[test]
    fn what_a_terminal_obeys_is_not_printed() {
        let shown = told("uid:7", "a\u{202e}b\u{1b}[2Jc\u{2066}\u{200f}");
        assert_eq!(shown, " by uid:7: a\\u{202e}b\\u{1b}[2Jc\\u{2066}\\u{200f}");
    }

    #[test]
    fn programs_read_the_same() {
        let json = json_of(&set());
        let key = &json["keys"][0];
        assert_eq!(
            key["hold"],
            json!({"since": "2023-11-14T22:13:20Z", "by": "unix:8", "note": "forensics"})
        );
        assert_eq!(
            key["revocation"],
            json!({
                "at": "2027-01-15T08:00:00Z",
                "by": "unix:7",
                "reason": "compromised",
                "note": "ticket 12",
                "in_memory_alone": false,
            })
        );
    }
}
