//! The agent: one writer of the keyring, many readers of its view.

mod signing;

pub use signing::{Published, SignError, Signed, Signing};
