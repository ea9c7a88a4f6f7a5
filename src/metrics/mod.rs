//! Figures for Prometheus, behind typed handles.
//!
//! **Invariant:** what can be a label is bounded. Labels are names that the
//! configuration gives and words of this program; no text of a caller, no
//! `kid` (there is no end of them over the years), nothing of a claim.
//!
//! What is counted on the signing path is looked up once, at the start: there
//! it is an addition to an atomic number, and no lock.

mod gauges;
mod key_set;
mod webhook;

use std::sync::Arc;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use gauges::{DeviceState, Gauges};
pub use key_set::{InFlight, KeySetMetrics, Operation, Outcome};
pub use webhook::WebhookMetrics;

/// What [`Metrics::render`] returns: the classic text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is counted. Handles count on for as long as they live.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    in_flight: IntGaugeVec,
    refusals: IntCounterVec,
    total: HistogramVec,
    device: HistogramVec,
    record: HistogramVec,
    verification: HistogramVec,
    own: HistogramVec,
    jwks: IntCounterVec,
    connections: IntGaugeVec,
    accepted: IntCounterVec,
    turned_away: IntCounterVec,
    past_refused: IntCounterVec,
    store_failures: IntCounterVec,
    audit_failures: IntCounterVec,
    log_lines_lost: IntCounter,
    webhooks: webhook::Families,
}

/// A step of the store that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreStep {
    /// Reading a record.
    Load,
    /// Writing one. Another agent that was faster is no failure.
    Write,
}

/// A line of the log that can fail to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditLine {
    /// A signature, before it is released.
    Signing,
    /// An event in a key's life.
    KeyEvent,
}

/// The connections of one listener.
#[derive(Clone, Debug)]
pub struct Connections {
    open: IntGauge,
    accepted: IntCounter,
}

/// One connection, open until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

/// What one listener has no room for.
#[derive(Clone, Debug)]
pub struct Room([(RoomOf, IntCounter); 4]);

/// What there may be no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomOf {
    /// Requests in flight.
    Calls,
    /// What goes on for long.
    Streams,
    /// Bytes of requests and answers.
    Bytes,
    /// Connections of one caller, from wherever.
    Connections,
}

/// Answers to requests for one key set's JWKS.
#[derive(Clone, Debug)]
pub struct JwksRequests(Arc<[(u16, IntCounter); 3]>);

/// What a request for a JWKS is answered with.
const JWKS_STATUS: [u16; 3] = [200, 304, 404];

