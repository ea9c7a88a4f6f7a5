//! The command line, as an operator meets it.

mod differs;
mod doctor;
mod kid;
mod policy;
mod readme;
mod simulate;
mod surface;
mod verify;
