//! Random schedules, each of which a configuration might hold.

use std::collections::BTreeSet;

use sealkeeper::jose::{Algorithm, KeyType};
use sealkeeper::keyring::{HardLimit, ONLY_GROUP, Plan, Timing, Window};
use sealkeeper::time::Span;

use super::random::{Random, millis};

pub(crate) const DEVICE: &str = "hsm";

/// The tracks that a plan may have; both take the keys that the simulated
/// device makes.
pub(crate) const TRACKS: [(Algorithm, KeyType); 2] = [
    (Algorithm::Ed25519, KeyType::Ed25519),
    (Algorithm::EdDsa, KeyType::Ed25519),
];

pub(crate) fn plan(random: &mut Random) -> Plan {
    let tracks = if random.chance(700) { 1 } else { 2 };
    let origins = 1 + random.below(3);
    Plan {
        timing: timing(random),
        tracks: TRACKS[..tracks].to_vec(),
        device: DEVICE.to_owned(),
        group: ONLY_GROUP.to_owned(),
        origins: (0..origins).map(origin).collect::<BTreeSet<_>>(),
        two_people: false,
    }
}

pub(crate) fn origin(index: usize) -> String {
    format!("https://origin-{index}.example/jwks")
}

/// Numbers that keep every inequality: drawn until they do.
pub(crate) fn timing(random: &mut Random) -> Timing {
    loop {
        let drawn = match random.below(3) {
            0 => of_seconds(random),
            1 => of_weeks(random),
            _ => tight(random),
        };
        if drawn.check().is_empty() {
            return drawn;
        }
    }
}

/// The same schedule with other numbers where an operator may change them
/// under way.
pub(crate) fn changed(timing: &Timing, random: &mut Random) -> Timing {
    for _ in 0..20 {
        let scale = |span: Span, random: &mut Random| {
            millis((span.as_millis() * random.between(2, 40) / 10).max(1000))
        };
        let mut new = *timing;
        match random.below(4) {
            // Only lowered: what holds at once needs no world to show it.
            1 => {
                let tenths = random.between(2, 9);
                for span in [
                    &mut new.verifier_cache,
                    &mut new.propagation,
                    &mut new.max_age,
                    &mut new.cdn_stale,
                ] {
                    *span = millis(span.as_millis() * tenths / 10);
                }
            }
            0 => new.max_token_lifetime = scale(timing.max_token_lifetime, random),
            2 => new.rollback_window = scale(timing.rollback_window, random),
            _ => new.rotate_every = scale(timing.rotate_every, random),
        }
        if new.check().is_empty() && new.max_token_lifetime <= Span::from_days(60) {
            return new;
        }
    }
    *timing
}

fn of_weeks(random: &mut Random) -> Timing {
    let max_age = random.span(Span::from_mins(1), Span::from_hours(2));
    let cdn_stale = random.span(Span::ZERO, Span::from_hours(1));
    let rotate_every = random.span(Span::from_days(7), Span::from_days(120));
    Timing {
        rotate_every,
        verifier_cache: max_age + cdn_stale + random.span(Span::ZERO, Span::from_hours(24)),
        propagation: random.span(Span::ZERO, Span::from_mins(30)),
        skew: random.span(Span::from_secs(2), Span::from_mins(10)),
        max_token_lifetime: random.span(Span::from_mins(5), Span::from_days(7)),
        rollback_window: random.span(Span::ZERO, Span::from_days(2)),
        adoption: random.span(Span::from_secs(1), Span::from_mins(2)),
        signing_deadline: random.span(Span::from_secs(1), Span::from_secs(20)),
        max_age,
        cdn_stale,
        window: window(rotate_every),
        max_gap: random.span(Span::from_days(1), Span::from_days(30)),
        hard_limit: hard_limit(random, Span::from_days(14)),
    }
}

/// In one world of three. By a number that is drawn anyway: the worlds of older
/// seeds stay as they were otherwise.
fn window(rotate_every: Span) -> Option<Window> {
    let windows = [
        "02:00-05:00 UTC",
        "Tue..Thu 22:00-02:00 UTC",
        "Sun 00:00-00:10 UTC",
    ];
    let drawn = usize::try_from(rotate_every.as_millis()).ok()? % 9;
    let long = rotate_every >= Span::from_days(21);
    windows.get(drawn).filter(|_| long)?.parse().ok()
}

fn of_seconds(random: &mut Random) -> Timing {
    let max_age = random.span(Span::from_millis(100), Span::from_secs(2));
    let cdn_stale = random.span(Span::ZERO, Span::from_secs(1));
    Timing {
        rotate_every: random.span(Span::from_secs(10), Span::from_secs(100)),
        verifier_cache: max_age + cdn_stale + random.span(Span::ZERO, Span::from_secs(3)),
        propagation: random.span(Span::ZERO, Span::from_secs(1)),
        skew: random.span(Span::from_millis(10), Span::from_secs(1)),
        max_token_lifetime: random.span(Span::from_secs(1), Span::from_secs(20)),
        rollback_window: random.span(Span::ZERO, Span::from_secs(10)),
        adoption: random.span(Span::from_millis(50), Span::from_millis(800)),
        signing_deadline: random.span(Span::from_millis(50), Span::from_secs(2)),
        max_age,
        cdn_stale,
        window: None,
        max_gap: random.span(Span::from_secs(30), Span::from_hours(10)),
        hard_limit: hard_limit(random, Span::from_secs(100)),
    }
}

/// Rotations that follow each other as closely as the rules allow, so that
/// the waits decide and not the calendar.
fn tight(random: &mut Random) -> Timing {
    let mut timing = of_weeks(random);
    timing.max_token_lifetime = random.span(Span::from_mins(5), Span::from_hours(12));
    let wait = timing.pre_publish() + timing.adoption.times(3);
    timing.rotate_every = wait + random.span(Span::from_millis(1), Span::from_hours(3));
    timing
}

fn hard_limit(random: &mut Random, most: Span) -> HardLimit {
    let limit = random.span(Span::from_millis(1), most);
    if random.chance(200) {
        HardLimit::Stop(limit)
    } else {
        HardLimit::Page(limit)
    }
}
