//! What is told of each key, and of what devices hold besides.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::Drafts;
use super::{Finding, Inferred, Witnesses};
use crate::keyring::key::KeyId;
use crate::keyring::set::KeySet;

impl Drafts {
    /// What is told of each key.
    pub(super) fn findings(&self, set: &KeySet) -> Vec<Finding> {
        let told = self.keys.values().map(|draft| {
            let phase = set.keys.get(&draft.id).map(|key| key.phase.name());
            let inferred = match (phase, &draft.named) {
                (Some(phase), _) => Inferred::Recovered(phase),
                // Out of the set for so long that the record forgets it.
                (None, Some(_)) => Inferred::Recovered("retired"),
                (None, None) => Inferred::NeverPublished,
            };
            let kid = draft.named.as_ref().map(|named| named.kid.clone());
            let log = draft.in_log.then(|| draft.phase.name());
            Finding {
                id: Some(draft.id),
                log,
                record: draft.record,
                held_by: draft.held_by.clone(),
                missing: draft.missing,
                on_disk: draft.on_disk,
                origins: draft.origins.clone(),
                entombed: kid
                    .as_ref()
                    .is_some_and(|kid| set.revoked.contains_key(kid)),
                kid,
                gone: draft.gone,
                inferred,
            }
        });
        told.collect()
    }

    /// What devices hold, and nobody knows.
    pub(super) fn unknown(&self, witnesses: &Witnesses) -> Vec<Finding> {
        let mut unknown: BTreeMap<KeyId, Finding> = BTreeMap::new();
        for (device, held) in &witnesses.devices {
            for id in held.keys().filter(|id| !self.keys.contains_key(id)) {
                let finding = unknown.entry(*id);
                let finding = finding.or_insert_with(|| bare(Some(*id), "", Inferred::Unknown));
                finding.held_by.insert(device.clone());
            }
        }
        unknown.into_values().collect()
    }
}

pub(super) fn bare(id: Option<KeyId>, kid: &str, inferred: Inferred) -> Finding {
    Finding {
        id,
        kid: (!kid.is_empty()).then(|| kid.to_owned()),
        log: None,
        record: None,
        held_by: BTreeSet::new(),
        missing: false,
        on_disk: false,
        origins: BTreeSet::new(),
        entombed: false,
        gone: false,
        inferred,
    }
}
