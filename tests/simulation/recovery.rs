//! The record is lost at any instant, and made again from any of those who
//! know something: a look beside the world, which goes on with its own.

use std::collections::{BTreeMap, BTreeSet};

use sealkeeper::keyring::{
    Half, KeyId, KeySet, Mandate, Outcome, Phase, PublishedKey, Reason, RecoverError, Revocation,
    Task, Told, Vouched, What, Witnesses, recover,
};
use sealkeeper::time::{Span, Time};

use super::random::Random;
use super::world::World;

/// What the witnesses that are asked say, as far as the promises need it.
#[derive(Default)]
struct Known {
    /// Keys that somebody shows as published, and nobody as removed.
    published: BTreeSet<String>,
    revoked: BTreeSet<String>,
    removed: BTreeSet<String>,
}

impl World {
    /// Loses the record, in thought, and makes it again.
    pub(crate) fn invariant_recovery(&mut self) {
        // Of its own, so that the world itself goes on as it would.
        let salt = self.now.as_millis().unsigned_abs() ^ (self.totals.events << 40);
        let mut random = Random::new(salt);
        if !random.chance(40) {
            return;
        }
        let witnesses = self.witnesses(&mut random);
        let vouched = Vouched {
            keys_are_lost: random.chance(500),
            origins_are_true: random.chance(500),
        };
        let known = known(&witnesses, vouched, &self.plan.device);
        let mut tick = sealkeeper::keyring::Tick {
            now: self.now,
            replica: "recovered".to_owned(),
            adopted: 0,
            live: BTreeSet::new(),
        };
        let mut made = 0_u64;
        let mut ids = || {
            made += 1;
            let mut id = [0xee; 16];
            id[..8].copy_from_slice(&made.to_le_bytes());
            KeyId(id)
        };
        let by = Mandate::default();
        let plan = &self.plan;
        let recovered = recover("orders", &witnesses, vouched, &by, plan, &tick, &mut ids);
        let set = match recovered {
            Ok(recovered) => recovered.set,
            Err(why) => return self.recovery_refused(&why, &witnesses, &known),
        };
        self.totals.count("recovered");
        let view = set.view(plan, None);
        let shown: BTreeSet<&String> = view.published.iter().map(|key| &key.kid).collect();
        assert!(!shown.is_empty(), "a recovered set is empty");
        for kid in &known.revoked {
            assert!(!shown.contains(kid), "{kid} was revoked and is back");
            assert!(set.revoked.contains_key(kid), "{kid} is not on record");
        }
        for kid in &known.published {
            assert!(shown.contains(kid), "{kid} left the set by a recovery");
            self.outlives_its_tokens(&set, kid);
        }
        self.signs_on(&set, &witnesses);
        for intent in set.intents.values() {
            let key = &set.keys[&intent.task.key()];
            if let Task::Generate { .. } = intent.task {
                assert_eq!(set.placeholder, Some(key.id), "a recovery makes {key:?}");
                continue;
            }
            let half = key
                .placements
                .values()
                .any(|half| *half == Half::Destroying);
            assert!(half, "{key:?}");
        }
        // Time alone makes nothing active: no origin says anything.
        let mut later = set.clone();
        let active = |set: &KeySet| -> BTreeSet<KeyId> {
            set.seats.values().filter_map(|seat| seat.active).collect()
        };
        for day in [1, 2, 4, 9, 30, 90] {
            tick.now = self.now + Span::from_days(day);
            tick.adopted = later.epoch;
            later.advance(plan, &tick, &mut ids);
            for (id, intent) in later.intents.clone() {
                if let Task::Destroy { .. } = intent.task {
                    let _ = later.complete(id, Outcome::Destroyed, &tick);
                }
            }
            assert!(active(&later).is_subset(&active(&set)), "activated by time");
            assert!(!later.view(plan, None).published.is_empty(), "empty");
        }
    }

