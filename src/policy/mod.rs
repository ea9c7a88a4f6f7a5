//! Who may sign what: a raw request becomes a checked one, or is refused with
//! the rule's name.
//!
//! Pure: the caller's identity, the clock's reading and the key's facts are
//! arguments.

mod refusal;
mod request;

pub use refusal::{Reason, Refusal};
pub use request::{Caller, JwsRequest, JwtRequest};
