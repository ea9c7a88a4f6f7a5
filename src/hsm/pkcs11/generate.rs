//! Key pairs: made, proven, found, destroyed. All of it runs on the one
//! control session, so key generation is serialised: two at a time are not
//! safe on SoftHSM.

use std::fmt::Display;

use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::error::{fault, while_doing};
use super::session::{duplicate, sign};
use super::template::Step;
use super::{Token, attributes, public, template};
use crate::hsm::message::{Cure, Evidence, Fault, FaultKind, Generated, ObjectId};
use crate::jose::verify::Verifier;
use crate::jose::{Algorithm, KeyType, PublicKey};

/// What is signed to prove a new key. No JWS signing input: it has no dot.
const PROOF: &[u8] = b"sealkeeper: does this key sign?";

/// What a key pair is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) object: ObjectId,
    pub(crate) key_type: KeyType,
    pub(crate) algorithm: Algorithm,
    pub(crate) require_local: bool,
}

/// Makes the key pair, or returns it where it exists already: a caller that
/// crashed after asking asks again with the same id.
///
/// A crash in here leaves nothing, half a pair, or a pair; the next call
/// with the same id finds out which.
pub(crate) fn generate(
    token: &Token,
    session: &Session,
    wanted: &Wanted,
) -> Result<Generated, Fault> {
    if !wanted.algorithm.accepts(wanted.key_type) {
        return Err(Fault::new(
            FaultKind::Refused,
            Cure::Never,
            format!(
                "a {} key cannot be used with {}",
                wanted.key_type, wanted.algorithm
            ),
        ));
    }
    // Both before anything is made: what cannot sign here must not exist here.
    token.mechanisms.plan(wanted.algorithm)?;
    token.mechanisms.generator(wanted.key_type)?;
    token.check(session)?;

    let halves = Halves::find(session, wanted.object)?;
    if let Some((private, public)) = halves.pair(wanted.object)? {
        // Perhaps in use by now: if it is bad, the caller says what becomes
        // of it.
        return prove(token, session, private, public, wanted);
    }
    let mut notes = Vec::new();
    if halves.any() {
        // A token that went away between two searches shows half a pair too.
        token.check(session)?;
        halves.destroy(session)?;
        notes.push("half of an interrupted generation was destroyed first".to_owned());
    }
    let step = make(token, session, wanted)?;
    notes.extend(step.note().map(str::to_owned));
    let made = Halves::find(session, wanted.object)?;
    let (private, public) = made
        .pair(wanted.object)?
        .ok_or_else(|| bad("the token made a key pair and does not show it".into()))?;
    match prove(token, session, private, public, wanted) {
        Ok(mut generated) => {
            generated.evidence.notes = notes;
            Ok(generated)
        }
        // Made a moment ago, never published: it goes. A passing fault of the
        // device says nothing about the key.
        Err(fault) if matches!(fault.kind, FaultKind::BadKey | FaultKind::Defect) => {
            made.destroy(session)?;
            Err(fault)
        }
        Err(fault) => Err(fault),
    }
}

/// The key pair with this id. `None` is certain: the right token answered,
/// logged in, and does not hold it.
pub(crate) fn find(
    token: &Token,
    session: &Session,
    object: ObjectId,
    require_local: bool,
) -> Result<Option<Generated>, Fault> {
    let halves = Halves::find(session, object)?;
    let Some((private, public)) = halves.pair(object)? else {
        token.check(session)?;
        if !halves.any() {
            return Ok(None);
        }
        return Err(bad(format!(
            "key {object} has {} private and {} public halves: an interrupted generation; generate it again or destroy it",
            halves.private.len(),
            halves.public.len()
        )));
    };
    let evidence = evidence(session, private)?;
    judge(&evidence, require_local)?;
    Ok(Some(Generated {
        public: public::read(session, public)?,
        evidence,
    }))
}

/// Destroys what there is of the pair. That nothing is there is fine, once the
/// right token has said so.
pub(crate) fn destroy(token: &Token, session: &Session, object: ObjectId) -> Result<(), Fault> {
    token.check(session)?;
    Halves::find(session, object)?.destroy(session)?;
    // Looks again: that a call said yes is no proof that it is gone.
    let left = Halves::find(session, object)?;
    token.check(session)?;
    if left.any() {
        return Err(bad(format!(
            "the token still shows key {object} after destroying it"
        )));
    }
    Ok(())
}

