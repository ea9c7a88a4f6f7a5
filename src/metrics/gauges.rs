//! How things are right now: made anew for each scrape, so that what is gone
//! leaves no figure behind.

use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, Opts, Registry};

use super::SOUND;
use crate::jose::Algorithm;
use crate::keyring::{Discrepancy, Wrong};
use crate::time::Span;

/// One picture.
#[derive(Debug)]
pub struct Gauges {
    registry: Registry,
    keys: GaugeVec,
    age: GaugeVec,
    next_rotation: GaugeVec,
    overdue: GaugeVec,
    page: GaugeVec,
    signing: GaugeVec,
    track_signing: GaugeVec,
    jwks: GaugeVec,
    past: GaugeVec,
    past_left_out: GaugeVec,
    past_served: GaugeVec,
    doubt: GaugeVec,
    unwritten: GaugeVec,
    lost: GaugeVec,
    writer: GaugeVec,
    origin: GaugeVec,
    answered: GaugeVec,
    waived: GaugeVec,
    device: GaugeVec,
    waiting: GaugeVec,
}

/// How a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Being opened.
    Starting,
    /// Signing.
    Up,
    /// Tried again and again.
    Down,
    /// An operator has to look at its PIN.
    PinBlocked,
    /// Ended.
    Closed,
}

impl DeviceState {
    const ALL: [(Self, &str); 5] = [
        (Self::Starting, "starting"),
        (Self::Up, "up"),
        (Self::Down, "down"),
        (Self::PinBlocked, "pin_blocked"),
        (Self::Closed, "closed"),
    ];
}

impl Default for Gauges {
    fn default() -> Self {
        Self::new()
    }
}

