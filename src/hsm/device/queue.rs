//! Who signs next, and who is turned away: a queue with a flow for each key
//! set. A plain value: the time is an argument, and nothing here waits.
//!
//! **Fair.** Flows take turns, one signature each. A full queue takes a place
//! from the longest flow and never from one with fewer.
//!
//! **Bounded in time.** What would wait for longer than makes sense is turned
//! away at once, with the time after which it would not. How long that is
//! depends:
//!
//! - A crowd is let in up to `max_wait`: callers who ask again only once they
//!   are answered never see a refusal, however many they are, while their
//!   queue is shorter than that.
//! - A flow that asks for more than that asks for more than its share of the
//!   device, and a queue only makes all of it wait. From then on, and until
//!   its share has had time to spare for what was turned away, its queue is
//!   kept as short as keeps the device busy. Other flows' queues are not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pace::Pace;

/// In overload, what may stand in the queue: so many times what one signature
/// takes, so that an accepted request takes a few times what it takes on a
/// quiet device. Less than [`LEAST_STANDING`] would only show how processes
/// are scheduled.
const STANDING: u32 = 2;
const LEAST_STANDING: Duration = Duration::from_millis(3);

/// The bounds of what a refused caller is told. Before anything is known
/// about the device, it is [`RETRY_UNKNOWN`].
const RETRY_LEAST: Duration = Duration::from_millis(1);
const RETRY_MOST: Duration = Duration::from_secs(5);
const RETRY_UNKNOWN: Duration = Duration::from_millis(100);

/// What a queue grants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many may wait, all flows together. At least one.
    pub(super) places: usize,
    /// How long a crowd may wait.
    pub(super) max_wait: Duration,
}

/// What waits for a device.
#[derive(Debug)]
pub(super) struct Queue<T> {
    limits: Limits,
    pace: Pace,
    /// Flows in which something waits, or that are in debt.
    flows: BTreeMap<Arc<str>, Flow<T>>,
    /// Those in which something waits, the next first.
    turns: VecDeque<Arc<str>>,
    waiting: usize,
    /// How much of the device a flow in which nothing waits could have had,
    /// from the beginning.
    leisure: Duration,
}

#[derive(Debug)]
struct Flow<T> {
    line: VecDeque<T>,
    /// How long the device would have taken for what was turned away, less
    /// the time that it has had for this flow since. At most `max_wait`.
    debt: Duration,
    /// Up to which leisure the debt was paid, if nothing waits.
    paid: Duration,
}

/// What became of an offer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered<T> {
    /// It waits.
    Accepted,
    /// It waits, in the place of this one from a longer flow.
    InPlaceOf(T, Refusal),
    /// It does not.
    Refused(T, Refusal),
}

/// Why there is no place, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// How many wait.
    pub(super) waiting: usize,
    /// When it makes sense to try again.
    pub(super) retry_after: Duration,
}

impl<T> Queue<T> {
    pub(super) fn new(limits: Limits, workers: usize, now: Instant) -> Self {
        Self {
            limits: Limits {
                places: limits.places.max(1),
                ..limits
            },
            pace: Pace::new(workers, now),
            flows: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            leisure: Duration::ZERO,
        }
    }

    /// Takes a request in, or turns one away.
    pub(super) fn offer(
        &mut self,
        flow: &str,
        item: T,
        deadline: Instant,
        now: Instant,
    ) -> Offered<T> {
        self.lapse(now);
        self.pay(flow);
        let own = self.own(flow);
        let wait = self.wait(flow, own);
        if let Some(wait) = wait {
            if wait > self.longest_wait(flow, own) {
                return Offered::Refused(item, self.turn_away(flow, Some(wait)));
            }
            // A queue that others made is no reason to keep somebody waiting
            // for nothing; that the device is slow is for the deadline to say.
            if !wait.is_zero() && wait > deadline.saturating_duration_since(now) {
                return Offered::Refused(item, self.refusal(flow, Some(wait)));
            }
        }
        if self.waiting < self.limits.places {
            self.push(flow, item);
            return Offered::Accepted;
        }
        match self.push_out(own + 1) {
            Some((longest, out)) => {
                self.push(flow, item);
                let wait = self.wait(&longest, self.own(&longest));
                Offered::InPlaceOf(out, self.turn_away(&longest, wait))
            }
            None => Offered::Refused(item, self.turn_away(flow, wait)),
        }
    }

