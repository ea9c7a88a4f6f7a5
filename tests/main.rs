//! The one integration-test binary.

mod config;
mod device;
mod edges;
mod jose;
mod simulation;
mod softhsm;
mod tidy;
