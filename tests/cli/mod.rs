//! The command line, as an operator meets it.

mod doctor;
mod kid;
mod policy;
mod surface;
mod verify;
