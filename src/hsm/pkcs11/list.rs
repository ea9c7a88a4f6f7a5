//! What a token holds, whoever made it.

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::error::while_doing;
use super::generate::{evidence, judge};
use super::{Token, attributes, public};
use crate::hsm::message::{Fault, FaultKind, Generated, Listed, MOST_LISTED};

/// Every private key on the token, and what can be said of each.
pub(crate) fn list(
    token: &Token,
    session: &Session,
    require_local: bool,
) -> Result<Vec<Listed>, Fault> {
    let wanted = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::PRIVATE_KEY),
    ];
    let found = session.find_objects(&wanted);
    let found = found.map_err(while_doing("listing the private keys"))?;
    let mut listed = Vec::new();
    for private in found.into_iter().take(MOST_LISTED) {
        let (id, label) = names(session, private)?;
        let pair = match pair(session, private, &id, require_local) {
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

fn pair(
    session: &Session,
    private: ObjectHandle,
    id: &[u8],
    require_local: bool,
) -> Result<Generated, Fault> {
    let evidence = evidence(session, private)?;
    judge(&evidence, require_local)?;
    let wanted = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Id(id.to_vec()),
    ];
    let found = session.find_objects(&wanted);
    let found = found.map_err(while_doing("finding a public key"))?;
    let [public] = found.as_slice() else {
        let why = format!("expected one public half, got {}", found.len());
        return Err(super::generate::bad(why));
    };
    Ok(Generated {
        public: public::read(session, *public)?,
        evidence,
    })
}
