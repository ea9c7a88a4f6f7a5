//! The one integration-test binary.

mod jose;
mod tidy;
