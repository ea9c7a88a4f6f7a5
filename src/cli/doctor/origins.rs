//! What verifiers get, where that is observed: as the running agent has it, or
//! without one as this program sees it, compared with the record.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;

use super::state::Records;
use super::{RELOAD, Report, counted};
use crate::api::v1;
use crate::api::v1::KeySetHealth;
use crate::cli::keys;
use crate::cli::progress::Late;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::keyring::{self, Discrepancy, OWN_LISTENER, Shown, Wrong};
use crate::observe::{self, ObserveError, Origin, Trust};

const CHECK: &str = "origin";

/// How long an origin may take; all are asked at the same time.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often whoever waits is told so.
const BEAT: Duration = Duration::from_millis(200);

/// As the agent sees them.
pub(super) fn told(config: &Config, set: &KeySetHealth, report: &mut Report) {
    for origin in set.origins.iter().filter(|o| o.name != OWN_LISTENER) {
        let place = place(&set.name, &origin.url);
        if let Some(waiver) = &origin.waiver {
            waived(&place, waiver, report);
        }
        let silent_now = origin.silent || (origin.answered.is_none() && !origin.why.is_empty());
        if silent_now && origin.waiver.is_some() {
            continue;
        }
        if silent_now {
            let trust = trust(config, &set.name, &origin.name);
            let hint = silent(trust.as_ref());
            report.fail(CHECK, &place, &origin.why, hint);
            continue;
        }
        let wrong = origin.wrong.iter().filter_map(|wrong| {
            let what = what(wrong.what())?;
            // Nobody waits for it.
            if what == Wrong::Lags && origin.waiver.is_some() {
                return None;
            }
            Some(Discrepancy {
                kid: wrong.kid.clone(),
                what,
                page: wrong.page,
                detail: wrong.detail.clone(),
                addresses: wrong.addresses.clone(),
            })
        });
        let wrong: Vec<_> = wrong.collect();
        found(&place, &wrong, report);
        if wrong.is_empty() && origin.answered.is_some() && origin.waiver.is_none() {
            report.ok(CHECK, &place, "shows what it should");
        }
    }
}

fn waived(place: &str, waiver: &v1::Waiver, report: &mut Report) {
    let until = keys::date(waiver.until.as_ref());
    let told = keys::told(&waiver.by, &waiver.note);
    let found = format!("waived until {until}{told}: no activation waits for it");
    let hint = "verifiers that ask there may meet the id of a key that they do not hold; `sealkeeper origins restore` has it count again";
    report.warn(CHECK, place, found, hint);
}

/// From here, where no agent runs.
pub(super) async fn look(config: &Config, records: &Records, runs: bool, report: &mut Report) {
    let observed = config.key_sets.iter().flat_map(|(name, set)| {
        let origins = set.observe.iter();
        origins.map(move |origin| (name.clone(), origin.clone()))
    });
    let observed: Vec<_> = observed.collect();
    let unreadable = roots(&observed, report);
    if runs {
        return;
    }
    let mut asked = JoinSet::new();
    for (name, origin) in observed {
        if unreadable.contains(origin.trust()) {
            continue;
        }
        asked.spawn(async move {
            let shown = observe::look(&origin, PATIENCE).await;
            (name, origin, shown)
        });
    }
    let mut progress = Late::new(
        "{spinner} {pos} of {len} origins answered ({elapsed})",
        asked.len() as u64,
    );
    let mut all = Vec::new();
    loop {
        match tokio::time::timeout(BEAT, asked.join_next()).await {
            Ok(Some(one)) => all.extend(one),
            Ok(None) => break,
            Err(_) => {}
        }
        progress.at(all.len() as u64);
    }
    drop(progress);
    all.sort_by(|(a, x, _), (b, y, _)| (a, x.name()).cmp(&(b, y.name())));
    let now = SystemClock::new().read().wall;
    for (name, origin, shown) in all {
        let place = place(&name, &origin.url().to_string());
        match (shown, records.get(&name)) {
            (Err(e), _) => unanswered(config, &place, &origin, &e, report),
            // That the record is not there was said.
            (Ok(shown), None) => {
                let n = counted(shown.anywhere.len(), "key");
                report.ok(CHECK, place, format!("answers, with {n}"));
            }
            (Ok(shown), Some(record)) => {
                let propagation = config.key_sets[&name].timing.propagation;
                let wrong = record.discrepancies(&shown, now, now, propagation);
                found(&place, &wrong, report);
                if wrong.is_empty() {
                    report.ok(CHECK, place, as_it_should(&shown));
                }
            }
        }
    }
}

