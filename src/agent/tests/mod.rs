//! The writer on a disk, a store and a device that fail as they are told.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on is a test that fails"
)]

mod device;
mod forced;
mod hold;
mod last_good;
mod last_key;
mod log;
mod notes;
mod outdated;
mod overdue;
mod probes;
mod publicity;
mod revoke;
mod troubles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use self::device::{Device, Mood};
use super::admin::{AfterRevocation, Change, Order, RevocationReason};
use super::context::{Context, Ports};
use super::orders::Asked;
use super::pulse::Pulse;
use super::reader::Reader;
use super::writer::Writer;
use super::*;
use crate::audit::{Audit, KeyEvent, Limits};
use crate::clock::ManualClock;
use crate::durable::sim::SimDisk;
use crate::durable::{LastGood, Tombstones};
use crate::jose::{Algorithm, KeyType, Offer};
use crate::keyring::{ONLY_GROUP, Phase, Shown, Timing};
use crate::metrics::Metrics;
use crate::policy::rules::Draft;
use crate::store::memory::Memory;
use crate::time::{Span, Time};

const NAME: &str = "main";

/// Everything that outlives an agent.
struct Bench {
    disk: SimDisk,
    store: Memory,
    clock: Arc<ManualClock>,
    device: Device,
}

impl Bench {
    /// A key set that `init` has begun: one key is active.
    async fn begun() -> Self {
        let bench = Self {
            disk: SimDisk::new(),
            store: Memory::new(),
            clock: Arc::new(ManualClock::new(Time::from_secs(1_800_000_000))),
            device: Device::new(),
        };
        init(bench.context(), wanted(), None, |_| {}).await.unwrap();
        bench
    }

    fn context(&self) -> Context {
        let disk = || Arc::new(self.disk.clone());
        let audit = Audit::open(disk(), "/audit", "one", Limits::default()).unwrap();
        let mut context = Context::new(Ports {
            replica: "one".to_owned(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            store: Arc::new(self.store.clone()),
            audit: Arc::new(audit),
            tombstones: Tombstones::open(disk(), "/tombstones").unwrap(),
            last_good: LastGood::open(disk(), "/jwks").unwrap(),
            devices: BTreeMap::new(),
            metrics: Metrics::new(),
        });
        context.hands = Some(self.device.hands());
        context
    }

    /// An agent that has just started. One at a time.
    async fn writer(&self) -> Writer {
        let wanted = wanted();
        let context = Arc::new(self.context());
        let figures = context.metrics.key_set(NAME);
        let (terms, pulse) = (Terms::of(&wanted, None), Pulse::default());
        let reader = Reader::new(NAME, terms, figures, pulse);
        let mut writer = Writer::new(context, Arc::new(reader), wanted.plan);
        writer.load().await;
        writer
    }
}

fn wanted() -> Wanted {
    let timing = Timing::default();
    let draft = Draft {
        key_set: NAME.to_owned(),
        issuer: "https://issuer.example".to_owned(),
        max_token_lifetime: timing.max_token_lifetime,
        default_lifetime: timing.max_token_lifetime,
        skew: timing.skew,
        max_payload: 1024,
        rules: Vec::new(),
    };
    Wanted {
        own: None,
        name: NAME.to_owned(),
        approvals: None,
        historical_keys: false,
        plan: Plan {
            timing,
            tracks: vec![(Algorithm::Ed25519, KeyType::Ed25519)],
            device: "hsm".to_owned(),
            group: ONLY_GROUP.to_owned(),
            origins: BTreeSet::from(["web".to_owned()]),
            two_people: false,
        },
        rules: Rules::try_from(draft).unwrap(),
        origins: Vec::new(),
    }
}

impl Writer {
    /// Steps, and lets the device do all that it is asked, until nothing is
    /// left to do.
    async fn settle(&mut self) {
        for _ in 0..10 {
            self.tick().await;
            self.start_intents();
            let held = self.held.as_ref();
            if held.is_none_or(|held| held.record.set.intents.is_empty()) {
                return;
            }
            let (id, result) = self.tasks.next().await;
            self.report(id, result).await;
        }
        panic!("it does not come to rest");
    }

    async fn order(&mut self, change: Change) -> Result<Changed, AdminError> {
        let order = Order {
            request_id: format!("{change:?}"),
            key_set: NAME.to_owned(),
            expected_version: None,
            change,
        };
        let caller = Caller::Unix {
            uid: 7,
            gid: 7,
            groups: BTreeSet::new(),
            pid: None,
        };
        let (reply, answer) = oneshot::channel();
        self.answer(Asked {
            caller,
            order,
            reply,
            block: None,
        })
        .await;
        answer.await.unwrap()
    }

    /// The `kid`s that verifiers get now.
    fn shown(&self) -> Vec<String> {
        shown(&self.reader)
    }

    /// What an origin shows that follows at once.
    fn served(&self) -> Shown {
        let snapshot = self.reader.load();
        let body = &snapshot.published.as_ref().unwrap().body;
        Offer::all(body).unwrap().into()
    }

    /// The `kid`s of this phase, by the record.
    fn kids(&self, wanted: fn(&Phase) -> bool) -> Vec<String> {
        let keys = self.held.as_ref().unwrap().record.set.keys.values();
        keys.filter(|key| wanted(&key.phase))
            .filter_map(|key| key.kid.clone())
            .collect()
    }

    fn active(&self) -> String {
        self.kids(|phase| matches!(phase, Phase::Active { .. }))
            .remove(0)
    }

    /// Every key event that the log has.
    fn logged_events(&self) -> Vec<KeyEvent> {
        let events = self.context.audit.key_events().into_iter();
        events.map(|recorded| recorded.what).collect()
    }
}

fn shown(reader: &Reader) -> Vec<String> {
    let snapshot = reader.load();
    let Some(published) = &snapshot.published else {
        return Vec::new();
    };
    let set: serde_json::Value = serde_json::from_slice(&published.body).unwrap();
    let keys = set["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

fn confirm(reading: Time) -> Change {
    let note = String::new();
    Change::ConfirmClock { reading, note }
}

fn rotate() -> Change {
    Change::Rotate {
        algorithm: None,
        force: false,
        note: String::new(),
    }
}

fn revoke(kid: &str) -> Change {
    Change::Revoke {
        kid: kid.to_owned(),
        reason: RevocationReason::Superseded,
        then: Some(AfterRevocation::Wait),
        note: "ticket 12".to_owned(),
    }
}

/// Waits for a condition that other tasks bring about.
async fn wait_for(mut condition: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "gave up");
        ticks.tick().await;
    }
}

fn placeholder(writer: &Writer) -> String {
    writer.kids(|phase| *phase == Phase::Placeholder).remove(0)
}

/// An agent around a writer, which works on what it is asked when it is run.
fn agent(writer: &Writer) -> (Agent, mpsc::Receiver<Message>) {
    let (mailbox, inbox) = mpsc::channel(MAILBOX);
    let reader = Arc::clone(&writer.reader);
    let room = Room {
        reader,
        mailbox,
        archive: None,
    };
    let rooms = BTreeMap::from([(NAME.to_owned(), room)]);
    let agent = Agent(Arc::new(Inner {
        strangers: writer.context.metrics.key_set(""),
        context: Arc::clone(&writer.context),
        rooms,
        well_known: None,
        pulse: Pulse::default(),
    }));
    (agent, inbox)
}
