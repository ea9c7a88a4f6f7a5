//! Who has called, and who may not.
//!
//! A caller has a stable id ([`CallerId`]). What an operator blocks by it is
//! refused before policy is looked at: its open connections end, and its next
//! request is told why.
//!
//! **Invariant:** a block holds in memory before it is stored, and a caller is
//! let in again only after that was stored.
//!
//! Trust: whoever may write to the list's folder can let a blocked caller in
//! again at the next start. A list that cannot be read lets nobody in.

mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use crate::clock::Clock;
use crate::durable::{BlockList, Blocked};
use crate::policy::{Caller, CallerId, Reason, Refusal, Rules};
use crate::time::Time;
use table::{Account, Table};

use super::admin::AdminError;
use super::signing::SignError;

pub use table::{CallerKind, CallerStatus, Open, RuleName};

/// Every caller since the start, and the list of those who are blocked.
pub struct Callers {
    clock: Arc<dyn Clock>,
    list: BlockList,
    rules: ArcSwap<Vec<Rules>>,
    table: std::sync::Mutex<Table>,
    blocks: watch::Sender<Arc<Blocks>>,
    /// Held while the list is being stored: one change after the other.
    storing: Mutex<()>,
}

/// Who is blocked.
#[derive(Clone, Debug, Default)]
struct Blocks {
    by_id: BTreeMap<CallerId, Block>,
    /// Why the list on disk says nothing; then everybody is.
    unreadable: Option<String>,
    /// The number of the next change.
    next: u64,
}

/// A block, and the number of the change that made it.
#[derive(Clone, Debug)]
struct Block {
    blocked: Blocked,
    change: u64,
    durable: bool,
}

/// What became of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerBlocked {
    /// The caller as it is now.
    pub caller: CallerStatus,
    /// Whether the block is stored. It holds even when it is not.
    pub durable: bool,
    /// Why it is not stored.
    pub why: Option<String>,
}

impl Callers {
    /// Reads the list of blocked callers. `rules` are those of every key set.
    #[must_use]
    pub fn open(clock: Arc<dyn Clock>, list: BlockList, rules: Vec<Rules>) -> Arc<Self> {
        let mut blocks = Blocks::default();
        match list.load() {
            Ok(stored) => {
                for blocked in stored {
                    blocks.insert(blocked, true);
                }
            }
            Err(e) => {
                tracing::error!("no caller is let in: {e}; then restart the agent");
                blocks.unreadable = Some(e.to_string());
            }
        }
        Arc::new(Self {
            clock,
            list,
            rules: ArcSwap::from_pointee(rules),
            table: std::sync::Mutex::default(),
            blocks: watch::channel(Arc::new(blocks)).0,
            storing: Mutex::new(()),
        })
    }

    /// The rules of every key set have changed.
    pub fn follow(&self, rules: Vec<Rules>) {
        self.rules.store(Arc::new(rules));
    }

    /// Welcomes a caller that connected, blocked or not.
    #[must_use]
    pub fn enter(self: &Arc<Self>, caller: Caller) -> Known {
        let now = self.now();
        let account = self.table().enter(&caller, now);
        let blocks = self.blocks.subscribe();
        Known(Arc::new(Inner {
            id: caller.id(),
            named: self.names(&caller),
            ids: caller.ids(),
            caller,
            callers: Arc::clone(self),
            account,
            blocks,
        }))
    }

    /// Who has called since the start, whom a rule names, and who is blocked;
    /// ordered by id.
    #[must_use]
    pub fn list(&self) -> Vec<CallerStatus> {
        let blocks = Arc::clone(&self.blocks.borrow());
        let mut all = self.table().statuses(&self.rules.load());
        for id in blocks.by_id.keys() {
            all.entry(id.to_string())
                .or_insert_with(|| CallerStatus::unseen(id, &self.rules.load()));
        }
        let mut all: Vec<_> = all.into_values().collect();
        for status in &mut all {
            if let Some(block) = blocks.first(&status.ids) {
                status.block = Some(block.blocked.clone());
                status.block_is_durable = block.durable;
            }
        }
        all
    }

