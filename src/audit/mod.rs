//! The record of every signature and every key event: plain JSON lines,
//! synced before anything relies on them.
//!
//! A directory holds two streams. `keys.log` has one line for each key event,
//! each with the whole public JWK; it is small, and read whole at the start.
//! `signatures-<first sequence number>.log` are segments; a line says what is
//! about to be signed, and a later one what became of it. A signing line
//! without an outcome is a signature that was made in a crash or withheld
//! unseen: it was never released by an agent that works.
//!
//! No tokens and no signing inputs are written, only their SHA-256; and no
//! claims but one, when a token expires: it tells nothing of whom the token is
//! about, and without it nobody can say what the end of a key breaks.
//!
//! The directory is *trusted*: checksums find damage, not malice. Whoever
//! writes to it can drop the newest lines, or make up others.
//!
//! # Why a batch number
//! Lines are written in batches, and a batch begins only when the one before
//! is synced. A crash can garble any part of the last batch, even its middle,
//! and nothing else. Each line names the first line of its batch, so a reader
//! can tell the end of a crashed log, which is cut off, from damage to lines
//! that were once durable, which is an error.

mod keys;
mod line;
mod segments;
mod tally;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use aws_lc_rs::digest;
use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::sync::{oneshot, watch};

use crate::durable::{Disk, DurableError, create_dir, sweep};
use crate::time::Time;
use keys::KeyLog;
pub use line::{Recorded, Torn};
use segments::Segments;
pub use tally::{Share, Tally, Wanted};
use writer::Shared;

/// A line's number in its stream, from 1. A number that was given to a line
/// which could not be written is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// The bare number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The SHA-256 of a JWS signing input; base64url in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputDigest([u8; 32]);

impl InputDigest {
    /// Hashes `b64url(header) "." b64url(payload)` (RFC 7515 section 5.1).
    #[must_use]
    pub fn of(signing_input: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, signing_input).as_ref());
        Self(bytes)
    }
}

impl Serialize for InputDigest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Base64UrlUnpadded::encode_string(&self.0))
    }
}

impl<'de> Deserialize<'de> for InputDigest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let mut bytes = [0; 32];
        match Base64UrlUnpadded::decode(&text, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => Ok(Self(bytes)),
            _ => Err(de::Error::custom("expected 32 bytes in base64url")),
        }
    }
}

/// What is about to be signed, for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// When the agent decided to sign it; milliseconds since 1970.
    pub at: Time,
    /// The key set.
    pub key_set: String,
    /// The key's id.
    pub kid: String,
    /// Who asked, as the caller's identity shows itself.
    pub caller: String,
    /// When the token expires; absent in the first logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<Time>,
    /// What it is.
    #[serde(rename = "input_sha256")]
    pub input: InputDigest,
}

/// What became of a signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// When; milliseconds since 1970.
    pub at: Time,
    /// Whether the caller got it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Whether a signature left the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// It was given to the caller.
    Released,
    /// It was not, or never came about.
    Withheld {
        /// A reason code, such as `WRONG_SIGNATURE`; never a claim.
        reason: String,
    },
}

/// A line of the signature log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// A signature is about to be made.
    Signing(Intent),
    /// What became of one.
    Outcome {
        /// The signing line that this is about.
        of: Seq,
        /// What became of it.
        #[serde(flatten)]
        outcome: Outcome,
    },
}

/// Something happened to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEvent {
    /// When; milliseconds since 1970.
    pub at: Time,
    /// The key set.
    pub key_set: String,
    /// Its number in its key set, from 1: a record that knows of fewer is an
    /// old copy.
    pub number: u64,
    /// What happened, such as `published`; the words are the agent's.
    pub event: String,
    /// The key's id in the record and in devices.
    pub key: String,
    /// Its `kid`, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The whole public JWK, so that a lost store can be rebuilt from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwk: Option<serde_json::Value>,
    /// What belongs to the event: a reason, an instant, a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Who ordered it, as the caller's identity shows itself; absent for what
    /// time or a device brought about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What they noted, where they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Whether that was one person where a second one may be wanted: for a
    /// destruction, a rollback, a forced activation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
}

