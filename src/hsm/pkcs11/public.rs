//! Public halves: from the token's encodings to a checked [`PublicKey`].

use cryptoki::object::{Attribute, AttributeType, KeyType as Ckk, ObjectHandle};
use cryptoki::session::Session;

use super::{attributes, template};
use crate::hsm::message::{Cure, Fault, FaultKind};
use crate::jose::{KeyType, PublicKey};

/// Reads the public key of a public key object.
pub(crate) fn read(session: &Session, object: ObjectHandle) -> Result<PublicKey, Fault> {
    let need = |wanted: AttributeType| {
        attributes::bytes(session, object, wanted)?
            .ok_or_else(|| bad(format!("the public key has no {wanted}")))
    };
    let invalid = |e: crate::jose::InvalidKey| bad(format!("the token's public key: {e}"));
    match kind(session, object)? {
        None => Err(bad(
            "the public key is of a kind that the agent does not use".into(),
        )),
        Some(KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096) => {
            let n = need(AttributeType::Modulus)?;
            let e = need(AttributeType::PublicExponent)?;
            PublicKey::rsa(unpadded(&n), unpadded(&e)).map_err(invalid)
        }
        Some(curve @ (KeyType::P256 | KeyType::P384 | KeyType::P521)) => {
            let raw_len = curve.signature_len() + 1;
            let value = need(AttributeType::EcPoint)?;
            let point = point(&value, raw_len)
                .ok_or_else(|| bad(format!("CKA_EC_POINT of {} bytes for {curve}", value.len())))?;
            PublicKey::ec_point(curve, point).map_err(invalid)
        }
        Some(KeyType::Ed25519) => {
            let value = need(AttributeType::EcPoint)?;
            let point = point(&value, 32)
                .ok_or_else(|| bad(format!("CKA_EC_POINT of {} bytes for Ed25519", value.len())))?;
            PublicKey::ed25519(point).map_err(invalid)
        }
    }
}

/// Which kind of key an object is, private or public; `None` for one that the
/// agent does not use, or where the token does not say.
pub(crate) fn kind(session: &Session, object: ObjectHandle) -> Result<Option<KeyType>, Fault> {
    let Some(Attribute::KeyType(ckk)) = attributes::read(session, object, AttributeType::KeyType)?
    else {
        return Ok(None);
    };
    if ckk == Ckk::RSA {
        let modulus = attributes::bytes(session, object, AttributeType::Modulus)?;
        return Ok(modulus.and_then(|n| match unpadded(&n).len() {
            256 => Some(KeyType::Rsa2048),
            384 => Some(KeyType::Rsa3072),
            512 => Some(KeyType::Rsa4096),
            _ => None,
        }));
    }
    let params = attributes::bytes(session, object, AttributeType::EcParams)?;
    Ok(params.and_then(|params| {
        [
            KeyType::P256,
            KeyType::P384,
            KeyType::P521,
            KeyType::Ed25519,
        ]
        .into_iter()
        .find(|&curve| {
            template::ckk(curve) == ckk && template::ec_params(curve).contains(&params.as_slice())
        })
    }))
}

/// The point itself: tokens give it raw or in a DER OCTET STRING. Both begin
/// with 04, so the length decides.
fn point(value: &[u8], raw_len: usize) -> Option<&[u8]> {
    let inner = match value {
        _ if value.len() == raw_len => return Some(value),
        [0x04, 0x81, len, inner @ ..] if *len >= 0x80 && usize::from(*len) == inner.len() => inner,
        [0x04, len, inner @ ..] if *len < 0x80 && usize::from(*len) == inner.len() => inner,
        _ => return None,
    };
    (inner.len() == raw_len).then_some(inner)
}

fn unpadded(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeros..]
}

fn bad(why: String) -> Fault {
    Fault::new(FaultKind::BadKey, Cure::Never, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_come_raw_or_wrapped() {
        let raw = [4; 65];
        let wrapped = [&[0x04, 65][..], &raw].concat();
        assert_eq!(point(&raw, 65), Some(&raw[..]));
        assert_eq!(point(&wrapped, 65), Some(&raw[..]));

        let raw = [4; 133];
        let wrapped = [&[0x04, 0x81, 133][..], &raw].concat();
        assert_eq!(point(&raw, 133), Some(&raw[..]));
        assert_eq!(point(&wrapped, 133), Some(&raw[..]));

        let raw = [0x04; 32];
        let wrapped = [&[0x04, 32][..], &raw].concat();
        assert_eq!(point(&raw, 32), Some(&raw[..]));
        assert_eq!(point(&wrapped, 32), Some(&raw[..]));
    }

    #[test]
    fn points_of_another_length_are_refused() {
        assert_eq!(point(&[], 32), None);
        assert_eq!(point(&[4; 31], 32), None);
        assert_eq!(point(&[&[0x04, 32][..], &[4; 33]].concat(), 32), None);
        assert_eq!(point(&[&[0x04, 33][..], &[4; 33]].concat(), 32), None);
        assert_eq!(point(&[&[0x04, 0x81, 65][..], &[4; 65]].concat(), 65), None);
    }
}
