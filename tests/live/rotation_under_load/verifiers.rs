//! The verifiers: what they may hold, and whether a token passes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sealkeeper::jose::{JwkSet, ServedSet, verify_token};
use sealkeeper::time::{Span, Time};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::lab::fetch;
use super::callers::{Issued, Work};
use super::{ADOPTION, AgentClock, CACHE, PROPAGATION, Scene, now};
use crate::simulation::random::Random;

const SECOND: Span = Span::from_secs(1);
const INSTANT: Span = Span::from_millis(1);
/// How far the slowest verifier's clock is behind the agent's: almost S.
const BEHIND: Span = Span::from_millis(1_950);

/// What the origin served, and when.
#[derive(Default)]
pub(super) struct History {
    sets: Vec<Served>,
    /// In the order of time.
    answers: Vec<Answer>,
}

struct Served {
    text: Vec<u8>,
    set: JwkSet,
    theirs: jsonwebtoken::jwk::JwkSet,
}

struct Answer {
    /// When it was asked for: a copy is at least that young.
    asked: Time,
    /// When it was there: it may be used from here on.
    whole: Time,
    set: usize,
}

impl History {
    /// The sets that a verifier may hold at `at`, the stalest first. It asked
    /// an edge no longer than a cache's life ago, and what the edge served had
    /// left the origin no longer than the propagation before that. None where
    /// the origin has been away for longer.
    fn held(&self, at: Time) -> Vec<usize> {
        let oldest = at - CACHE - PROPAGATION;
        let first = self.answers.partition_point(|a| a.asked < oldest);
        let young = self.answers[first..].iter().take_while(|a| a.whole <= at);
        let mut sets: Vec<usize> = young.map(|a| a.set).collect();
        sets.dedup();
        sets
    }
}

/// Fetches the JWKS again and again. No answer is no fault: verifiers go on
/// with what they have.
pub(super) async fn watch(scene: Arc<Scene>) -> History {
    let mut history = History::default();
    let mut pace = interval(Duration::from_millis(50));
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while scene.watching.load(Ordering::Relaxed) {
        pace.tick().await;
        let origin = scene.origin.lock().unwrap().clone();
        let asked = now();
        let answer = timeout(Duration::from_secs(2), fetch(&origin, "/main/jwks.json")).await;
        let Ok(Ok((200, text))) = answer else {
            continue;
        };
        let whole = now();
        // One that broke off is no JSON.
        let Ok(served) = ServedSet::read(&text) else {
            continue;
        };
        assert!(served.others.is_empty(), "{:?}", served.others);
        let known = history.sets.iter().position(|set| set.text == text);
        let set = known.unwrap_or_else(|| {
            history.sets.push(Served {
                theirs: serde_json::from_slice(&text).unwrap(),
                set: served.set,
                text,
            });
            history.sets.len() - 1
        });
        history.answers.push(Answer { asked, whole, set });
        scene.answers.fetch_add(1, Ordering::Relaxed);
    }
    history
}

#[derive(Default)]
pub(super) struct Found {
    /// How often a token met a set that a verifier held.
    pub(super) meetings: usize,
    /// A token that met a set again was not verified anew.
    pub(super) verified: usize,
    pub(super) theirs: usize,
    /// By the moment: how many, and one of them.
    pub(super) faults: BTreeMap<&'static str, (usize, String)>,
}

impl Found {
    pub(super) fn fault(&mut self, moment: &'static str, why: String) {
        self.faults.entry(moment).or_insert((0, why)).0 += 1;
    }
}

/// Plays the verifiers: at issue, at some time, a second before the end, and
/// at the end as the slowest clock has it.
pub(super) fn judge(issued: &[Issued], history: &History, agent: &AgentClock, seed: u64) -> Found {
    let mut random = Random::new(seed);
    let mut found = Found::default();
    for (n, token) in issued.iter().enumerate() {
        let (first, last) = (token.received, token.expires - SECOND);
        let between = random.between(first.as_millis(), last.max(first).as_millis());
        let some = Time::from_millis(between);
        // When, and what the verifier's own clock shows then.
        let moments = [
            ("at issue", first, first),
            ("at some time", some, some),
            ("a second before its end", last, last),
            (
                "at its end by a clock behind",
                agent.shows(token.expires + BEHIND),
                token.expires - INSTANT,
            ),
        ];
        let mut met: BTreeMap<usize, Result<(), String>> = BTreeMap::new();
        // One that came late was of no use any more at the earlier moments.
        let useful = |at, clock| first <= at && clock < token.expires;
        for (moment, at, clock) in moments {
            if !useful(at, clock) {
                continue;
            }
            for set in history.held(at) {
                found.meetings += 1;
                let verdict = met.entry(set).or_insert_with(|| {
                    found.verified += 1;
                    let set = &history.sets[set];
                    let ours = verify_token(&token.token, &set.set, clock, Span::ZERO);
                    ours.map_err(|fault| fault.to_string())?;
                    if n.is_multiple_of(50) {
                        found.theirs += 1;
                        theirs(&token.token, &set.theirs)?;
                    }
                    Ok(())
                });
                if let Err(why) = verdict.clone() {
                    found.fault(moment, why);
                }
            }
        }
    }
    found
}

/// Somebody else's verifier. Its clock is the machine's, so that dates are
/// left to ours.
fn theirs(token: &str, set: &jsonwebtoken::jwk::JwkSet) -> Result<(), String> {
    let header = jsonwebtoken::decode_header(token).map_err(|e| e.to_string())?;
    let kid = header.kid.ok_or("no kid")?;
    let jwk = set.find(&kid).ok_or("jsonwebtoken: unknown kid")?;
    let key = jsonwebtoken::DecodingKey::from_jwk(jwk).map_err(|e| e.to_string())?;
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.validate_exp = false;
    jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation)
        .map(drop)
        .map_err(|e| e.to_string())
}

/// Holds refusals of a fixed `kid` against what is promised: until R after the
/// switch, whoever fixed it before is served (Q is what such a signature may
/// take after that). All by the agent's clock and word. Returns how many were
/// served after the switch.
pub(super) fn judge_handovers(
    work: &Work,
    retired: &BTreeMap<String, Time>,
    found: &mut Found,
) -> usize {
    let mut handed_over = 0;
    for named in &work.named {
        let switch = retired.get(&named.kid).copied();
        let over = switch.map(|switch| switch + ADOPTION);
        if named.served && switch.is_some_and(|switch| named.sent >= switch) {
            // A key that was rolled back is named again later.
            handed_over += usize::from(over.is_some_and(|over| named.answered <= over));
        }
        if !named.served && over.is_none_or(|over| named.answered <= over) {
            let why = format!(
                "{} was refused at {}, {switch:?}",
                named.kid, named.answered
            );
            found.fault("in a handover", why);
        }
    }
    handed_over
}
