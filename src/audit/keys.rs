//! `keys.log`: one file, small, rewritten whole after a failure.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::line::{self, Recorded, Torn};
use super::{AuditError, KeyEvent, Seq};
use crate::durable::{Disk, DiskFile, PRIVATE, open_append, write_atomic};

#[derive(Debug)]
pub(super) struct KeyLog {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    agent: String,
    /// None after a failure.
    file: Option<Box<dyn DiskFile>>,
    /// Every durable line, as it stands in the file.
    durable: Vec<u8>,
    events: Vec<Recorded<KeyEvent>>,
}

impl KeyLog {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        agent: &str,
    ) -> Result<(Self, Option<Torn>), AuditError> {
        let mut bytes = match disk.read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.map_err(AuditError::io("read", &path))?,
        };
        let scan = line::scan(&path, &bytes, 1)?;
        bytes.truncate(scan.len);
        let mut file = open_append(&*disk, &path, PRIVATE)?;
        if scan.torn.is_some() {
            file.truncate(scan.len as u64)
                .map_err(AuditError::io("cut", &path))?;
        }
        // The process that wrote the last line may have died before it was
        // synced: what is acted upon from here on must be durable.
        file.sync().map_err(AuditError::io("sync", &path))?;
        let log = Self {
            disk,
            path,
            agent: agent.to_owned(),
            file: Some(file),
            durable: bytes,
            events: scan.lines,
        };
        Ok((log, scan.torn))
    }

    pub(super) fn append(&mut self, event: KeyEvent) -> Result<Seq, AuditError> {
        let seq = self.events.last().map_or(1, |last| last.seq.0 + 1);
        let before = self.durable.len();
        line::encode(&mut self.durable, seq, seq, &self.agent, &event);
        if let Err(e) = self.write(before) {
            self.durable.truncate(before);
            self.file = None;
            return Err(e);
        }
        self.events.push(Recorded {
            seq: Seq(seq),
            batch: Seq(seq),
            agent: self.agent.clone(),
            what: event,
        });
        Ok(Seq(seq))
    }

    pub(super) fn events(&self) -> &[Recorded<KeyEvent>] {
        &self.events
    }

    /// Makes the line behind `before` durable.
    fn write(&mut self, before: usize) -> Result<(), AuditError> {
        if let Some(file) = &mut self.file {
            file.append(&self.durable[before..])
                .map_err(AuditError::io("write", &self.path))?;
            return file.sync().map_err(AuditError::io("sync", &self.path));
        }
        // Why a new file: after a failed sync the kernel takes the lost pages
        // for clean, so a second sync of the old file succeeds without
        // writing them; and a failed write may have left half a line.
        write_atomic(&*self.disk, &self.path, &self.durable, PRIVATE)?;
        self.file = Some(open_append(&*self.disk, &self.path, PRIVATE)?);
        Ok(())
    }
}
