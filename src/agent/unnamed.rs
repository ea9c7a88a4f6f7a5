//! Key sets that are on record, and that the configuration does not name.
//!
//! A key set is known by its name: to the store, the log, the tombstones, and
//! in the address of its JWKS. One that was renamed in the configuration looks
//! like one that is gone and another that never began; to begin that one would
//! be a genesis while verifiers hold the keys of the first.

use std::collections::BTreeSet;

use super::record::Record;
use crate::keyring::Genesis;
use crate::store::{Store, StoreError};

/// Those of which the store has a record, or the log (which knows of `logged`
/// key sets) key events, and that are not `configured`; in order. One whose
/// `init` was not finished does not count: no verifier holds a key of it.
///
/// # Errors
/// The store cannot be read.
pub async fn unnamed(
    store: &dyn Store,
    logged: impl IntoIterator<Item = String>,
    configured: &BTreeSet<String>,
) -> Result<Vec<String>, StoreError> {
    let mut found: BTreeSet<String> = logged.into_iter().collect();
    found.extend(store.list().await?.into_iter().map(|(name, _)| name));
    let mut left = Vec::new();
    for name in found.difference(configured) {
        let stored = match store.load(name).await {
            Ok(stored) => stored,
            // What cannot be read may be of a key set that has begun.
            Err(StoreError::Damaged { .. }) => None,
            Err(e) => return Err(e),
        };
        let record = stored.and_then(|stored| Record::from_bytes(&stored.bytes).ok());
        let unfinished = |record: Record| matches!(record.set.genesis, Genesis::Pending { .. });
        if !record.is_some_and(unfinished) {
            left.push(name.clone());
        }
    }
    Ok(left)
}
