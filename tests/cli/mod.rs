//! The command line, as an operator meets it.

mod doctor;
mod verify;
