//! The figures of webhooks.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Maker;
use crate::time::Span;

/// The families, each with the webhook as its label.
#[derive(Clone, Debug)]
pub(super) struct Families {
    delivered: IntCounterVec,
    failed: IntCounterVec,
    given_up: IntCounterVec,
    waiting: IntGaugeVec,
    oldest: IntGaugeVec,
}

/// The handles of one webhook.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    delivered: IntCounter,
    failed: IntCounter,
    given_up: IntCounter,
    waiting: IntGauge,
    oldest: IntGauge,
}

impl Families {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        const LABELS: [&str; 1] = ["webhook"];
        Self {
            delivered: make.counters(
                "sealkeeper_webhook_delivered_total",
                "Key events that a webhook's receiver has taken.",
                &LABELS,
            ),
            failed: make.counters(
                "sealkeeper_webhook_failed_total",
                "Tries to tell a webhook's receiver of a key event that failed. Each is tried again.",
                &LABELS,
            ),
            given_up: make.counters(
                "sealkeeper_webhook_given_up_total",
                "Key events that a webhook's receiver was not told of, after days of trying or because too many waited.",
                &LABELS,
            ),
            waiting: make.gauges(
                "sealkeeper_webhook_waiting",
                "Key events that a webhook's receiver has not taken yet.",
                &LABELS,
            ),
            oldest: make.gauges(
                "sealkeeper_webhook_oldest_waiting_seconds",
                "How long ago the oldest of those that wait happened; 0 where none waits.",
                &LABELS,
            ),
        }
    }

    pub(super) fn of(&self, name: &str) -> WebhookMetrics {
        let label = [name];
        WebhookMetrics {
            delivered: self.delivered.with_label_values(&label),
            failed: self.failed.with_label_values(&label),
            given_up: self.given_up.with_label_values(&label),
            waiting: self.waiting.with_label_values(&label),
            oldest: self.oldest.with_label_values(&label),
        }
    }
}

impl WebhookMetrics {
    /// The receiver took one.
    pub fn delivered(&self) {
        self.delivered.inc();
    }

    /// A try failed.
    pub fn failed(&self) {
        self.failed.inc();
    }

    /// One is not tried any more.
    pub fn gave_up(&self) {
        self.given_up.inc();
    }

    /// How many wait, and for how long the oldest of them has.
    pub fn waiting(&self, count: usize, oldest: Span) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.oldest.set(oldest.as_secs());
    }
}
