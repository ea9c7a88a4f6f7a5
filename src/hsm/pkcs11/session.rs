//! Signing: a session and its cached handles, owned by one thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki::object::{ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::Token;
use super::error::while_doing;
use super::mechanism::Plan;
use super::{public, template};
use crate::hsm::message::{Cure, Fault, FaultKind, ObjectId, Sign};
use crate::jose::{Algorithm, KeyType};

/// Signs in a session of its own. No search, login or session open happens
/// for a key that it has used before.
#[derive(Debug)]
pub(crate) struct Signer {
    token: Arc<Token>,
    session: Session,
    keys: HashMap<ObjectId, Key>,
    /// Counts the keys that came and went; handles may be reused after.
    changes: Arc<AtomicU64>,
    seen: u64,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    handle: ObjectHandle,
    /// `None` where the private half does not say.
    kind: Option<KeyType>,
}

impl Signer {
    pub(crate) fn new(token: Arc<Token>, changes: Arc<AtomicU64>) -> Result<Self, Fault> {
        Ok(Self {
            session: token.session()?,
            token,
            keys: HashMap::new(),
            seen: changes.load(Ordering::Acquire),
            changes,
        })
    }

    /// A signature in JOSE form. Applies each cure that needs no new child at
    /// most once.
    pub(crate) fn sign(&mut self, job: &Sign) -> Result<Vec<u8>, Fault> {
        let now = self.changes.load(Ordering::Acquire);
        if self.seen != now {
            self.keys.clear();
            self.seen = now;
        }
        let mut tried = Vec::new();
        loop {
            let fault = match self.attempt(job) {
                Ok(signature) => {
                    self.token.is_well();
                    return Ok(signature);
                }
                Err(fault) => self.token.diagnose(&self.session, fault),
            };
            if tried.contains(&fault.cure) {
                return Err(fault);
            }
            match fault.cure {
                // The old session is closed when it is dropped, and with it
                // whatever operation was left active.
                Cure::NewSession => self.session = self.token.session()?,
                Cure::FindAgain => {
                    self.keys.remove(&job.object);
                }
                Cure::TryAgain => {}
                _ => return Err(fault),
            }
            tried.push(fault.cure);
        }
    }

    fn attempt(&mut self, job: &Sign) -> Result<Vec<u8>, Fault> {
        let key = self.key(job.object)?;
        if let Some(kind) = key.kind
            && !job.algorithm.accepts(kind)
        {
            return Err(Fault::new(
                FaultKind::Refused,
                Cure::Never,
                format!(
                    "key {} is {kind}, which {} cannot use",
                    job.object, job.algorithm
                ),
            ));
        }
        let plan = self.token.mechanisms.plan(job.algorithm)?;
        sign(
            &self.session,
            key.handle,
            key.kind,
            job.algorithm,
            &plan,
            &job.input,
        )
    }

    fn key(&mut self, object: ObjectId) -> Result<Key, Fault> {
        if let Some(key) = self.keys.get(&object) {
            return Ok(*key);
        }
        let found = self
            .session
            .find_objects(&template::search(object, ObjectClass::PRIVATE_KEY))
            .map_err(while_doing("finding the private key"))?;
        let handle = match found.as_slice() {
            [handle] => *handle,
            [] => {
                self.token.check(&self.session)?;
                return Err(no_such_key(object));
            }
            many => return Err(duplicate(object, many.len())),
        };
        let kind = public::kind(&self.session, handle)?;
        let key = Key { handle, kind };
        self.keys.insert(object, key);
        Ok(key)
    }
}

/// One signature, its length checked: a token that signs a digest of the
/// wrong length, or answers in DER, must not pass.
pub(super) fn sign(
    session: &Session,
    handle: ObjectHandle,
    kind: Option<KeyType>,
    algorithm: Algorithm,
    plan: &Plan,
    input: &[u8],
) -> Result<Vec<u8>, Fault> {
    let signature = session
        .sign(&plan.mechanism(), handle, &plan.data(input))
        .map_err(while_doing("signing"))?;
    if length_fits(kind, algorithm, signature.len()) {
        return Ok(signature);
    }
    Err(Fault::new(
        FaultKind::Defect,
        Cure::Never,
        format!(
            "expected {algorithm} to make a signature of {} bytes, got {}",
            kind.unwrap_or(algorithm.default_key_type()).signature_len(),
            signature.len()
        ),
    ))
}

fn length_fits(kind: Option<KeyType>, algorithm: Algorithm, len: usize) -> bool {
    match kind {
        Some(kind) => len == kind.signature_len(),
        // One of the lengths of this algorithm; which, only the public half
        // can tell.
        None => [
            KeyType::Rsa2048,
            KeyType::Rsa3072,
            KeyType::Rsa4096,
            algorithm.default_key_type(),
        ]
        .into_iter()
        .any(|kind| algorithm.accepts(kind) && kind.signature_len() == len),
    }
}

pub(super) fn no_such_key(object: ObjectId) -> Fault {
    Fault::new(
        FaultKind::NoSuchKey,
        Cure::Never,
        format!("the token holds no key {object}"),
    )
}

pub(super) fn duplicate(object: ObjectId, n: usize) -> Fault {
    Fault::new(
        FaultKind::BadKey,
        Cure::Never,
        format!("expected one object with CKA_ID {object}, got {n}: remove what is not ours"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_of_another_length_is_none() {
        assert!(length_fits(Some(KeyType::P256), Algorithm::Es256, 64));
        assert!(
            !length_fits(Some(KeyType::P256), Algorithm::Es256, 71),
            "DER"
        );
        assert!(!length_fits(Some(KeyType::Rsa3072), Algorithm::Rs256, 256));
        assert!(length_fits(None, Algorithm::Es512, 132));
        assert!(!length_fits(None, Algorithm::Es512, 256));
        assert!(length_fits(None, Algorithm::Ps256, 512));
        assert!(!length_fits(None, Algorithm::Ps256, 64));
    }
}
