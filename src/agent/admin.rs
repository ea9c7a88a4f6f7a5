//! Long because: it is one contract, and mostly what its types mean.
//!
//! Administration, as its callers see it.

mod error;

use super::forced::Rotation;
use super::health::Health;
use super::impact::{Foreseen, Impact, Thought};
use crate::jose::Algorithm;
use crate::keyring::Discrepancy;
use crate::policy::Caller;
use crate::time::{Span, Time};
pub use error::AdminError;

/// What the administration edge asks of the agent. It is a trait so that the
/// edge is tested without a device.
///
/// Whoever reaches the administration socket may administer: the socket's
/// mode and owner are the rule. `caller` is for the record.
pub trait Administration: Send + Sync + 'static {
    /// Key sets with their keys, ordered by name; one of them where `key_set`
    /// names it.
    ///
    /// # Errors
    /// [`AdminError::UnknownKeySet`] for a name that is not configured.
    fn key_sets(
        &self,
        caller: &Caller,
        key_set: Option<&str>,
    ) -> impl Future<Output = Result<Vec<KeySetStatus>, AdminError>> + Send;

    /// Whether each key set signs and each device answers, and why not. From
    /// memory: asks no device. Nothing where there is nothing to tell.
    fn health(&self, _caller: &Caller) -> Health {
        Health::default()
    }

    /// Carries an order out once: the same `request_id` again is answered
    /// with the first outcome.
    fn change(
        &self,
        caller: &Caller,
        order: Order,
    ) -> impl Future<Output = Result<Changed, AdminError>> + Send;

    /// Ends every key of which a device has the private half, in all key sets.
    /// Says of each what became of it.
    ///
    /// # Errors
    /// [`AdminError::Refused`] for a device that there is not.
    fn revoke_device(
        &self,
        caller: &Caller,
        order: DeviceOrder,
    ) -> impl Future<Output = Result<Vec<Ended>, AdminError>> + Send;

    /// What the revocation of a key would mean. Changes nothing.
    ///
    /// # Errors
    /// [`AdminError::UnknownKeySet`], [`AdminError::UnknownKey`].
    fn foresee(
        &self,
        caller: &Caller,
        key_set: &str,
        thought: Thought,
    ) -> impl Future<Output = Result<Foreseen, AdminError>> + Send;

    /// What a rotation of a track would mean, by the rules and before its time;
    /// of the default track where none is named. Changes nothing.
    ///
    /// # Errors
    /// [`AdminError::UnknownKeySet`], [`AdminError::UnknownTrack`].
    fn foresee_rotation(
        &self,
        caller: &Caller,
        key_set: &str,
        algorithm: Option<Algorithm>,
    ) -> impl Future<Output = Result<Rotation, AdminError>> + Send;
}

/// A change that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Chosen by the caller; 1 to 64 characters.
    pub request_id: String,
    /// The key set to change.
    pub key_set: String,
    /// Refuse unless the record still has this version.
    pub expected_version: Option<String>,
    /// What to do.
    pub change: Change,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Activate the standby of a track as early as the rules allow.
    Rotate {
        /// The track; the default track where absent.
        algorithm: Option<Algorithm>,
        /// Even before every verifier can hold it.
        force: bool,
        /// A remark; may be empty.
        note: String,
    },
    /// End a key at once.
    Revoke {
        /// The key.
        kid: String,
        /// For the historical keys.
        reason: RevocationReason,
        /// What to do when no standby is in every verifier's cache; must be
        /// given then, because each choice has its price.
        then: Option<AfterRevocation>,
        /// A remark; may be empty.
        note: String,
    },
    /// Make a retiring key active again.
    Rollback {
        /// The key.
        kid: String,
    },
    /// Destroy the private half of a key that signs no more.
    Destroy {
        /// The key.
        kid: String,
        /// Even where that ends its rollback window.
        end_rollback: bool,
        /// A remark; may be empty.
        note: String,
    },
    /// Keep a key from destruction and removal.
    Hold {
        /// The key.
        kid: String,
        /// A remark; may be empty.
        note: String,
    },
    /// End a hold.
    Release {
        /// The key.
        kid: String,
    },
    /// Agree to what another person asked for.
    Approve {
        /// Its number.
        request: u64,
    },
    /// Take off what waits for a second person.
    Withdraw {
        /// Its number.
        request: u64,
    },
    /// Do not wait for an origin.
    WaiveOrigin {
        /// Its name: the address as it is configured.
        origin: String,
        /// For how long.
        span: Span,
        /// Why.
        note: String,
    },
    /// Wait for an origin again.
    RestoreOrigin {
        /// Its name.
        origin: String,
    },
    /// Vouch for the agent's clock.
    ConfirmClock {
        /// What the operator's own clock reads.
        reading: Time,
        /// A remark; may be empty.
        note: String,
    },
}