pub(super) struct Halves {
    pub(super) private: Vec<ObjectHandle>,
    pub(super) public: Vec<ObjectHandle>,
}

impl Halves {
    pub(super) fn find(session: &Session, object: ObjectId) -> Result<Self, Fault> {
        let search = |class, doing| {
            session
                .find_objects(&template::search(object, class))
                .map_err(while_doing(doing))
        };
        Ok(Self {
            private: search(ObjectClass::PRIVATE_KEY, "finding the private key")?,
            public: search(ObjectClass::PUBLIC_KEY, "finding the public key")?,
        })
    }

    fn any(&self) -> bool {
        !self.private.is_empty() || !self.public.is_empty()
    }

    /// Private and public half; `None` where one is missing.
    pub(super) fn pair(
        &self,
        object: ObjectId,
    ) -> Result<Option<(ObjectHandle, ObjectHandle)>, Fault> {
        match (self.private.as_slice(), self.public.as_slice()) {
            ([private], [public]) => Ok(Some((*private, *public))),
            (private, public) if private.len() > 1 || public.len() > 1 => {
                Err(duplicate(object, private.len().max(public.len())))
            }
            _ => Ok(None),
        }
    }

    /// The private half first: a crash in between leaves a public half, which
    /// harms nobody.
    fn destroy(&self, session: &Session) -> Result<(), Fault> {
        for &handle in self.private.iter().chain(&self.public) {
            match session.destroy_object(handle) {
                Ok(()) | Err(Error::Pkcs11(RvError::ObjectHandleInvalid, _)) => {}
                Err(e) => return Err(fault("destroying a key", &e)),
            }
        }
        Ok(())
    }
}

/// Asks for as much as the token takes, a step less each time it objects to
/// the template.
fn make(token: &Token, session: &Session, wanted: &Wanted) -> Result<Step, Fault> {
    let generator = token.mechanisms.generator(wanted.key_type)?;
    let signs_with = token
        .mechanisms
        .plan(wanted.algorithm)?
        .mechanism()
        .mechanism_type();
    let encodings = template::ec_params(wanted.key_type);
    let params: Vec<Option<&[u8]>> = match encodings {
        [] => vec![None],
        some => some.iter().copied().map(Some).collect(),
    };
    let mut objection = bad(format!(
        "the token took no template for {}",
        wanted.key_type
    ));
    for step in Step::ALL {
        for &params in &params {
            let made = session.generate_key_pair(
                &generator,
                &template::public(wanted.object, wanted.key_type, params, step),
                &template::private(wanted.object, signs_with, step),
            );
            let error = match made {
                Ok(_) => return Ok(step),
                Err(error) => error,
            };
            // It may have half succeeded.
            Halves::find(session, wanted.object)?.destroy(session)?;
            objection = fault("generating a key pair", &error);
            if !objects_to_template(&error) {
                return Err(objection);
            }
        }
    }
    Err(objection)
}

fn objects_to_template(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::AttributeTypeInvalid
                | RvError::AttributeValueInvalid
                | RvError::AttributeReadOnly
                | RvError::TemplateInconsistent
                | RvError::ArgumentsBad
                | RvError::CurveNotSupported
                | RvError::DomainParamsInvalid
                | RvError::MechanismParamInvalid,
            _
        )
    )
}

/// Reads the key back and has it sign: no key leaves here unproven.
fn prove(
    token: &Token,
    session: &Session,
    private: ObjectHandle,
    public: ObjectHandle,
    wanted: &Wanted,
) -> Result<Generated, Fault> {
    let evidence = evidence(session, private)?;
    judge(&evidence, wanted.require_local)?;
    let key = public::read(session, public)?;
    if key.key_type() != wanted.key_type {
        return Err(wrong_kind(format!(
            "expected key {} to be {}, got {}",
            wanted.object,
            wanted.key_type,
            key.key_type()
        )));
    }
    signs(
        token,
        session,
        private,
        &key,
        wanted.algorithm,
        &wanted.object,
    )?;
    Ok(Generated {
        public: key,
        evidence,
    })
}

