//! Reading attributes, one value at a time.

use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;

use super::error::while_doing;
use crate::hsm::message::Fault;

/// One attribute; `None` where the token does not have it, or answers in a
/// form that the binding does not know (a vendor's own mechanism, say).
///
/// One call each: in a batch, one unknown value hides all others.
pub(crate) fn read(
    session: &Session,
    object: ObjectHandle,
    wanted: AttributeType,
) -> Result<Option<Attribute>, Fault> {
    match session.get_attributes(object, &[wanted]) {
        Ok(mut values) => Ok(values
            .pop()
            .filter(|value| value.attribute_type() == wanted)),
        Err(
            Error::InvalidValue
            | Error::NotSupported
            | Error::TryFromInt(_)
            | Error::TryFromSlice(_)
            | Error::Pkcs11(RvError::AttributeTypeInvalid | RvError::AttributeSensitive, _),
        ) => Ok(None),
        Err(e) => Err(while_doing(&format!("reading {wanted}"))(e)),
    }
}

/// A truth value; `None` as in [`read`].
pub(crate) fn flag(
    session: &Session,
    object: ObjectHandle,
    wanted: AttributeType,
) -> Result<Option<bool>, Fault> {
    Ok(match read(session, object, wanted)? {
        Some(
            Attribute::Sensitive(on)
            | Attribute::Extractable(on)
            | Attribute::AlwaysSensitive(on)
            | Attribute::NeverExtractable(on)
            | Attribute::Local(on),
        ) => Some(on),
        _ => None,
    })
}

/// A string of bytes; `None` as in [`read`], and where it is empty.
pub(crate) fn bytes(
    session: &Session,
    object: ObjectHandle,
    wanted: AttributeType,
) -> Result<Option<Vec<u8>>, Fault> {
    Ok(match read(session, object, wanted)? {
        Some(
            Attribute::Modulus(value)
            | Attribute::PublicExponent(value)
            | Attribute::EcParams(value)
            | Attribute::EcPoint(value),
        ) if !value.is_empty() => Some(value),
        _ => None,
    })
}
