//! One binary: the daemon, its device children, the command line.
fn main() {}
