//! The one integration-test binary.

mod device;
mod jose;
mod simulation;
mod softhsm;
mod tidy;
