//! The historical-keys document of a key set (OpenID Federation 1.0, section
//! 8.7; the response is 8.7.2, the reasons of revocations are 8.7.3): the keys
//! that left it, with what was revoked and why, signed by the key that signs
//! now.
//!
//! It is made and signed beside everything else, when what it says changes,
//! when another key signs, or when it gets old. Whoever fetches it gets the
//! last one, whatever the device does. One that a revoked key signed is
//! withdrawn: whoever has that key can write such a document too.

mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::context::{blocking, revocations};
use super::record::{CONFIRMED, from_log};
use super::sign::Allowed;
use super::signing::{Published, SignError};
use super::writer::Message;
use super::{Agent, Context, Inner, Room};
use crate::audit::{KeyEvent, Recorded};
use crate::durable::Tombstone;
use crate::jose::jws;
use crate::keyring::{History, KeySet, Revocation, Told};
use crate::metrics::Operation;
use crate::time::Time;
use document::{Document, TYP, claims, read_back};

/// Who asks for the signature, in the log: no caller can be called so.
const CALLER: &str = "agent:historical-keys";
/// It is signed anew when it is older, so that its `iat` says that it is kept.
const OLD: Duration = Duration::from_secs(24 * 3600);
/// It is looked at again after this, whatever happens or does not.
const LOOK: Duration = Duration::from_secs(5);
/// And no more often than that, whatever happens.
const REST: Duration = Duration::from_millis(250);
/// After a failure it is tried again later each time.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(15);

/// Why there is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NoHistory {
    /// A stable code, such as `DEVICE_UNAVAILABLE`.
    pub reason: &'static str,
    /// What is wrong. For operators: it may name devices.
    pub why: String,
}

/// The document of one key set, as readers have it.
pub(super) struct Archive(RwLock<State>);

struct State {
    document: Option<Document>,
    /// Why there is none, or no newer one.
    lacks: NoHistory,
}

impl Archive {
    pub(super) fn new() -> Self {
        Self(RwLock::new(State {
            document: None,
            lacks: NoHistory {
                reason: "BEING_MADE",
                why: "the document is being made".to_owned(),
            },
        }))
    }

    fn document(&self) -> Option<Document> {
        self.read(|state| state.document.clone())
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The document as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptHistory {
    /// The `kid` that signed it.
    pub kid: String,
    /// When.
    pub at: Time,
    /// The `kid`s that it names.
    pub names: BTreeSet<String>,
}

/// The keys that left a key set, from what is on disk: for tools that only
/// look. `log` has the key events of all key sets.
///
/// # Errors
/// What is wrong with the log.
pub fn past(
    record: &KeySet,
    log: &[Recorded<KeyEvent>],
    stones: Vec<Tombstone>,
) -> Result<History, String> {
    let stones = stones.into_iter().filter(|it| it.key_set == record.name);
    let stones = stones.map(|stone| (stone.kid.clone(), stone)).collect();
    Ok(record.history(&told(log, &record.name)?, &revocations(stones)))
}

/// Who vouched for the time of a key set, oldest first: for tools that only
/// look.
pub fn confirmations<'a>(
    key_set: &'a str,
    log: &'a [Recorded<KeyEvent>],
) -> impl Iterator<Item = &'a KeyEvent> {
    let events = log.iter().map(|recorded| &recorded.what);
    events.filter(move |event| event.key_set == key_set && event.event == CONFIRMED)
}

/// Reads the document that is kept on disk, as a start of the agent does.
///
/// # Errors
/// Why it would not be served.
pub fn kept(
    key_set: &str,
    token: &[u8],
    log: &[Recorded<KeyEvent>],
) -> Result<KeptHistory, String> {
    let Document {
        kid, at, claims, ..
    } = read_back(token, &told(log, key_set)?)?;
    let keys = claims.get("keys").and_then(Value::as_array);
    let names = keys
        .into_iter()
        .flatten()
        .filter_map(|key| key["kid"].as_str());
    let names = names.map(str::to_owned).collect();
    Ok(KeptHistory { kid, at, names })
}

fn told(log: &[Recorded<KeyEvent>], key_set: &str) -> Result<Vec<Told>, String> {
    let mine = log
        .iter()
        .filter(|recorded| recorded.what.key_set == key_set);
    mine.filter_map(|recorded| from_log(&recorded.what).transpose())
        .collect()
}

impl Agent {
    /// The document of a key set; `None` where it serves none.
    pub(super) fn archived(&self, key_set: &str) -> Option<Result<Published, NoHistory>> {
        let room = self.0.rooms.get(key_set)?;
        let archive = room.archive.as_ref()?;
        Some(match self.good(room) {
            Some(document) => {
                // Never kept for longer than the set that it is verified with.
                let set = room.reader.published(self.clock().read());
                let usual = room.reader.terms().timing.max_age.to_duration();
                let max_age = set.map_or(usual, |set| set.max_age);
                Ok(Published::of(document.token, max_age))
            }
            None => {
                let lacks = archive.read(|state| state.lacks.clone());
                let metrics = &self.0.context.metrics;
                metrics.past_refused(key_set, lacks.reason);
                Err(lacks)
            }
        })
    }

