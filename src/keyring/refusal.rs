//! What a person asks for and does not get.

use super::waiver::LONGEST_WAIVER;
use crate::jose::Algorithm;
use crate::time::{Span, Time};

/// Why the keyring does not do what a person asked. The person is at fault,
/// or too late; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// No such key.
    #[error("no key {kid:?} in the key set {key_set:?}")]
    UnknownKid {
        /// What was given.
        kid: String,
        /// Where it was looked for.
        key_set: String,
    },
    /// It was revoked so long ago that nothing else of it is on record.
    #[error("the key {kid} was revoked at {at}, and the record keeps nothing else of it")]
    Forgotten {
        /// The key.
        kid: String,
        /// Its end.
        at: Time,
    },
    /// No such track.
    #[error("the key set {key_set:?} has no {algorithm} track")]
    UnknownTrack {
        /// What was given.
        algorithm: Algorithm,
        /// Where it was looked for.
        key_set: String,
    },
    /// The active key is revoked, and its price must be chosen.
    #[error(
        "no standby is in every verifier's cache{}: choose to wait or to activate one early",
        safe_at.map(|at| format!(" before {at}")).unwrap_or_default()
    )]
    NoSafeStandby {
        /// When there is one, as far as that can be told.
        safe_at: Option<Time>,
    },
    /// A rollback to a key that is not retiring.
    #[error("expected a retiring key, but {kid} is {phase}")]
    NotRetiring {
        /// The key.
        kid: String,
        /// Its phase.
        phase: &'static str,
    },
    /// A track in which nothing waits to sign next.
    #[error("no {algorithm} key is published that could sign next")]
    NoStandby {
        /// The track.
        algorithm: Algorithm,
    },
    /// An early activation of what is no standby.
    #[error("expected a published key that signs nothing yet, but {kid} is {phase}")]
    NotStandby {
        /// The key.
        kid: String,
        /// Its phase.
        phase: &'static str,
    },
    /// A rollback that comes too late (rule 4).
    #[error("the destruction of the private half of {kid} has begun")]
    DestructionBegun {
        /// The key.
        kid: String,
    },
    /// A rollback to a key of before a revocation (rule 5).
    #[error("{kid} was made before the revocation at {after}")]
    BeforeRevocation {
        /// The key.
        kid: String,
        /// A key that may be active again is younger than this.
        after: Time,
    },
    /// A rollback to a key that an origin no longer shows.
    #[error("{kid} is not in every verifier's cache")]
    NotObserved {
        /// The key.
        kid: String,
    },
    /// A rollback while another switch is so near that not every replica would
    /// hear of the change in time.
    #[error("another key becomes active at {at}: try again after that")]
    SwitchNear {
        /// When.
        at: Time,
    },
    /// The destruction of what signs, or may.
    #[error("expected a key that signs no more, but {kid} is {phase}")]
    Signs {
        /// The key.
        kid: String,
        /// Its phase.
        phase: &'static str,
    },
    /// The destruction of a key to which somebody goes back.
    #[error("{kid} becomes active again at {at}")]
    RollsBack {
        /// The key.
        kid: String,
        /// When.
        at: Time,
    },
    /// The destruction of a key that callers may still name.
    #[error("{kid} is still being handed over, for {left}")]
    HandingOver {
        /// The key.
        kid: String,
        /// For how long.
        left: Span,
    },
    /// A destruction that ends a rollback window, and does not say so.
    #[error(
        "for {left} one can still go back to {kid}, and never again once its private half is destroyed"
    )]
    EndsRollback {
        /// The key.
        kid: String,
        /// For how long.
        left: Span,
    },
    /// The destruction of a key that an agent may still sign with.
    #[error("the agent {replica} has not said yet that it signs no more with {kid}")]
    InUse {
        /// The key.
        kid: String,
        /// Which agent.
        replica: String,
    },
    /// The destruction of what never was here.
    #[error("{kid} was imported for verification: there is no private half of it here")]
    NoPrivateHalf {
        /// The key.
        kid: String,
    },
    /// Nobody waits for agreement under this number, or no longer.
    #[error("no request {number} waits for a second person")]
    UnknownRequest {
        /// What was given.
        number: u64,
    },
    /// Who asks and who agrees are one.
    #[error("{person} asked for it, and a second person must agree")]
    SamePerson {
        /// As the configuration calls them.
        person: String,
    },
    /// The record would grow.
    #[error(
        "{} requests wait for a second person already",
        super::approval::MOST_REQUESTS
    )]
    TooManyRequests,
    /// A waiver of what is not observed.
    #[error("the key set {key_set:?} does not observe {origin:?}")]
    UnknownOrigin {
        /// What was given.
        origin: String,
        /// Where it was looked for.
        key_set: String,
        /// What is observed there.
        known: Vec<String>,
    },
    /// A waiver of the one origin that is always there.
    #[error("the agent's own listener is never waived: a key that it does not show is nowhere")]
    OwnListener,
    /// A waiver for no time at all, or for too long.
    #[error("expected more than nothing and at most {LONGEST_WAIVER}, got {span}")]
    WaiverSpan {
        /// What was given.
        span: Span,
    },
    /// A key that is held is not touched.
    #[error("{kid} is held; release it first")]
    Held {
        /// The key.
        kid: String,
    },
}