/// From 50 microseconds, which is less than any device takes, to 12 seconds,
/// which is longer than any caller waits; each twice the one before.
fn buckets() -> Vec<f64> {
    (0..19).map(|n| 0.000_05 * f64::from(1_u32 << n)).collect()
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        let new = Self {
            requests: make.counters(
                "sealkeeper_requests_total",
                "Signing requests by how they ended. The key set is empty where none of that name is configured.",
                &["operation", "key_set", "outcome"],
            ),
            in_flight: make.gauges(
                "sealkeeper_requests_in_flight",
                "Signing requests that are being worked on.",
                &["key_set"],
            ),
            refusals: make.counters(
                "sealkeeper_refusals_total",
                "Requests that policy refused, by reason and by the rule that refused.",
                &["key_set", "reason", "rule"],
            ),
            total: make.histograms(
                "sealkeeper_sign_seconds",
                "From a request to its released signature.",
            ),
            device: make.histograms(
                "sealkeeper_sign_device_seconds",
                "The share of the device in a released signature: the wait for it and the work.",
            ),
            record: make.histograms(
                "sealkeeper_sign_record_seconds",
                "The share of the log in a released signature. It works beside the device.",
            ),
            verification: make.histograms(
                "sealkeeper_sign_verification_seconds",
                "The share of the verification in a released signature.",
            ),
            own: make.histograms(
                "sealkeeper_sign_own_seconds",
                "What is left of a released signature: policy, encoding, and waiting for a processor.",
            ),
            jwks: make.counters(
                "sealkeeper_jwks_requests_total",
                "Answers to requests for a JWKS over HTTP, by status. The key set is empty where there is none of that name.",
                &["key_set", "status"],
            ),
            connections: make.gauges(
                "sealkeeper_connections",
                "Open connections.",
                &["listener"],
            ),
            accepted: make.counters(
                "sealkeeper_connections_total",
                "Connections that were accepted.",
                &["listener"],
            ),
            turned_away: make.counters(
                "sealkeeper_turned_away_total",
                "What a signing listener did not take because its caller held as much as it left to others: connections, calls, streams, or bytes of requests and answers.",
                &["listener", "of"],
            ),
            past_refused: make.counters(
                "sealkeeper_historical_keys_refused_total",
                "Requests for the document of historical keys that got none, by why there was none.",
                &["key_set", "reason"],
            ),
            store_failures: make.counters(
                "sealkeeper_store_failures_total",
                "Times that the store failed.",
                &["step"],
            ),
            audit_failures: make.counters(
                "sealkeeper_audit_failures_total",
                "Lines that the log did not take. What was to be signed was not released.",
                &["line"],
            ),
            log_lines_lost: make.counter(
                "sealkeeper_log_lines_lost_total",
                "Lines on standard error that were lost because nobody read them.",
            ),
            webhooks: webhook::Families::new(&make),
            registry: registry.clone(),
        };
        let build = make.gauges(
            "sealkeeper_build_info",
            "Always 1; the label tells the version.",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for step in [StoreStep::Load, StoreStep::Write] {
            new.store_failures.with_label_values(&[step.name()]);
        }
        for line in [AuditLine::Signing, AuditLine::KeyEvent] {
            new.audit_failures.with_label_values(&[line.name()]);
        }
        new
    }

    /// The handles of a key set. An empty name stands for every name that is
    /// not configured.
    #[must_use]
    pub fn key_set(&self, name: &str) -> KeySetMetrics {
        KeySetMetrics::new(self, name)
    }

    /// The answers to requests for a JWKS; an empty name as for
    /// [`Self::key_set`].
    #[must_use]
    pub fn jwks_requests(&self, key_set: &str) -> JwksRequests {
        JwksRequests(Arc::new(JWKS_STATUS.map(|status| {
            let labels = [key_set, &status.to_string()];
            (status, self.jwks.with_label_values(&labels))
        })))
    }

    /// Somebody asked for historical keys, and there were none to serve.
    pub fn past_refused(&self, key_set: &str, reason: &'static str) {
        let labels = [key_set, reason];
        self.past_refused.with_label_values(&labels).inc();
    }

    /// The connections of a listener.
    #[must_use]
    pub fn connections(&self, listener: &'static str) -> Connections {
        Connections {
            open: self.connections.with_label_values(&[listener]),
            accepted: self.accepted.with_label_values(&[listener]),
        }
    }

    /// What a signing listener does not take.
    #[must_use]
    pub fn room(&self, listener: &'static str) -> Room {
        Room(RoomOf::ALL.map(|of| {
            let labels = [listener, of.name()];
            (of, self.turned_away.with_label_values(&labels))
        }))
    }

    /// What is told to a webhook.
    #[must_use]
    pub fn webhook(&self, name: &str) -> WebhookMetrics {
        self.webhooks.of(name)
    }

    /// The store failed.
    pub fn store_failed(&self, step: StoreStep) {
        self.store_failures.with_label_values(&[step.name()]).inc();
    }

    /// The log did not take a line.
    pub fn audit_failed(&self, line: AuditLine) {
        self.audit_failures.with_label_values(&[line.name()]).inc();
    }

    /// Nobody read standard error, and this many lines were lost.
    pub fn log_lines_lost(&self, n: u64) {
        self.log_lines_lost.inc_by(n);
    }

    /// All figures as text: what was counted, and how things are right now.
    #[must_use]
    pub fn render(&self, now: &Gauges) -> String {
        let mut families = self.registry.gather();
        families.extend(now.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("a vector takes every byte, and each family has a figure");
        String::from_utf8(text).expect("names and labels are text")
    }
}

impl StoreStep {
    const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Write => "write",
        }
    }
}

impl AuditLine {
    const fn name(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::KeyEvent => "key_event",
        }
    }
}

impl RoomOf {
    const ALL: [Self; 4] = [Self::Calls, Self::Streams, Self::Bytes, Self::Connections];

    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Streams => "streams",
            Self::Bytes => "bytes",
            Self::Connections => "connections",
        }
    }
}

impl Room {
    /// There was none.
    pub fn turned_away(&self, wanted: RoomOf) {
        for (of, counter) in &self.0 {
            if *of == wanted {
                counter.inc();
            }
        }
    }
}

impl Connections {
    /// A connection came.
    #[must_use]
    pub fn open(&self) -> OpenConnection {
        self.accepted.inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl JwksRequests {
    /// One was answered.
    pub fn answered(&self, status: u16) {
        // Invariant: these are all that the edge answers with.
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == status) {
            counter.inc();
        }
    }
}

/// Makes families and registers them.
struct Maker<'a>(&'a Registry);

const SOUND: &str = "each name is valid and stands here once";

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        let made = IntCounter::new(name, help).expect(SOUND);
        self.0.register(Box::new(made.clone())).expect(SOUND);
        made
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let made = IntCounterVec::new(Opts::new(name, help), labels).expect(SOUND);
        self.0.register(Box::new(made.clone())).expect(SOUND);
        made
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let made = IntGaugeVec::new(Opts::new(name, help), labels).expect(SOUND);
        self.0.register(Box::new(made.clone())).expect(SOUND);
        made
    }

    fn histograms(&self, name: &str, help: &str) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets());
        let made = HistogramVec::new(options, &["key_set"]).expect(SOUND);
        self.0.register(Box::new(made.clone())).expect(SOUND);
        made
    }
}

#[cfg(test)]
mod tests;
