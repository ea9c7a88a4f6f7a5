//! A store in memory that fails on demand. For tests alone.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

use super::{Change, Changes, Cursor, MAX_RECORD, Pending, Store, StoreError, Stored, Version};

/// What the next write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Works. To place a fault later in the script.
    None,
    /// Reports a failure and has written nothing.
    Lose,
    /// Reports a failure and has written all the same, as when power fails
    /// between the write and its answer.
    Persist,
    /// As [`Fault::Lose`], with [`StoreError::Full`].
    Full,
}

/// A store in memory. Clones share it, so that it outlives an agent that is
/// taken down.
#[derive(Clone, Debug)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    newest: watch::Sender<i64>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<String, (i64, Vec<u8>)>,
    newest: i64,
    script: VecDeque<Fault>,
    unreadable: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store that works.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            newest: watch::Sender::new(0),
        }
    }

    /// What the next writes do, one each; after the last one they work. A
    /// write that conflicts uses up its fault as well.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().script = faults.into_iter().collect();
    }

    /// The next `count` calls of `load` and `list` fail.
    pub fn fail_reads(&self, count: usize) {
        self.state().unreadable = count;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn read<T>(&self, f: impl FnOnce(&State) -> T) -> Result<T, StoreError> {
        let mut state = self.state();
        if state.unreadable > 0 {
            state.unreadable -= 1;
            return Err(failure("read"));
        }
        Ok(f(&state))
    }

    fn write(
        &self,
        key_set: &str,
        expected: Option<Version>,
        record: &[u8],
    ) -> Result<Version, StoreError> {
        let mut state = self.state();
        let fault = state.script.pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::Lose => return Err(failure("write to")),
            Fault::Full => return Err(StoreError::Full { path: NAME.into() }),
            Fault::None | Fault::Persist => {}
        }
        let current = state.records.get(key_set).map(|(n, _)| version(*n));
        if current != expected {
            return Err(StoreError::Conflict {
                key_set: key_set.to_owned(),
                expected,
                current,
            });
        }
        state.newest += 1;
        let number = state.newest;
        (state.records).insert(key_set.to_owned(), (number, record.to_owned()));
        drop(state);
        self.newest.send_replace(number);
        if fault == Fault::Persist {
            return Err(failure("write to"));
        }
        Ok(version(number))
    }
}

const NAME: &str = ":memory:";

fn version(number: i64) -> Version {
    Version::from_text(&number.to_string())
}

fn failure(doing: &'static str) -> StoreError {
    StoreError::Failed {
        doing,
        path: NAME.into(),
        why: "the test asked for it".into(),
    }
}

impl Store for Memory {
    fn load<'a>(&'a self, key_set: &'a str) -> Pending<'a, Option<Stored>> {
        Box::pin(async move {
            self.read(|state| {
                let (number, bytes) = state.records.get(key_set)?;
                Some(Stored {
                    version: version(*number),
                    bytes: bytes.clone(),
                })
            })
        })
    }

    fn compare_and_swap<'a>(
        &'a self,
        key_set: &'a str,
        expected: Option<Version>,
        record: &'a [u8],
    ) -> Pending<'a, Version> {
        Box::pin(async move {
            if record.len() > MAX_RECORD {
                return Err(StoreError::TooLarge {
                    key_set: key_set.to_owned(),
                    size: record.len(),
                });
            }
            self.write(key_set, expected, record)
        })
    }

    fn list(&self) -> Pending<'_, Vec<(String, Version)>> {
        Box::pin(async move {
            self.read(|state| {
                (state.records.iter())
                    .map(|(key_set, (number, _))| (key_set.clone(), version(*number)))
                    .collect()
            })
        })
    }

    fn watch(&self, since: Cursor) -> Changes {
        Box::pin(Watching {
            store: self.clone(),
            seen: since.count(),
            news: WatchStream::new(self.newest.subscribe()),
        })
    }
}

struct Watching {
    store: Memory,
    seen: i64,
    news: WatchStream<i64>,
}

impl Stream for Watching {
    type Item = Result<Change, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let next = {
                let state = self.store.state();
                let seen = if self.seen > state.newest {
                    0
                } else {
                    self.seen
                };
                (state.records.iter())
                    .map(|(key_set, (number, _))| (*number, key_set.clone()))
                    .filter(|(number, _)| *number > seen)
                    .min()
            };
            if let Some((number, key_set)) = next {
                self.seen = number;
                return Poll::Ready(Some(Ok(Change {
                    key_set,
                    version: version(number),
                    cursor: Cursor::at(number),
                })));
            }
            match Pin::new(&mut self.news).poll_next(cx) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn the_memory_store_conforms() {
        super::super::conformance::run(&Memory::new());
    }

    #[tokio::test]
    async fn it_fails_and_persists_or_fails_and_does_not_as_asked() {
        let store = Memory::new();
        store.script([Fault::Lose, Fault::Persist, Fault::None, Fault::Full]);
        store.compare_and_swap("a", None, b"1").await.unwrap_err();
        assert_eq!(store.load("a").await.unwrap(), None);
        store.compare_and_swap("a", None, b"2").await.unwrap_err();
        let stored = store.load("a").await.unwrap().unwrap();
        assert_eq!(stored.bytes, b"2");
        let version = Some(stored.version);
        let version = store.compare_and_swap("a", version, b"3").await.unwrap();
        let full = store.compare_and_swap("a", Some(version), b"4").await;
        assert!(matches!(full, Err(StoreError::Full { .. })));
        store.fail_reads(1);
        store.load("a").await.unwrap_err();
        assert_eq!(store.load("a").await.unwrap().unwrap().bytes, b"3");
    }
}