    /// The next one to sign. What it is about is for the caller to look at:
    /// it may have expired.
    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        self.lapse(now);
        let name = self.turns.pop_front()?;
        let flow = self.flows.get_mut(&name)?;
        let item = flow.line.pop_front()?;
        self.waiting -= 1;
        flow.paid = self.leisure;
        if !flow.line.is_empty() {
            self.turns.push_back(name);
        } else if flow.debt.is_zero() {
            self.flows.remove(&name);
        }
        Some(item)
    }

    /// Lets those go that are not worth keeping.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool, now: Instant) {
        self.lapse(now);
        for flow in self.flows.values_mut().filter(|flow| !flow.line.is_empty()) {
            flow.line.retain(&keep);
            flow.paid = self.leisure;
        }
        let flows = &self.flows;
        self.turns
            .retain(|name| flows.get(name).is_some_and(|flow| !flow.line.is_empty()));
        self.waiting = flows.values().map(|flow| flow.line.len()).sum();
        let names: Vec<_> = flows.keys().cloned().collect();
        names.iter().for_each(|name| self.pay(name));
    }

    /// So many were sent to the device.
    pub(super) fn sent(&mut self, n: usize, now: Instant) {
        self.lapse(now);
        self.pace.sent(n, now);
    }

    /// So many were answered; `signed` of them were work for the device.
    pub(super) fn landed(&mut self, n: usize, signed: usize, now: Instant) {
        self.lapse(now);
        self.pace.landed(n, signed, now);
    }

    /// What was in flight is lost.
    pub(super) fn lost(&mut self, now: Instant) {
        self.lapse(now);
        self.pace.lost(now);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    fn own(&self, flow: &str) -> usize {
        self.flows.get(flow).map_or(0, |flow| flow.line.len())
    }

    fn flow(&mut self, name: &str) -> &mut Flow<T> {
        if !self.flows.contains_key(name) {
            let flow = Flow {
                line: VecDeque::new(),
                debt: Duration::ZERO,
                paid: self.leisure,
            };
            self.flows.insert(name.into(), flow);
        }
        self.flows.get_mut(name).expect("it was put there")
    }

    fn push(&mut self, flow: &str, item: T) {
        self.waiting += 1;
        let line = &mut self.flow(flow).line;
        line.push_back(item);
        if line.len() == 1 {
            self.turns.push_back(flow.into());
        }
    }

    /// The newest of the longest flow, if that one has more than `fair`, and
    /// that flow.
    fn push_out(&mut self, fair: usize) -> Option<(Arc<str>, T)> {
        let longest = self
            .flows
            .iter_mut()
            .max_by_key(|(_, flow)| flow.line.len());
        let (name, longest) = longest?;
        if longest.line.len() <= fair {
            return None;
        }
        self.waiting -= 1;
        // At least `fair` stay behind, so it keeps its turn.
        Some((Arc::clone(name), longest.line.pop_back()?))
    }

    /// How long a request would wait in a flow that has `own` before it.
    fn wait(&self, flow: &str, own: usize) -> Option<Duration> {
        let others = self.flows.iter().filter(|(name, _)| &***name != flow);
        let before: usize = others.map(|(_, flow)| flow.line.len().min(own + 1)).sum();
        self.pace.wait(own + before)
    }

    /// The longest that the next of a flow with `own` may wait.
    fn longest_wait(&self, flow: &str, own: usize) -> Duration {
        let owes = self
            .flows
            .get(flow)
            .is_some_and(|flow| !flow.debt.is_zero());
        // The first of a flow is let in, or others could keep it out for ever.
        if !owes || own == 0 {
            return self.limits.max_wait;
        }
        let standing = self.pace.service().unwrap_or_default() * STANDING;
        // A share of the device is so many times slower.
        let flows = u32::try_from(self.turns.len()).unwrap_or(u32::MAX);
        standing
            .max(LEAST_STANDING)
            .saturating_mul(flows)
            .min(self.limits.max_wait)
    }

    /// Counts what the flow asked for and does not get.
    fn turn_away(&mut self, flow: &str, wait: Option<Duration>) -> Refusal {
        let most = self.limits.max_wait;
        if let Some(each) = self.pace.each().filter(|each| !each.is_zero()) {
            let flow = self.flow(flow);
            flow.debt = (flow.debt + each).min(most);
        }
        self.refusal(flow, wait)
    }

    /// When what is waiting and what was turned away would be done: whoever
    /// comes back then finds a device that had time for all of them.
    fn refusal(&self, flow: &str, wait: Option<Duration>) -> Refusal {
        let debt = self
            .flows
            .get(flow)
            .map_or(Duration::ZERO, |flow| flow.debt);
        let retry_after = wait.map_or(RETRY_UNKNOWN, |wait| {
            (wait + debt).clamp(RETRY_LEAST, RETRY_MOST)
        });
        Refusal {
            waiting: self.waiting,
            retry_after,
        }
    }

    /// Takes off a flow's debt what the device had time for since.
    fn pay(&mut self, name: &str) {
        let Some(flow) = self.flows.get_mut(name) else {
            return;
        };
        if !flow.line.is_empty() {
            return;
        }
        flow.debt = flow.debt.saturating_sub(self.leisure - flow.paid);
        flow.paid = self.leisure;
        if flow.debt.is_zero() {
            self.flows.remove(name);
        }
    }

    fn lapse(&mut self, now: Instant) {
        let (passed, spare) = self.pace.lapse(now);
        self.leisure += match u32::try_from(self.turns.len()) {
            Ok(0) => spare,
            // It would be one of so many.
            Ok(others) => passed / (others + 1),
            Err(_) => Duration::ZERO,
        };
    }
}

#[cfg(test)]
mod tests;
