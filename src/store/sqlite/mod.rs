//! The embedded store: one SQLite file, for one agent and the operator's
//! commands beside it.
//!
//! The file belongs on a local disk: the write-ahead log needs shared memory,
//! which network file systems do not give.

mod aside;
mod database;
mod open_file;
mod upgrade;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError as TryPushError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::{Change, Changes, Cursor, MAX_RECORD, Pending, Store, StoreError, Stored, Version};
pub use aside::put_aside;
use database::Database;

/// How often to look for changes that other processes made.
const POLL: Duration = Duration::from_millis(250);

/// How many requests may wait. Key sets change a few times a day; more than
/// this means that the disk hangs.
const MAX_WAITING: usize = 256;

/// How many changes a watcher may lag behind before its changes are merged.
const MAX_LAG: usize = 64;

/// A store in one SQLite file.
///
/// A thread of its own owns the connection: SQLite blocks, and a disk that
/// hangs then holds up this thread and not a pool that others need. Dropping
/// the store waits for what was asked before.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    jobs: Option<SyncSender<Job>>,
    worker: Option<JoinHandle<()>>,
}

/// Gets the database, or why there is none.
type Task = dyn FnOnce(Result<&mut Database, StoreError>) + Send;

enum Job {
    Run(Box<Task>),
    Watch(Watcher),
}

/// The connection, or what opens it as soon as that is possible.
enum Connection {
    Open(Box<Database>),
    Closed(PathBuf),
}

impl Connection {
    fn database(&mut self) -> Result<&mut Database, StoreError> {
        if let Self::Closed(path) = self {
            let database = Database::open(path)?;
            tracing::info!(?path, "the store is open");
            *self = Self::Open(Box::new(database));
        }
        match self {
            Self::Open(database) => Ok(database),
            Self::Closed(path) => Err(failed("open", path, &"it is closed")),
        }
    }
}

impl Sqlite {
    /// Opens the store to read and write; makes it, mode 0600, where there is
    /// none. Its directory must exist. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for a file that is not a whole store: it is
    /// never made anew and never written to. [`StoreError::Newer`],
    /// [`StoreError::Full`], [`StoreError::Busy`], [`StoreError::Failed`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let database = Database::open(&path)?;
        Self::start(Connection::Open(Box::new(database)), path)
    }

    /// The same for a daemon, which starts all the same where the store cannot
    /// be opened *yet*: the disk is full, others hold it. Every call tries
    /// again then, and says why it cannot be opened. Blocks.
    ///
    /// # Errors
    /// As [`open`](Self::open), where waiting mends nothing.
    pub fn open_in_time(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let connection = match Database::open(&path) {
            Ok(database) => Connection::Open(Box::new(database)),
            Err(e) if e.may_pass() => {
                tracing::error!("nothing will be signed until the store can be opened: {e}");
                Connection::Closed(path.clone())
            }
            Err(e) => return Err(e),
        };
        Self::start(connection, path)
    }

    /// Opens the store for a command that only looks. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Absent`], and as [`open`](Self::open).
    pub fn open_read_only(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let database = Database::open_read_only(&path)?;
        Self::start(Connection::Open(Box::new(database)), path)
    }

    /// Writes a record of another store, such as one that was lost, which had
    /// it under the version `after`: no version of that one is used again. As
    /// [`Store::compare_and_swap`] otherwise.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_back(
        &self,
        key_set: &str,
        expected: Option<Version>,
        record: &[u8],
        after: &Version,
    ) -> Result<Version, StoreError> {
        let (key_set, record) = (key_set.to_owned(), record.to_owned());
        let after = database::number(after);
        self.run(move |database| database.compare_and_swap(&key_set, expected, &record, after))
            .await
    }

    fn start(connection: Connection, path: PathBuf) -> Result<Self, StoreError> {
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let worker = thread::Builder::new()
            .name("store".into())
            .spawn(move || work(connection, &waiting))
            .map_err(|e| failed("start the thread of", &path, &e))?;
        Ok(Self {
            path,
            jobs: Some(jobs),
            worker: Some(worker),
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.submit(Job::Run(Box::new(move |database| {
            // Nobody may be waiting any more; what was done is done.
            let _ = answer.send(database.and_then(job));
        })))?;
        answered.await.unwrap_or_else(|_| Err(self.closed()))
    }

    fn submit(&self, job: Job) -> Result<(), StoreError> {
        let Some(jobs) = &self.jobs else {
            return Err(self.closed());
        };
        jobs.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => StoreError::Busy {
                path: self.path.clone(),
                why: format!("{MAX_WAITING} requests wait for the disk"),
            },
            TrySendError::Disconnected(_) => self.closed(),
        })
    }

    fn closed(&self) -> StoreError {
        failed("use", &self.path, &"its thread has ended")
    }
}

