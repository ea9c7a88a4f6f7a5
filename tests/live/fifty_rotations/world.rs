//! The worlds: the one that the configuration promises to stand, and those that
//! lack a wait.

use sealkeeper::time::Span;

use super::{ADOPTION, CACHE, DEADLINE, LIFETIME, PROPAGATION, ROLLBACK, SKEW};

/// How bad it is, and what the agent knows of that.
#[derive(Clone)]
pub(super) struct World {
    pub(super) name: &'static str,
    pub(super) seed: u64,
    /// As the agent is told.
    pub(super) propagation: Span,
    pub(super) cache: Span,
    pub(super) skew: Span,
    /// How far the edges that verifiers ask are behind the origin.
    pub(super) lag: Span,
    /// How far the clock steps forward.
    pub(super) step: Span,
    /// In how many parts.
    pub(super) parts: u32,
    /// Whether each step comes with a restart of the machine.
    pub(super) restarts: bool,
    /// Whether keys leave the public set when an agent without L would let
    /// them go.
    pub(super) without_lifetime: bool,
    pub(super) kills: bool,
    pub(super) leaps: bool,
}

impl World {
    /// What the configuration promises to stand, less what a busy machine
    /// takes to get there.
    pub(super) fn promised() -> Self {
        Self {
            name: "promised",
            seed: std::env::var("SEALKEEPER_SEED").map_or(20_260_401, |s| s.parse().unwrap()),
            propagation: PROPAGATION,
            cache: CACHE,
            skew: SKEW,
            lag: Span::from_millis(1_050),
            step: Span::from_millis(1_200),
            parts: 1,
            restarts: false,
            without_lifetime: false,
            kills: true,
            leaps: true,
        }
    }

    /// The same, as bad as it may be to a hair, and without what only delays.
    pub(super) fn less(name: &'static str) -> Self {
        Self {
            name,
            lag: Span::from_millis(1_425),
            step: Span::from_millis(1_425),
            kills: false,
            leaps: false,
            ..Self::promised()
        }
    }

    pub(super) fn schedule(&self) -> String {
        let waits = self.propagation + self.cache + self.skew;
        let ms = |span: Span| format!("\"{}ms\"", span.as_millis());
        format!(
            "rotate_every = {}\nverifier_cache = {}\nmax_age = {}\npropagation = {}\nskew = {}\n\
             max_token_lifetime = {}\ndefault_lifetime = {}\nrollback_window = {}\n\
             adoption = {}\nsigning_deadline = {}",
            ms(waits + ADOPTION.times(3) + Span::from_millis(100)),
            ms(self.cache),
            ms(self.cache.min(Span::from_secs(1))),
            ms(self.propagation),
            ms(self.skew),
            ms(LIFETIME),
            ms(LIFETIME),
            ms(ROLLBACK),
            ms(ADOPTION),
            ms(DEADLINE),
        )
    }
}
