//! What comes of a change of the schedule or of the tracks: the future with
//! it, beside the one without.

use crate::jose::Algorithm;
use crate::keyring::{Forecast, KeySet, Life, Plan, rules};
use crate::time::{Span, Time};

/// Something that happens otherwise than it would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Consequence {
    /// For people.
    pub(super) what: String,
    /// When.
    pub(super) at: Time,
    /// When it would have been.
    pub(super) instead_of: Option<Time>,
}

/// Two dates that are no farther apart are the same to people.
const SAME: Span = Span::from_secs(1);

/// In the order of time.
pub(super) fn of(record: &KeySet, before: &Plan, after: &Plan, now: Time) -> Vec<Consequence> {
    let until = now + horizon(before).max(horizon(after));
    let was = Forecast::of(record.clone(), before, now, until, &mut |_| ()).lives;
    let will = Forecast::of(record.clone(), after, now, until, &mut |_| ()).lives;
    let mut all = Vec::new();
    let tracks = |plan: &Plan| plan.tracks.iter().map(|(alg, _)| *alg).collect::<Vec<_>>();
    let (had, has) = (tracks(before), tracks(after));
    for algorithm in has.iter().filter(|it| !had.contains(it)) {
        all.extend(added(*algorithm, &will, now));
    }
    for algorithm in had.iter().filter(|it| !has.contains(it)) {
        all.extend(taken_off(*algorithm, &will, now));
    }
    all.extend(default(&had, &has, &will, now));
    // What a key is called that is still to be made says nothing to people.
    for life in was.iter().filter(|life| record.by_kid(&life.kid).is_some()) {
        let kept = life.algorithm.is_some_and(|it| has.contains(&it));
        if let (true, Some(then)) = (kept, will.iter().find(|it| it.kid == life.kid)) {
            all.extend(moved(life, then, now));
        }
    }
    all.sort_by_key(|it| it.at);
    all
}

/// Until the next key of each track has come and gone.
fn horizon(plan: &Plan) -> Span {
    let timing = &plan.timing;
    let none = Time::default();
    let overlap = rules::rule_3_overlap(none, none, timing.max_token_lifetime, timing).since(none);
    let waits = rules::rule_1_pre_publish(none, timing, None).since(none);
    timing.rotate_every.times(2) + overlap.times(2) + waits.times(2)
}

fn added(algorithm: Algorithm, will: &[Life], now: Time) -> Vec<Consequence> {
    let mut lives = will.iter().filter(|it| it.algorithm == Some(algorithm));
    let Some(first) = lives.find(|it| it.published.is_some_and(|at| at >= now)) else {
        return Vec::new();
    };
    let at = |what: String, at: Option<Time>| {
        at.map(|at| Consequence {
            what,
            at,
            instead_of: None,
        })
    };
    let told = [
        at(
            format!("a first {algorithm} key is made, and enters the JWKS"),
            first.published,
        ),
        at(
            format!("{algorithm} signs: by then every bounded verifier has its key"),
            first.active,
        ),
    ];
    told.into_iter().flatten().collect()
}

fn taken_off(algorithm: Algorithm, will: &[Life], now: Time) -> Vec<Consequence> {
    let mut told = vec![Consequence {
        what: format!("{algorithm} signs no more; its tokens live on"),
        at: now,
        instead_of: None,
    }];
    let lives = will.iter().filter(|it| it.algorithm == Some(algorithm));
    let last = lives.filter_map(|it| it.removed).max();
    told.extend(last.map(|at| Consequence {
        what: format!("the last {algorithm} key leaves the JWKS: no token of it is alive"),
        at,
        instead_of: None,
    }));
    told
}

/// From when requests that name no algorithm get another one.
fn default(had: &[Algorithm], has: &[Algorithm], will: &[Life], now: Time) -> Option<Consequence> {
    let (was, is) = (had.first(), *has.first()?);
    if was == Some(&is) {
        return None;
    }
    let lives = will.iter().filter(|it| it.algorithm == Some(is));
    let at = lives.filter_map(|it| it.active).min()?.max(now);
    Some(Consequence {
        what: format!("requests that name no algorithm are signed with {is}"),
        at,
        instead_of: None,
    })
}

/// What happens to a key at another time than it would have.
fn moved(was: &Life, will: &Life, now: Time) -> Vec<Consequence> {
    let kid = &was.kid;
    let steps = [
        ("is replaced", was.retiring, will.retiring),
        ("loses its private half", was.destroyed, will.destroyed),
        ("leaves the JWKS", was.removed, will.removed),
    ];
    let moved = steps.into_iter().filter_map(|(what, was, will)| {
        let (was, will) = (was?, will?);
        let other = was.since(will) > SAME || will.since(was) > SAME;
        (other && was.max(will) > now).then(|| Consequence {
            what: format!("the key {kid} {what}"),
            at: will,
            instead_of: Some(was),
        })
    });
    moved.collect()
}
