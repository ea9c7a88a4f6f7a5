//! The command line, as an operator meets it.

mod differs;
mod doctor;
mod kid;
mod policy;
mod surface;
mod verify;
