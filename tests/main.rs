//! The one integration-test binary.

mod jose;
mod simulation;
mod tidy;
