//! The agent: one writer of the keyring, many readers of its view.
//!
//! Each key set has a writer, the only code that changes its record,
//! and a reader: an atomic pointer to an immutable snapshot that the
//! signing path and the JWKS use without a lock. The writer takes orders of
//! operators first, then outcomes of devices, then what origins and the store
//! have to tell.
//!
//! **Invariant:** restrictions take effect before they are stored, permissions
//! only after. A revoked key is blocked in the reader, then on disk (a
//! tombstone), then out of the JWKS, then in the store; an activation is in
//! the store before any reader signs with it.

pub mod admin;
mod adopt;
mod approvals;
mod backup;
pub mod callers;
mod context;
mod effects;
pub mod failpoint;
mod figures;
mod follow;
pub mod forced;
mod health;
mod history;
pub mod impact;
mod import;
mod init;
mod lacking;
mod load;
mod missing;
mod news;
pub mod offline;
mod orders;
mod origins;
mod outdated;
mod overdue;
mod pulse;
mod rates;
mod reader;
mod readiness;
mod record;
mod recover;
mod refusal;
mod revoke;
mod sentences;
mod show;
mod sign;
mod signing;
mod status;
mod tasks;
mod terms;
#[cfg(test)]
mod tests;
mod unnamed;
mod unwritten;
mod whole_device;
mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::StreamExt;

use crate::clock::Clock;
use crate::hsm::Device;
use crate::jose::Algorithm;
use crate::keyring::Plan;
use crate::metrics::KeySetMetrics;
use crate::observe::{self, Origin};
use crate::policy::{Approvals, Caller, Reason, Refusal, Rules};
use crate::store::Cursor;
use admin::{AdminError, Change, Changed, DeviceOrder, Ended, KeySetStatus, Order};
use forced::{AskingAhead, Rotation};
use history::Archive;
use impact::{AT_LEISURE, Asking, BRIEFLY, Foreseen, Thought};
use news::News;
use orders::Asked;
use pulse::Pulse;
use reader::Reader;
use terms::Terms;
use writer::{Message, Writer};

pub use admin::Administration;
pub use adopt::{AdoptFailure, Adopted, Adopting, adopt};
pub use backup::{Backup, BackupError, Fate, Folder};
pub use context::{Context, Ports};
pub use figures::Measured;
pub use health::{DeviceHealth, Health, KeySetHealth, inspect};
pub use history::{KeptHistory, NoHistory, confirmations, kept, past};
pub use import::{ImportFailure, import};
pub use init::{InitError, Progress, init};
pub use origins::OriginHealth;
pub use outdated::{cure as cure_of_outdated, holding, known};
pub use overdue::LateRotation;
pub use readiness::{Readiness, Trouble, Watched};
pub use record::RecordError;
pub use recover::{RecoverFailure, Recovered, Strange, Wish, recover};
pub use signing::{Published, SignError, Signed, Signing, TurnedAway};
pub(crate) use status::no_standby;
pub use unnamed::unnamed;
pub use unwritten::Unwritten;

/// A key set as the configuration wants it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Tracks, schedule, device. Its `origins` are set from the field of that
    /// name here.
    pub plan: Plan,
    /// Who may sign what.
    pub rules: Rules,
    /// Whether some orders wait for a second person.
    pub approvals: Option<Approvals>,
    /// Whether the keys that left it are told of, in a signed document.
    pub historical_keys: bool,
    /// Where its JWKS is observed.
    pub origins: Vec<Origin>,
    /// The agent's own listener where it is none of these: what must show a
    /// key where every one of them is waived.
    pub own: Option<Origin>,
}

/// The agent. Cheap to clone; its writers end with the last clone.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

struct Inner {
    context: Arc<Context>,
    rooms: BTreeMap<String, Room>,
    well_known: Option<String>,
    /// Requests for key sets that there are not.
    strangers: KeySetMetrics,
    pulse: Pulse,
}

/// A key set at work.
struct Room {
    reader: Arc<Reader>,
    mailbox: mpsc::Sender<Message>,
    /// The document of its past keys, where one is served.
    archive: Option<Arc<Archive>>,
}

/// How many orders may wait for a writer. They are rare; whoever sends waits
/// for room.
const MAILBOX: usize = 64;

