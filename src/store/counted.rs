//! A store whose failures are counted.

use std::sync::Arc;

use super::{Changes, Cursor, Pending, Store, StoreError, Stored, Version};
use crate::metrics::{Metrics, StoreStep};

/// Any store, with its failures in the figures.
#[derive(Debug)]
pub struct Counted {
    store: Arc<dyn Store>,
    metrics: Metrics,
}

impl Counted {
    /// Counts the failures of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self { store, metrics }
    }

    fn note<T>(&self, step: StoreStep, done: &Result<T, StoreError>) {
        match done {
            // Another agent was faster: so it is meant to be.
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(_) => self.metrics.store_failed(step),
        }
    }
}

impl Store for Counted {
    fn load<'a>(&'a self, key_set: &'a str) -> Pending<'a, Option<Stored>> {
        Box::pin(async move {
            let done = self.store.load(key_set).await;
            self.note(StoreStep::Load, &done);
            done
        })
    }

    fn compare_and_swap<'a>(
        &'a self,
        key_set: &'a str,
        expected: Option<Version>,
        record: &'a [u8],
    ) -> Pending<'a, Version> {
        Box::pin(async move {
            let done = self.store.compare_and_swap(key_set, expected, record).await;
            self.note(StoreStep::Write, &done);
            done
        })
    }

    fn list(&self) -> Pending<'_, Vec<(String, Version)>> {
        Box::pin(async move {
            let done = self.store.list().await;
            self.note(StoreStep::Load, &done);
            done
        })
    }

    fn watch(&self, since: Cursor) -> Changes {
        self.store.watch(since)
    }
}