    /// Any of those who know, and each of them as it happens to be.
    fn witnesses(&self, random: &mut Random) -> Witnesses {
        let mut witnesses = Witnesses::default();
        let ledger = &self.ledger;
        if random.chance(700) {
            let mut log = ledger.told.clone();
            if random.chance(250) {
                // Stored, and not in the log yet when everything ended.
                log.truncate(log.len().saturating_sub(random.below(4)));
            }
            witnesses.log = log;
        }
        if random.chance(300) {
            witnesses.record = ledger.old.as_ref().map(|(set, n)| (KeySet::clone(set), *n));
        }
        if random.chance(800) {
            let objects = match random.chance(80) {
                true => BTreeMap::new(),
                false => self.device.objects.clone(),
            };
            let device = self.plan.device.clone();
            witnesses.devices.insert(device, objects);
        }
        let named = self.named();
        let shown = |kids: &BTreeSet<String>| -> Vec<PublishedKey> {
            kids.iter()
                .filter_map(|kid| named.get(kid).cloned())
                .collect()
        };
        if random.chance(600) {
            let views = self.replicas.iter().filter_map(|r| r.view.as_ref());
            let views: Vec<_> = views.collect();
            if !views.is_empty() {
                let view = views[random.below(views.len())];
                let kids = view.published.iter().map(|key| key.kid.clone());
                witnesses.last_good = shown(&kids.collect());
            }
            let placeholder = self.placeholder();
            witnesses.placeholder = shown(&placeholder.into_iter().collect());
            let placeholder = &witnesses.placeholder;
            witnesses.last_good.retain(|key| !placeholder.contains(key));
        }
        if random.chance(500) {
            for origin in &self.origins {
                let mut keys = shown(&origin.serves);
                keys.retain(|key| Some(&key.kid) != self.placeholder().as_ref());
                witnesses.origins.insert(origin.name.clone(), keys);
            }
        }
        if random.chance(700) {
            let stones = self.replicas.iter().flat_map(|r| &r.tombstones);
            let revocation = Revocation {
                at: self.now,
                reason: Reason::Compromised,
                mandate: Mandate::default(),
            };
            let stones = stones.map(|kid| (kid.clone(), revocation.clone()));
            witnesses.tombstones = stones.collect();
        }
        let record = witnesses.record.iter().map(|(set, _)| set.high_water);
        let log = witnesses.log.iter().map(|told| told.at);
        witnesses.seen = log.chain(record).max();
        witnesses
    }

    /// Every key that was ever made.
    fn named(&self) -> BTreeMap<String, PublishedKey> {
        let public = self
            .ledger
            .told
            .iter()
            .filter_map(|told| told.public.clone());
        let named = public.map(|(kid, algorithm, public)| {
            let shown = PublishedKey {
                kid: kid.clone(),
                algorithm,
                public,
            };
            (kid, shown)
        });
        named.collect()
    }

    fn placeholder(&self) -> Option<String> {
        let record = &self.store.record;
        record.keys.get(&record.placeholder?)?.kid.clone()
    }

    /// Whatever it signed can be verified for as long as it is good.
    fn outlives_its_tokens(&self, set: &KeySet, kid: &str) {
        let Some(exp) = self.ledger.tokens.get(kid) else {
            return;
        };
        let timing = &self.plan.timing;
        // What a clock dated that was fast, nobody here knows.
        let longest = self.ledger.longest.max(timing.max_token_lifetime);
        if *exp > self.now + longest + timing.skew {
            return;
        }
        let key = set.by_kid(kid).expect("it is published");
        let ceiling = key.exp_ceiling.expect("it has signed");
        let shorter = longest.as_millis() - timing.max_token_lifetime.as_millis();
        let bound = Time::from_millis(ceiling.as_millis() + shorter);
        assert!(
            *exp <= bound,
            "{kid}: a token until {exp}, a ceiling {ceiling}"
        );
    }