impl Agent {
    /// Loads each key set and starts its writer, its observers, and the watch
    /// on the store. When it returns, every JWKS that there is can be served:
    /// a verifier that asks in the first instant after a restart gets a set
    /// and no error.
    pub async fn start(context: Context, wanted: Vec<Wanted>, well_known: Option<String>) -> Self {
        let context = Arc::new(context);
        let pulse = Pulse::default();
        for device in context.devices.values() {
            pulse.follow(device);
        }
        let (mut rooms, mut watched) = (BTreeMap::new(), BTreeMap::new());
        for wanted in wanted {
            let name = wanted.name.clone();
            let figures = context.metrics.key_set(&name);
            let terms = Terms::of(&wanted, None);
            let archive = wanted.historical_keys.then(|| Arc::new(Archive::new()));
            let reader = Arc::new(Reader::new(&name, terms, figures, pulse.clone()));
            let (mailbox, inbox) = mpsc::channel(MAILBOX);
            let plan = follow::plan(&wanted);
            let mut writer = Writer::new(Arc::clone(&context), Arc::clone(&reader), plan);
            writer
                .reader
                .gate
                .wait_for(context.devices.keys().cloned().collect());
            writer.watch(wanted.origins.into_iter().chain(wanted.own));
            watched.insert(name.clone(), Arc::downgrade(&writer.news));
            writer.load().await;
            // The first scrape shows keys, though the first round takes long.
            writer.came_round();
            tokio::spawn(writer.run(inbox));
            let room = Room {
                reader,
                mailbox,
                archive,
            };
            rooms.insert(name, room);
        }
        for device in context.devices() {
            let rooms = watched.values().cloned().collect();
            tokio::spawn(outdated::ask(Arc::clone(&context), device, rooms));
        }
        tokio::spawn(watch_store(Arc::clone(&context), watched));
        let agent = Self(Arc::new(Inner {
            strangers: context.metrics.key_set(""),
            context,
            rooms,
            well_known,
            pulse,
        }));
        agent.keep_archives().await;
        agent
    }

    fn clock(&self) -> &dyn Clock {
        &*self.0.context.clock
    }

    fn audit(&self) -> &crate::audit::Audit {
        &self.0.context.audit
    }

    fn device(&self, name: &str) -> Option<&Device> {
        self.0.context.devices.get(name)
    }

    fn well_known_name(&self) -> Option<&str> {
        self.0.well_known.as_deref()
    }

    fn figures_of(&self, key_set: &str) -> &KeySetMetrics {
        let room = self.0.rooms.get(key_set);
        room.map_or(&self.0.strangers, |room| &room.reader.figures)
    }

    fn feel_pulse(&self) -> watch::Receiver<()> {
        self.0.pulse.feel()
    }

    fn reader(&self, key_set: &str) -> Result<&Reader, SignError> {
        let room = self.0.rooms.get(key_set);
        room.map(|room| &*room.reader)
            .ok_or_else(|| SignError::Refused(unknown_key_set(key_set)))
    }
}

impl Administration for Agent {
    fn health(&self, _caller: &Caller) -> Health {
        self.look()
    }

    async fn key_sets(
        &self,
        _caller: &Caller,
        key_set: Option<&str>,
    ) -> Result<Vec<KeySetStatus>, AdminError> {
        let names: Vec<&String> = self
            .0
            .rooms
            .keys()
            .filter(|name| key_set.is_none_or(|k| k == *name))
            .collect();
        if let (true, Some(name)) = (names.is_empty(), key_set) {
            return Err(AdminError::UnknownKeySet {
                name: name.to_owned(),
            });
        }
        let mut all = Vec::new();
        for name in names {
            let (reply, answer) = oneshot::channel();
            self.tell(name, Message::Status(reply)).await?;
            all.push(answer.await.map_err(|_| gone(name))??);
        }
        Ok(all)
    }

    async fn change(&self, caller: &Caller, order: Order) -> Result<Changed, AdminError> {
        let name = order.key_set.clone();
        let (reply, answer) = oneshot::channel();
        // In memory first: the writer may be waiting for its store.
        let room = self.0.rooms.get(&name);
        let block = match (&order.change, room) {
            (Change::Revoke { kid, .. }, Some(room)) => Some(room.reader.block_for_order(kid)),
            _ => None,
        };
        let asked = Asked {
            caller: caller.clone(),
            order,
            reply,
            block,
        };
        self.tell(&name, Message::Asked(Box::new(asked))).await?;
        let mut changed = answer.await.map_err(|_| gone(&name))??;
        if let Some(impact) = &mut changed.impact {
            impact::count_tokens(
                &self.0.context,
                &name,
                (&impact.kid, &mut impact.tokens),
                BRIEFLY,
            )
            .await;
        }
        Ok(changed)
    }

