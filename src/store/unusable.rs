//! A store that could not be opened, so that the daemon starts all the same:
//! nothing is signed, the last good JWKS is served, and every call says why.

use super::{Changes, Cursor, Pending, Store, StoreError, Stored, Version};

/// Answers each call with the error that opening the store gave.
#[derive(Clone, Debug)]
pub struct Unusable(pub StoreError);

impl Unusable {
    fn refuse<T: Send + 'static>(&self) -> Pending<'_, T> {
        let why = self.0.clone();
        Box::pin(async move { Err(why) })
    }
}

impl Store for Unusable {
    fn load<'a>(&'a self, _key_set: &'a str) -> Pending<'a, Option<Stored>> {
        self.refuse()
    }

    fn compare_and_swap<'a>(
        &'a self,
        _key_set: &'a str,
        _expected: Option<Version>,
        _record: &'a [u8],
    ) -> Pending<'a, Version> {
        self.refuse()
    }

    fn list(&self) -> Pending<'_, Vec<(String, Version)>> {
        self.refuse()
    }

    /// Nothing ever changes.
    fn watch(&self, _since: Cursor) -> Changes {
        Box::pin(tokio_stream::pending())
    }
}
