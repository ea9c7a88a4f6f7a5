//! JOSE against the RFCs' own vectors and against other implementations.

#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

mod interop;
mod keys;
mod signatures;
mod vectors;