    async fn revoke_device(
        &self,
        caller: &Caller,
        order: DeviceOrder,
    ) -> Result<Vec<Ended>, AdminError> {
        self.end_device(caller, order).await
    }

    async fn foresee(
        &self,
        _caller: &Caller,
        key_set: &str,
        thought: Thought,
    ) -> Result<Foreseen, AdminError> {
        let (reply, answer) = oneshot::channel();
        let asking = Asking { thought, reply };
        self.tell(key_set, Message::Foresee(asking)).await?;
        let mut foreseen = answer.await.map_err(|_| gone(key_set))??;
        let impact = &mut foreseen.impact;
        impact::count_tokens(
            &self.0.context,
            key_set,
            (&impact.kid, &mut impact.tokens),
            AT_LEISURE,
        )
        .await;
        Ok(foreseen)
    }

    async fn foresee_rotation(
        &self,
        _caller: &Caller,
        key_set: &str,
        algorithm: Option<Algorithm>,
    ) -> Result<Rotation, AdminError> {
        let (reply, answer) = oneshot::channel();
        let asking = AskingAhead { algorithm, reply };
        self.tell(key_set, Message::ForeseeRotation(asking)).await?;
        let mut rotation = answer.await.map_err(|_| gone(key_set))??;
        if let Some(of) = &rotation.instead_of {
            let counted = (of.as_str(), &mut rotation.tokens);
            impact::count_tokens(&self.0.context, key_set, counted, AT_LEISURE).await;
        }
        Ok(rotation)
    }
}

impl Agent {
    async fn tell(&self, name: &str, message: Message) -> Result<(), AdminError> {
        let room = self
            .0
            .rooms
            .get(name)
            .ok_or_else(|| AdminError::UnknownKeySet {
                name: name.to_owned(),
            })?;
        room.mailbox.send(message).await.map_err(|_| gone(name))
    }
}

fn unknown_key_set(name: &str) -> Refusal {
    Refusal::new(
        Reason::UnknownKeySet,
        "key_set",
        format!("no key set {name:?} is configured"),
        "ask whoever runs the agent for the key set's name",
    )
}

fn gone(name: &str) -> AdminError {
    AdminError::Internal {
        reason: "WRITER_GONE",
        why: format!("the writer of the key set {name:?} has ended; restart the agent"),
    }
}

/// How many answers an origin may fail to give before the log says so.
const OUTAGE: u32 = 3;

/// Asks one origin for its set, again and again, until the writer is gone.
async fn observe_origin(origin: Origin, every: Duration, news: Weak<News>) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let patience = every.max(Duration::from_secs(2));
    let mut unanswered = 0;
    loop {
        ticks.tick().await;
        let began = Instant::now();
        let shown = observe::look(&origin, patience).await;
        let Some(news) = news.upgrade() else {
            return;
        };
        match shown {
            Ok(shown) => {
                unanswered = 0;
                news.looked(origin.name(), shown, began);
            }
            // Once for each outage, and not at a start, when the set that it
            // should show is still being loaded.
            Err(e) => {
                unanswered += 1;
                if unanswered == OUTAGE {
                    tracing::warn!(origin = origin.name(), "an origin does not answer: {e}");
                }
                news.unanswered(origin.name(), e.to_string());
            }
        }
    }
}

/// How long a watch that ended waits before it is taken up again.
const WATCH_AGAIN: Duration = Duration::from_secs(2);

/// Tells writers of versions that somebody else wrote: `init`, or an offline
/// command. A store that fails ends its stream of changes; it is taken up
/// again where it ended, until the writers are gone.
async fn watch_store(context: Arc<Context>, rooms: BTreeMap<String, Weak<News>>) {
    let mut cursor = Cursor::default();
    let mut failing = false;
    while rooms.values().any(|news| news.strong_count() > 0) {
        let mut changes = context.store.watch(cursor.clone());
        while let Some(change) = changes.next().await {
            let change = match change {
                Ok(change) => change,
                // Once for each outage.
                Err(e) if !failing => {
                    failing = true;
                    tracing::error!("the watch on the store: {e}; it is taken up again");
                    continue;
                }
                Err(_) => continue,
            };
            failing = false;
            cursor = change.cursor;
            let Some(room) = rooms.get(&change.key_set) else {
                continue;
            };
            let Some(news) = room.upgrade() else {
                return;
            };
            news.store_changed();
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }
}
