//! A key that is to sign next, and that the token lacks.
//!
//! It has signed nothing that could have failed for it. So the device is asked
//! about it: once it is in the set, from time to time, and again and again
//! while its activation can still be taken back. It is lost where the right
//! token surely lacks it, asked twice, and surely holds the key that signs, or where
//! none does another that should be there: a token that is away, another one, or an empty one says nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::missing::holds;
use super::writer::{Clock, Writer};
use crate::keyring::{Half, Key, KeyId, KeySet};

/// What was asked about the keys that sign next.
#[derive(Default)]
pub(super) struct Standbys {
    asking: Option<JoinHandle<()>>,
    /// When about each, and how soon it was to be asked again.
    asked: BTreeMap<KeyId, (Instant, Duration)>,
}

/// How often a device is asked where nothing happens, where a rotation is
/// wanted, and where it has its instant.
const CALM: Duration = Duration::from_secs(3600);
const WANTED: Duration = Duration::from_secs(60);
const FIXED: Duration = Duration::from_secs(2);

/// How soon after the last time a device is asked about a key.
fn patience(set: &KeySet, key: &Key) -> Duration {
    let Some(seat) = set.seats.get(&key.seat()) else {
        return CALM;
    };
    match &seat.switch {
        Some(switch) if switch.to == key.id => FIXED,
        None if seat.rotate_at.is_some() || seat.active.is_none() => WANTED,
        _ => CALM,
    }
}

/// The key that signs where this one is next: a token that shows it shows what
/// it holds. Where none signs, another one whose half is in the same token.
fn witness(set: &KeySet, key: &Key) -> Option<Key> {
    let active = set.seats.get(&key.seat()).and_then(|seat| seat.active);
    if let Some(active) = active.and_then(|id| set.keys.get(&id)) {
        return Some(active.clone());
    }
    let beside = |other: &&Key| {
        let mut halves = other.placements.iter();
        let there = halves.any(|(device, half)| {
            let token = key.tokens.get(device);
            *half == Half::Present && token.is_some() && token == other.tokens.get(device)
        });
        there && other.id != key.id && other.public.is_some()
    };
    set.keys.values().find(beside).cloned()
}

impl Writer {
    /// Has devices asked about the keys that are to sign next.
    pub(super) fn look_for_standbys(&mut self) {
        let Some(held) = &self.held else { return };
        let Standbys { asking, asked } = &mut self.standbys;
        if asking.as_ref().is_some_and(|it| !it.is_finished()) {
            return;
        }
        let (set, now) = (&held.record.set, Instant::now());
        asked.retain(|id, _| set.keys.contains_key(id));
        let mut due = Vec::new();
        for key in set.standbys_by_record() {
            let wait = patience(set, key);
            let rests = |(at, before): &(Instant, Duration)| *before <= wait && now < *at + wait;
            if !asked.get(&key.id).is_some_and(rests)
                && let Some(witness) = witness(set, key)
            {
                asked.insert(key.id, (now, wait));
                due.push((key.clone(), witness));
            }
        }
        if due.is_empty() {
            return;
        }
        let (context, news) = (Arc::clone(&self.context), Arc::downgrade(&self.news));
        *asking = Some(tokio::spawn(async move {
            for (key, witness) in due {
                let lost = holds(&context, &key).await == Some(false)
                    && holds(&context, &witness).await == Some(true)
                    && holds(&context, &key).await == Some(false);
                if let (true, Some(kid), Some(news)) = (lost, &key.kid, news.upgrade()) {
                    news.standby_lost(kid);
                }
            }
        }));
    }

    /// The device lacks a key that is to sign next, and holds the one that
    /// signs.
    pub(super) async fn standby_lost(&mut self, kid: &str) {
        let key_set = self.reader.name.clone();
        let object = self.held.as_ref().and_then(|held| {
            let key = held.record.set.by_kid(kid)?;
            Some(key.id.to_string())
        });
        let step = self.step(Clock::Sure, |set, plan, tick| {
            let events = set.standby_lost(kid, plan, tick);
            Ok::<_, Infallible>((!events.is_empty(), events))
        });
        match step.await {
            Ok(true) => tracing::error!(
                key_set,
                kid,
                object,
                "the token has lost the key that was to sign next: it leaves the set, and another is made"
            ),
            // It is no standby any more, or too near its activation.
            Ok(false) => {}
            Err(e) => tracing::error!(
                key_set,
                kid,
                object,
                "the token has lost the key that was to sign next, and that is not on record: {e}"
            ),
        }
    }
}