fn as_it_should(shown: &Shown) -> String {
    let n = counted(shown.anywhere.len(), "key");
    format!(
        "shows what it should, {n}, by the record; the agent does not run, and this was seen from here"
    )
}

/// The roots that are to be trusted, each file once; those that cannot be.
fn roots(observed: &[(String, Origin)], report: &mut Report) -> BTreeSet<Trust> {
    let mut seen = BTreeSet::new();
    let mut unreadable = BTreeSet::new();
    for (name, origin) in observed {
        let trust = origin.trust();
        let Trust::Roots(path) = trust else { continue };
        if !seen.insert(trust) {
            continue;
        }
        if let Err(e) = observe::check_roots(path) {
            let field = format!("key_set.{name}.observe_ca");
            report.fail("observe_ca", field, e.to_string(), ROOTS);
            unreadable.insert(trust.clone());
        }
    }
    unreadable
}

const ROOTS: &str = "no origin of this key set can be believed, and so no key is activated: put the PEM file with the roots there, readable by the agent, which reads it anew each time; or take `observe_ca` off, where the system's roots will do";

fn unanswered(
    config: &Config,
    place: &str,
    origin: &Origin,
    error: &ObserveError,
    report: &mut Report,
) {
    report.fail(
        CHECK,
        place,
        error.to_string(),
        silent(Some(origin.trust())),
    );
    // What stands before an agent that does not run has nobody to ask.
    let by_agent = match error {
        ObserveError::Status { status, .. } => status.is_server_error(),
        _ => false,
    };
    if by_agent {
        let socket = config.serve.admin_socket.display().to_string();
        report.explained_by("admin_socket", socket);
    }
}

fn found(place: &str, wrong: &[Discrepancy], report: &mut Report) {
    for wrong in wrong {
        let Discrepancy {
            kid,
            what,
            page,
            detail,
            ..
        } = wrong;
        let (mut found, hint) = match what {
            Wrong::Lacks => (
                format!("lacks the key {kid}"),
                "verifiers that ask there refuse good tokens: what stands before the agent serves something else, or an old copy; purge its cache",
            ),
            Wrong::ShowsRevoked => (
                format!("still shows the revoked key {kid} {detail}")
                    .trim_end()
                    .to_owned(),
                "verifiers that ask there take what was signed with it: purge its cache; where it stands under another id, somebody put it there",
            ),
            Wrong::Impostor => (
                format!("under the id {kid} stands {detail}"),
                "verifiers that ask there refuse good tokens, and may take what somebody else signs: find out who serves that address; if it is a rebuilt set of another store, two agents serve one issuer",
            ),
            Wrong::Lags => (
                format!("does not show the next key yet: {kid}"),
                "its activation waits; a cache there holds copies for longer than `propagation`",
            ),
        };
        found.push_str(&keyring::among(&wrong.addresses));
        match page {
            true => report.fail(CHECK, place, found, hint),
            false => report.warn(CHECK, place, found, hint),
        }
    }
}

const fn what(wrong: v1::Wrong) -> Option<Wrong> {
    Some(match wrong {
        v1::Wrong::Lacks => Wrong::Lacks,
        v1::Wrong::Lags => Wrong::Lags,
        v1::Wrong::ShowsRevoked => Wrong::ShowsRevoked,
        v1::Wrong::Impostor => Wrong::Impostor,
        v1::Wrong::Unspecified => return None,
    })
}

fn place(key_set: &str, url: &str) -> String {
    format!("{key_set} at {url}")
}

fn trust(config: &Config, key_set: &str, origin: &str) -> Option<Trust> {
    let set = config.key_sets.get(key_set)?;
    let origin = set.observe.iter().find(|it| it.name() == origin)?;
    Some(origin.trust().clone())
}

/// What to do about an origin that does not answer as it should.
fn silent(trust: Option<&Trust>) -> String {
    match trust {
        Some(Trust::Roots(path)) if observe::check_roots(path).is_err() => ROOTS.to_owned(),
        _ => format!(
            "no key is activated until it answers; if no verifier asks there any more, take it off `observe`, {RELOAD}"
        ),
    }
}