    /// Blocks a caller, now: it holds when this is called, and is stored when
    /// this returns, if that can be.
    ///
    /// A caller that is blocked already stays so since the same instant.
    pub async fn block(&self, id: CallerId, by: &Caller, note: String) -> CallerBlocked {
        let blocked = Blocked {
            id: id.clone(),
            since: self.now(),
            by: by.to_string(),
            note,
        };
        self.blocks
            .send_modify(|blocks| Arc::make_mut(blocks).insert(blocked, false));
        tracing::warn!(event = "caller_blocked", caller = %id, %by, "caller blocked");
        let _one_at_a_time = self.storing.lock().await;
        let blocks = Arc::clone(&self.blocks.borrow());
        let why = self.store(blocks.all()).await.err();
        match &why {
            None => {
                let up_to = blocks.next;
                self.blocks
                    .send_modify(|blocks| Arc::make_mut(blocks).stored(up_to));
            }
            Some(why) => tracing::error!(caller = %id, "a block is not stored: {why}"),
        }
        CallerBlocked {
            caller: self.status(&id),
            durable: why.is_none(),
            why,
        }
    }

    /// Lets a caller in again, once that is stored. `false` for one that was
    /// not blocked.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] when it could not be stored: it is still
    /// blocked.
    pub async fn unblock(&self, id: &CallerId, by: &Caller) -> Result<bool, AdminError> {
        let _one_at_a_time = self.storing.lock().await;
        let blocks = Arc::clone(&self.blocks.borrow());
        if let Some(why) = &blocks.unreadable {
            return Err(AdminError::Unavailable {
                reason: "BLOCK_LIST_UNREADABLE",
                why: format!("nobody is let in: {why}; then restart the agent"),
                retry_after: None,
            });
        }
        let Some(block) = blocks.by_id.get(id) else {
            return Ok(false);
        };
        let others = blocks.all().filter(|blocked| blocked.id != *id);
        self.store(others)
            .await
            .map_err(|why| AdminError::Unavailable {
                reason: "BLOCK_LIST_NOT_STORED",
                why: format!("{id} is still blocked: {why}"),
                retry_after: None,
            })?;
        // Blocked anew meanwhile: that came later, and is stored next.
        self.blocks
            .send_modify(|blocks| Arc::make_mut(blocks).remove(id, block.change));
        tracing::warn!(event = "caller_unblocked", caller = %id, %by, "caller unblocked");
        Ok(true)
    }

    /// One caller as it is now.
    #[must_use]
    pub fn status(&self, id: &CallerId) -> CallerStatus {
        let name = id.to_string();
        let found = self.list().into_iter().find(|status| status.id == name);
        found.unwrap_or_else(|| CallerStatus::unseen(id, &self.rules.load()))
    }

