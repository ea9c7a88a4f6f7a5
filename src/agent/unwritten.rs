//! Revocations that a restart would forget: neither the store nor a tombstone
//! has them, as on a full disk. The writer tries again at each round; here is
//! what operators are told meanwhile.

use std::collections::BTreeMap;

use super::Agent;
use super::admin::KeySetStatus;
use super::revoke::{OnDisk, Owed};
use super::writer::Writer;
use crate::time::Time;

/// Since when each `kid` has been revoked in memory alone.
pub type Unwritten = BTreeMap<String, Time>;

impl Agent {
    /// What a restart would forget now, of each key set that it concerns. From
    /// memory: waits for no writer.
    #[must_use]
    pub fn unwritten(&self) -> BTreeMap<String, Unwritten> {
        let rooms = self.0.rooms.iter();
        let all = rooms.map(|(name, room)| (name.clone(), (*room.reader.unwritten()).clone()));
        all.filter(|(_, kids)| !kids.is_empty()).collect()
    }
}

impl Writer {
    /// What a restart would forget. Not that a key which is revoked on record
    /// was ordered to end otherwise since.
    fn unwritten_now(&self) -> Unwritten {
        let known = self.held.as_ref().or(self.last.as_ref());
        let on_record =
            |kid: &str| known.is_some_and(|held| held.record.set.revoked.contains_key(kid));
        let forgets =
            |(kid, owed): &(&String, &Owed)| owed.on_disk == OnDisk::Nothing && !on_record(kid);
        let owed = self.owed.iter().filter(forgets);
        owed.map(|(kid, owed)| (kid.clone(), owed.at)).collect()
    }

    /// Tells readers, and the log once of each.
    pub(super) fn tell_unwritten(&self) {
        let (now, before) = (self.unwritten_now(), self.reader.unwritten());
        if now == *before {
            return;
        }
        let key_set = &self.reader.name;
        for kid in now.keys().filter(|kid| !before.contains_key(*kid)) {
            tracing::error!(
                key_set,
                kid,
                reason = "REVOKED_IN_MEMORY",
                "a revocation is in memory alone, and a restart would forget it: make room on the file system of state_dir"
            );
        }
        for kid in before.keys().filter(|kid| !now.contains_key(*kid)) {
            tracing::info!(key_set, kid, "a revocation is on disk now");
        }
        self.reader.has_unwritten(now);
    }
}

impl KeySetStatus {
    /// With what a restart would forget of it.
    pub(super) fn with_unwritten(mut self, unwritten: &Unwritten) -> Self {
        for key in &mut self.keys {
            if let Some(revocation) = &mut key.revocation {
                revocation.in_memory_alone = unwritten.contains_key(&key.kid);
            }
        }
        self
    }
}
