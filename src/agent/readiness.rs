//! Whether key sets do their work, for whoever routes requests to this agent
//! or is woken by it.
//!
//! Two questions, because they have two answers: with the device gone, the
//! JWKS is served and nothing is signed.

use super::Agent;
use super::reader::{Reader, Signers};
use super::signing::SignError;
use crate::hsm::State;
use crate::jose::Algorithm;
use crate::keyring::{Moment, SigningKey};
use crate::time::Time;

/// What the edges ask about health. It is a trait so that an edge is tested
/// without a device.
pub trait Watched: Send + Sync + 'static {
    /// Each configured key set, by name. From memory: it asks no device and
    /// waits for nobody.
    fn readiness(&self) -> Vec<Readiness>;
}

/// How one key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Its name.
    pub key_set: String,
    /// Whether its JWKS can be served.
    pub jwks: Result<(), Trouble>,
    /// Whether a request that names no algorithm and no `exp` would be signed,
    /// were policy to allow it.
    pub signing: Result<(), Trouble>,
    /// The same for each track. One that was just added does not sign until
    /// verifiers hold its key, and that is as it should be.
    pub tracks: Vec<(Algorithm, Result<(), Trouble>)>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A stable code, the same that callers are refused with.
    pub reason: &'static str,
    /// For the operator. May name devices and paths; never a claim, a token
    /// or a PIN.
    pub why: String,
}

impl Watched for Agent {
    fn readiness(&self) -> Vec<Readiness> {
        let names = self.0.rooms.keys();
        names.map(|name| self.readiness_of(name)).collect()
    }
}

impl Agent {
    pub(super) fn readiness_of(&self, name: &str) -> Readiness {
        let reader = &self.0.rooms[name].reader;
        let reading = self.clock().read();
        let signers = reader.signers();
        let why_not = || match &signers {
            Err(e) => trouble(e),
            Ok(_) => new("NOT_PUBLISHED", "no key was ever published".to_owned()),
        };
        let (signing, tracks) = match &signers {
            Err(e) => (Err(trouble(e)), Vec::new()),
            Ok(signers) => {
                let moment = signers.moment(reading, &reader.terms().timing);
                let asked = |algorithm| {
                    let key = signers.view.signer(algorithm, moment);
                    let key = key.map_err(|e| trouble(&e.into()))?;
                    reader.check_blocked(key).map_err(|e| trouble(&e))?;
                    self.can_sign(reader, signers, key, moment)
                };
                let tracks = signers.view.seats.iter();
                let tracks = tracks.map(|seat| (seat.algorithm, asked(Some(seat.algorithm))));
                (asked(None), tracks.collect())
            }
        };
        Readiness {
            key_set: name.to_owned(),
            jwks: reader.published(reading).map(drop).ok_or_else(why_not),
            signing,
            tracks,
        }
    }

    /// Whether this key's signature would be released: it is published, it may
    /// sign as far ahead as a token of the default lifetime goes, and a device
    /// that holds it is up.
    fn can_sign(
        &self,
        reader: &Reader,
        signers: &Signers,
        key: &SigningKey,
        moment: Moment,
    ) -> Result<(), Trouble> {
        if signers.verifier(&key.kid).is_none() {
            let why = format!("the set does not show the key {}", key.kid);
            return Err(new("KEY_NOT_PUBLISHED", why));
        }
        // As policy fills it in: in whole seconds.
        let exp =
            Time::from_secs((moment.time() + reader.terms().rules.default_lifetime()).as_secs());
        if exp > key.exp_ceiling {
            let why = format!(
                "nothing may be signed that expires after {}, and a token of the default lifetime would at {exp}: the store or the clock is in trouble",
                key.exp_ceiling
            );
            return Err(new("CEILING_REACHED", why));
        }
        let device = self.device_of(key).map_err(|e| trouble(&e))?;
        let name = device.name();
        match &*device.state().borrow() {
            State::Up { .. } => Ok(()),
            State::Starting => Err(new(
                "DEVICE_STARTING",
                format!("device {name} is being opened"),
            )),
            State::Down {
                why,
                pin_blocked,
                lasting,
                ..
            } => {
                let reason = match (pin_blocked, lasting) {
                    (true, _) => "PIN_BLOCKED",
                    (false, true) => "DEVICE_UNUSABLE",
                    (false, false) => "DEVICE_UNAVAILABLE",
                };
                Err(new(reason, format!("device {name} is down: {why}")))
            }
            State::Closed => Err(new(
                "DEVICE_UNAVAILABLE",
                format!("device {name} was shut down"),
            )),
        }
    }
}

fn trouble(error: &SignError) -> Trouble {
    new(error.reason(), error.to_string())
}

const fn new(reason: &'static str, why: String) -> Trouble {
    Trouble { reason, why }
}
