//! The store port, asked: the compare-and-swap that the agent's writer calls.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use sealkeeper::store::memory::Memory;
use sealkeeper::store::{Pending, Store, StoreError, Version};

use super::hash::Quick;
use super::lab::Record;

const KEY_SET: &str = "orders";

thread_local! {
    /// What the store answered, for each question.
    static ASKED: RefCell<HashMap<(Record, Record, bool), bool, Quick>> = RefCell::default();
}

/// Whether a store that has `stored` takes `new` from a writer that began with
/// the `current` version, or with the one before. To the store a record is
/// opaque: here it is its number.
pub(crate) fn swap(stored: Record, new: Record, current: bool) -> bool {
    ASKED.with_borrow_mut(|asked| {
        *asked
            .entry((stored, new, current))
            .or_insert_with(|| ask(stored, new, current))
    })
}

fn ask(stored: Record, new: Record, current: bool) -> bool {
    let store = Memory::new();
    let bytes = |record: Record| record.to_le_bytes();
    let write = |expected: Option<&Version>, record: Record| {
        ready(store.compare_and_swap(KEY_SET, expected.cloned(), &bytes(record)))
    };
    let before = write(None, Record::MAX).expect("an empty store takes a first record");
    let newest = write(Some(&before), stored).expect("the writer has the newest version");
    let begun = if current { &newest } else { &before };
    let taken = match write(Some(begun), new) {
        Ok(_) => true,
        Err(StoreError::Conflict { .. }) => false,
        Err(other) => panic!("{other}"),
    };
    let now = ready(store.load(KEY_SET)).expect("a store in memory is read");
    let now = now.map(|stored| stored.bytes);
    let expected = if taken { new } else { stored };
    assert_eq!(
        now.as_deref(),
        Some(&bytes(expected)[..]),
        "the store has it"
    );
    taken
}

/// A store in memory keeps nobody waiting.
fn ready<T>(pending: Pending<'_, T>) -> Result<T, StoreError> {
    match pin!(pending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("the store in memory waits"),
    }
}
