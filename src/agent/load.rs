//! How a writer comes by its record: at the start, and whenever somebody else
//! wrote.

use std::collections::BTreeSet;
use std::convert::Infallible;

use super::reader::{Dark, PublishedSet, Snapshot};
use super::record::Record;
use super::revoke::{OnDisk, Owed};
use super::writer::{Held, StepError, Writer};
use crate::clock::Reading;
use crate::durable::Tombstone;
use crate::keyring::{ClockGuard, Ending, Genesis, Reason};
use crate::store::{StoreError, Stored};
use crate::time::Time;

impl Writer {
    /// Reads the record and shows it to readers, or shows why not.
    pub(super) async fn load(&mut self) {
        let loaded = match self.try_load().await {
            Ok(None) => self.join().await.map(|()| None),
            other => other,
        };
        match loaded {
            Ok(None) => {
                self.dark = None;
                // Readers of a guard that has read no clock yet would take the
                // record's last instant for now.
                self.estimate();
                if let Some(held) = self.held.clone() {
                    self.show(&held).await;
                }
            }
            Ok(Some(dark)) => self.go_dark(dark),
            Err(StepError::Store(e)) => self.go_dark(Dark::NoStore(e)),
            Err(e) => self.go_dark(Dark::BadRecord(e.to_string())),
        }
    }

    /// Loads again if the store has another version than this writer.
    pub(super) async fn load_if_changed(&mut self) {
        let name = &self.reader.name;
        let stored = match self.context.store.load(name).await {
            Ok(stored) => stored.map(|stored| stored.version),
            Err(e) => {
                tracing::error!(key_set = name, "the store cannot be read: {e}");
                return;
            }
        };
        if stored != self.held.as_ref().and_then(|held| held.version.clone()) {
            self.load().await;
        }
    }

    async fn try_load(&mut self) -> Result<Option<Dark>, StepError<Infallible>> {
        let name = self.reader.name.clone();
        // Until it is known to be good, nothing is changed on its ground; what
        // was good before still says which keys an operator may revoke.
        self.last = self.held.take().or(self.last.take());
        let tombstones = match self.context.tombstones(&name) {
            Ok(stones) => stones,
            Err(e) => return Ok(Some(Dark::BadTombstone(e.to_string()))),
        };
        let stored = self.context.store.load(&name).await;
        let Some(Stored { version, bytes }) = stored.map_err(StepError::Store)? else {
            let known = self.context.key_log(&name).events;
            return Ok(Some(Dark::no_record(name, known)));
        };
        let record = Record::from_bytes(&bytes).map_err(StepError::Record)?;
        let log = self.context.key_log(&name);
        record
            .check_against_log(log.events)
            .map_err(StepError::Record)?;
        self.logged = self.logged.max(log.events);
        for kid in tombstones.keys().chain(&log.revoked) {
            self.reader.block(kid);
            if !record.set.revoked.contains_key(kid) && record.set.by_kid(kid).is_some() {
                let high_water = record.set.high_water;
                let owed = || owed(tombstones.get(kid), high_water);
                self.owed.entry(kid.clone()).or_insert_with(owed);
            }
        }
        if let Some(dark) = self.is_outdated(&record) {
            let version = Some(version);
            self.last.get_or_insert(Held { record, version });
            return Ok(Some(dark));
        }
        let pending = matches!(record.set.genesis, Genesis::Pending { .. });
        let replica = record.set.replicas.get(&self.context.replica);
        if let Some(note) = replica.and_then(|replica| replica.clock.as_ref())
            && self.guard == ClockGuard::default()
        {
            let clock = &self.context.clock;
            let Reading { wall, boot } = clock.read();
            let high_water = record.set.high_water;
            self.guard = ClockGuard::resume(note, &clock.boot_id(), wall, boot, high_water);
            if let Some(doubt) = self.guard.doubt() {
                self.tell_of_doubt(&doubt);
            }
        }
        self.held = Some(Held {
            record,
            version: Some(version),
        });
        Ok(pending.then_some(Dark::InitUnfinished(name)))
    }

    /// Puts this agent on record before its readers get a view: whoever is
    /// not on record is not waited for when a private half is destroyed.
    async fn join(&mut self) -> Result<(), StepError<Infallible>> {
        while let Some(held) = self.held.clone() {
            if held.record.set.replicas.contains_key(&self.context.replica) {
                return Ok(());
            }
            let now = self.estimate();
            let mut next = held.record;
            next.set.join(&self.tick_for(now));
            match self.store(next).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Conflict { .. }) => {
                    self.try_load().await?;
                }
                Err(e) => return Err(StepError::Store(e)),
            }
        }
        Err(StepError::NoRecord)
    }

    /// Nothing is signed; the last good set is still served.
    pub(super) fn go_dark(&mut self, dark: Dark) {
        if self.dark.as_ref() == Some(&dark) {
            return; // Looked at again, and no better.
        }
        let (key_set, reason) = (&self.reader.name, dark.reason());
        if matches!(dark, Dark::NoStore(_)) && self.reader.load().signers.is_ok() {
            // What readers have is still true, and what it permits ends by
            // itself at the ceilings, which nobody can raise now. A store that
            // reads and does not write gets here at each step: one line is
            // enough until it is over.
            if !self.store_fails {
                self.store_fails = true;
                tracing::error!(
                    key_set,
                    reason,
                    "nothing changes, and signing ends at the ceilings: {dark}"
                );
            }
            self.dark = Some(dark);
            return;
        }
        tracing::error!(key_set, reason, "not signing: {dark}");
        let published = self.published_in_the_dark();
        self.dark = Some(dark.clone());
        self.reader.swap(Snapshot {
            signers: Err(dark),
            published,
        });
    }

    /// The set that readers have, or the last good one on disk, less what was
    /// revoked since; the placeholder if nothing is left of it.
    pub(super) fn published_in_the_dark(&self) -> Option<PublishedSet> {
        let name = &self.reader.name;
        let mut revoked = self.context.key_log(name).revoked;
        revoked.extend(self.owed.keys().cloned());
        match self.context.tombstones(name) {
            Ok(stones) => revoked.extend(stones.into_keys()),
            Err(e) => tracing::error!(key_set = name, "the tombstones cannot be read: {e}"),
        }
        let shown = self
            .reader
            .load()
            .published
            .as_ref()
            .map(|set| set.body.to_vec());
        let bytes = shown.or_else(|| self.context.read_last_good(name))?;
        PublishedSet::last_good(&bytes, &revoked).or_else(|| {
            // Nothing is left of it. With an empty set, or with none, caches
            // would go on trusting what was revoked.
            let placeholder = self.context.read_placeholder(name)?;
            PublishedSet::last_good(&placeholder, &BTreeSet::new())
        })
    }
}

/// What is known of a revocation that the store has not got. Where nobody said
/// why, the worst is assumed; of one that only the log knows, it has the date.
fn owed(stone: Option<&Tombstone>, high_water: Time) -> Owed {
    let ending = Ending {
        reason: stone
            .and_then(|stone| stone.reason)
            .unwrap_or(Reason::Compromised),
        then: stone.and_then(|stone| stone.then),
        at: None,
        mandate: stone
            .and_then(|stone| stone.mandate.clone())
            .unwrap_or_default(),
    };
    Owed {
        ending,
        at: stone.map_or(high_water, |stone| stone.at),
        on_disk: OnDisk::All, // Or in the log, which is read at each start as well.
    }
}
