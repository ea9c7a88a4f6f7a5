//! The figures of one key set, and of one request while it lasts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::Metrics;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Claims in, token out.
    SignJwt,
    /// A signing input in, a signature out.
    SignJws,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a signature.
    Signed,
    /// The request was at fault.
    Refused,
    /// Something behind the agent was.
    Unavailable,
    /// There was more work than the device or the agent takes.
    Overloaded,
    /// Its time was up.
    Deadline,
    /// A defect.
    Internal,
    /// Nobody waited for the answer any more: the caller hung up, or its
    /// deadline passed first.
    Abandoned,
}

impl Operation {
    const ALL: [(Self, &str); 2] = [(Self::SignJwt, "sign-jwt"), (Self::SignJws, "sign-jws")];
}

impl Outcome {
    const ALL: [(Self, &str); 7] = [
        (Self::Signed, "signed"),
        (Self::Refused, "refused"),
        (Self::Unavailable, "unavailable"),
        (Self::Overloaded, "overloaded"),
        (Self::Deadline, "deadline"),
        (Self::Internal, "internal"),
        (Self::Abandoned, "abandoned"),
    ];
}

/// The handles of one key set.
#[derive(Debug)]
pub struct KeySetMetrics {
    name: String,
    /// By operation and outcome, in the order of their lists.
    requests: [[IntCounter; 7]; 2],
    in_flight: IntGauge,
    refusals: IntCounterVec,
    /// The refusals that there were, so that the next one of its kind finds
    /// its counter without a lock.
    refused: ArcSwap<BTreeMap<(&'static str, String), IntCounter>>,
    total: Histogram,
    device: Histogram,
    record: Histogram,
    verification: Histogram,
    own: Histogram,
}

/// How many pairs of reason and rule a key set may show. Both are this
/// program's and the configuration's own words, so there are few; should a
/// defect ever make them many, the rest share one figure.
pub(super) const MOST_REFUSALS: usize = 200;

impl KeySetMetrics {
    pub(super) fn new(all: &Metrics, name: &str) -> Self {
        let requests = Operation::ALL.map(|(_, operation)| {
            Outcome::ALL
                .map(|(_, outcome)| all.requests.with_label_values(&[operation, name, outcome]))
        });
        Self {
            name: name.to_owned(),
            requests,
            in_flight: all.in_flight.with_label_values(&[name]),
            refusals: all.refusals.clone(),
            refused: ArcSwap::default(),
            total: all.total.with_label_values(&[name]),
            device: all.device.with_label_values(&[name]),
            record: all.record.with_label_values(&[name]),
            verification: all.verification.with_label_values(&[name]),
            own: all.own.with_label_values(&[name]),
        }
    }

    /// A request came.
    #[must_use]
    pub fn begin(&self, operation: Operation) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight {
            key_set: self,
            operation,
            began: Instant::now(),
            outcome: Some(Outcome::Abandoned),
            device: Duration::ZERO,
            record: Duration::ZERO,
            verification: Duration::ZERO,
        }
    }

    /// A request was answered before it was begun.
    pub fn count(&self, operation: Operation, outcome: Outcome) {
        for (row, (known, _)) in self.requests.iter().zip(Operation::ALL) {
            for (counter, (ended, _)) in row.iter().zip(Outcome::ALL) {
                if known == operation && ended == outcome {
                    counter.inc();
                }
            }
        }
    }

    /// Policy refused a request.
    pub fn refused(&self, reason: &'static str, rule: &str) {
        let known = self.refused.load();
        if let Some(counter) = known.get(&(reason, rule.to_owned())) {
            counter.inc();
            return;
        }
        let rule = match known.len() < MOST_REFUSALS && is_a_name(rule) {
            true => rule,
            false => "other",
        };
        let labels = [&*self.name, reason, rule];
        let counter = self.refusals.with_label_values(&labels);
        counter.inc();
        self.refused.rcu(|known| {
            let mut known = BTreeMap::clone(known);
            known.insert((reason, rule.to_owned()), counter.clone());
            known
        });
    }
}

/// Whether this looks like a rule: `builtin.algorithms`,
/// `key_set.main.rule.login`.
fn is_a_name(rule: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-[]".contains(c);
    (1..=128).contains(&rule.len()) && rule.chars().all(fits)
}

/// One request, from its begin to its end. One that is dropped without an end
/// was abandoned.
#[derive(Debug)]
pub struct InFlight<'a> {
    key_set: &'a KeySetMetrics,
    operation: Operation,
    pub(super) began: Instant,
    /// None where this was not the end of it.
    outcome: Option<Outcome>,
    /// How long the device took, the wait for it included.
    pub device: Duration,
    /// How long the log took.
    pub record: Duration,
    /// How long the verification took.
    pub verification: Duration,
}

impl InFlight<'_> {
    /// The request has its answer.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// Its answer, if there will be one, is another's to count.
    pub fn uncounted(mut self) {
        self.outcome = None;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let set = self.key_set;
        set.in_flight.dec();
        if let Some(outcome) = self.outcome {
            set.count(self.operation, outcome);
        }
        if self.outcome != Some(Outcome::Signed) {
            // How fast something fails says nothing of how fast it signs.
            return;
        }
        let total = self.began.elapsed();
        // Device and log work at the same time.
        let others = self.device.max(self.record) + self.verification;
        let own = total.saturating_sub(others);
        for (histogram, took) in [
            (&set.total, total),
            (&set.device, self.device),
            (&set.record, self.record),
            (&set.verification, self.verification),
            (&set.own, own),
        ] {
            histogram.observe(took.as_secs_f64());
        }
    }
}
