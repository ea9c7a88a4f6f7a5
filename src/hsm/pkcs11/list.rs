//! What a token holds, whoever made it.

use std::collections::BTreeMap;

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::error::while_doing;
use super::generate::{evidence, judge};
use super::{Token, attributes, public};
use crate::hsm::message::{Fault, FaultKind, Generated, Listed, MOST_LISTED, ObjectId, Pairs};

/// Every private key on the token, and what can be said of each.
///
/// Public halves are looked for once: a search for each would have a token of
/// thousands of keys go through all of them thousands of times.
pub(crate) fn list(
    token: &Token,
    session: &Session,
    pairs: Pairs,
    require_local: bool,
) -> Result<Vec<Listed>, Fault> {
    let wanted = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::PRIVATE_KEY),
    ];
    let found = session.find_objects(&wanted);
    let found = found.map_err(while_doing("listing the private keys"))?;
    let publics = match pairs {
        Pairs::All => Some(publics(session)?),
        Pairs::Ours => None,
    };
    let mut listed = Vec::new();
    for private in found.into_iter().take(MOST_LISTED) {
        let (id, label) = names(session, private)?;
        let halves = match &publics {
            Some(publics) => publics.get(&id).cloned().unwrap_or_default(),
            None if is_ours(&id, &label) => halves_of(session, &id)?,
            None => {
                let pair = Err("it carries no label of an agent".to_owned());
                listed.push(Listed { id, label, pair });
                continue;
            }
        };
        let pair = match pair(session, private, &halves, require_local) {
            Ok(pair) => Ok(pair),
            // Of this key alone: others may be fine.
            Err(fault) if fault.kind == FaultKind::BadKey => Err(fault.why),
            Err(fault) if fault.kind == FaultKind::Refused => Err(fault.why),
            Err(fault) => return Err(fault),
        };
        listed.push(Listed { id, label, pair });
    }
    // A token that went away meanwhile shows nothing, and says so here.
    token.check(session)?;
    Ok(listed)
}

/// `CKA_ID` and `CKA_LABEL`, as far as it is text; empty where it has none.
pub(super) fn names(session: &Session, object: ObjectHandle) -> Result<(Vec<u8>, String), Fault> {
    let id = match attributes::read(session, object, AttributeType::Id)? {
        Some(Attribute::Id(id)) => id,
        _ => Vec::new(),
    };
    let label = match attributes::read(session, object, AttributeType::Label)? {
        Some(Attribute::Label(label)) => String::from_utf8_lossy(&label).into_owned(),
        _ => String::new(),
    };
    Ok((id, label))
}

fn is_ours(id: &[u8], label: &str) -> bool {
    let id = <[u8; 16]>::try_from(id);
    id.is_ok_and(|id| ObjectId(id).label() == label)
}

/// The public keys of the token, by `CKA_ID`.
fn publics(session: &Session) -> Result<BTreeMap<Vec<u8>, Vec<ObjectHandle>>, Fault> {
    let wanted = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::PUBLIC_KEY),
    ];
    let found = session.find_objects(&wanted);
    let found = found.map_err(while_doing("listing the public keys"))?;
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for public in found {
        if let Some(Attribute::Id(id)) = attributes::read(session, public, AttributeType::Id)? {
            all.entry(id).or_default().push(public);
        }
    }
    Ok(all)
}

fn halves_of(session: &Session, id: &[u8]) -> Result<Vec<ObjectHandle>, Fault> {
    let wanted = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Id(id.to_vec()),
    ];
    let found = session.find_objects(&wanted);
    found.map_err(while_doing("finding a public key"))
}

fn pair(
    session: &Session,
    private: ObjectHandle,
    halves: &[ObjectHandle],
    require_local: bool,
) -> Result<Generated, Fault> {
    let evidence = evidence(session, private)?;
    judge(&evidence, require_local)?;
    let [public] = halves else {
        let why = format!("expected one public half, got {}", halves.len());
        return Err(super::generate::bad(why));
    };
    Ok(Generated {
        public: public::read(session, *public)?,
        evidence,
    })
}
