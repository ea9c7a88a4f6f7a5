//! Compiles `proto/` with a protobuf compiler written in Rust.
fn main() {}
