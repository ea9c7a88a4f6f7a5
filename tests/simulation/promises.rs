//! What must hold of a record, of one and the next, and of what readers make of
//! it: without a world around it. The model check asks the same.

use std::collections::BTreeSet;

use sealkeeper::keyring::{
    Half, Key, KeyId, KeySet, Moment, Phase, Plan, Revocation, Timing, View,
};
use sealkeeper::time::{Span, Time};

/// (e) and (d), for every picture that readers get.
pub(crate) fn shown(view: &View) {
    assert!(!view.published.is_empty(), "the set is empty");
    let shown: BTreeSet<&String> = view.published.iter().map(|key| &key.kid).collect();
    assert_eq!(shown.len(), view.published.len(), "a key stands twice");
    for kid in &view.revoked {
        assert!(!shown.contains(kid), "{kid} was revoked and is in the set");
    }
}

/// (d) A key that a careless recovery put back on record, as if nothing had
/// happened, is still not shown.
pub(crate) fn revoked_stays_out(record: &KeySet, plan: &Plan) {
    let mut careless = record.clone();
    for key in careless.keys.values_mut() {
        if let Phase::Revoked { since, .. } = key.phase {
            key.phase = Phase::Published { since };
        }
    }
    let view = careless.view(plan, None);
    for key in &view.published {
        let revoked = record.revoked.contains_key(&key.kid);
        assert!(!revoked, "{} was revoked and is in the set again", key.kid);
    }
}

/// (g) Who is active can sign, and no device made the same key twice.
pub(crate) fn whole(record: &KeySet) {
    for id in record.seats.values().filter_map(|seat| seat.active) {
        let key = &record.keys[&id];
        assert!(key.has_private_half(), "{id} is active and cannot sign");
    }
    let publics = record.keys.values().filter_map(|key| key.public.as_ref());
    let count = publics.clone().count();
    assert_eq!(publics.collect::<BTreeSet<_>>().len(), count, "a key twice");
}

/// (c) During the handover a caller that fixed the old `kid` is served; a key
/// that was withdrawn before it was active hands nothing over. The view is the
/// record's.
pub(crate) fn handed_over(record: &KeySet, view: &View, plan: &Plan, moment: Moment) {
    let Moment::Sure(now) = moment else { return };
    if view.signer(None, moment).is_err() {
        return;
    }
    let named = view.nameable(moment).unwrap_or_default();
    for key in record.keys.values().filter(|key| key.has_private_half()) {
        let Phase::Retiring { since, .. } = key.phase else {
            continue;
        };
        let named = named.iter().any(|named| named.id == key.id);
        if key.activated().is_none() {
            assert!(!named, "{:?} never was active, and signs", key.kid);
            continue;
        }
        let is_track = plan.tracks.iter().any(|track| track.0 == key.algorithm);
        if is_track && since <= now && now <= since + plan.timing.adoption {
            assert!(
                named,
                "{:?} is refused {} after its handover began",
                key.kid,
                now.since(since)
            );
        }
    }
}

/// A change of the active key is stored so far ahead that every replica hears
/// of it in time.
pub(crate) fn told_in_time(before: &KeySet, after: &KeySet, adoption: Span) {
    for (id, seat) in &after.seats {
        let old = before.seats.get(id).and_then(|seat| seat.switch.as_ref());
        let Some(switch) = seat.switch.as_ref().filter(|switch| Some(*switch) != old) else {
            continue;
        };
        let ahead = switch.at.since(after.high_water);
        assert!(
            ahead >= adoption,
            "an activation is stored {ahead} ahead of now: not every replica hears in time"
        );
    }
}

