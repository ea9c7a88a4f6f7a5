//! The edges: gRPC and HTTP. No edge calls another; each turns what comes in
//! into a type of a lower floor and what comes back into its own protocol.
//!
//! A server is given a bound listener and a future that ends when it is to
//! stop. It then takes no more connections, finishes what it has begun, and
//! returns within [`Limits::drain`].
//!
//! Trust: whoever connects is *not* trusted. They can hold connections, calls,
//! streams and bytes up to what [`Limits`] grants, and leave as much to others;
//! they cannot make a queue or the log grow, keep a connection that does
//! nothing for ever, or learn more than the JWKS without a rule.

mod connection;
mod counted;
pub mod grpc;
pub mod http;
mod lines;
pub mod listener;
mod peer;
mod shares;
mod sources;
pub mod tls;

pub use connection::Limits;
pub use counted::{Counted, CountedArrival, CountedStream};