impl Gauges {
    /// An empty picture.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = |name: &str, help: &str, labels: &[&str]| {
            let made = GaugeVec::new(Opts::new(name, help), labels).expect(SOUND);
            registry.register(Box::new(made.clone())).expect(SOUND);
            made
        };
        Self {
            keys: make(
                "sealkeeper_keys",
                "Keys by phase.",
                &["key_set", "algorithm", "phase"],
            ),
            age: make(
                "sealkeeper_active_key_age_seconds",
                "How old the active key is: from its generation, and from its activation.",
                &["key_set", "algorithm", "from"],
            ),
            next_rotation: make(
                "sealkeeper_next_rotation_seconds",
                "Until the active key is planned to be replaced; 0 once it should have been.",
                &["key_set", "algorithm"],
            ),
            overdue: make(
                "sealkeeper_rotation_overdue_seconds",
                "For how long the active key should have been replaced; 0 while all is well.",
                &["key_set", "algorithm"],
            ),
            page: make(
                "sealkeeper_rotation_page",
                "Whether the active key should have been replaced for longer than hard_limit: look at what it waits for.",
                &["key_set", "algorithm"],
            ),
            signing: make(
                "sealkeeper_key_set_signing",
                "Whether the key set signs with its default track.",
                &["key_set"],
            ),
            track_signing: make(
                "sealkeeper_track_signing",
                "Whether the track signs. One that was just added waits until verifiers hold its key.",
                &["key_set", "algorithm"],
            ),
            jwks: make(
                "sealkeeper_key_set_published",
                "Whether the JWKS can be served.",
                &["key_set"],
            ),
            past: make(
                "sealkeeper_historical_keys",
                "Keys that left the set and that the document of historical keys names; 0 while none is served.",
                &["key_set"],
            ),
            past_left_out: make(
                "sealkeeper_historical_keys_left_out",
                "Keys that left the set and that the document of historical keys has no room for, or knows too little of.",
                &["key_set"],
            ),
            past_served: make(
                "sealkeeper_historical_keys_served",
                "Whether the document of historical keys can be served: none is before a first one is signed, nor one that a revoked key signed.",
                &["key_set"],
            ),
            doubt: make(
                "sealkeeper_clock_in_doubt",
                "Whether an operator has to confirm the clock before any key moves.",
                &["key_set"],
            ),
            unwritten: make(
                "sealkeeper_revocations_in_memory",
                "Revocations that are in memory alone, as the disk takes nothing: a restart would forget them.",
                &["key_set"],
            ),
            lost: make(
                "sealkeeper_lost_standbys",
                "Keys that were to sign next, and that their token lacks: others are made in their place.",
                &["key_set"],
            ),
            origin: make(
                "sealkeeper_origin_wrong",
                "What is wrong at an address where verifiers get the JWKS: keys that it lacks, next keys that it does not show yet, revoked keys that it still shows, keys in place of which it shows something else (impostor), and whether it is silent.",
                &["key_set", "origin", "what"],
            ),
            answered: make(
                "sealkeeper_origin_answered_seconds",
                "Since an address where verifiers get the JWKS last answered.",
                &["key_set", "origin"],
            ),
            waived: make(
                "sealkeeper_origin_waived_seconds",
                "For how long no activation waits for an address where verifiers get the JWKS, by an operator's waiver; 0 where it counts.",
                &["key_set", "origin"],
            ),
            writer: make(
                "sealkeeper_writer_idle_seconds",
                "Since the key set's writer last came round; it does so every two seconds.",
                &["key_set"],
            ),
            device: make(
                "sealkeeper_device_state",
                "1 for the state that the device is in, 0 for the others.",
                &["device", "state"],
            ),
            waiting: make(
                "sealkeeper_device_queue_length",
                "Signatures that wait for the device.",
                &["device"],
            ),
            registry,
        }
    }

    /// How many keys are in a phase.
    pub fn keys(&self, key_set: &str, algorithm: Algorithm, phase: &'static str, count: usize) {
        let labels = [key_set, algorithm.name(), phase];
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 keys")]
        self.keys.with_label_values(&labels).set(count as f64);
    }

    /// How old a track's active key is.
    pub fn age(&self, key_set: &str, algorithm: Algorithm, generation: Span, activation: Span) {
        for (from, age) in [("generation", generation), ("activation", activation)] {
            let gauge = (self.age).with_label_values(&[key_set, algorithm.name(), from]);
            gauge.set(age.to_duration().as_secs_f64());
        }
    }

    /// When a track's active key is to be replaced, and how late that is.
    pub fn rotation(&self, key_set: &str, algorithm: Algorithm, left: Span, late: Span) {
        let labels = [key_set, algorithm.name()];
        let set = |gauges: &GaugeVec, span: Span| {
            let seconds = span.to_duration().as_secs_f64();
            gauges.with_label_values(&labels).set(seconds);
        };
        set(&self.next_rotation, left);
        set(&self.overdue, late);
    }

    /// Whether a track's rotation is so late that whoever is on call should
    /// know.
    pub fn page(&self, key_set: &str, algorithm: Algorithm, page: bool) {
        let labels = [key_set, algorithm.name()];
        set(self.page.with_label_values(&labels), page);
    }

    /// Whether a key set does its work.
    pub fn health(&self, key_set: &str, published: bool, signing: bool) {
        set(self.jwks.with_label_values(&[key_set]), published);
        set(self.signing.with_label_values(&[key_set]), signing);
    }

    /// What the document of historical keys says; nothing while none is served.
    pub fn past(&self, key_set: &str, named: Option<(usize, usize)>) {
        set(
            self.past_served.with_label_values(&[key_set]),
            named.is_some(),
        );
        let (named, left_out) = named.unwrap_or_default();
        for (gauge, count) in [(&self.past, named), (&self.past_left_out, left_out)] {
            #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 keys")]
            gauge.with_label_values(&[key_set]).set(count as f64);
        }
    }

    /// Whether a track signs.
    pub fn track(&self, key_set: &str, algorithm: Algorithm, signing: bool) {
        let labels = [key_set, algorithm.name()];
        set(self.track_signing.with_label_values(&labels), signing);
    }

    /// What a key set's writer last said of itself.
    pub fn writer(&self, key_set: &str, doubt: bool, idle: std::time::Duration) {
        set(self.doubt.with_label_values(&[key_set]), doubt);
        let idle = idle.as_secs_f64();
        self.writer.with_label_values(&[key_set]).set(idle);
    }

    /// How many revocations a restart would forget.
    pub fn unwritten(&self, key_set: &str, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 keys")]
        self.unwritten
            .with_label_values(&[key_set])
            .set(count as f64);
    }

    /// How many keys that were to sign next the token lacks.
    pub fn lost(&self, key_set: &str, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 keys")]
        self.lost.with_label_values(&[key_set]).set(count as f64);
    }

    /// What an origin shows, and since when it has said nothing.
    pub fn origin(
        &self,
        key_set: &str,
        origin: &str,
        age: Option<Span>,
        silent: bool,
        wrong: &[Discrepancy],
    ) {
        for what in Wrong::ALL {
            let n = wrong.iter().filter(|wrong| wrong.what == what).count();
            let labels = [key_set, origin, what.name()];
            let gauge = self.origin.with_label_values(&labels);
            #[expect(clippy::cast_precision_loss, reason = "no set has that many keys")]
            gauge.set(n as f64);
        }
        let gauge = (self.origin).with_label_values(&[key_set, origin, "silent"]);
        set(gauge, silent);
        if let Some(age) = age {
            let gauge = self.answered.with_label_values(&[key_set, origin]);
            gauge.set(age.to_duration().as_secs_f64());
        }
    }

    /// For how long an origin is not waited for.
    pub fn waived(&self, key_set: &str, origin: &str, left: Span) {
        let gauge = self.waived.with_label_values(&[key_set, origin]);
        gauge.set(left.to_duration().as_secs_f64());
    }

    /// How a device is, and how many signatures wait for it.
    pub fn device(&self, name: &str, state: DeviceState, waiting: usize) {
        for (known, word) in DeviceState::ALL {
            let gauge = self.device.with_label_values(&[name, word]);
            set(gauge, known == state);
        }
        #[expect(clippy::cast_precision_loss, reason = "no queue is that long")]
        self.waiting.with_label_values(&[name]).set(waiting as f64);
    }

    /// The families that hold a figure.
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

fn set(gauge: Gauge, holds: bool) {
    gauge.set(f64::from(u8::from(holds)));
}
