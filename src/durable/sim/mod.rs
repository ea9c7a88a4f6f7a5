//! A disk in memory that forgets, at a simulated crash, whatever was not
//! synced. For tests alone.

mod dice;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::{Disk, DiskFile, Lock};
use dice::Dice;

/// What a crash takes with it. A file system may do any of these, and promises
/// none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the process died, the machine did not.
    Nothing,
    /// Everything that was not synced.
    Everything,
    /// Unsynced content; names survive. The classic empty file.
    Content,
    /// Unsynced names; content survives.
    Names,
    /// For each name and each piece of content, a throw of the dice with this
    /// seed: kept, lost, or garbled.
    Dice(u64),
}

impl Loss {
    /// Every kind, with `throws` different throws of the dice.
    pub fn kinds(throws: u64) -> impl Iterator<Item = Self> {
        [Self::Nothing, Self::Everything, Self::Content, Self::Names]
            .into_iter()
            .chain((1..=throws).map(Self::Dice))
    }
}

/// A disk in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<State>>, Arc<Condvar>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Content>,
    dirs: BTreeMap<PathBuf, Dir>,
    locks: BTreeSet<PathBuf>,
    /// What was done, in order: `sync a/b`, for messages and for counting.
    done: Vec<String>,
    /// After so many operations that change something, power is gone.
    power: Option<usize>,
    /// Bytes that still fit.
    free: Option<usize>,
    /// So many syncs fail from now on.
    failing_syncs: usize,
    /// Syncs whose record contains this do nothing and say that they did.
    lying: Option<String>,
    /// Syncs of files do not return.
    held: bool,
    /// How many do not.
    holding: usize,
}

#[derive(Clone, Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Written, then lost in a sync that failed: the cache still shows it, and
    /// no later sync brings it to the disk.
    holes: Vec<Range<usize>>,
}

#[derive(Clone, Debug, Default)]
struct Dir {
    live: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

impl SimDisk {
    /// An empty disk; `/` exists.
    #[must_use]
    pub fn new() -> Self {
        let disk = Self::default();
        disk.state().dirs.insert("/".into(), Dir::default());
        disk
    }

    /// Power fails after `operations` more that change something. Every call
    /// after that fails, until [`crash`](Self::crash).
    pub fn cut_power_after(&self, operations: usize) {
        self.state().power = Some(operations);
    }

    /// Only `bytes` more fit; `None` lifts the bound.
    pub fn set_free(&self, bytes: Option<usize>) {
        self.state().free = bytes;
    }

    /// The next `count` syncs of files fail, and what they should have synced
    /// never reaches the disk.
    pub fn fail_syncs(&self, count: usize) {
        self.state().failing_syncs = count;
    }

    /// From now on a sync whose record contains `what` does nothing. Shows
    /// that a test notices a missing sync.
    pub fn lie_about(&self, what: &str) {
        self.state().lying = Some(what.to_owned());
    }

    /// From now on syncs of files do not return, as on a disk that hangs.
    pub fn hold_syncs(&self) {
        self.state().held = true;
    }

    /// The disk hangs no more.
    pub fn release_syncs(&self) {
        self.state().held = false;
        self.1.notify_all();
    }

    /// Waits until a sync is held.
    ///
    /// # Panics
    /// After 20 seconds without one.
    pub fn wait_for_held_sync(&self) {
        let none = |state: &mut State| state.holding == 0;
        let waited = (self.1)
            .wait_timeout_while(self.state(), Duration::from_secs(20), none)
            .unwrap_or_else(|e| e.into_inner());
        assert!(!waited.1.timed_out(), "nobody syncs anything");
    }

    /// What was done so far, such as `sync /d/f` or `sync-dir /d`.
    #[must_use]
    pub fn operations(&self) -> Vec<String> {
        self.state().done.clone()
    }

    /// The disk as the next start finds it. This one is left as it is, so that
    /// several kinds of loss can be tried on one history.
    #[must_use]
    pub fn crash(&self, loss: Loss) -> Self {
        let state = self.state();
        let mut dice = Dice(match loss {
            Loss::Dice(seed) => seed,
            _ => 0,
        });
        let files = state.files.iter().map(|file| {
            let content = match loss {
                Loss::Nothing | Loss::Names => file.live.clone(),
                Loss::Everything | Loss::Content => file.durable.clone(),
                Loss::Dice(_) => dice.content(file),
            };
            Content {
                live: content.clone(),
                durable: content,
                holes: Vec::new(),
            }
        });
        let files = files.collect();
        let mut dirs: BTreeMap<PathBuf, Dir> = BTreeMap::new();
        for (path, dir) in &state.dirs {
            // A directory whose own name was lost takes its content along.
            if path.parent().is_some() && entry(&dirs, path) != Some(Node::Dir) {
                continue;
            }
            let names = match loss {
                Loss::Nothing | Loss::Content => dir.live.clone(),
                Loss::Everything | Loss::Names => dir.durable.clone(),
                Loss::Dice(_) => dice.names(dir),
            };
            let dir = Dir {
                live: names.clone(),
                durable: names,
            };
            dirs.insert(path.clone(), dir);
        }
        let state = State {
            files,
            dirs,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)), Arc::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// What `path` is in its parent directory.
fn entry(dirs: &BTreeMap<PathBuf, Dir>, path: &Path) -> Option<Node> {
    let name = path.file_name()?.to_str()?;
    dirs.get(path.parent()?)?.live.get(name).copied()
}

impl State {
    /// Counts one operation that changes something; refuses it if power is
    /// gone.
    fn act(&mut self, what: &str, path: &Path) -> io::Result<()> {
        self.powered()?;
        self.power = self.power.map(|left| left - 1);
        self.done.push(format!("{what} {}", path.display()));
        Ok(())
    }

