//! The one integration-test binary.

mod device;
mod edges;
mod jose;
mod simulation;
mod softhsm;
mod tidy;
