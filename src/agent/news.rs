//! What the world tells a writer, in a space that does not grow: of each
//! origin the latest answer, and whether the store changed. However slow the
//! store, nothing queues up in front of an operator's order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::keyring::{Holding, Shown};

/// One thing that the writer has not looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// The store has a version that this agent did not write.
    StoreChanged,
    /// An origin answered.
    Seen(String, Answers),
    /// An origin did not answer; why.
    Unanswered(String, String),
    /// The device lacks the active key with this `kid`, and holds the next.
    Lost(String),
    /// The device lacks a key that is to sign next, with this `kid`.
    StandbyLost(String),
    /// A device said what it holds.
    Holds(String, Holding),
}

/// The answers of one origin since the writer last looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answers {
    /// What all of them showed alike. A key that one of them lacked, or had
    /// something else in place of, begins its run anew, though the latest has
    /// it.
    pub(super) all: Shown,
    /// What the latest showed.
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
    lost: BTreeSet<String>,
    standby_lost: BTreeSet<String>,
    holdings: BTreeMap<String, Holding>,
    /// The `kid`s of revoked keys, and when readers got the first set without
    /// them: whoever looked before that saw what was right then.
    left: BTreeMap<String, Instant>,
}

impl News {
    pub(super) fn store_changed(&self) {
        self.waiting().store_changed = true;
        self.arrived.notify_one();
    }

    /// Readers get no more of these revoked keys from now on. Says which of
    /// them that is new of.
    pub(super) fn left<'a>(&self, kids: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
        let now = Instant::now();
        let mut waiting = self.waiting();
        let new = kids.filter(|kid| !waiting.left.contains_key(*kid));
        let new: BTreeSet<String> = new.cloned().collect();
        if !new.is_empty() {
            waiting
                .left
                .extend(new.iter().map(|kid| (kid.clone(), now)));
            for answers in waiting.seen.values_mut() {
                answers.all = std::mem::take(&mut answers.all).less(&new);
                answers.latest = std::mem::take(&mut answers.latest).less(&new);
            }
        }
        new
    }

    /// An origin answered with these keys whoever asked it from `began` on.
    pub(super) fn looked(&self, origin: &str, shown: Shown, began: Instant) {
        let since = |left: &Instant| began < *left;
        let left = self.waiting().left.clone();
        let left = left.into_iter().filter(|(_, left)| since(left));
        self.seen(origin, shown.less(&left.map(|(kid, _)| kid).collect()));
    }

    /// An origin answered with these keys.
    pub(super) fn seen(&self, origin: &str, shown: Shown) {
        let mut waiting = self.waiting();
        let all = match waiting.seen.get(origin) {
            Some(before) => shown.after(&before.all),
            None => shown.clone(),
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

    /// A device has lost an active key.
    pub(super) fn lost(&self, kid: &str) {
        self.waiting().lost.insert(kid.to_owned());
        self.arrived.notify_one();
    }

    /// A device has lost a key that is to sign next.
    pub(super) fn standby_lost(&self, kid: &str) {
        self.waiting().standby_lost.insert(kid.to_owned());
        self.arrived.notify_one();
    }

    /// A device said what it holds.
    pub(super) fn holds(&self, device: &str, holding: Holding) {
        let mut waiting = self.waiting();
        waiting.holdings.insert(device.to_owned(), holding);
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
        // Signatures wait for it.
        if let Some((device, holding)) = waiting.holdings.pop_first() {
            return Some(Item::Holds(device, holding));
        }
        if let Some((origin, answers)) = waiting.seen.pop_first() {
            return Some(Item::Seen(origin, answers));
        }
        if let Some(kid) = waiting.lost.pop_first() {
            return Some(Item::Lost(kid));
        }
        if let Some(kid) = waiting.standby_lost.pop_first() {
            return Some(Item::StandbyLost(kid));
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

    use std::collections::BTreeSet;

    use crate::jose::Offer;

    fn kids(kids: &[&str]) -> Shown {
        let offers = kids.iter().map(|kid| Offer {
            kid: Some((*kid).to_owned()),
            ..Offer::default()
        });
        offers.collect::<BTreeSet<_>>().into()
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
            let latest = kids(latest);
            let all = Shown {
                everywhere: kids(all).everywhere,
                ..latest.clone()
            };
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

    #[test]
    fn an_answer_with_something_else_in_place_of_a_key_is_not_forgotten() {
        let news = News::default();
        let ours = kids(&["a", "b"]);
        let mut other = ours.clone();
        other.anywhere = (other.anywhere.into_iter())
            .map(|mut offer| {
                if offer.kid.as_deref() == Some("a") {
                    offer.algorithm = Some("none".to_owned());
                }
                offer
            })
            .collect();
        for answer in [&ours, &other, &ours] {
            news.seen("web", answer.clone());
        }
        let Some(Item::Seen(_, answers)) = news.take() else {
            panic!("it answered");
        };
        assert_eq!(answers.latest, ours);
        assert_eq!(answers.all.everywhere, ["b".to_owned()].into());
    }
}
