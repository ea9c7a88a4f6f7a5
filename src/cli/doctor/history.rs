//! The signed document of past keys, where it is served: is there one, and
//! does it say what is on record?

use super::state::Records;
use super::{Report, counted};
use crate::cli::history::Witnesses;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::time::Span;

const CHECK: &str = "historical_keys";

/// It is signed anew each day; an hour for a device that is away.
const OLD: Span = Span::from_hours(25);

const SIGNS: &str = "the agent signs it within seconds once the default track's active key can sign: what `key set` and `device` say here explains it";

pub(super) fn look(config: &Config, records: &Records, report: &mut Report) {
    let served = config
        .key_sets
        .iter()
        .filter(|(_, set)| set.historical_keys);
    let served: Vec<&String> = served.map(|(name, _)| name).collect();
    if served.is_empty() {
        return;
    }
    let Ok(witnesses) = Witnesses::open(config) else {
        return; // The check of the log says why.
    };
    let last = format!("{SIGNS}; until then verifiers get the last one");
    let none = format!("{SIGNS}; until then verifiers get none");
    for name in served {
        let Some(record) = records.get(name) else {
            continue;
        };
        let found = witnesses
            .document(name)
            .and_then(|document| Ok((document, witnesses.past(record)?)));
        let (document, past) = match found {
            Ok((Some(document), past)) => (document, past),
            Ok((None, _)) => {
                report.warn(CHECK, name, "no document was signed yet", &none);
                continue;
            }
            Err(why) => {
                report.warn(CHECK, name, why, &last);
                continue;
            }
        };
        let by = format!("signed {} by {}", document.at, document.kid);
        let revoked = past.keys.iter().filter(|past| past.revoked.is_some());
        let mut unnamed = revoked.filter(|past| !document.names.contains(&past.kid));
        let now = SystemClock::new().read().wall;
        if record.revoked.contains_key(&document.kid) {
            let found = format!("{by}, which was revoked since: it is withdrawn");
            report.warn(
                CHECK,
                name,
                found,
                format!("{SIGNS}; until then /{name}/historical-keys.jwt answers 503"),
            );
        } else if let Some(past) = unnamed.next() {
            let found = format!("{by}, and does not name the revoked key {}", past.kid);
            report.warn(CHECK, name, found, &last);
        } else if now.since(document.at) > OLD {
            report.warn(CHECK, name, format!("{by}: older than a day"), &last);
        } else {
            let n = counted(document.names.len(), "key");
            report.ok(CHECK, name, format!("{by}, names {n}"));
        }
    }
}
