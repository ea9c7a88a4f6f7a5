//! Key pairs that another tool made: looked at, and given an id of ours.
//!
//! The same is asked of them as of those that are made here: what could leave
//! the token is refused, and they sign before anybody relies on it.

use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::error::{fault, while_doing};
use super::generate::{Halves, bad, evidence, judge, signs, wrong_kind};
use super::list::names;
use super::session::duplicate;
use super::{Token, public};
use crate::hsm::message::{
    Adopt, Cure, Fault, FaultKind, Generated, Handle, Listed, ObjectId, hex,
};
use crate::jose::PublicKey;

/// The one key pair that is meant. Changes nothing.
pub(crate) fn look(
    token: &Token,
    session: &Session,
    wanted: &Adopt,
    require_local: bool,
) -> Result<Listed, Fault> {
    token.check(session)?;
    let private = private_half(token, session, &wanted.from)?;
    let (id, label) = names(session, private)?;
    let public = public_half(token, session, &id, &label)?;
    let pair = prove(token, session, (private, public), wanted, require_local)?;
    Ok(Listed {
        id,
        label,
        pair: Ok(pair),
    })
}

/// Gives the pair an id of ours, or finds that it was done. A fault that says
/// that the key is bad, or refused, has changed nothing.
///
/// A crash in here leaves the pair as it was, or its private half alone with
/// the new id, or both; the next call with the same id goes on from there.
pub(crate) fn adopt(
    token: &Token,
    session: &Session,
    wanted: &Adopt,
    (object, expected): &(ObjectId, PublicKey),
    require_local: bool,
) -> Result<Generated, Fault> {
    token.check(session)?;
    let halves = Halves::find(session, *object)?;
    let (private, begun) = match halves.private.as_slice() {
        [] => (private_half(token, session, &wanted.from)?, false),
        [private] => (*private, true),
        more => return Err(duplicate(*object, more.len())),
    };
    let (public, done) = match halves.public.as_slice() {
        [] => {
            let id = wanted.from.id.as_deref().unwrap_or_default();
            let label = wanted.from.label.as_deref().unwrap_or_default();
            (public_half(token, session, id, label)?, false)
        }
        [public] => (*public, true),
        more => return Err(duplicate(*object, more.len())),
    };
    let proven = prove(token, session, (private, public), wanted, require_local)?;
    if proven.public != *expected {
        let which = &wanted.from;
        return Err(wrong_kind(format!(
            "the key with {which} is another one than before"
        )));
    }
    if !begun {
        name(session, private, &object.0)?;
    }
    if !done && let Err(refused) = name(session, public, &object.0) {
        let before = wanted.from.id.as_deref().unwrap_or_default();
        // Begun before, or not to be taken back: to be gone on with.
        if begun || name(session, private, before).is_err() {
            let why = format!("{refused}; the private half has its new id already");
            return Err(Fault::new(FaultKind::Unavailable, Cure::TryAgain, why));
        }
        return Err(refused);
    }
    // Looks again: that a call said yes is no proof that it is so.
    let shown = Halves::find(session, *object)?.pair(*object)?;
    token.check(session)?;
    match shown {
        Some(_) => Ok(proven),
        None => Err(Fault::new(
            FaultKind::Defect,
            Cure::Never,
            "the token took the new CKA_ID and does not show it",
        )),
    }
}

fn prove(
    token: &Token,
    session: &Session,
    (private, public): (ObjectHandle, ObjectHandle),
    wanted: &Adopt,
    require_local: bool,
) -> Result<Generated, Fault> {
    let evidence = evidence(session, private)?;
    judge(&evidence, require_local)?;
    let key = public::read(session, public)?;
    let (algorithm, from) = (wanted.algorithm, &wanted.from);
    if !algorithm.accepts(key.key_type()) {
        let got = key.key_type();
        return Err(wrong_kind(format!(
            "expected a key for {algorithm}, got {got}"
        )));
    }
    signs(
        token,
        session,
        private,
        &key,
        algorithm,
        &format!("with {from}"),
    )?;
    Ok(Generated {
        public: key,
        evidence,
    })
}

fn private_half(token: &Token, session: &Session, from: &Handle) -> Result<ObjectHandle, Fault> {
    let id = from.id.as_ref().map(|id| Attribute::Id(id.clone()));
    let label = from.label.as_ref();
    let label = label.map(|label| Attribute::Label(label.clone().into_bytes()));
    let named = id.into_iter().chain(label);
    let found = find(session, ObjectClass::PRIVATE_KEY, named)?;
    if let [private] = found.as_slice() {
        return Ok(*private);
    }
    // A token that went away shows nothing.
    token.check(session)?;
    let got = found.len();
    Err(wrong_kind(format!(
        "expected one private key with {from}, got {got}"
    )))
}

/// Of the same id as the private half, or where that has none, of its label.
fn public_half(
    token: &Token,
    session: &Session,
    id: &[u8],
    label: &str,
) -> Result<ObjectHandle, Fault> {
    let (named, how) = match id {
        [] => (
            Attribute::Label(label.as_bytes().to_vec()),
            format!("label {label:?}"),
        ),
        id => (Attribute::Id(id.to_vec()), format!("id {}", hex(id))),
    };
    let found = find(session, ObjectClass::PUBLIC_KEY, [named])?;
    if let [public] = found.as_slice() {
        return Ok(*public);
    }
    token.check(session)?;
    let got = found.len();
    Err(bad(format!(
        "expected one public key with {how}, got {got}"
    )))
}

fn find(
    session: &Session,
    class: ObjectClass,
    named: impl IntoIterator<Item = Attribute>,
) -> Result<Vec<ObjectHandle>, Fault> {
    let wanted = [Attribute::Token(true), Attribute::Class(class)];
    let wanted: Vec<Attribute> = wanted.into_iter().chain(named).collect();
    let found = session.find_objects(&wanted);
    found.map_err(while_doing("finding a key of another tool"))
}

/// Gives one half an id.
fn name(session: &Session, half: ObjectHandle, id: &[u8]) -> Result<(), Fault> {
    let doing = "changing CKA_ID";
    match session.update_attributes(half, &[Attribute::Id(id.to_vec())]) {
        Ok(()) => Ok(()),
        Err(
            e @ Error::Pkcs11(
                RvError::AttributeReadOnly
                | RvError::AttributeTypeInvalid
                | RvError::AttributeValueInvalid
                | RvError::TemplateInconsistent,
                _,
            ),
        ) => Err(wrong_kind(format!(
            "the token keeps the key's id: {}",
            fault(doing, &e).why
        ))),
        Err(e) => Err(fault(doing, &e)),
    }
}