    /// The document that may be served.
    fn good(&self, room: &Room) -> Option<Document> {
        let document = room.archive.as_ref()?.document();
        document.filter(|document| !room.reader.is_blocked(&document.kid))
    }

    /// How many keys the document names, and how many it leaves out; none where
    /// none is served.
    pub(super) fn past_figures(&self, room: &Room) -> Option<(usize, usize)> {
        self.good(room).map(|document| document.counts())
    }

    /// Makes and signs the document wherever it is wanted, until the agent
    /// ends. Returns when what was kept on disk is in place.
    pub(super) async fn keep_archives(&self) {
        for (name, room) in &self.0.rooms {
            let Some(archive) = &room.archive else {
                continue;
            };
            match last_kept(&self.0.context, name).await {
                Ok(document) => archive.write(|state| state.document = document),
                Err(why) => {
                    tracing::warn!(key_set = name, "the last historical keys on disk: {why}");
                }
            }
            let keeper = Keeper {
                agent: Arc::downgrade(&self.0),
                name: name.clone(),
                archive: Arc::clone(archive),
                seen: None,
                failed: None,
            };
            tokio::spawn(keeper.run(self.feel_pulse()));
        }
    }

    /// The record as the writer has it; none where there is none.
    async fn record(&self, name: &str) -> Option<KeySet> {
        let (reply, answer) = oneshot::channel();
        self.tell(name, Message::Record(reply)).await.ok()?;
        answer.await.ok()?
    }
}

/// Keeps one document up to date.
struct Keeper {
    agent: Weak<Inner>,
    name: String,
    archive: Arc<Archive>,
    /// What the claims were made from, and the claims.
    seen: Option<(Sources, Map<String, Value>)>,
    /// What failed last, when it is tried again, and how long it waits then.
    failed: Option<(NoHistory, Instant, Duration)>,
}

/// What the claims are made from.
#[derive(PartialEq, Eq)]
struct Sources {
    issuer: String,
    record: KeySet,
    /// How many events the log has.
    logged: u64,
    tombstones: BTreeMap<String, Revocation>,
}

