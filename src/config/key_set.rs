//! Key sets: an issuer, its tracks, its schedule, and who may sign.

use std::collections::{BTreeMap, BTreeSet};

use super::check::Check;
use super::raw::{self, Text};
use super::serve::names;
use super::{all, discovery, observe, people, rule};
use crate::jose::{Algorithm, KeyType};
use crate::keyring::{HardLimit, ONLY_GROUP, Plan, Timing, Window};
use crate::observe::Origin;
use crate::policy::{Approvals, People, Rules};
use crate::serve::http::Discovery;
use crate::time::Span;

/// A key set, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet {
    /// Its name in the configuration.
    pub name: String,
    /// The device on which its keys are made.
    pub device: String,
    /// The schedule's numbers; they keep every inequality of rotation.
    pub timing: Timing,
    /// Its tracks, each algorithm once; the first is the default.
    pub tracks: Vec<(Algorithm, KeyType)>,
    /// Who may sign what; also its issuer.
    pub rules: Rules,
    /// Whether some orders wait for a second person.
    pub approvals: Option<Approvals>,
    /// Whether the keys that left it are told of, in a signed document.
    pub historical_keys: bool,
    /// What the issuer says of itself over HTTP, if anything.
    pub discovery: Option<Discovery>,
    /// Where verifiers get its JWKS; the agent's own listener where none is
    /// given.
    pub observe: Vec<Origin>,
}

impl KeySet {
    /// What the keyring needs. `origins` must show a key before it may become
    /// active.
    #[must_use]
    pub fn plan(&self, origins: BTreeSet<String>) -> Plan {
        Plan {
            timing: self.timing,
            tracks: self.tracks.clone(),
            device: self.device.clone(),
            group: ONLY_GROUP.to_owned(),
            origins,
            two_people: self.approvals.is_some(),
        }
    }
}

pub(super) fn check(
    name: &Text,
    raw: &raw::KeySet,
    (devices, people): (&BTreeMap<Text, raw::Device>, Option<&People>),
    check: &mut Check<'_>,
) -> Option<KeySet> {
    let device = device(name, raw, devices, check);
    let ed25519 = ed25519(name, raw, check);
    let tracks = tracks(name, raw, ed25519, check);
    let timing = timing(name, raw, check);
    let approvals = people::approvals(name, raw, people, check);
    let rules = rule::check(name, raw, timing.as_ref(), ed25519, check);
    let discovery = discovery::check(name, raw, check);
    let observe = observe::check(name, raw, check);
    Some(KeySet {
        name: name.get_ref().clone(),
        device: device?,
        timing: timing?,
        tracks: tracks?,
        rules: rules?,
        approvals: approvals?,
        historical_keys: raw.historical_keys.unwrap_or(false),
        discovery: discovery?,
        observe: observe?,
    })
}

fn device(
    name: &Text,
    raw: &raw::KeySet,
    devices: &BTreeMap<Text, raw::Device>,
    check: &mut Check<'_>,
) -> Option<String> {
    let device = raw.device.get_ref();
    if devices.contains_key(device.as_str()) {
        return Some(device.clone());
    }
    check.say(
        raw.device.span(),
        format!(
            "key_set.{}.device: expected a configured device, got {device:?}",
            name.get_ref()
        ),
        format!(
            "configured: {}; add [device.{device}], or name one of them",
            names(devices)
        ),
    );
    None
}

/// What Ed25519 is called in headers and in the JWKS: the name of RFC 9864,
/// or the older one for verifiers that know no other.
fn ed25519(name: &Text, raw: &raw::KeySet, check: &mut Check<'_>) -> Option<Algorithm> {
    let Some(text) = &raw.eddsa_name else {
        return Some(Algorithm::Ed25519);
    };
    match text.get_ref().as_str() {
        "Ed25519" => return Some(Algorithm::Ed25519),
        "EdDSA" => return Some(Algorithm::EdDsa),
        other => check.say(
            text.span(),
            format!(
                "key_set.{}.eddsa_name: expected \"Ed25519\" or \"EdDSA\", got {other:?}",
                name.get_ref()
            ),
            "Ed25519 is the name of RFC 9864; EdDSA is for verifiers that know no other",
        ),
    }
    None
}

