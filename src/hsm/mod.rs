//! The HSM port: keys are generated, found, used and destroyed here, and
//! their private halves never come out.
//!
//! Vendor code is foreign C code: it can hang, crash, and stop working until
//! it is initialised anew. So it lives in a child process: the daemon holds a
//! [`Device`], which talks in plain [`message`]s with a child ([`child::run`])
//! that holds the module, the sessions and the login. A hang or a crash is
//! cured by ending the child and starting another; each fault in a reply says
//! which [`message::Cure`] it needs.
//!
//! ```text
//! caller -> Device -> one bounded queue -> supervisor ==socket== child: reader
//!                                                               |- workers, a session each
//!                                                               `- control, a session for life
//! ```
//!
//! The queue has a flow for each key set; flows take turns and share places.
//! It is bounded in time as well: what would wait too long, by the measured
//! speed of the device, is turned away at once. The child has little more
//! than it works on, so that what waits can still be passed, expire, or be
//! given to another child.
//!
//! **Why: no C_Finalize anywhere.** Finalising while a thread is inside the
//! module is undefined, and on SoftHSM it crashes the process. The child
//! leaves by `_exit`, which runs no handler of vendor code; the token ends
//! the sessions of a process that is gone.

pub mod child;
pub mod device;
mod frame;
pub mod message;
pub mod pin_marker;
pub mod pin_source;
mod pkcs11;

pub use device::{Device, DeviceConfig, DeviceError, Load, State};
pub use message::{
    Cure, Evidence, Generated, Handle, Listed, MOST_LISTED, ObjectId, Pairs, TokenIdentity,
    TokenSelector, hex, unhex,
};
pub use pin_source::{PinSource, PinSupply};
