//! The whole program: real processes, a real token, real sockets.

mod kills;
mod lab;
