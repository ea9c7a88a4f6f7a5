//! What the invariants remember of the world, in true time. The keyring never
//! sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sealkeeper::keyring::{Event, KeySet, Told, What};
use sealkeeper::time::{Span, Time};

pub(crate) struct Ledger {
    /// The latest `exp` that each key signed.
    pub(crate) tokens: BTreeMap<String, Time>,
    /// Since when an origin has shown a key, as far as anybody can know: a
    /// break counts once it is on record.
    pub(crate) runs: BTreeMap<(usize, String), Time>,
    /// Runs that were broken: the epoch from which readers may know, and the
    /// run as it was.
    pub(crate) broken: BTreeMap<(usize, String), (u64, Time)>,
    /// P + C as they were when the activation of a key was fixed.
    pub(crate) wait: BTreeMap<String, Span>,
    /// Keys that may sign though nobody observed them: by `init`, or because
    /// an operator chose it.
    pub(crate) excused: BTreeSet<String>,
    /// Keys that have signed and had waited for long enough.
    pub(crate) proven: BTreeSet<String>,
    /// Activations that were taken back, with the epoch of that.
    pub(crate) cancelled: BTreeMap<String, u64>,
    /// Keys whose rollback an operator gave up.
    pub(crate) given_up: BTreeSet<String>,
    /// When the revocation of a key was stored.
    pub(crate) revoked: BTreeMap<String, Time>,
    /// The record as it was stored last.
    pub(crate) previous: Rc<KeySet>,
    /// What the log of key events has.
    pub(crate) told: Vec<Told>,
    /// A record that somebody put aside, and how many events it knew.
    pub(crate) old: Option<(Rc<KeySet>, u64)>,
    /// The longest lifetime of tokens that was ever in force.
    pub(crate) longest: Span,
    /// Tracks with more keys than rule 6 counts, for a reason: a revocation,
    /// or other numbers in the configuration.
    pub(crate) oversize: bool,
    /// Since when nothing has gone wrong.
    pub(crate) calm_since: Time,
}

impl Ledger {
    pub(crate) fn new(record: Rc<KeySet>, now: Time) -> Self {
        Self {
            tokens: BTreeMap::new(),
            runs: BTreeMap::new(),
            broken: BTreeMap::new(),
            wait: BTreeMap::new(),
            excused: BTreeSet::new(),
            proven: BTreeSet::new(),
            cancelled: BTreeMap::new(),
            given_up: BTreeSet::new(),
            revoked: BTreeMap::new(),
            previous: record,
            told: Vec::new(),
            old: None,
            longest: Span::ZERO,
            oversize: false,
            calm_since: now,
        }
    }

    /// The log has these events of a record that was stored.
    pub(crate) fn tell(&mut self, events: &[Event], record: &Rc<KeySet>) {
        // As the program reads its log: what is of no key says nothing of one.
        let of_keys = |event: &&Event| !matches!(event.what, What::ClockConfirmed { .. });
        let before = self.told.len() as u64;
        for (number, event) in (before + 1..).zip(events.iter().filter(of_keys)) {
            self.told.push(Told::of(number, event));
        }
        let known = self.told.len() as u64;
        if known % 16 < known - before {
            self.old = Some((Rc::clone(record), known));
        }
    }

    pub(crate) fn token(&mut self, kid: &str, exp: Time) {
        let latest = self.tokens.entry(kid.to_owned()).or_insert(exp);
        *latest = (*latest).max(exp);
    }

    pub(crate) fn shown(&mut self, origin: usize, kid: &str, now: Time) {
        let run = (origin, kid.to_owned());
        self.runs.entry(run).or_insert(now);
    }

    /// A break of a run is on record, from this epoch on.
    pub(crate) fn broke(&mut self, origin: usize, kid: &str, epoch: u64) {
        let run = (origin, kid.to_owned());
        if let Some(since) = self.runs.remove(&run) {
            self.broken.insert(run, (epoch, since));
        }
    }
}
