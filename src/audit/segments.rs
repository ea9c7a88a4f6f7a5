//! The signature log's files: which one is written to, and which comes next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::line::{self, Torn};
use super::{AuditError, Entry};
use crate::durable::{Disk, DiskFile, DurableError, PRIVATE};

const BEFORE: &str = "signatures-";
const AFTER: &str = ".log";

/// The segments of a directory by the number of their first line, oldest
/// first.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u64, PathBuf)>, AuditError> {
    let names = disk.list(dir).map_err(AuditError::io("list", dir))?;
    let mut segments: Vec<(u64, PathBuf)> = (names.iter())
        .filter_map(|name| {
            let first = name.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
            Some((first.parse().ok()?, dir.join(name)))
        })
        .collect();
    segments.sort();
    Ok(segments)
}

/// The end of the signature log.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    limit: u64,
    /// The number of the next line.
    next: u64,
    current: Option<Segment>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    len: u64,
    /// How much of it is durable.
    synced: u64,
    /// The first line that is not synced yet.
    batch: Option<u64>,
}

impl Segments {
    /// Finds the end of the log, and cuts off what a crash left behind it.
    ///
    /// Why the next line goes to a fresh segment even so: what is read here
    /// may stand in the kernel's cache alone, and a new batch behind it would
    /// claim that it is durable. At the end of a segment a loss is harmless.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        limit: u64,
    ) -> Result<(Self, Option<Torn>), AuditError> {
        let mut segments = Self {
            disk,
            dir,
            limit,
            next: 1,
            current: None,
        };
        let Some((first, path)) = list(&*segments.disk, &segments.dir)?.pop() else {
            return Ok((segments, None));
        };
        let bytes = (segments.disk.read(&path)).map_err(AuditError::io("read", &path))?;
        let scan = line::scan::<Entry>(&path, &bytes, first)?;
        segments.next = first + scan.lines.len() as u64;
        if scan.lines.is_empty() {
            // The next segment takes its name.
            (segments.disk.remove(&path)).map_err(AuditError::io("remove", &path))?;
        } else if scan.torn.is_some() {
            let mut file = (segments.disk.open(&path)).map_err(AuditError::io("open", &path))?;
            (file.truncate(scan.len as u64))
                .and_then(|()| file.sync())
                .map_err(AuditError::io("cut", &path))?;
        }
        Ok((segments, scan.torn))
    }

    /// Gets ready to write lines: the number of the first, and of the first
    /// one in its batch. On a failure the number is used up.
    pub(super) fn begin(&mut self) -> Result<(u64, u64), AuditError> {
        let seq = self.next;
        if (self.current.as_ref()).is_some_and(|segment| segment.len >= self.limit) {
            self.finish();
        }
        let segment = match &mut self.current {
            Some(segment) => segment,
            None => match self.create(seq) {
                Ok(segment) => self.current.insert(segment),
                Err(e) => {
                    self.next += 1;
                    return Err(e);
                }
            },
        };
        Ok((seq, *segment.batch.get_or_insert(seq)))
    }

    /// Writes `count` lines, and makes them durable if `sync`. After a failure
    /// their numbers are used up, and the next lines go to a fresh segment.
    pub(super) fn write(&mut self, lines: &[u8], count: u64, sync: bool) -> Result<(), AuditError> {
        self.next += count;
        let Some(mut segment) = self.current.take() else {
            return Err(AuditError::Closed);
        };
        match segment.write(lines, sync) {
            Ok(()) => {
                self.current = Some(segment);
                Ok(())
            }
            Err(e) => {
                self.abandon(segment);
                Err(e)
            }
        }
    }

    /// Makes what is written durable and closes the segment.
    pub(super) fn finish(&mut self) {
        if let Some(mut segment) = self.current.take()
            && segment.batch.is_some()
            && let Err(e) = segment.sync()
        {
            // Only outcomes can be lost here: signatures are synced when they
            // are written.
            tracing::warn!("outcomes may be missing from the audit log: {e}");
        }
    }

    /// Leaves a segment for ever after a failed write or sync.
    ///
    /// Why: after a failed sync the kernel takes the lost pages for clean, so
    /// a second sync of this file succeeds without writing them; and a failed
    /// write may have left half a line. The unsynced end is cut off, to give
    /// the room back and to spare readers; if that fails too, they pass over
    /// it as over the end of a crashed log.
    fn abandon(&self, mut segment: Segment) {
        let cut = if segment.synced == 0 {
            self.disk.remove(&segment.path)
        } else {
            segment.file.truncate(segment.synced)
        };
        if let Err(e) = cut {
            tracing::warn!("the end of {:?} could not be cut off: {e}", segment.path);
        }
    }

    fn create(&self, first: u64) -> Result<Segment, AuditError> {
        let path = self.dir.join(format!("{BEFORE}{first:012}{AFTER}"));
        let file = (self.disk.create(&path, PRIVATE)).map_err(AuditError::io("create", &path))?;
        let segment = Segment {
            path,
            file,
            len: 0,
            synced: 0,
            batch: None,
        };
        // Lines that are synced under a name that is not are lost all the same.
        if let Err(e) = self.sync_dir() {
            self.abandon(segment);
            return Err(e);
        }
        Ok(segment)
    }

    fn sync_dir(&self) -> Result<(), AuditError> {
        (self.disk.sync_dir(&self.dir))
            .map_err(DurableError::io("sync the directory", &self.dir))
            .map_err(AuditError::from)
    }
}

impl Segment {
    fn write(&mut self, lines: &[u8], sync: bool) -> Result<(), AuditError> {
        (self.file.append(lines)).map_err(AuditError::io("write", &self.path))?;
        self.len += lines.len() as u64;
        if sync { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), AuditError> {
        (self.file.sync()).map_err(AuditError::io("sync", &self.path))?;
        self.synced = self.len;
        self.batch = None;
        Ok(())
    }
}
