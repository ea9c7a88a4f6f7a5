//! Sealkeeper: a signing agent that keeps JWT keys inside secure hardware.
//!
//! One binary is the daemon, its device children, and the operator's command
//! line. It signs over gRPC for authorization servers and publishes a JWKS
//! that rotates on a schedule without ever breaking a verifier.
//!
//! # Promises
//! 1. **No private key leaves the device.** A key that can be extracted is
//!    never published, and no code path reads private material.
//! 2. **A token that the agent signed verifies for its whole life** at every
//!    verifier that caches within the configured bound: across rotation,
//!    restart, crash and clock trouble.
//! 3. **Nobody gets a signature that policy does not allow.**
//! 4. **Every signature and every key event is on record.**
//! 5. **Faults degrade, they never corrupt.** With the HSM gone the JWKS is
//!    still served; with the store gone nothing is signed that could not be
//!    recorded; whatever dies at whatever instant, the next start finds the
//!    truth.
//!
//! # The house
//! Modules stand on floors and import downward only; `tests/tidy.rs` resolves
//! every `crate`, `self` and `super` path and fails on an upward one.
//!
//! | floor | modules | what holds there |
//! |---|---|---|
//! | 0 | [`time`], [`jose`], [`keyring`], [`policy`] | pure: no async, clock, I/O, randomness or logger |
//! | 1 | [`clock`], [`metrics`], [`durable`], [`hsm`], [`store`], [`audit`], [`observe`], [`webhook`], [`api`] | ports and their adapters |
//! | 2 | [`agent`] | one writer of the keyring, many readers of its view |
//! | 3 | [`serve`], [`client`] | edges: gRPC and HTTP, and who calls them. No edge calls another |
//! | 4 | [`config`], [`cli`] | composition |
//!
//! Within a floor a module imports only those that stand before it in the
//! table.
//!
//! # The trick that holds it together
//! **One writer, many readers, effects as data.** A key set is a value
//! ([`keyring::KeySet`]). Its `advance(now)` returns nothing and does nothing
//! but write *intents* into the value; the agent stores the value, carries the
//! intents out on the device, and reports each outcome back into the value.
//! Readers see an immutable [`keyring::View`] behind an atomic pointer. No
//! lock is held across a call to the device, and the signing path takes no
//! lock that rotation holds.
//!
//! **Invariant:** restrictions take effect before they are stored, permissions
//! only after. So an activation rests on what is on record alone: sightings, the
//! instants of the last looks, or the order of an operator that forces it.
//!
//! **Why the token and the origins are asked at a start:** a state folder that
//! was put back as a whole says nothing against itself. Only who stands outside
//! it knows more, and no signature leaves before the token was heard.

pub mod agent;
pub mod api;
pub mod audit;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod durable;
pub mod hsm;
pub mod jose;
pub mod keyring;
pub mod metrics;
pub mod observe;
pub mod policy;
pub mod serve;
pub mod store;
pub mod time;
pub mod webhook;
