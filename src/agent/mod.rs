//! The agent: one writer of the keyring, many readers of its view.

pub mod admin;
mod signing;

pub use admin::Administration;
pub use signing::{Published, SignError, Signed, Signing};
