//! What the world tells a writer, in a space that does not grow: of each
//! origin the latest answer, and whether the store changed. However slow the
//! store, nothing queues up in front of an operator's order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::observe::Shown;

/// One thing that the writer has not looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// The store has a version that this agent did not write.
    StoreChanged,
    /// An origin answered.
    Seen(String, Answers),
    /// An origin did not answer; why.
    Unanswered(String, String),
}

/// The answers of one origin since the writer last looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answers {
    /// What all of them held. A key that one of them lacked begins its run
    /// anew, though the latest has it.
    pub(super) all: BTreeSet<String>,
    /// What the latest held.
    pub(super) latest: Shown,
}

/// What waits for the writer.
#[derive(Default)]
pub(super) struct News {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    store_changed: bool,
    seen: BTreeMap<String, Answers>,
    unanswered: BTreeMap<String, String>,
}

impl News {
    pub(super) fn store_changed(&self) {
        self.waiting().store_changed = true;
        self.arrived.notify_one();
    }

    /// An origin answered with these keys.
    pub(super) fn seen(&self, origin: &str, shown: impl Into<Shown>) {
        let shown = shown.into();
        let mut waiting = self.waiting();
        let kids = &shown.everywhere;
        let all = match waiting.seen.get(origin) {
            Some(before) => before.all.intersection(kids).cloned().collect(),
            None => kids.clone(),
        };
        let answers = Answers { all, latest: shown };
        waiting.seen.insert(origin.to_owned(), answers);
        waiting.unanswered.remove(origin);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// An origin did not answer.
    pub(super) fn unanswered(&self, origin: &str, why: String) {
        let mut waiting = self.waiting();
        waiting.unanswered.insert(origin.to_owned(), why);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// The next of them; waits for one. Nothing is lost where the caller stops
    /// waiting.
    pub(super) async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.take() {
                return item;
            }
            self.arrived.notified().await;
        }
    }

    pub(super) fn take(&self) -> Option<Item> {
        let mut waiting = self.waiting();
        if std::mem::take(&mut waiting.store_changed) {
            return Some(Item::StoreChanged);
        }
        if let Some((origin, answers)) = waiting.seen.pop_first() {
            return Some(Item::Seen(origin, answers));
        }
        let (origin, why) = waiting.unanswered.pop_first()?;
        Some(Item::Unanswered(origin, why))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kids(kids: &[&str]) -> BTreeSet<String> {
        kids.iter().map(|kid| (*kid).to_owned()).collect()
    }

    #[tokio::test]
    async fn an_answer_that_lacked_a_key_is_not_forgotten() {
        let news = News::default();
        for answer in [&["a", "b"][..], &["a"], &["a", "b", "c"]] {
            news.seen("web", kids(answer));
        }
        news.seen("cdn", kids(&["a"]));
        news.store_changed();
        news.store_changed();
        let seen = |origin: &str, all: &[&str], latest: &[&str]| {
            let (all, latest) = (kids(all), kids(latest).into());
            Item::Seen(origin.to_owned(), Answers { all, latest })
        };
        assert_eq!(news.next().await, Item::StoreChanged);
        assert_eq!(news.next().await, seen("cdn", &["a"], &["a"]));
        assert_eq!(news.next().await, seen("web", &["a"], &["a", "b", "c"]));
        assert_eq!(news.take(), None);
        // An answer makes up for the silence before it, and not the other way.
        news.unanswered("web", "no way".to_owned());
        news.seen("web", kids(&["a"]));
        news.unanswered("cdn", "no way".to_owned());
        assert_eq!(news.next().await, seen("web", &["a"], &["a"]));
        let silence = Item::Unanswered("cdn".to_owned(), "no way".to_owned());
        assert_eq!(news.next().await, silence);
        assert_eq!(news.take(), None);
    }
}