/// A retiring key keeps its private half, and its place in the set, for as long
/// as somebody may want to roll back to it. `now` is the latest that any clock
/// of the agents shows; the rollback may have been `given_up`.
pub(crate) fn rollback_window(
    before: &Key,
    after: Option<&Key>,
    now: Time,
    given_up: bool,
    timing: &Timing,
) {
    let Phase::Retiring { since, .. } = before.phase else {
        return;
    };
    let open = since + timing.handover() + timing.rollback_window;
    let left = open.since(now);
    let revoked = after.is_some_and(|key| matches!(key.phase, Phase::Revoked { .. }));
    let still_shown = after.is_some_and(Key::is_published);
    let kept = still_shown
        && after.is_some_and(|key| key.has_private_half() || !before.has_private_half());
    assert!(
        left == Span::ZERO || kept || revoked || (given_up && still_shown),
        "{:?} is lost {left} before the end of its rollback window",
        before.kid
    );
}

/// (n) Automation does not touch what an operator holds. A switch that was near
/// when the hold came still happens, and a revocation does.
pub(crate) fn held(before: &KeySet, after: &KeySet) {
    let gone = |key: &Key| key.placements.values().any(|half| *half != Half::Present);
    // What has begun may have been carried out before the hold; nothing begins.
    let may_become = |old: &Half, new: &Half| old == new || *old == Half::Destroying;
    for (id, key) in before.keys.iter().filter(|(_, key)| key.is_held()) {
        let Some(now) = after.keys.get(id) else {
            // Released and forgotten in one change.
            assert!(gone(key), "{id} is held, and was forgotten");
            continue;
        };
        if !now.is_held() {
            continue;
        }
        for (device, half) in &key.placements {
            let becomes = &now.placements[device];
            assert!(
                may_become(half, becomes),
                "{id} is held, and its half goes from {half:?} to {becomes:?}"
            );
        }
        let seat = before.seats.get(&key.seat());
        let switches = seat.is_some_and(|seat| {
            let switch = seat.switch.as_ref();
            switch.is_some_and(|switch| switch.to == *id || seat.active == Some(*id))
        });
        let revoked = matches!(now.phase, Phase::Revoked { .. });
        assert!(
            switches || revoked || key.phase.name() == now.phase.name(),
            "{id} is held, and goes from {} to {}",
            key.phase.name(),
            now.phase.name()
        );
    }
}

/// (n) At the device: no private half goes that the record says is held.
pub(crate) fn nothing_held_is_destroyed(record: &KeySet, id: KeyId) {
    let held = record.keys.get(&id).is_some_and(Key::is_held);
    assert!(!held, "{id} is held, and the device destroys it");
}

/// (i) What only grows.
pub(crate) fn never_back(before: &KeySet, after: &KeySet) {
    assert!(before.epoch <= after.epoch, "the epoch went back");
    for (kid, revocation) in &before.revoked {
        let now = after.revoked.get(kid).expect("a revoked key came back");
        let expected = Revocation {
            reason: revocation.reason.or(now.reason),
            ..revocation.clone()
        };
        assert_eq!(now, &expected, "the revocation of {kid} changed");
    }
    for (id, key) in &before.keys {
        if let Some(now) = after.keys.get(id) {
            assert!(key.exp_ceiling <= now.exp_ceiling, "a ceiling went back");
            assert!(key.longest_lifetime <= now.longest_lifetime);
        }
    }
}

/// Rule 6, counted once more: `ceil((L + B + S + pre-publish) / period) + 2`,
/// with tokens about that a configuration of before allowed, and the period as
/// short as a window makes it that opens early.
pub(crate) fn largest_set(longest: Span, timing: &Timing) -> usize {
    let lifetime = longest.max(timing.max_token_lifetime);
    let overlap = lifetime + timing.rollback_window + timing.skew + timing.pre_publish();
    let early = timing
        .window
        .map_or(Span::ZERO, |window| window.longest_gap());
    let period = timing.rotate_every.as_millis() - early.as_millis();
    let overlap = overlap.as_millis();
    usize::try_from((overlap + period - 1) / period).expect("a small number") + 2
}
