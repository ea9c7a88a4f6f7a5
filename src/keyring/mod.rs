//! The rotation state machine: a key set as a pure, deterministic value.
//!
//! A key goes `Generating -> Published -> Active -> Retiring -> Retired`, and
//! to `Revoked` from any live phase; its private half goes `Present ->
//! Destroying -> Destroyed` at a pace of its own. [`rules`] holds the numbered
//! inequalities that decide when; [`KeySet::advance`] takes the steps that are
//! due; what a device must do is an [`Intent`] in the value; readers get a
//! [`View`].
//!
//! Nothing here asks the time, waits, draws a random number or calls anybody:
//! the simulation, the model check and the agent drive the same code.

mod adopt;
mod advance;
mod approval;
mod bounds;
mod clock;
mod confirm;
mod crowd;
mod destroy;
mod event;
mod force;
mod forecast;
mod forget;
mod genesis;
mod history;
mod hold;
mod import;
mod intent;
mod key;
mod last;
mod lost;
mod observe;
mod operator;
mod outdated;
mod outlook;
mod publicity;
mod recover;
mod refusal;
pub mod rules;
mod set;
#[cfg(test)]
mod tests;
mod timing;
mod tracks;
mod view;
mod waiver;
mod window;

pub use adopt::{AdoptError, Adoption};
pub use approval::{MOST_REQUESTS, Request, Wish};
pub use bounds::{Bounds, Known, Lowered};
pub use clock::{Anchor, ClockGuard, ClockNote, Doubt};
pub use crowd::Crowd;
pub use event::{Event, What};
pub use force::{Forcing, WayBack};
pub use forecast::{Forecast, Life, Progress};
pub use genesis::GenesisError;
pub use history::{History, Past};
pub use import::ImportError;
pub use intent::{Intent, IntentId, Outcome, Task, UnexpectedOutcome};
pub use key::{Half, Hold, InvalidKeyId, Key, KeyId, Mandate, Phase, Reason};
pub use last::{NotReplaced, Replacement};
pub use operator::{Ending, Revoked, Then};
pub use outdated::{Holding, Outdated};
pub use outlook::{Outlook, Wait};
pub use publicity::{Discrepancy, Shown, Wrong, among};
pub use recover::{Finding, Inferred, RecoverError, Recovery, Told, Vouched, Witnesses, recover};
pub use refusal::OperatorError;
pub use set::{
    Genesis, InvalidSeatId, KeySet, ONLY_GROUP, Plan, Replica, Revocation, Seat, SeatId, Switch,
    Tick,
};
pub use timing::{HardLimit, LARGEST_SET, Timing, Violation};
pub use view::{Moment, NoSigner, PublishedKey, SeatView, SigningKey, View};
pub use waiver::{LONGEST_WAIVER, OWN_LISTENER, Waiver};
pub use window::{InvalidWindow, Window};