    /// Only who signed before signs now.
    fn signs_on(&self, set: &KeySet, witnesses: &Witnesses) {
        for (id, seat) in &set.seats {
            assert!(seat.switch.is_none() && !seat.force, "{id:?}: {seat:?}");
            let Some(active) = seat.active else { continue };
            let key = &set.keys[&active];
            let was = self
                .ledger
                .told
                .iter()
                .any(|told| told.key == active && told.what == What::Activated);
            assert!(was, "{key:?} never signed, and does now");
            assert!(!set.revoked.contains_key(key.kid.as_ref().expect("a kid")));
            for (device, held) in &witnesses.devices {
                let there = held.contains_key(&active) || !key.placements.contains_key(device);
                assert!(there, "{key:?} signs on without its half");
            }
        }
        for key in set.keys.values() {
            assert!(key.sightings.is_empty(), "{key:?} counts as seen");
            let seated = set.seats.values().any(|seat| seat.active == Some(key.id));
            assert_eq!(seated, matches!(key.phase, Phase::Active { .. }), "{key:?}");
        }
        // With all that the log knows, nothing changes hands.
        let whole = witnesses.log.len() == self.ledger.told.len();
        let all = witnesses.devices.values().all(|held| !held.is_empty());
        if !whole || !all || witnesses.record.is_some() {
            return;
        }
        for (id, seat) in &self.store.record.seats {
            let Some(active) = seat.active else { continue };
            let key = &self.store.record.keys[&active];
            let kid = key.kid.as_ref().expect("a kid");
            let there = witnesses
                .devices
                .values()
                .all(|held| held.contains_key(&active));
            if there && !set.revoked.contains_key(kid) {
                let now = set.seats.get(id).and_then(|seat| seat.active);
                assert_eq!(now, Some(active), "another key signs in {id:?}");
            }
        }
    }

    fn recovery_refused(&mut self, why: &RecoverError, witnesses: &Witnesses, known: &Known) {
        match why {
            RecoverError::NothingKnown(_) => {
                assert!(known.published.is_empty(), "{:?}", known.published);
            }
            RecoverError::NothingToShow(_) => {
                assert!(known.published.is_empty(), "{:?}", known.published);
            }
            RecoverError::ClockBehind { .. } => {
                assert!(witnesses.seen > Some(self.now + self.plan.timing.skew));
            }
            RecoverError::KeysMissing(_) => {
                assert!(!witnesses.devices.is_empty(), "nobody was asked");
                self.totals.count("recovery: an empty token");
                return;
            }
        }
        self.totals.count("recovery: refused");
    }
}

fn known(witnesses: &Witnesses, vouched: Vouched, device: &str) -> Known {
    let mut known = Known::default();
    if let Some((set, _)) = &witnesses.record {
        for key in set.keys.values() {
            let Some(kid) = &key.kid else { continue };
            if key.is_published() {
                known.published.insert(kid.clone());
            }
            if matches!(key.phase, Phase::Retired { .. }) {
                known.removed.insert(kid.clone());
            }
        }
        known.revoked.extend(set.revoked.keys().cloned());
    }
    for Told { public, what, .. } in &witnesses.log {
        let Some((kid, ..)) = public else { continue };
        match what {
            What::Published => drop(known.published.insert(kid.clone())),
            What::Removed => drop(known.removed.insert(kid.clone())),
            What::Revoked { .. } => drop(known.revoked.insert(kid.clone())),
            _ => {}
        }
    }
    let shown = witnesses.last_good.iter();
    known.published.extend(shown.map(|key| key.kid.clone()));
    let in_device = |key: &PublishedKey| {
        let held = witnesses.devices.get(device);
        held.is_some_and(|held| held.values().any(|public| *public == key.public))
    };
    let shown = witnesses.origins.values().flatten();
    let shown = shown.filter(|key| vouched.origins_are_true || in_device(key));
    let shown: Vec<String> = shown.map(|key| key.kid.clone()).collect();
    known.published.extend(shown);
    known.revoked.extend(witnesses.tombstones.keys().cloned());
    let Known {
        published,
        revoked,
        removed,
    } = &mut known;
    published.retain(|kid| !revoked.contains(kid) && !removed.contains(kid));
    known
}