impl Store for Sqlite {
    fn load<'a>(&'a self, key_set: &'a str) -> Pending<'a, Option<Stored>> {
        let key_set = key_set.to_owned();
        Box::pin(self.run(move |database| database.load(&key_set)))
    }

    fn compare_and_swap<'a>(
        &'a self,
        key_set: &'a str,
        expected: Option<Version>,
        record: &'a [u8],
    ) -> Pending<'a, Version> {
        let (key_set, size) = (key_set.to_owned(), record.len());
        if size > MAX_RECORD {
            return Box::pin(async move { Err(StoreError::TooLarge { key_set, size }) });
        }
        let record = record.to_owned();
        Box::pin(
            self.run(move |database| database.compare_and_swap(&key_set, expected, &record, 0)),
        )
    }

    fn list(&self) -> Pending<'_, Vec<(String, Version)>> {
        Box::pin(self.run(|database| {
            let changed = database.changed_since(0)?;
            let mut all: Vec<_> = (changed.into_iter())
                .map(|(key_set, version)| (key_set, database::version(version)))
                .collect();
            all.sort_by(|(a, _), (b, _)| a.cmp(b));
            Ok(all)
        }))
    }

    fn watch(&self, since: Cursor) -> Changes {
        let (changes, seen) = mpsc::channel(MAX_LAG);
        let watcher = Watcher {
            seen: since.count(),
            changes: changes.clone(),
        };
        if let Err(e) = self.submit(Job::Watch(watcher)) {
            // The channel is empty, so there is room.
            let _ = changes.try_send(Err(e));
        }
        Box::pin(ReceiverStream::new(seen))
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(worker) = self.worker.take() {
            // A panic over there has been reported over there.
            let _ = worker.join();
        }
    }
}

/// Does what is asked, one after the other, and tells the watchers.
fn work(mut connection: Connection, jobs: &Receiver<Job>) {
    let mut watchers: Vec<Watcher> = Vec::new();
    loop {
        let job = if watchers.is_empty() {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_timeout(POLL)
        };
        match job {
            Ok(Job::Run(job)) => job(connection.database()),
            Ok(Job::Watch(watcher)) => watchers.push(watcher),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // A closed store changes nothing, and whoever uses it opens it.
        if let (false, Connection::Open(database)) = (watchers.is_empty(), &mut connection) {
            tell(database, &mut watchers);
        }
    }
}

/// Somebody who watches.
struct Watcher {
    /// The newest change that it was told.
    seen: i64,
    changes: mpsc::Sender<Result<Change, StoreError>>,
}

/// Tells each watcher what it has not seen; forgets those that went away.
fn tell(database: &mut Database, watchers: &mut Vec<Watcher>) {
    let newest = match database.newest() {
        Ok(newest) => newest,
        // Others hold the store; the next round looks again.
        Err(StoreError::Busy { .. }) => return,
        Err(e) => {
            for watcher in watchers.drain(..) {
                // A watcher that lags gets the end of the stream alone.
                let _ = watcher.changes.try_send(Err(e.clone()));
            }
            return;
        }
    };
    watchers.retain_mut(|watcher| watcher.tell(database, newest));
}

impl Watcher {
    /// Whether it still watches.
    fn tell(&mut self, database: &mut Database, newest: i64) -> bool {
        if self.changes.is_closed() {
            return false;
        }
        if self.seen > newest {
            self.seen = 0;
        }
        if self.seen == newest {
            return true;
        }
        let changed = match database.changed_since(self.seen) {
            Ok(changed) => changed,
            Err(StoreError::Busy { .. }) => return true,
            Err(e) => {
                let _ = self.changes.try_send(Err(e));
                return false;
            }
        };
        for (key_set, number) in changed {
            let change = Change {
                key_set,
                version: database::version(number),
                cursor: Cursor::at(number),
            };
            match self.changes.try_send(Ok(change)) {
                Ok(()) => self.seen = number,
                // The rest is found again in the next round.
                Err(TryPushError::Full(_)) => return true,
                Err(TryPushError::Closed(_)) => return false,
            }
        }
        true
    }
}

fn failed(doing: &'static str, path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed {
        doing,
        path: path.to_owned(),
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests;
