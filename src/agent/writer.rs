//! The one writer of a key set: every change of its record goes through here,
//! one after the other.
//!
//! A change is made on a copy, stored by compare-and-swap, and only then seen
//! by readers. If the store says that somebody else was faster, the copy is
//! thrown away and the change is made again on what the store has. What a
//! device must do is done beside this loop and reported back into it, so a
//! slow device delays no rotation of a track that does not need it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::Context;
use super::admin::{AdminError, KeySetStatus};
use super::effects;
use super::failpoint::{Effect, Side, hit};
use super::orders::Asked;
use super::reader::{Dark, PublishedSet, Reader, Signers, Snapshot};
use super::record::{Record, RecordError};
use crate::hsm::DeviceError;
use crate::keyring::{
    ClockGuard, Doubt, Event, Genesis, IntentId, KeyId, KeySet, Outcome, Plan, Reason, Then, Tick,
    View,
};
use crate::store::{StoreError, Version};
use crate::time::{Span, Time};

/// What others tell the writer.
pub(super) enum Message {
    /// An origin answered with these `kid`s.
    Seen {
        /// Its name.
        origin: String,
        /// What its set holds.
        kids: BTreeSet<String>,
    },
    /// An operator wants something.
    Asked(Asked),
    /// An operator wants to see the key set.
    Status(oneshot::Sender<Result<KeySetStatus, AdminError>>),
    /// The store has a version that this agent did not write.
    StoreChanged,
}

/// The writer's own state. All of it but the record can be lost at any
/// instant.
pub(super) struct Writer {
    pub(super) context: Arc<Context>,
    pub(super) reader: Arc<Reader>,
    pub(super) plan: Plan,
    pub(super) held: Option<Held>,
    /// The last record that was good, while there is none.
    pub(super) last: Option<Held>,
    pub(super) guard: ClockGuard,
    /// When each origin last answered.
    live: BTreeMap<String, Time>,
    /// Why there is no usable record, as readers were told.
    pub(super) dark: Option<Dark>,
    /// The epoch that readers have.
    adopted: u64,
    /// The number of the last key event that the log has.
    pub(super) logged: u64,
    /// Revocations that hold in memory and on disk but not yet in the store.
    pub(super) owed: BTreeMap<String, (Reason, Option<Then>)>,
    running: JoinSet<Result<Outcome, DeviceError>>,
    tasks: HashMap<tokio::task::Id, IntentId>,
    started: BTreeSet<IntentId>,
    retries: BTreeMap<IntentId, (Instant, Duration)>,
    /// Answers to orders, so that the same request is carried out once.
    pub(super) answered: super::orders::Answered,
}

/// A record and the version under which the store has it.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) record: Record,
    pub(super) version: Option<Version>,
}

/// Why a step was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError<E> {
    /// There is nothing to change.
    #[error("the key set has no usable record")]
    NoRecord,
    #[error("the clock is in doubt: {0}")]
    Doubt(Doubt),
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Record(RecordError),
    /// Other writers were faster each time.
    #[error("the record kept changing")]
    Contended,
    /// The keyring said no.
    #[error("{0}")]
    Keyring(E),
}

/// Which time a step accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// One that is believed: permissions, and whatever destroys.
    Sure,
    /// An estimate will do: restrictions, and what a device has done already.
    Any,
}

/// How often a step is tried again when other writers are faster.
const CONTENTION: usize = 16;

/// The writer looks at the world at least this often: a store that changed
/// without telling, a clock that moved, an origin that died.
const HEARTBEAT: Duration = Duration::from_secs(2);

impl Writer {
    pub(super) fn new(context: Arc<Context>, reader: Arc<Reader>, plan: Plan) -> Self {
        Self {
            context,
            reader,
            plan,
            held: None,
            last: None,
            guard: ClockGuard::default(),
            live: BTreeMap::new(),
            dark: None,
            adopted: 0,
            logged: 0,
            owed: BTreeMap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            started: BTreeSet::new(),
            retries: BTreeMap::new(),
            answered: super::orders::Answered::default(),
        }
    }

