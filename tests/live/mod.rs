//! The whole program: real processes, a real token, real sockets.

mod a_year;
mod adopt;
mod approvals;
mod backup;
pub(crate) mod bad_days;
mod begin;
mod browser;
mod callers;
mod compromise;
pub(crate) mod crowds;
mod destroy;
mod fifty_rotations;
mod figures;
mod full_disk;
mod hostile;
mod import;
mod jwks_tls;
mod kills;
pub(crate) mod lab;
mod last_key;
mod observed;
mod operator;
mod recover;
mod reload;
mod rotation_under_load;
mod systemd;
mod waits;