/// Why something is not on record.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The disk refused. The line may or may not be there. The next one goes
    /// to a fresh file, so this heals when the disk does.
    #[error("the audit log failed: {0}")]
    Disk(Arc<DurableError>),
    /// Lines that were durable once are not what was written.
    #[error(
        "the audit log {path:?} is damaged at line {line}, byte {offset}: {why}; keep a copy for inspection, then move it out of the directory"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first damaged line, from 1.
        line: usize,
        /// Where that line begins.
        offset: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Another process writes to this directory.
    #[error(
        "the audit log {path:?} is in use by another agent; give each agent a directory of its own"
    )]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The disk does not keep up. The request was not queued.
    #[error("{waiting} signatures wait for the audit log's disk")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// The log was closed, or its thread has died; a defect, see the log.
    #[error("the audit log is closed")]
    Closed,
}

impl From<DurableError> for AuditError {
    fn from(error: DurableError) -> Self {
        Self::Disk(Arc::new(error))
    }
}

impl AuditError {
    /// Whether there is no room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk(e) if e.is_full())
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let context = DurableError::io(doing, path);
        move |source| context(source).into()
    }
}

/// Bounds of an audit log.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A segment that has grown beyond this many bytes gets no more lines.
    pub segment_bytes: u64,
    /// How many signatures may wait for the disk, and four times as many
    /// outcomes.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            waiting: 4096,
        }
    }
}

/// An open audit log: the only writer of its directory.
///
/// Dropping it writes and syncs what is queued, and waits for that.
#[derive(Debug)]
pub struct Audit {
    keys: Mutex<KeyLog>,
    /// The number of the newest key event.
    newest: watch::Sender<u64>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    torn: Vec<Torn>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    _lock: Box<dyn crate::durable::Lock>,
}

impl Audit {
    /// Opens the log in `dir`, and makes it where there is none. `agent` goes
    /// into each line. Blocks.
    ///
    /// The unfinished end that a crash left is cut off, and told by
    /// [`torn`](Self::torn). Of the signature log only the last segment is
    /// read; [`signatures`] reads them all.
    ///
    /// # Errors
    /// [`AuditError::Damaged`], [`AuditError::InUse`], [`AuditError::Disk`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: impl Into<PathBuf>,
        agent: &str,
        limits: Limits,
    ) -> Result<Self, AuditError> {
        let dir = dir.into();
        create_dir(&*disk, &dir)?;
        let lock_path = dir.join("lock");
        let lock = disk.lock(&lock_path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => AuditError::InUse {
                path: lock_path.clone(),
            },
            _ => AuditError::io("lock", &lock_path)(e),
        })?;
        sweep(&*disk, &dir)?;
        let (keys, torn_keys) = KeyLog::open(Arc::clone(&disk), dir.join("keys.log"), agent)?;
        let (segments, torn_segment) =
            Segments::open(Arc::clone(&disk), dir.clone(), limits.segment_bytes)?;
        let shared = Arc::new(Shared::new(limits.waiting));
        let writer = writer::Writer::new(Arc::clone(&shared), segments, agent);
        let writer = thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run())
            .map_err(AuditError::io("start the thread of", &lock_path))?;
        let torn: Vec<Torn> = torn_keys.into_iter().chain(torn_segment).collect();
        for torn in &torn {
            tracing::warn!("{torn}");
        }
        let newest = keys.events().last().map_or(0, |last| last.seq.0);
        Ok(Self {
            keys: Mutex::new(keys),
            newest: watch::Sender::new(newest),
            shared,
            writer: Some(writer),
            torn,
            disk,
            dir,
            _lock: lock,
        })
    }

    /// What a crash had left unfinished and opening has cut off. None of it
    /// was ever reported as recorded.
    #[must_use]
    pub fn torn(&self) -> &[Torn] {
        &self.torn
    }

    /// Records that a signature is about to be made. The future resolves when
    /// the record is durable; what waits at the same time shares one sync.
    ///
    /// The work begins with the call, not with the first poll, and goes on if
    /// the future is dropped.
    ///
    /// # Errors
    /// [`AuditError::Overloaded`], [`AuditError::Disk`],
    /// [`AuditError::Closed`]; then the signature must not be released.
    pub fn record_signing(
        &self,
        intent: Intent,
    ) -> impl Future<Output = Result<Seq, AuditError>> + Send + use<> {
        let (done, recorded) = oneshot::channel();
        let queued = self.shared.push_intent(intent, done);
        async move {
            queued?;
            recorded.await.unwrap_or(Err(AuditError::Closed))
        }
    }

    /// Notes what became of a signature. Never waits: the line is written with
    /// the next batch, or a moment later, and synced with the next signature.
    /// Where too many wait it is dropped and counted.
    pub fn outcome(&self, of: Seq, outcome: Outcome) {
        self.shared.push_outcome(of, outcome);
    }

    /// How many outcomes were dropped since the log was opened.
    #[must_use]
    pub fn outcomes_lost(&self) -> u64 {
        self.shared.outcomes_lost()
    }

    /// Counts the tokens by one key that may be alive, newest segment first, as
    /// long as `go_on` says so: it is asked every few thousand lines. Blocks;
    /// holds one segment in memory. What it cannot read, it names.
    pub fn tally(&self, wanted: &Wanted, go_on: impl FnMut() -> bool) -> Tally {
        tally::tally(&*self.disk, &self.dir, wanted, go_on)
    }

    /// Records a key event. Durable when it returns. Blocks for a sync.
    ///
    /// # Errors
    /// [`AuditError::Disk`]: the event may be found after a crash all the
    /// same. Trying again is safe: it replaces what the failed try left.
    pub fn key_event(&self, event: KeyEvent) -> Result<Seq, AuditError> {
        let seq = self.keys().append(event)?;
        self.newest.send_replace(seq.0);
        Ok(seq)
    }

    /// The number of the newest key event, from now on; 0 where there is none.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The key events after that number, oldest first.
    #[must_use]
    pub fn key_events_after(&self, number: u64) -> Vec<Recorded<KeyEvent>> {
        let keys = self.keys();
        let from = (keys.events()).partition_point(|event| event.seq.0 <= number);
        keys.events()[from..].to_vec()
    }

    /// Every key event on record, oldest first.
    #[must_use]
    pub fn key_events(&self) -> Vec<Recorded<KeyEvent>> {
        self.keys().events().to_vec()
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, KeyLog> {
        // `append` changes what it knows only after the disk has answered.
        self.keys.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(writer) = self.writer.take() {
            // A panic over there has been reported over there.
            let _ = writer.join();
        }
    }
}