    /// Works on what was loaded until every sender is gone.
    pub(super) async fn run(mut self, mut mailbox: mpsc::Receiver<Message>) {
        loop {
            self.tick().await;
            self.start_intents();
            let wake = self.wake();
            tokio::select! {
                message = mailbox.recv() => match message {
                    Some(message) => self.handle(message).await,
                    None => return,
                },
                Some(done) = self.running.join_next_with_id() => {
                    let task = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
                    let result = done.map(|(_, result)| result.map_err(|e| e.to_string()));
                    if let Some(id) = self.tasks.remove(&task) {
                        self.report(id, result.unwrap_or_else(|e| Err(e.to_string()))).await;
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Seen { origin, kids } => self.seen(&origin, &kids).await,
            Message::Asked(asked) => self.answer(asked).await,
            Message::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Message::StoreChanged => self.load_if_changed().await,
        }
    }

    // -- Steps -----------------------------------------------------------

    /// Changes the record: on a copy, stored, then shown. The change may be
    /// made several times, on newer copies.
    pub(super) async fn step<T, E>(
        &mut self,
        clock: Clock,
        change: impl Fn(&mut KeySet, &Plan, &Tick) -> Result<(T, Vec<Event>), E>,
    ) -> Result<T, StepError<E>> {
        for _ in 0..CONTENTION {
            let now = match (self.now(), clock) {
                (Ok(now), _) | (Err((_, now)), Clock::Any) => now,
                (Err((doubt, _)), Clock::Sure) => return Err(StepError::Doubt(doubt)),
            };
            let tick = self.tick_for(now);
            let held = self.held.as_ref().ok_or(StepError::NoRecord)?;
            let mut next = held.record.clone();
            let (value, events) =
                change(&mut next.set, &self.plan, &tick).map_err(StepError::Keyring)?;
            let logged = self.logged;
            next.outbox.retain(|event| event.number > logged);
            if events.is_empty() && !next.set.is_worth_storing(&held.record.set, &self.plan) {
                return Ok(value);
            }
            next.post(events);
            match self.store(next).await {
                Ok(()) => return Ok(value),
                Err(StoreError::Conflict { .. }) => self.load().await,
                Err(e) => {
                    // The write may have happened all the same: the next step
                    // begins with what the store really has.
                    self.go_dark(Dark::NoStore(e.to_string()));
                    return Err(StepError::Store(e));
                }
            }
        }
        Err(StepError::Contended)
    }

    /// Stores a record and shows it. A crash before the write loses only what
    /// can be done again; a crash after it loses only what readers see anew at
    /// the next start.
    pub(super) async fn store(&mut self, record: Record) -> Result<(), StoreError> {
        let expected = self.held.as_ref().and_then(|held| held.version.clone());
        let bytes = record.to_bytes();
        hit(Side::Before, Effect::StoreRecord);
        let version = self
            .context
            .store
            .compare_and_swap(&self.reader.name, expected, &bytes)
            .await?;
        hit(Side::After, Effect::StoreRecord);
        let held = Held {
            record,
            version: Some(version),
        };
        self.held = Some(held.clone());
        self.log_events(&held).await;
        if !matches!(held.record.set.genesis, Genesis::Pending { .. }) {
            self.show(&held).await;
        }
        Ok(())
    }

    /// Appends the outbox to the log. What fails stays in the outbox.
    async fn log_events(&mut self, held: &Held) {
        for event in &held.record.outbox {
            if event.number <= self.logged {
                continue;
            }
            hit(Side::Before, Effect::AppendKeyEvents);
            match self.context.log_key_event(event).await {
                Ok(()) => self.logged = event.number,
                Err(e) => {
                    tracing::error!(
                        key_set = self.reader.name,
                        "the log takes no key event: {e}"
                    );
                    return;
                }
            }
            hit(Side::After, Effect::AppendKeyEvents);
        }
    }

    /// Gives readers the view of a record that is stored.
    pub(super) async fn show(&mut self, held: &Held) {
        let set = &held.record.set;
        let view = set.view(&self.plan, None);
        let view = Arc::new(match self.with_owed(held) {
            Some(restricted) => view.publishing(restricted.view(&self.plan, None).published),
            None => view,
        });
        let published = PublishedSet::of(&view);
        if set.epoch != self.adopted || !self.owed.is_empty() {
            hit(Side::Before, Effect::WriteLastGood);
            self.context
                .write_last_good(&self.reader.name, &published.body)
                .await;
            hit(Side::After, Effect::WriteLastGood);
        }
        self.show_view(view, published, set.high_water);
        self.adopted = set.epoch;
    }

    /// The key set as it will be when every owed revocation is stored; none
    /// if nothing is owed. Verifiers are not to see a revoked key again for as
    /// long as the store is full, nor after a crash before it was written.
    fn with_owed(&self, held: &Held) -> Option<KeySet> {
        if self.owed.is_empty() {
            return None;
        }
        let mut set = held.record.set.clone();
        let tick = self.tick_for(set.high_water);
        for (kid, (reason, then)) in &self.owed {
            // Refused only for a key that the set does not know: none is shown.
            let then = then.or(Some(Then::Wait));
            let _ = set.revoke(kid, *reason, then, &self.plan, &tick);
        }
        Some(set)
    }

    /// Swaps what readers see.
    fn show_view(&self, view: Arc<View>, published: PublishedSet, high_water: Time) {
        let signers = Signers::new(view, self.guard.clone(), high_water);
        hit(Side::Before, Effect::SwapView);
        self.reader.swap(Snapshot {
            signers: Ok(Arc::new(signers)),
            published: Some(published),
        });
        hit(Side::After, Effect::SwapView);
    }

    // -- What happens ----------------------------------------------------

    /// What time alone brings about, and what is owed.
    async fn tick(&mut self) {
        if self.dark.is_some() {
            // The store may be back, or somebody may have run `init`.
            self.load().await;
        }
        if self.held.is_none() {
            return;
        }
        if let Some(held) = self.held.clone() {
            // What the log did not take when it was stored.
            self.log_events(&held).await;
        }
        self.pay_owed().await;
        let doubted = self.guard.doubt();
        let anchored = self.guard.anchor();
        let step = self.step(Clock::Sure, |set, plan, tick| {
            Ok::<_, std::convert::Infallible>(((), set.advance(plan, tick, &mut random_id)))
        });
        match step.await {
            Ok(()) => {}
            Err(StepError::Doubt(doubt)) if doubted.is_none() => {
                tracing::error!(
                    key_set = self.reader.name,
                    "{doubt}: nothing is activated, retired, removed or destroyed until the time is confirmed"
                );
            }
            Err(StepError::Doubt(_)) => {}
            Err(e) => tracing::error!(key_set = self.reader.name, "a step was not taken: {e}"),
        }
        if let Some(held) = self.held.clone()
            && (self.guard.doubt() != doubted || self.guard.anchor() != anchored)
            && !matches!(held.record.set.genesis, Genesis::Pending { .. })
        {
            // Readers judge the clock by a copy of the guard.
            self.show(&held).await;
        }
    }

    async fn seen(&mut self, origin: &str, kids: &BTreeSet<String>) {
        let Ok(now) = self.now() else { return };
        self.live.insert(origin.to_owned(), now);
        let step = self.step(Clock::Sure, |set, plan, tick| {
            // In one write: an activation whose key an origin has just lost is
            // taken back by the step that learns of it.
            let mut events = set.observe(origin, kids, tick.now, plan);
            events.extend(set.advance(plan, tick, &mut random_id));
            Ok::<_, std::convert::Infallible>(((), events))
        });
        if let Err(e) = step.await {
            tracing::warn!(
                key_set = self.reader.name,
                origin,
                "a sighting was not stored: {e}"
            );
        }
    }

    /// Starts what devices are to do. Each intent runs once at a time.
    fn start_intents(&mut self) {
        let Some(held) = &self.held else { return };
        if matches!(held.record.set.genesis, Genesis::Pending { .. }) {
            return; // `init` carries these out.
        }
        let now = Instant::now();
        for (&id, intent) in &held.record.set.intents {
            // Another agent's intent is its own to carry out: two that ask one
            // device for the same key could leave half of a pair.
            let ours = intent.owner == self.context.replica;
            let due = ours && self.retries.get(&id).is_none_or(|(at, _)| *at <= now);
            if due && self.started.insert(id) {
                let context = Arc::clone(&self.context);
                let key = held.record.set.keys.get(&intent.task.key()).cloned();
                let task = intent.task.clone();
                let run = async move { effects::perform(&context, &task, key.as_ref()).await };
                self.tasks.insert(self.running.spawn(run).id(), id);
            }
        }
        let intents = &held.record.set.intents;
        self.retries.retain(|id, _| intents.contains_key(id));
    }

    async fn report(&mut self, id: IntentId, result: Result<Outcome, String>) {
        self.started.remove(&id);
        let problem = match result {
            Ok(outcome) => {
                let step = self.step(Clock::Any, |set, _, tick| {
                    set.complete(id, outcome.clone(), tick)
                        .map(|events| ((), events))
                });
                match step.await {
                    Ok(()) => {
                        self.retries.remove(&id);
                        return;
                    }
                    Err(e) => e.to_string(),
                }
            }
            Err(e) => e,
        };
        // An outcome that could not be stored is found again: every task may
        // be done twice.
        let (_, delay) = self
            .retries
            .get(&id)
            .copied()
            .unwrap_or((Instant::now(), FIRST_RETRY));
        tracing::warn!(key_set = self.reader.name, retry_in = ?delay, "a device task failed: {problem}");
        self.retries
            .insert(id, (Instant::now() + delay, (delay * 2).min(LAST_RETRY)));
    }

    // -- Time ------------------------------------------------------------

    /// The time that may be acted upon, or the doubt and an estimate.
    fn now(&mut self) -> Result<Time, (Doubt, Time)> {
        let reading = self.context.clock.read();
        let high_water = self
            .held
            .as_ref()
            .map_or(Time::default(), |h| h.record.set.high_water);
        let timing = &self.plan.timing;
        self.guard
            .read(reading.wall, reading.boot, high_water, timing)
            .map_err(|doubt| {
                let moment = self
                    .guard
                    .moment(reading.wall, reading.boot, high_water, timing);
                (doubt, moment.time())
            })
    }

    /// The best estimate of the time, believed or not.
    pub(super) fn estimate(&mut self) -> Time {
        self.now().unwrap_or_else(|(_, estimate)| estimate)
    }

    pub(super) fn tick_for(&self, now: Time) -> Tick {
        let patience = self
            .plan
            .timing
            .propagation
            .max(super::observe_every(&self.plan).times(4));
        let live = self
            .live
            .iter()
            .filter(|(_, at)| now.since(**at) <= patience);
        Tick {
            now,
            replica: self.context.replica.clone(),
            adopted: self.adopted,
            live: live.map(|(origin, _)| origin.clone()).collect(),
        }
    }

    fn wake(&mut self) -> Instant {
        let now = Instant::now();
        let mut wait = HEARTBEAT;
        if let (Ok(at), Some(held)) = (self.now(), &self.held) {
            let deadline = held.record.set.deadline(&self.plan, &self.tick_for(at));
            // A deadline within this very millisecond still lets others run.
            wait = wait.min(deadline.since(at).max(Span::from_millis(1)).to_duration());
        }
        let retry = self
            .retries
            .values()
            .map(|(at, _)| *at)
            .filter(|at| *at > now)
            .min();
        retry.map_or(now + wait, |at| at.min(now + wait))
    }
}

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// A key's id: 16 random bytes from the kernel.
pub(super) fn random_id() -> KeyId {
    let mut id = [0; 16];
    let mut filled = 0;
    while filled < id.len() {
        // The kernel's generator is seeded long before any agent starts, and
        // a short read is only an interruption.
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut id[filled..], flags).unwrap_or(0);
    }
    KeyId(id)
}
