//! The one writer of a key set: every change of its record goes through here,
//! one after the other.
//!
//! A change is made on a copy, stored by compare-and-swap, and only then seen
//! by readers. If the store says that somebody else was faster, the copy is
//! thrown away and the change is made again on what the store has. What a
//! device must do is done beside this loop and reported back into it, so a
//! slow device delays no rotation of a track that does not need it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::admin::{AdminError, KeySetStatus};
use super::context::random_id;
use super::failpoint::{Effect, Side, hit};
use super::follow::Observers;
use super::forced::AskingAhead;
use super::impact::Asking;
use super::lacking::Standbys;
use super::news::{Answers, Item, News};
use super::orders::Asked;
use super::origins::Origins;
use super::outdated::Outside;
use super::reader::{Dark, Reader};
use super::record::{Record, RecordError};
use super::revoke::Owed;
use super::show::Kept;
use super::status;
use super::tasks::Tasks;
use super::whole_device::OnDevice;
use super::{Context, Wanted};
use crate::clock::Reading;
use crate::jose::Algorithm;
use crate::keyring::{ClockGuard, Doubt, Event, Genesis, KeySet, Plan, SeatId, Tick};
use crate::store::{StoreError, Version};
use crate::time::{Span, Time};

/// What operators tell the writer. It comes before all other news.
pub(super) enum Message {
    /// An operator wants something.
    Asked(Box<Asked>),
    /// An operator wants to see the key set.
    Status(oneshot::Sender<Result<KeySetStatus, AdminError>>),
    /// The configuration has changed; says when it is in force.
    Follow(Box<Wanted>, oneshot::Sender<()>),
    /// An operator wants to know what a revocation would mean.
    Foresee(Asking),
    /// An operator wants to know what a rotation would mean.
    ForeseeRotation(AskingAhead),
    /// What is on record, for the document of past keys.
    Record(oneshot::Sender<Option<KeySet>>),
    /// An operator ends every key on a device.
    EndDevice(Box<OnDevice>),
}