/// Every line of the signature log, oldest first, for tools and tests. Reads
/// all segments into memory; changes nothing, and may run beside an agent,
/// whose unfinished last batch is left out.
///
/// # Errors
/// [`AuditError::Damaged`], [`AuditError::Disk`].
pub fn signatures(disk: &dyn Disk, dir: &Path) -> Result<Vec<Recorded<Entry>>, AuditError> {
    let mut all = Vec::new();
    for (first, path) in segments::list(disk, dir)? {
        let bytes = disk.read(&path).map_err(AuditError::io("read", &path))?;
        all.extend(line::scan(&path, &bytes, first)?.lines);
    }
    Ok(all)
}

/// The segments of the signature log that nothing is written to any more,
/// oldest first: all but the newest, whose name and lines say with which number
/// the next one begins. None where the directory cannot be read.
///
/// No start reads them: they may be moved away, while the agent runs too.
#[must_use]
pub fn old_segments(disk: &dyn Disk, dir: &Path) -> Vec<PathBuf> {
    let mut segments = segments::list(disk, dir).unwrap_or_default();
    segments.pop();
    segments.into_iter().map(|(_, path)| path).collect()
}

/// When the newest line of the signature log was written; none where there is
/// none. Reads its newest segment alone. As [`signatures`] otherwise.
///
/// # Errors
/// [`AuditError::Damaged`], [`AuditError::Disk`].
pub fn last_written(disk: &dyn Disk, dir: &Path) -> Result<Option<Time>, AuditError> {
    let mut segments = segments::list(disk, dir)?;
    while let Some((first, path)) = segments.pop() {
        let bytes = disk.read(&path).map_err(AuditError::io("read", &path))?;
        let lines: Vec<Recorded<Entry>> = line::scan(&path, &bytes, first)?.lines;
        let at = lines.iter().map(|line| match &line.what {
            Entry::Signing(intent) => intent.at,
            Entry::Outcome { outcome, .. } => outcome.at,
        });
        if let Some(latest) = at.max() {
            return Ok(Some(latest));
        }
    }
    Ok(None)
}

/// Every key event on record, oldest first, for tools. As [`signatures`].
///
/// # Errors
/// [`AuditError::Damaged`], [`AuditError::Disk`].
pub fn key_events(disk: &dyn Disk, dir: &Path) -> Result<Vec<Recorded<KeyEvent>>, AuditError> {
    let path = dir.join("keys.log");
    let bytes = match disk.read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes.map_err(AuditError::io("read", &path))?,
    };
    Ok(line::scan(&path, &bytes, 1)?.lines)
}

#[cfg(test)]
mod tests;
