//! The templates of a key pair (PKCS#11 v3.1 sections 4.8 and 4.9).

use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, KeyType as Ckk, ObjectClass};

use crate::hsm::message::ObjectId;
use crate::jose::KeyType;

/// How much of the wish list a token is asked for. What cannot be left out
/// is in every step: the read-back decides whether a key is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Everything.
    Full,
    /// Without `CKA_ALLOWED_MECHANISMS`.
    AnyMechanism,
    /// Without `CKA_COPYABLE` and `CKA_MODIFIABLE` too.
    Essential,
}

impl Step {
    pub(crate) const ALL: [Self; 3] = [Self::Full, Self::AnyMechanism, Self::Essential];

    /// For the evidence: what this step had to do without.
    pub(crate) const fn note(self) -> Option<&'static str> {
        match self {
            Self::Full => None,
            Self::AnyMechanism => Some(
                "the token does not take CKA_ALLOWED_MECHANISMS: the key is held to its algorithm by the agent alone",
            ),
            Self::Essential => Some(
                "the token takes neither CKA_ALLOWED_MECHANISMS nor CKA_COPYABLE and CKA_MODIFIABLE: the key is held to its algorithm by the agent alone",
            ),
        }
    }
}

/// The private half.
pub(crate) fn private(object: ObjectId, mechanism: MechanismType, step: Step) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        // SoftHSM grants these two when they are not mentioned.
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Id(object.0.to_vec()),
        Attribute::Label(object.label().into_bytes()),
    ];
    if step != Step::Essential {
        template.extend([Attribute::Copyable(false), Attribute::Modifiable(false)]);
    }
    if step == Step::Full {
        template.push(Attribute::AllowedMechanisms(vec![mechanism]));
    }
    template
}

/// The public half. `params` is for curves.
pub(crate) fn public(
    object: ObjectId,
    key_type: KeyType,
    params: Option<&[u8]>,
    step: Step,
) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
        Attribute::Id(object.0.to_vec()),
        Attribute::Label(object.label().into_bytes()),
    ];
    if step != Step::Essential {
        template.extend([Attribute::Copyable(false), Attribute::Modifiable(false)]);
    }
    if let Some(params) = params {
        template.push(Attribute::EcParams(params.to_vec()));
    }
    if let Some(bits) = modulus_bits(key_type) {
        template.push(Attribute::ModulusBits(bits.into()));
        template.push(Attribute::PublicExponent(vec![1, 0, 1]));
    }
    template
}

/// Finds the halves of a pair that are on the token itself.
pub(crate) fn search(object: ObjectId, class: ObjectClass) -> [Attribute; 3] {
    [
        Attribute::Token(true),
        Attribute::Class(class),
        Attribute::Id(object.0.to_vec()),
    ]
}

/// The encodings of `CKA_EC_PARAMS` to try, the most widely taken one first.
pub(crate) fn ec_params(key_type: KeyType) -> &'static [&'static [u8]] {
    match key_type {
        KeyType::P256 => &[&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]],
        KeyType::P384 => &[&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]],
        KeyType::P521 => &[&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23]],
        // A PrintableString for SoftHSM and YubiHSM, the OID for NetHSM.
        KeyType::Ed25519 => &[b"\x13\x0cedwards25519", &[0x06, 0x03, 0x2b, 0x65, 0x70]],
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => &[],
    }
}

/// `CKA_KEY_TYPE` of a kind of key.
pub(crate) const fn ckk(key_type: KeyType) -> Ckk {
    match key_type {
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => Ckk::RSA,
        KeyType::P256 | KeyType::P384 | KeyType::P521 => Ckk::EC,
        KeyType::Ed25519 => Ckk::EC_EDWARDS,
    }
}

const fn modulus_bits(key_type: KeyType) -> Option<u64> {
    match key_type {
        KeyType::Rsa2048 => Some(2048),
        KeyType::Rsa3072 => Some(3072),
        KeyType::Rsa4096 => Some(4096),
        KeyType::P256 | KeyType::P384 | KeyType::P521 | KeyType::Ed25519 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ObjectId = ObjectId([7; 16]);

    #[test]
    fn no_step_gives_up_what_keeps_a_key_inside() {
        for step in Step::ALL {
            let template = private(ID, MechanismType::ECDSA, step);
            for needed in [
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Decrypt(false),
                Attribute::Unwrap(false),
                Attribute::Derive(false),
            ] {
                assert!(template.contains(&needed), "{step:?} lacks {needed:?}");
            }
        }
    }

    #[test]
    fn each_step_that_gives_something_up_says_so() {
        assert_eq!(Step::Full.note(), None);
        assert!(Step::AnyMechanism.note().is_some());
        assert!(Step::Essential.note().is_some());
    }

    #[test]
    fn curve_parameters_are_der() {
        for key_type in [
            KeyType::P256,
            KeyType::P384,
            KeyType::P521,
            KeyType::Ed25519,
        ] {
            for params in ec_params(key_type) {
                assert_eq!(usize::from(params[1]), params.len() - 2, "{key_type}");
            }
        }
    }
}
