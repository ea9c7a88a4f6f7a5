//! The command line, as an operator meets it.

mod doctor;
mod policy;
mod surface;
mod verify;
