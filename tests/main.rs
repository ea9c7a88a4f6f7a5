//! The one integration-test binary.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod cli;
mod config;
mod debian;
mod device;
mod edges;
mod jose;
mod live;
mod model;
mod runbooks;
mod simulation;
mod softhsm;
mod tidy;
mod upgrade;
mod volume;
