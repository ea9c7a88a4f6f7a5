//! The whole program: real processes, a real token, real sockets.

mod bad_days;
mod kills;
mod lab;