/// Has a key sign, and verifies it with its public half.
pub(super) fn signs(
    token: &Token,
    session: &Session,
    private: ObjectHandle,
    key: &PublicKey,
    algorithm: Algorithm,
    name: &dyn Display,
) -> Result<(), Fault> {
    let plan = token.mechanisms.plan(algorithm)?;
    let kind = Some(key.key_type());
    let signature = sign(session, private, kind, algorithm, &plan, PROOF)?;
    let verifier = Verifier::new(algorithm, key)
        .map_err(|e| bad(format!("key {name} cannot be verified with: {e}")))?;
    verifier.verify(PROOF, &signature).map_err(|e| {
        bad(format!(
            "key {name} made a signature that its own public half does not verify: {e}"
        ))
    })
}

/// What the token says about the private half.
pub(super) fn evidence(session: &Session, private: ObjectHandle) -> Result<Evidence, Fault> {
    let flag = |wanted| attributes::flag(session, private, wanted);
    let made_by = attributes::read(session, private, AttributeType::KeyGenMechanism)?;
    let allowed = attributes::read(session, private, AttributeType::AllowedMechanisms)?;
    Ok(Evidence {
        sensitive: flag(AttributeType::Sensitive)?,
        extractable: flag(AttributeType::Extractable)?,
        always_sensitive: flag(AttributeType::AlwaysSensitive)?,
        never_extractable: flag(AttributeType::NeverExtractable)?,
        local: flag(AttributeType::Local)?,
        key_gen_mechanism: match made_by {
            Some(Attribute::KeyGenMechanism(mechanism)) => Some(mechanism.to_string()),
            _ => None,
        },
        allowed_mechanisms: match allowed {
            Some(Attribute::AllowedMechanisms(list)) => {
                list.iter().map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        },
        notes: Vec::new(),
    })
}

/// Promise 1: a key that can leave, or could ever leave, is not ours to
/// publish. What a token does not say is not taken for a yes.
pub(super) fn judge(evidence: &Evidence, require_local: bool) -> Result<(), Fault> {
    let mut rules = vec![
        ("CKA_SENSITIVE", evidence.sensitive, true),
        ("CKA_EXTRACTABLE", evidence.extractable, false),
        ("CKA_ALWAYS_SENSITIVE", evidence.always_sensitive, true),
        ("CKA_NEVER_EXTRACTABLE", evidence.never_extractable, true),
    ];
    if require_local {
        rules.push(("CKA_LOCAL", evidence.local, true));
    }
    for (name, got, expected) in rules {
        if got != Some(expected) {
            let got = got.map_or("nothing".to_owned(), |got| got.to_string());
            return Err(bad(format!(
                "the private key can leave, or may have been outside: expected {name} = {expected}, got {got}"
            )));
        }
    }
    Ok(())
}

pub(super) fn bad(why: String) -> Fault {
    Fault::new(FaultKind::BadKey, Cure::Never, why)
}

/// Somebody else's key, or another intent's: not destroyed.
pub(super) fn wrong_kind(why: String) -> Fault {
    Fault::new(FaultKind::Refused, Cure::Never, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        Evidence {
            sensitive: Some(true),
            extractable: Some(false),
            always_sensitive: Some(true),
            never_extractable: Some(true),
            local: Some(true),
            ..Evidence::default()
        }
    }

    #[test]
    fn a_key_that_can_leave_is_bad() {
        assert_eq!(judge(&good(), true), Ok(()));
        for spoil in [
            |e: &mut Evidence| e.sensitive = Some(false),
            |e: &mut Evidence| e.extractable = Some(true),
            |e: &mut Evidence| e.always_sensitive = Some(false),
            |e: &mut Evidence| e.never_extractable = Some(false),
            |e: &mut Evidence| e.local = Some(false),
            |e: &mut Evidence| e.sensitive = None,
            |e: &mut Evidence| e.extractable = None,
            |e: &mut Evidence| e.always_sensitive = None,
            |e: &mut Evidence| e.never_extractable = None,
            |e: &mut Evidence| e.local = None,
        ] {
            let mut evidence = good();
            spoil(&mut evidence);
            assert!(judge(&evidence, true).is_err(), "{evidence:?}");
        }
    }

    #[test]
    fn tokens_that_never_say_local_are_excused_by_name() {
        let evidence = Evidence {
            local: Some(false),
            ..good()
        };
        assert!(judge(&evidence, true).is_err());
        assert!(judge(&evidence, false).is_ok());
    }
}
