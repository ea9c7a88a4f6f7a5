//! Whose tokens by one key may be alive: read from the end of the signature
//! log, one segment at a time.
//!
//! Why it reads on where the log is damaged or gone: whoever asks has a key to
//! end, and a number that says what it leaves out serves them better than none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::line;
use super::{Entry, Seq, Verdict, segments};
use crate::durable::Disk;
use crate::time::Time;

/// How many callers are told apart.
const CALLERS: usize = 1000;

/// How often `go_on` is asked, in lines.
const STRIDE: usize = 4096;

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The key set.
    pub key_set: String,
    /// The key's id.
    pub kid: String,
    /// What was signed before it is of no interest: no token of then is alive.
    pub since: Time,
    /// Tokens are alive whose `exp` lies after it.
    pub now: Time,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many tokens are alive. Those of which no outcome is on record count:
    /// their outcome may have been lost in a crash.
    pub alive: u64,
    /// How many of them were signed before the log had `exp`.
    pub undated: u64,
    /// The latest `exp` of the others.
    pub latest_exp: Option<Time>,
    /// Who got them. At most a thousand; the rest is in [`Self::alive`] alone.
    pub callers: BTreeMap<String, Share>,
    /// What is missing, in sentences.
    pub gaps: Vec<String>,
}

/// What one caller got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many tokens are alive.
    pub alive: u64,
    /// The latest `exp` of those that have one on record.
    pub latest_exp: Option<Time>,
}

/// A token of the segment that is being read.
struct Found {
    seq: Seq,
    caller: usize,
    exp: Option<Time>,
}

struct Reading<'a> {
    wanted: &'a Wanted,
    /// How the key's id stands in a line: most lines are about others, and are
    /// not parsed.
    needle: Vec<u8>,
    tally: Tally,
    /// Signatures that were not given away, of segments still to be read.
    withheld: HashSet<u64>,
    damaged: u64,
}

/// Counts, newest segment first, until what is read is too old or `go_on` says
/// no. Blocks; holds one segment in memory.
pub(super) fn tally(
    disk: &dyn Disk,
    dir: &Path,
    wanted: &Wanted,
    mut go_on: impl FnMut() -> bool,
) -> Tally {
    let kid = serde_json::Value::from(wanted.kid.as_str());
    let mut reading = Reading {
        wanted,
        needle: format!("\"kid\":{kid}").into_bytes(),
        tally: Tally::default(),
        withheld: HashSet::new(),
        damaged: 0,
    };
    let segments = match segments::list(disk, dir) {
        Ok(segments) => segments,
        Err(e) => {
            reading.tally.gaps.push(e.to_string());
            return reading.tally;
        }
    };
    let mut begins = None;
    for (first, path) in segments.iter().rev() {
        begins = Some(*first);
        let bytes = match disk.read(path) {
            Ok(bytes) => bytes,
            Err(e) => {
                let gap = format!("{path:?} cannot be read: {e}");
                reading.tally.gaps.push(gap);
                continue;
            }
        };
        match reading.segment(&bytes, *first, &mut go_on) {
            Some(oldest) if oldest < wanted.since => {
                begins = None;
                break;
            }
            Some(_) => {}
            None => {
                let gap = "there was no time to read the whole log".to_owned();
                reading.tally.gaps.push(gap);
                begins = None;
                break;
            }
        }
    }
    if let Some(first) = begins.filter(|first| *first > 1) {
        let gap = format!("the log begins with line {first}: older segments were moved away");
        reading.tally.gaps.push(gap);
    }
    if reading.damaged > 0 {
        let gap = format!("{} lines are damaged", reading.damaged);
        reading.tally.gaps.push(gap);
    }
    reading.tally
}

impl Reading<'_> {
    /// Reads one segment, and says when its first line was written; `None`
    /// where it was not read to its end.
    fn segment(
        &mut self,
        bytes: &[u8],
        first: u64,
        go_on: &mut impl FnMut() -> bool,
    ) -> Option<Time> {
        let (mut found, mut names) = (Vec::new(), HashMap::<String, usize>::new());
        let mut oldest = None;
        let mut whole = true;
        // The last line of a log that is being written may be cut short.
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let lines = lines.filter_map(|line| line.strip_suffix(b"\n"));
        for (n, line) in lines.enumerate() {
            if !whole {
                break;
            }
            whole = n % STRIDE != 0 || go_on();
            let about = contains(line, &self.needle);
            if oldest.is_some() && !about && !contains(line, b"withheld") {
                continue;
            }
            let Ok(line) = line::decode::<Entry>(line) else {
                self.damaged += 1;
                continue;
            };
            match line.what {
                Entry::Outcome { of, outcome } => {
                    oldest = oldest.or(Some(outcome.at));
                    if matches!(outcome.verdict, Verdict::Withheld { .. }) {
                        self.withheld.insert(of.as_u64());
                    }
                }
                Entry::Signing(intent) => {
                    oldest = oldest.or(Some(intent.at));
                    if intent.kid != self.wanted.kid || intent.key_set != self.wanted.key_set {
                        continue;
                    }
                    let alive = intent
                        .exp
                        .map_or(intent.at >= self.wanted.since, |exp| exp > self.wanted.now);
                    if alive {
                        let next = names.len();
                        let caller = *names.entry(intent.caller).or_insert(next);
                        found.push(Found {
                            seq: line.seq,
                            caller,
                            exp: intent.exp,
                        });
                    }
                }
            }
        }
        let mut by_number: Vec<_> = names.into_iter().map(|(name, n)| (n, name)).collect();
        by_number.sort_unstable();
        self.count(&found, &by_number);
        self.withheld.retain(|seq| *seq < first);
        // An empty one is as new as can be.
        whole.then(|| oldest.unwrap_or(self.wanted.now))
    }

    fn count(&mut self, found: &[Found], names: &[(usize, String)]) {
        let tally = &mut self.tally;
        for token in found {
            if self.withheld.contains(&token.seq.as_u64()) {
                continue;
            }
            tally.alive += 1;
            tally.undated += u64::from(token.exp.is_none());
            tally.latest_exp = tally.latest_exp.max(token.exp);
            let (_, name) = &names[token.caller];
            if tally.callers.len() < CALLERS || tally.callers.contains_key(name) {
                let share = tally.callers.entry(name.clone()).or_default();
                share.alive += 1;
                share.latest_exp = share.latest_exp.max(token.exp);
            }
        }
    }
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}