    async fn store(&self, blocked: impl Iterator<Item = Blocked>) -> Result<(), String> {
        if let Some(why) = &self.blocks.borrow().unreadable {
            // Writing would end what it may still say.
            return Err(why.clone());
        }
        let (list, blocked) = (self.list.clone(), blocked.collect::<Vec<_>>());
        let stored = tokio::task::spawn_blocking(move || list.put(&blocked)).await;
        match stored {
            Ok(stored) => stored.map_err(|e| e.to_string()),
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }

    /// Whether any rule is about a caller. Where no key set is configured,
    /// nobody is told apart.
    fn names(&self, caller: &Caller) -> bool {
        let all = self.rules.load();
        let mut rules = all.iter().flat_map(Rules::rules);
        all.is_empty() || rules.any(|rule| rule.who.matches(caller))
    }

    fn now(&self) -> Time {
        self.clock.read().wall
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // Nothing below the lock can panic half-way through a change.
        self.table
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Blocks {
    fn insert(&mut self, blocked: Blocked, durable: bool) {
        let change = self.next;
        self.next += 1;
        let since = self.by_id.get(&blocked.id).map(|old| old.blocked.since);
        let block = Block {
            blocked: Blocked {
                since: since.unwrap_or(blocked.since),
                ..blocked
            },
            change,
            durable,
        };
        self.by_id.insert(block.blocked.id.clone(), block);
    }

    fn remove(&mut self, id: &CallerId, change: u64) {
        if self
            .by_id
            .get(id)
            .is_some_and(|block| block.change == change)
        {
            self.by_id.remove(id);
        }
    }

    /// Changes before this one are on disk.
    fn stored(&mut self, before: u64) {
        for block in self.by_id.values_mut() {
            block.durable |= block.change < before;
        }
    }

    fn all(&self) -> impl Iterator<Item = Blocked> {
        self.by_id.values().map(|block| block.blocked.clone())
    }

    fn first(&self, ids: &[CallerId]) -> Option<&Block> {
        ids.iter().find_map(|id| self.by_id.get(id))
    }
}

/// A caller on its connection. Cheap to clone.
#[derive(Clone)]
pub struct Known(Arc<Inner>);

struct Inner {
    caller: Caller,
    id: CallerId,
    named: bool,
    ids: Vec<CallerId>,
    callers: Arc<Callers>,
    account: Arc<Account>,
    blocks: watch::Receiver<Arc<Blocks>>,
}

impl Known {
    /// Its stable id.
    #[must_use]
    pub fn id(&self) -> &CallerId {
        &self.0.id
    }

    /// Whether any rule is about it.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.0.named
    }

    /// Counts what it found no room for.
    pub fn turned_away(&self) {
        self.0.account.turned_away();
    }

    /// Counts a call that is open until what is returned is dropped.
    #[must_use]
    pub fn opens(&self) -> Open {
        Open::of(&self.0.account)
    }

    /// Counts a request.
    pub fn asked(&self) {
        self.0.account.asked(self.0.callers.now());
    }

    /// Counts a refusal.
    pub fn refused(&self) {
        self.0.account.refused();
    }

    /// Whether it may ask for anything at all.
    ///
    /// # Errors
    /// [`Reason::CallerBlocked`] for one whom an operator blocked, by any of
    /// its ids; [`SignError::Unavailable`] where nobody knows who is blocked.
    pub fn check(&self) -> Result<(), SignError> {
        let blocks = self.0.blocks.borrow();
        if blocks.unreadable.is_some() {
            return Err(SignError::Unavailable {
                reason: "BLOCK_LIST_UNREADABLE",
                why: "the list of blocked callers cannot be read".to_owned(),
                retry_after: None,
            });
        }
        let Some(block) = blocks.first(&self.0.ids) else {
            return Ok(());
        };
        Err(SignError::Refused(Refusal::new(
            Reason::CallerBlocked,
            "builtin.caller_not_blocked",
            format!("{} is blocked", block.blocked.id),
            format!(
                "an operator can let it in again: `sealkeeper callers unblock {}`; `sealkeeper callers list` shows who is blocked",
                block.blocked.id
            ),
        )))
    }

    /// Ends when the caller *becomes* blocked: one that is blocked already may
    /// ask, and is told.
    pub async fn dismissed(&self) {
        let mut blocks = self.0.blocks.clone();
        let is_blocked = |blocks: &Arc<Blocks>| blocks.first(&self.0.ids).is_some();
        // Each fails only when the callers are gone, and `self` holds them.
        let _ = blocks.wait_for(|blocks| !is_blocked(blocks)).await;
        let _ = blocks.wait_for(is_blocked).await;
    }
}

impl Deref for Known {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0.caller
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.caller.fmt(f)
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Known").field(&self.0.caller).finish()
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Callers").field(&self.list).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