/// An algorithm as a configuration names it: Ed25519 is called so here,
/// whatever `eddsa_name` makes of it.
pub(super) fn algorithm(
    text: &Text,
    field: &str,
    ed25519: Option<Algorithm>,
    check: &mut Check<'_>,
) -> Option<Algorithm> {
    match text.get_ref().parse() {
        Ok(Algorithm::Ed25519) => ed25519,
        Ok(Algorithm::EdDsa) => {
            check.say(
                text.span(),
                format!("{field}: expected \"Ed25519\", got \"EdDSA\""),
                "write Ed25519 here, and eddsa_name = \"EdDSA\" at the key set for verifiers that know no other name",
            );
            None
        }
        Ok(algorithm) => Some(algorithm),
        Err(unknown) => {
            check.say(
                text.span(),
                format!("{field}: {unknown}"),
                "names are as in the registry of RFC 7518, and HMAC is not for signing tokens that others verify",
            );
            None
        }
    }
}

fn tracks(
    name: &Text,
    raw: &raw::KeySet,
    ed25519: Option<Algorithm>,
    check: &mut Check<'_>,
) -> Option<Vec<(Algorithm, KeyType)>> {
    let field = format!("key_set.{}.track", name.get_ref());
    if raw.track.is_empty() {
        check.say(
            name.span(),
            format!("{field}: expected at least one, got none"),
            format!("[[{field}]] and below it alg = \"ES256\""),
        );
        return None;
    }
    let mut seen = BTreeSet::new();
    all(raw.track.iter().map(|track| {
        let algorithm = algorithm(&track.alg, &format!("{field}.alg"), ed25519, check)?;
        let key = key_type(track, algorithm, &format!("{field}.key"), check)?;
        if seen.insert(algorithm) {
            return Some((algorithm, key));
        }
        check.say(
            track.alg.span(),
            format!("{field}.alg: two tracks of {algorithm}"),
            "a key set has one track for each algorithm; to change the kind of key, add a track of another algorithm, or another key set",
        );
        None
    }))
}

const KEY_TYPES: [KeyType; 7] = [
    KeyType::Rsa2048,
    KeyType::Rsa3072,
    KeyType::Rsa4096,
    KeyType::P256,
    KeyType::P384,
    KeyType::P521,
    KeyType::Ed25519,
];

/// `rsa-3072`, `p-256`.
fn written(key: KeyType) -> String {
    key.to_string().to_ascii_lowercase()
}

fn key_type(
    track: &raw::Track,
    algorithm: Algorithm,
    field: &str,
    check: &mut Check<'_>,
) -> Option<KeyType> {
    let Some(text) = &track.key else {
        return Some(algorithm.default_key_type());
    };
    let fits = || KEY_TYPES.into_iter().filter(|key| algorithm.accepts(*key));
    let found = fits().find(|key| written(*key) == *text.get_ref());
    if found.is_none() {
        let fits: Vec<_> = fits().map(written).collect();
        check.say(
            text.span(),
            format!(
                "{field}: expected {}, got {:?}",
                fits.join(" or "),
                text.get_ref()
            ),
            format!("these are the keys that {algorithm} takes"),
        );
    }
    found
}