impl Change {
    /// A stable word, for the log.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Rotate { force: false, .. } => "rotate",
            Self::Rotate { force: true, .. } => "force-rotation",
            Self::Revoke { .. } => "revoke",
            Self::Rollback { .. } => "rollback",
            Self::Destroy { .. } => "destroy",
            Self::Hold { .. } => "hold",
            Self::Release { .. } => "release",
            Self::Approve { .. } => "approve",
            Self::Withdraw { .. } => "withdraw",
            Self::WaiveOrigin { .. } => "waive-origin",
            Self::RestoreOrigin { .. } => "restore-origin",
            Self::ConfirmClock { .. } => "confirm-clock",
        }
    }

    /// The key that it is about, by its `kid`, the origin, the track, or the
    /// number of the request; for the log.
    #[must_use]
    pub fn about(&self) -> Option<String> {
        match self {
            Self::Revoke { kid, .. }
            | Self::Rollback { kid }
            | Self::Destroy { kid, .. }
            | Self::Hold { kid, .. }
            | Self::Release { kid } => Some(kid.clone()),
            Self::WaiveOrigin { origin, .. } | Self::RestoreOrigin { origin } => {
                Some(origin.clone())
            }
            Self::Rotate { algorithm, .. } => algorithm.map(|it| it.name().to_owned()),
            Self::Approve { request } | Self::Withdraw { request } => Some(request.to_string()),
            Self::ConfirmClock { .. } => None,
        }
    }
}

/// The end of every key on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceOrder {
    /// The device's name.
    pub device: String,
    /// For the historical keys.
    pub reason: RevocationReason,
    /// What signs then.
    pub then: AfterRevocation,
    /// A remark; may be empty.
    pub note: String,
}

/// What became of a key when all on its device were ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its key set.
    pub key_set: String,
    /// The key; empty where it is not known which keys the set has.
    pub kid: String,
    /// What was done, or why not.
    pub outcome: Result<EndedKey, AdminError>,
}

/// A key that was ended with all on its device: as [`Changed`] has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in Changed")]
pub struct EndedKey {
    pub done: Vec<String>,
    pub pending: Vec<String>,
    pub trusted_until: Option<Time>,
    pub durable: bool,
    pub impact: Option<Impact>,
}

/// What signs after a revocation for which no standby is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AfterRevocation {
    /// Nothing, until the standby is in every verifier's cache.
    Wait,
    /// The standby at once; verifiers that do not hold it refuse its tokens
    /// until they fetch the set again.
    Activate,
}

/// Why a key was revoked, in the words of OpenID Federation's historical keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevocationReason {
    /// Nobody said.
    Unspecified,
    /// Somebody else may have used the private half.
    Compromised,
    /// Replaced, with no suspicion.
    Superseded,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The key set as it is now.
    pub key_set: KeySetStatus,
    /// What has happened, in sentences.
    pub done: Vec<String>,
    /// What is still to happen, in sentences.
    pub pending: Vec<String>,
    /// After a revocation: when the last bounded verifier has dropped the key.
    pub trusted_until: Option<Time>,
    /// Whether the change is stored. A restriction holds even when it is not.
    pub durable: bool,
    /// Who did alone what waits for a second person where two are asked for:
    /// a destruction, a rollback, a forced activation.
    pub alone: Option<String>,
    /// After a revocation: what it means.
    pub impact: Option<Impact>,
}

/// A key set as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetStatus {
    /// Its name.
    pub name: String,
    /// The version of its record; opaque.
    pub version: String,
    /// The fixed `iss`.
    pub issuer: String,
    /// In the order in which they were made.
    pub keys: Vec<KeyStatus>,
    /// What is coming, soonest first.
    pub next: Vec<Upcoming>,
    /// Revoked keys of which the record keeps nothing but their end, by `kid`.
    pub forgotten: Vec<ForgottenKey>,
    /// Why the clock is in doubt, with what it says and what it should: then nothing moves.
    pub clock_doubt: Option<String>,
    /// Why the record cannot be used, of which this is the last that is known.
    pub not_in_force: Option<String>,
    /// What waits for a second person, in the order in which it was asked for.
    pub requests: Vec<RequestStatus>,
}