/// The writer's own state. All of it but the record can be lost at any
/// instant.
pub(super) struct Writer {
    pub(super) context: Arc<Context>,
    pub(super) reader: Arc<Reader>,
    pub(super) plan: Plan,
    /// What origins and the store have to tell.
    pub(super) news: Arc<News>,
    pub(super) held: Option<Held>,
    /// The last record that was good, while there is none.
    pub(super) last: Option<Held>,
    pub(super) guard: ClockGuard,
    /// The copy of it that readers have.
    pub(super) shown: ClockGuard,
    /// Who asks them.
    pub(super) observers: Observers,
    /// When each origin last answered.
    pub(super) live: BTreeMap<String, Time>,
    /// What each of them showed.
    pub(super) origins: Origins,
    /// Why there is no usable record, as readers were told.
    pub(super) dark: Option<Dark>,
    /// Whether the store refused the last change, as the log says already.
    pub(super) store_fails: bool,
    /// Whether sightings find no record, as the log says already.
    pub(super) sightings_fail: bool,
    /// The epoch that readers have.
    pub(super) adopted: u64,
    /// The number of the last key event that the log has.
    pub(super) logged: u64,
    /// Revocations that hold in memory but not yet in the store.
    pub(super) owed: BTreeMap<String, Owed>,
    /// The tracks of whose late rotation the log says already.
    pub(super) paged: BTreeSet<Algorithm>,
    /// The seats of which the log says that no standby is made.
    pub(super) crowded: BTreeSet<SeatId>,
    /// What is on disk of what readers see.
    pub(super) kept: Kept,
    /// What devices are at.
    pub(super) tasks: Tasks,
    /// Whether a device is being asked about a key that it did not have.
    pub(super) looking: Option<JoinHandle<()>>,
    /// When devices were asked about the keys that sign next.
    pub(super) standbys: Standbys,
    /// What those say who stand outside the state folder.
    pub(super) outside: Outside,
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
            news: Arc::default(),
            held: None,
            last: None,
            guard: ClockGuard::default(),
            shown: ClockGuard::default(),
            observers: Observers::default(),
            live: BTreeMap::new(),
            origins: Origins::default(),
            dark: None,
            store_fails: false,
            sightings_fail: false,
            adopted: 0,
            logged: 0,
            owed: BTreeMap::new(),
            paged: BTreeSet::new(),
            crowded: BTreeSet::new(),
            kept: Kept::default(),
            tasks: Tasks::default(),
            looking: None,
            standbys: Standbys::default(),
            outside: Outside::default(),
            answered: super::orders::Answered::default(),
        }
    }

    /// Works on what was loaded until every sender is gone.
    pub(super) async fn run(mut self, mut mailbox: mpsc::Receiver<Message>) {
        loop {
            self.tick().await;
            self.start_intents();
            self.look_for_missing();
            self.look_for_standbys();
            self.came_round();
            let wake = self.wake();
            let news = Arc::clone(&self.news);
            tokio::select! {
                // Who orders waits for one step at most.
                biased;
                message = mailbox.recv() => match message {
                    Some(message) => self.handle(message).await,
                    None => return,
                },
                (id, result) = self.tasks.next() => self.report(id, result).await,
                item = news.next() => self.learn(item).await,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Asked(asked) => self.answer(*asked).await,
            Message::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Message::Record(reply) => {
                let held = self.held.as_ref();
                let _ = reply.send(held.map(|held| held.record.set.clone()));
            }
            Message::Follow(wanted, done) => {
                self.follow(*wanted).await;
                let _ = done.send(());
            }
            Message::EndDevice(asked) => self.end_device(*asked).await,
            Message::Foresee(Asking { thought, reply }) => {
                let _ = reply.send(self.foresee(&thought));
            }
            Message::ForeseeRotation(AskingAhead { algorithm, reply }) => {
                let _ = reply.send(self.foresee_rotation(algorithm));
            }
        }
    }

    pub(super) async fn learn(&mut self, item: Item) {
        match item {
            Item::StoreChanged => self.load_if_changed().await,
            Item::Seen(origin, answers) => self.seen(&origin, answers).await,
            Item::Lost(kid) => self.lost(&kid).await,
            Item::StandbyLost(kid) => self.standby_lost(&kid).await,
            Item::Holds(device, holding) => self.device_holds(device, holding).await,
            Item::Unanswered(origin, why) => {
                if self.asks(&origin) {
                    self.origins.did_not_answer(&origin, why);
                }
            }
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
            let note = self.guard.note(&self.context.clock.boot_id());
            next.set.note_clock(&self.context.replica, note);
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
                    self.go_dark(Dark::NoStore(e.clone()));
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
        if std::mem::take(&mut self.store_fails) {
            tracing::info!(key_set = self.reader.name, "the store takes changes again");
        }
        let held = Held {
            record,
            version: Some(version),
        };
        let before = self.held.replace(held.clone());
        self.tell_of_bounds(before.as_ref(), &held);
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

    // -- What happens ----------------------------------------------------

    /// What time alone brings about, and what is owed.
    pub(super) async fn tick(&mut self) {
        if self.dark.is_some() {
            // The store may be back, or somebody may have run `init`.
            self.load().await;
        }
        self.entomb_owed().await;
        if self.held.is_none() {
            return;
        }
        if let Some(held) = self.held.clone() {
            // What the log did not take when it was stored.
            self.log_events(&held).await;
        }
        self.pay_owed().await;
        self.keep_shown().await;
        let step = self.step(Clock::Sure, |set, plan, tick| {
            Ok::<_, std::convert::Infallible>(((), set.advance(plan, tick, &mut random_id)))
        });
        match step.await {
            // The log has a line already, from where that was found out.
            Ok(()) | Err(StepError::Store(_)) => {}
            Err(StepError::Doubt(_)) => self.note_doubt().await,
            Err(e) => tracing::error!(key_set = self.reader.name, "a step was not taken: {e}"),
        }
        if let Some(held) = self.held.clone()
            && self.guard != self.shown
            && !matches!(held.record.set.genesis, Genesis::Pending { .. })
        {
            // Readers judge the clock by a copy of the guard.
            self.show(&held).await;
        }
    }

    async fn seen(&mut self, origin: &str, answers: Answers) {
        if !self.asks(origin) {
            return; // It was taken off the configuration meanwhile.
        }
        let Answers { all, latest } = answers;
        self.origin_shows(origin, &latest.anywhere).await;
        let now = self.now();
        let at = now.unwrap_or_else(|(_, estimate)| estimate);
        self.origins.answered(origin, latest.clone(), at);
        let Ok(now) = now else { return };
        self.live.insert(origin.to_owned(), now);
        let step = self.step(Clock::Sure, |set, plan, tick| {
            // In one write: an activation whose key an origin has just lost is
            // taken back by the step that learns of it.
            let (unbroken, now) = (set.recognised(&all), set.recognised(&latest));
            let mut events = set.observe(origin, &unbroken, tick.now, plan);
            events.extend(set.observe(origin, &now, tick.now, plan));
            events.extend(set.advance(plan, tick, &mut random_id));
            Ok::<_, std::convert::Infallible>(((), events))
        });
        match step.await {
            // The log has a line already, from where that was found out.
            Ok(()) => self.sightings_fail = false,
            Err(StepError::Doubt(_) | StepError::Store(_)) => {}
            // Once for each outage: an origin is asked several times within P.
            Err(_) if self.sightings_fail => {}
            Err(e) => {
                self.sightings_fail = true;
                tracing::warn!(
                    key_set = self.reader.name,
                    origin,
                    "a sighting was not stored: {e}"
                );
            }
        }
    }

    // -- Time ------------------------------------------------------------

    /// Puts the doubt on record, where it is not: a restart ends none.
    async fn note_doubt(&mut self) {
        let note = self.step(Clock::Any, |_, _, _| {
            Ok::<_, std::convert::Infallible>(((), Vec::new()))
        });
        match note.await {
            Ok(()) | Err(StepError::Store(_)) => {}
            Err(e) => tracing::warn!(
                key_set = self.reader.name,
                "the doubt is not on record, and a restart would forget it: {e}"
            ),
        }
    }

    /// The time that may be acted upon, or the doubt and an estimate.
    fn now(&mut self) -> Result<Time, (Doubt, Time)> {
        let Reading { wall, boot } = self.context.clock.read();
        let Some(known) = self.held.as_ref().or(self.last.as_ref()) else {
            // A guard that reads the clock now would not see the gap between
            // it and the record, once there is one.
            return Ok(wall);
        };
        let high_water = known.record.set.high_water;
        let timing = &self.plan.timing;
        let doubted = self.guard.doubt().is_some();
        let read = self.guard.read(wall, boot, high_water, timing);
        read.map_err(|doubt| {
            if !doubted {
                self.tell_of_doubt(&doubt);
            }
            let moment = self.guard.moment(wall, boot, high_water, timing);
            (doubt, moment.time())
        })
    }

    /// Says in the log what somebody has to confirm, at each start too: whoever
    /// is woken may never see what an earlier process said.
    pub(super) fn tell_of_doubt(&self, doubt: &Doubt) {
        let key_set = &self.reader.name;
        tracing::error!(
            key_set,
            reason = "CLOCK_IN_DOUBT",
            "{doubt}: nothing is activated, retired, removed or destroyed until the time is confirmed. {}",
            status::how_to_confirm(key_set)
        );
    }

    /// The best estimate of the time, believed or not.
    pub(super) fn estimate(&mut self) -> Time {
        self.now().unwrap_or_else(|(_, estimate)| estimate)
    }

    pub(super) fn tick_for(&self, now: Time) -> Tick {
        let patience = self.patience();
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
        let retry = self.tasks.wake(now);
        retry.map_or(now + wait, |at| at.min(now + wait))
    }
}