fn timing(name: &Text, raw: &raw::KeySet, check: &mut Check<'_>) -> Option<Timing> {
    let usual = Timing::default();
    let path = |field: &str| format!("key_set.{}.{field}", name.get_ref());
    let mut span = |text: &Option<Text>, field: &str, usual: Span| {
        check.span_or(text.as_ref(), &path(field), usual)
    };
    let rotate_every = span(&raw.rotate_every, "rotate_every", usual.rotate_every);
    let verifier_cache = span(&raw.verifier_cache, "verifier_cache", usual.verifier_cache);
    let propagation = span(&raw.propagation, "propagation", usual.propagation);
    let skew = span(&raw.skew, "skew", usual.skew);
    let max_token_lifetime = span(
        &raw.max_token_lifetime,
        "max_token_lifetime",
        usual.max_token_lifetime,
    );
    let rollback_window = span(
        &raw.rollback_window,
        "rollback_window",
        usual.rollback_window,
    );
    let adoption = span(&raw.adoption, "adoption", usual.adoption);
    let signing_deadline = span(
        &raw.signing_deadline,
        "signing_deadline",
        usual.signing_deadline,
    );
    let max_age = span(&raw.max_age, "max_age", usual.max_age);
    let cdn_stale = span(&raw.cdn_stale, "cdn_stale", usual.cdn_stale);
    let max_gap = span(&raw.max_gap, "max_gap", usual.max_gap);
    let window = window(raw, &path("window"), check);
    let hard_limit = hard_limit(raw, &path("hard_limit"), usual.hard_limit, check);
    let timing = Timing {
        rotate_every: rotate_every?,
        window: window?,
        verifier_cache: verifier_cache?,
        propagation: propagation?,
        skew: skew?,
        max_token_lifetime: max_token_lifetime?,
        rollback_window: rollback_window?,
        adoption: adoption?,
        signing_deadline: signing_deadline?,
        max_age: max_age?,
        cdn_stale: cdn_stale?,
        max_gap: max_gap?,
        hard_limit: hard_limit?,
    };
    let violations = timing.check();
    for violation in &violations {
        // Where the operator left the number to us, the table is what can be
        // pointed at.
        let place = written_at(raw, violation.field).map_or(name.span(), Text::span);
        check.say(
            place,
            format!(
                "{}: {} ({})",
                path(violation.field),
                violation.message,
                violation.rule
            ),
            &*violation.hint,
        );
    }
    violations.is_empty().then_some(timing)
}

/// Where one of the schedule's numbers stands, if it was written at all.
fn written_at<'a>(raw: &'a raw::KeySet, field: &str) -> Option<&'a Text> {
    match field {
        "rotate_every" => raw.rotate_every.as_ref(),
        "verifier_cache" => raw.verifier_cache.as_ref(),
        "propagation" => raw.propagation.as_ref(),
        "skew" => raw.skew.as_ref(),
        "max_token_lifetime" => raw.max_token_lifetime.as_ref(),
        "rollback_window" => raw.rollback_window.as_ref(),
        "adoption" => raw.adoption.as_ref(),
        "signing_deadline" => raw.signing_deadline.as_ref(),
        "max_age" => raw.max_age.as_ref(),
        "cdn_stale" => raw.cdn_stale.as_ref(),
        "max_gap" => raw.max_gap.as_ref(),
        _ => None,
    }
}

/// `None` only after a problem was noted.
fn window(raw: &raw::KeySet, field: &str, check: &mut Check<'_>) -> Option<Option<Window>> {
    let Some(text) = &raw.window else {
        return Some(None);
    };
    match text.get_ref().parse() {
        Ok(window) => Some(Some(window)),
        Err(e) => {
            check.say(
                text.span(),
                format!("{field}: {e}"),
                "rotations are done in the last of these windows before they are due, and as soon as it is safe once they are overdue",
            );
            None
        }
    }
}

fn hard_limit(
    raw: &raw::KeySet,
    field: &str,
    usual: HardLimit,
    check: &mut Check<'_>,
) -> Option<HardLimit> {
    let Some(limit) = &raw.hard_limit else {
        return Some(usual);
    };
    match (&limit.get_ref().page, &limit.get_ref().stop) {
        (Some(page), None) => {
            let lateness = check.span(page, &format!("{field}.page"))?;
            Some(HardLimit::Page(lateness))
        }
        (None, Some(stop)) => {
            let lateness = check.span(stop, &format!("{field}.stop"))?;
            Some(HardLimit::Stop(lateness))
        }
        _ => {
            check.say(
                limit.span(),
                format!("{field}: expected either page or stop"),
                "{ page = \"7d\" } signs on and raises an alarm; { stop = \"7d\" } stops signing",
            );
            None
        }
    }
}