impl Keeper {
    async fn run(mut self, mut beats: tokio::sync::watch::Receiver<()>) {
        loop {
            {
                let Some(inner) = self.agent.upgrade() else {
                    return;
                };
                self.look(&Agent(inner)).await;
            }
            tokio::time::sleep(REST).await;
            tokio::select! {
                beat = beats.changed() => if beat.is_err() {
                    return;
                },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&mut self, agent: &Agent) {
        let waits = (self.failed.as_ref()).is_some_and(|(_, again, _)| *again > Instant::now());
        if waits {
            return;
        }
        match self.renew(agent).await {
            Ok(()) => self.failed = None,
            Err(lacks) => {
                let before = self.failed.take();
                if before
                    .as_ref()
                    .is_none_or(|(known, ..)| known.reason != lacks.reason)
                {
                    let (reason, key_set) = (lacks.reason, &self.name);
                    tracing::warn!(
                        key_set,
                        reason,
                        "the historical keys are not signed: {lacks}"
                    );
                }
                let wait = before.map_or(FIRST_RETRY, |(_, _, wait)| (wait * 2).min(LAST_RETRY));
                self.archive.write(|state| state.lacks = lacks.clone());
                self.failed = Some((lacks, Instant::now() + wait, wait));
            }
        }
    }

    /// Makes the document anew where it has to be.
    async fn renew(&mut self, agent: &Agent) -> Result<(), NoHistory> {
        let reader = agent.reader(&self.name).map_err(unsigned)?;
        let claims = self.claims(agent).await?;
        let signers = reader.signers().map_err(unsigned)?;
        let moment = signers.moment(agent.clock().read(), &reader.terms().timing);
        let key = signers.signer(None, moment).map_err(unsigned)?;
        let now = moment.time();
        if let Some(document) = self.archive.document()
            && document.claims == claims
            && document.kid == key.kid
            && now.since(document.at).to_duration() < OLD
        {
            return Ok(());
        }
        let mut payload = claims.clone();
        payload.insert("iat".to_owned(), now.as_secs().into());
        let header = jws::Header {
            algorithm: key.algorithm,
            kid: key.kid.clone(),
            typ: Some(TYP.to_owned()),
        };
        let payload = Value::Object(payload).to_string();
        let terms = reader.terms();
        let allowed = Allowed {
            reader,
            terms: &terms,
            key,
            input: jws::signing_input(&header, payload.as_bytes()),
            // It is no token: nothing waits for its end.
            exp: now,
            caller: CALLER.to_owned(),
            moment,
        };
        let deadline = Instant::now() + terms.timing.signing_deadline.to_duration();
        let mut counted = reader.figures.begin(Operation::SignJwt);
        let signed = agent.release(allowed, deadline, &mut counted).await;
        // No caller's request.
        counted.uncounted();
        let signed = signed.map_err(unsigned)?;
        let token = jws::compact(&signed.signing_input, &signed.signature);
        let token = token.map_err(|e| defect(e.to_string()))?;
        let token: Arc<[u8]> = token.into_bytes().into();
        tracing::info!(
            key_set = self.name,
            kid = signed.kid,
            "the historical keys are signed"
        );
        self.archive.write(|state| {
            state.document = Some(Document {
                token: Arc::clone(&token),
                kid: signed.kid,
                at: now,
                claims,
            });
        });
        // Without it, a restart has none until the device signs.
        if let Err(e) = agent.0.context.keep_history(&self.name, &token).await {
            tracing::warn!(key_set = self.name, "the historical keys on disk: {e}");
        }
        Ok(())
    }

    /// What the document is to say, but for its date.
    async fn claims(&mut self, agent: &Agent) -> Result<Map<String, Value>, NoHistory> {
        let context = &agent.0.context;
        let record = agent.record(&self.name).await;
        let record = record.ok_or_else(|| NoHistory {
            reason: "NO_RECORD",
            why: "the key set has no usable record".to_owned(),
        })?;
        let sources = Sources {
            issuer: agent
                .reader(&self.name)
                .map_err(unsigned)?
                .terms()
                .rules
                .issuer()
                .to_owned(),
            record: reduced(record),
            logged: context.key_log(&self.name).events,
            tombstones: buried(context, &self.name)?,
        };
        self.archive.write(|state| {
            // The reader has not heard of every revocation, such as of one from
            // before the log was lost.
            let revoked = |kid: &str| {
                sources.record.revoked.contains_key(kid) || sources.tombstones.contains_key(kid)
            };
            state.document.take_if(|document| revoked(&document.kid));
        });
        if let Some((before, claims)) = &self.seen
            && *before == sources
        {
            return Ok(claims.clone());
        }
        let log = log_of(context, &self.name).await?;
        let history = sources.record.history(&log, &sources.tombstones);
        let (claims, left_out) = claims(&sources.issuer, &history);
        if left_out > 0 || !history.unknown.is_empty() {
            tracing::warn!(
                key_set = self.name,
                left_out,
                unknown = ?history.unknown,
                "the historical keys do not name every key"
            );
        }
        self.seen = Some((sources, claims.clone()));
        Ok(claims)
    }
}

/// A record without what moves now and then and says nothing here, so that the
/// log is read only when it has to be.
fn reduced(mut record: KeySet) -> KeySet {
    record.high_water = Time::from_millis(0);
    record.seats.clear();
    record.intents.clear();
    record.replicas.clear();
    record.requests.clear();
    record.waivers.clear();
    for key in record.keys.values_mut() {
        key.sightings.clear();
        key.exp_ceiling = None;
    }
    record
}

/// What the log says of a key set.
async fn log_of(context: &Arc<Context>, name: &str) -> Result<Vec<Told>, NoHistory> {
    let (context, name) = (Arc::clone(context), name.to_owned());
    let read = move || told(&context.audit.key_events(), &name);
    blocking(read).await.map_err(|why| NoHistory {
        reason: "LOG_UNREADABLE",
        why,
    })
}

/// What was revoked on disk.
fn buried(context: &Context, name: &str) -> Result<BTreeMap<String, Revocation>, NoHistory> {
    context.buried(name).map_err(|e| NoHistory {
        reason: "TOMBSTONE_UNREADABLE",
        why: e.to_string(),
    })
}

/// The document that was signed last, if it is on disk and a key of this key
/// set signed it.
async fn last_kept(context: &Arc<Context>, name: &str) -> Result<Option<Document>, String> {
    let Some(token) = context.read_history(name).map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    let log = log_of(context, name).await.map_err(|e| e.why)?;
    let document = read_back(&token, &log)?;
    let buried = buried(context, name).map_err(|e| e.why)?;
    let revoked = context.key_log(name).revoked;
    if revoked.contains(&document.kid) || buried.contains_key(&document.kid) {
        return Err(format!("{} signed it, and was revoked", document.kid));
    }
    Ok(Some(document))
}

fn unsigned(error: impl Into<SignError>) -> NoHistory {
    let error = error.into();
    NoHistory {
        reason: error.reason(),
        why: error.to_string(),
    }
}

const fn defect(why: String) -> NoHistory {
    NoHistory {
        reason: "NOT_A_TOKEN",
        why,
    }
}
