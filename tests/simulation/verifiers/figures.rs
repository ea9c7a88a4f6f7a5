//! How often each kind of verifier did what it is there for, so that none can
//! stop without anybody noticing.

use std::collections::BTreeMap;
use std::fmt;

use super::Population;
use super::kinds::KINDS;

/// What verifiers of one kind met.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Tokens that were shown to them.
    pub(super) tokens: u64,
    pub(super) fetches: u64,
    /// Fetches that nobody answered.
    pub(super) in_vain: u64,
    /// Tokens of a key that was in no set there.
    pub(super) unknown: u64,
    /// Keys of which they took a first token, after those of another.
    pub(super) rotations: u64,
    /// Tokens of a revoked key.
    pub(super) trusted: u64,
    pub(super) distrusted: u64,
}

/// The same for each kind.
#[derive(Clone, Default)]
pub(crate) struct Crowd(BTreeMap<&'static str, Figures>);

impl Crowd {
    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, more) in &other.0 {
            self.0.entry(kind).or_default().add(more);
        }
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.0.values().map(|figures| figures.tokens).sum()
    }

    /// What some kind never did.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for kind in KINDS {
            let figures = self.0.get(kind.name).copied().unwrap_or_default();
            let never = figures.named().into_iter().filter(|(_, count)| *count == 0);
            missing.extend(never.map(|(what, _)| format!("{}: {what}", kind.name)));
        }
        missing
    }
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.fetches += other.fetches;
        self.in_vain += other.in_vain;
        self.unknown += other.unknown;
        self.rotations += other.rotations;
        self.trusted += other.trusted;
        self.distrusted += other.distrusted;
    }

    fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("tokens", self.tokens),
            ("fetches", self.fetches),
            ("in vain", self.in_vain),
            ("unknown kid", self.unknown),
            ("new key", self.rotations),
            ("trusted", self.trusted),
            ("distrusted", self.distrusted),
        ]
    }
}

impl Population {
    /// What the verifiers of this world met.
    pub(crate) fn crowd(&self) -> Crowd {
        let mut crowd = Crowd::default();
        for client in &self.clients {
            let figures = crowd.0.entry(client.kind.name).or_default();
            figures.add(&client.figures);
        }
        crowd
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, _) in Figures::default().named() {
            write!(f, "{what:>12}")?;
        }
        writeln!(f)?;
        for (kind, figures) in &self.0 {
            for (_, count) in figures.named() {
                write!(f, "{count:>12}")?;
            }
            writeln!(f, "  {kind}")?;
        }
        Ok(())
    }
}
