//! How a line is written, and how the end of a crashed log is told from
//! damage.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64ct::{Base64UrlUnpadded, Encoding};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{AuditError, Seq};

/// A line that was read back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Recorded<T> {
    /// Its number in the stream.
    pub seq: Seq,
    /// The first line of the batch that it was written with.
    pub batch: Seq,
    /// The agent that wrote it.
    pub agent: String,
    /// What it says.
    #[serde(flatten)]
    pub what: T,
}

/// The unfinished end of a log, after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub path: PathBuf,
    /// Where the unfinished part began.
    pub offset: usize,
    /// Its length in bytes.
    pub bytes: usize,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            offset,
            bytes,
        } = self;
        write!(
            f,
            "the audit log {path:?} ended in {bytes} unfinished bytes at byte {offset}, which were cut off"
        )
    }
}

#[derive(Serialize)]
struct Line<'a, T> {
    seq: u64,
    batch: u64,
    agent: &'a str,
    #[serde(flatten)]
    what: &'a T,
}

/// What stands between a line's content and its checksum.
const BEFORE_SUM: &[u8] = b",\"sum\":\"";
const AFTER_SUM: &[u8] = b"\"}";
/// 48 bits find damage; they are no defence against malice.
const SUM: usize = 8;

/// Appends one line to `lines`: a JSON object whose last member is a checksum
/// of everything before it.
pub(super) fn encode<T: Serialize>(
    lines: &mut Vec<u8>,
    seq: u64,
    batch: u64,
    agent: &str,
    what: &T,
) {
    let start = lines.len();
    let line = Line {
        seq,
        batch,
        agent,
        what,
    };
    serde_json::to_writer(&mut *lines, &line).expect("our own types always serialise to memory");
    // The object is closed again after the checksum.
    lines.pop();
    let sum = sum(&lines[start..]);
    lines.extend_from_slice(BEFORE_SUM);
    lines.extend_from_slice(sum.as_bytes());
    lines.extend_from_slice(AFTER_SUM);
    lines.push(b'\n');
}

fn sum(content: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, content);
    Base64UrlUnpadded::encode_string(&digest.as_ref()[..SUM * 6 / 8])
}

pub(super) fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<Recorded<T>, String> {
    let end = BEFORE_SUM.len() + SUM + AFTER_SUM.len();
    let (content, end) = (line.len().checked_sub(end))
        .map(|at| line.split_at(at))
        .ok_or("expected a JSON object with a checksum")?;
    let found = (end.strip_prefix(BEFORE_SUM))
        .and_then(|end| end.strip_suffix(AFTER_SUM))
        .ok_or("expected a checksum at its end")?;
    if found != sum(content).as_bytes() {
        return Err("its checksum does not match".into());
    }
    let object = [content, b"}"].concat();
    serde_json::from_slice(&object).map_err(|e| e.to_string())
}

/// What a log holds.
#[derive(Debug)]
pub(super) struct Scan<T> {
    pub(super) lines: Vec<Recorded<T>>,
    /// The length of the part that is whole.
    pub(super) len: usize,
    /// What is behind it, where there is anything.
    pub(super) torn: Option<Torn>,
}

/// Reads a log whose first line has, or would have, the number `first`.
///
/// From the first line that is not whole, everything is the unfinished last
/// batch, as long as no line behind it belongs to a later batch: that one was
/// begun only when all before it was durable.
pub(super) fn scan<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    first: u64,
) -> Result<Scan<T>, AuditError> {
    let mut whole = Scan {
        lines: Vec::new(),
        len: 0,
        torn: None,
    };
    let mut next = first;
    let mut damage: Option<AuditError> = None;
    let mut offset = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let start = offset;
        offset += line.len();
        let damaged = |why: String| AuditError::Damaged {
            path: path.to_owned(),
            line: index + 1,
            offset: start,
            why,
        };
        let decoded = match line.strip_suffix(b"\n") {
            Some(line) => decode::<T>(line),
            None => Err("expected the end of a line".into()),
        };
        match (decoded, damage.take()) {
            (Ok(line), None) if line.seq.0 == next => {
                next += 1;
                whole.len = offset;
                whole.lines.push(line);
            }
            (Ok(line), None) => {
                return Err(damaged(format!("expected line {next}, got {}", line.seq)));
            }
            // A later batch stands behind the damage.
            (Ok(line), Some(earlier)) if line.batch.0 > next => return Err(earlier),
            (_, Some(earlier)) => damage = Some(earlier),
            (Err(why), None) => damage = Some(damaged(why)),
        }
    }
    if damage.is_some() {
        whole.torn = Some(Torn {
            path: path.to_owned(),
            offset: whole.len,
            bytes: bytes.len() - whole.len,
        });
    }
    Ok(whole)
}