/// An order that waits for a second person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestStatus {
    /// Under which one agrees.
    pub number: u64,
    /// A stable word: `destroy`, `rollback`, `activate`, `force`, `waive`.
    pub wish: &'static str,
    /// The `kid` that it is about, or the origin; of `activate` in words.
    pub about: String,
    /// The key that signs once somebody agrees, as it is now.
    pub would_sign: Option<String>,
    /// Who asked.
    pub by: String,
    /// Which person that is.
    pub person: String,
    /// What they noted.
    pub note: String,
    /// Since when.
    pub at: Time,
    /// Until when.
    pub expires: Time,
}

/// A key as an operator sees it. An absent date has not come, or was passed
/// over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// Its `kid`; empty while the device is still making it.
    pub kid: String,
    /// Its `alg`, and so its track.
    pub algorithm: Algorithm,
    /// Where it stands.
    pub phase: KeyPhase,
    /// Whether the private half exists.
    pub private_half: PrivateHalf,
    /// The devices that hold the private half.
    pub placements: Vec<PlacementStatus>,
    /// When it was decided to make it.
    pub created: Option<Time>,
    /// When it was first active.
    pub activated: Option<Time>,
    /// Since when it has been in the JWKS.
    pub published: Option<Time>,
    /// Start of the latest unbroken run of sightings at every origin.
    pub observed: Option<Time>,
    /// The same of each origin, while the key is in the JWKS.
    pub sightings: Vec<SightingStatus>,
    /// When a published key becomes active, as planned.
    pub activates: Option<Time>,
    /// Since when it was the active key.
    pub active_since: Option<Time>,
    /// Since when another key has signed in its place.
    pub retiring_since: Option<Time>,
    /// When the device destroyed the private half.
    pub private_destroyed: Option<Time>,
    /// When the private half was given up.
    pub private_given_up: Option<Time>,
    /// When it left the JWKS.
    pub removed: Option<Time>,
    /// It signs nothing whose `exp` lies beyond.
    pub exp_ceiling: Option<Time>,
    /// Until when verifiers that do not hold it refuse its tokens, where it
    /// was forced to sign before they do.
    pub refused_until: Option<Time>,
    /// Who holds it, and since when.
    pub hold: Option<HoldStatus>,
    /// Who ended it, when and why.
    pub revocation: Option<RevocationStatus>,
}

/// Whether an origin shows a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SightingStatus {
    /// The origin's name.
    pub origin: String,
    /// Start of the latest unbroken run of sightings there; absent where it
    /// does not show the key.
    pub since: Option<Time>,
    /// What this agent found wrong with it there when it looked last.
    pub wrong: Option<Discrepancy>,
    /// Until when nobody waits for it.
    pub waived_until: Option<Time>,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyPhase {
    /// The device is making it.
    Generating,
    /// In the JWKS, signing nothing yet.
    Published,
    /// Signs.
    Active,
    /// Signs no more; its tokens live.
    Retiring,
    /// Out of the JWKS.
    Retired,
    /// Ended before its time.
    Revoked,
}

/// Whether the private half of a key exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrivateHalf {
    /// A device was asked to make it, and has not said that it did.
    Wanted,
    /// A device holds it.
    Present,
    /// A device should hold it, and did not when it was to sign; or another
    /// token is in its place.
    Missing,
    /// No device holds it any more.
    Destroyed,
    /// It was lost with its token, for all that anybody knows: an operator said
    /// so, or its device lacked it when the record was made again.
    GivenUp,
    /// Imported for verification; there never was one here.
    None,
}

/// Where a private half is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementStatus {
    /// The device's name in the configuration.
    pub device: String,
    /// The random id under which the device knows the key.
    pub handle_id: Vec<u8>,
    /// A word for its state there.
    pub state: String,
    /// The serial of the token that holds it, where it is known.
    pub token: Option<String>,
}

/// Evidence of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldStatus {
    /// Since when.
    pub since: Time,
    /// Who asked for it.
    pub by: String,
    /// What they noted.
    pub note: String,
}

/// Evidence of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationStatus {
    /// When.
    pub at: Time,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: RevocationReason,
    /// What they noted.
    pub note: String,
    /// Whether a restart would forget it.
    pub in_memory_alone: bool,
}

/// A key that was revoked so long ago that nothing else is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgottenKey {
    /// Its `kid`.
    pub kid: String,
    /// Its end.
    pub revocation: RevocationStatus,
}

/// Something that the schedule will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upcoming {
    /// The earliest instant at which it can happen.
    pub at: Time,
    /// A stable word: `generate`, `publish`, `activate`, `destroy`, `remove`.
    pub kind: String,
    /// Absent where the key does not exist yet.
    pub kid: Option<String>,
    /// The track.
    pub algorithm: Algorithm,
    /// What it waits for besides the clock.
    pub waits_for: Option<String>,
}
