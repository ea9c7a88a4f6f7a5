//! The PKCS#11 adapter. It runs in the device child alone.

mod adopt;
mod attributes;
pub(crate) mod error;
mod generate;
mod list;
mod login;
mod mechanism;
mod public;
mod session;
mod template;
mod token;

pub(crate) use adopt::{adopt, look};
pub(crate) use generate::{Wanted, destroy, find, generate};
pub(crate) use list::list;
pub(crate) use login::log_in;
pub(crate) use session::Signer;
pub(crate) use token::Token;