    fn powered(&self) -> io::Result<()> {
        match self.power {
            Some(0) => Err(io::Error::other("power is gone")),
            _ => Ok(()),
        }
    }

    fn lies(&self) -> bool {
        let last = self.done.last();
        (self.lying.as_ref()).is_some_and(|what| last.is_some_and(|done| done.contains(what)))
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match entry(&self.dirs, path) {
            Some(Node::File(id)) => Ok(id),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// The directory that holds `path`, and its name there.
    fn place(&mut self, path: &Path) -> io::Result<(&mut Dir, String)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or(ErrorKind::InvalidInput)?.to_owned();
        let parent = path.parent().ok_or(ErrorKind::InvalidInput)?;
        let dir = self.dirs.get_mut(parent).ok_or(ErrorKind::NotFound)?;
        Ok((dir, name))
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        if dir.live.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        dir.live.insert(name, node);
        Ok(())
    }

    fn release(&mut self, bytes: usize) {
        self.free = self.free.map(|free| free + bytes);
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.act("create-dir", path)?;
        state.add(path, Node::Dir)?;
        state.dirs.insert(path.to_owned(), Dir::default());
        Ok(())
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.state().dirs.contains_key(path)
    }

    fn create(&self, path: &Path, _mode: u32) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.act("create", path)?;
        let id = state.files.len();
        state.add(path, Node::File(id))?;
        state.files.push(Content::default());
        Ok(self.handle(id, path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        state.powered()?;
        let id = state.file(path)?;
        Ok(self.handle(id, path))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        state.powered()?;
        let id = state.file(path)?;
        Ok(state.files[id].live.clone())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.powered()?;
        let dir = state.dirs.get(dir).ok_or(ErrorKind::NotFound)?;
        Ok(dir.live.keys().cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.act("rename", to)?;
        let id = state.file(from)?;
        let (dir, name) = state.place(from)?;
        dir.live.remove(&name);
        let (dir, name) = state.place(to)?;
        dir.live.insert(name, Node::File(id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.act("remove", path)?;
        let id = state.file(path)?;
        let (dir, name) = state.place(path)?;
        dir.live.remove(&name);
        let bytes = state.files[id].live.len();
        state.release(bytes);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.act("sync-dir", dir)?;
        if state.lies() {
            return Ok(());
        }
        let dir = state.dirs.get_mut(dir).ok_or(ErrorKind::NotFound)?;
        dir.durable = dir.live.clone();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        state.powered()?;
        if !state.locks.insert(path.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path: path.to_owned(),
        }))
    }
}

impl SimDisk {
    fn handle(&self, id: usize, path: &Path) -> Box<dyn DiskFile> {
        Box::new(SimFile {
            disk: self.clone(),
            id,
            path: path.to_owned(),
        })
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: usize,
    path: PathBuf,
}

impl DiskFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.act("append", &self.path)?;
        let fits = state.free.map_or(bytes.len(), |free| free.min(bytes.len()));
        state.free = state.free.map(|free| free - fits);
        state.files[self.id].live.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.act("truncate", &self.path)?;
        let file = &mut state.files[self.id];
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let cut = file.live.len().saturating_sub(len);
        file.live.truncate(len);
        file.holes.retain_mut(|hole| {
            hole.end = hole.end.min(len);
            hole.start < hole.end
        });
        state.release(cut);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.act("sync", &self.path)?;
        if state.lies() {
            return Ok(());
        }
        if state.held {
            state.holding += 1;
            self.disk.1.notify_all();
            // Bounded, so that a test that fails meanwhile ends.
            (state, _) = (self.disk.1)
                .wait_timeout_while(state, Duration::from_secs(20), |state| state.held)
                .unwrap_or_else(|e| e.into_inner());
            state.holding -= 1;
        }
        let failing = state.failing_syncs > 0;
        state.failing_syncs = state.failing_syncs.saturating_sub(1);
        let file = &mut state.files[self.id];
        if failing {
            file.holes.push(file.durable.len()..file.live.len());
            return Err(io::Error::other("the device reported an error"));
        }
        file.durable = file.live.clone();
        for hole in &file.holes {
            file.durable[hole.clone()].fill(0);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}
