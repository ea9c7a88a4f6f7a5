//! Who may sign what: a raw request becomes a checked one, or is refused with
//! the rule's name.
//!
//! Pure: the caller's identity, the clock's reading and the key's facts are
//! arguments.
//!
//! Rules whose names start with `builtin.` hold for every key set; the others
//! are paths into the configuration.

mod check;
mod claims;
pub mod identity;
mod matcher;
mod people;
mod preset;
mod rate;
mod refusal;
mod request;
pub mod rules;

pub use check::{CheckError, CheckedJws, CheckedJwt, KeyFacts, check_jws, check_jwt};
pub use identity::{CallerId, Names};
pub use people::{Approvals, People};
pub use preset::Preset;
pub use rate::{Limiter, Rate};
pub use refusal::{Reason, Refusal};
pub use request::{Caller, JwsRequest, JwtRequest};
pub use rules::{Operation, Rule, Rules, Typ};
