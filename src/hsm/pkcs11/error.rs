//! What a return value means, and what cures it (PKCS#11 v3.1 section 5.1).

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

use crate::hsm::message::{Cure, Fault, FaultKind};

/// The class table: each return value that a signing agent meets.
pub(crate) fn class(rv: RvError) -> (FaultKind, Cure) {
    use RvError as R;
    match rv {
        R::SessionHandleInvalid
        | R::SessionClosed
        | R::OperationActive
        | R::OperationNotInitialized => (FaultKind::Unavailable, Cure::NewSession),

        R::UserNotLoggedIn => (FaultKind::Unavailable, Cure::LogInAgain),

        R::KeyHandleInvalid | R::ObjectHandleInvalid => (FaultKind::Unavailable, Cure::FindAgain),

        R::DeviceRemoved | R::TokenNotPresent | R::TokenNotRecognized | R::SlotIdInvalid => {
            (FaultKind::Unavailable, Cure::Reopen)
        }

        // The caller of this table asks whether the token is well before it
        // gives up the process for one of these.
        R::CryptokiNotInitialized
        | R::GeneralError
        | R::DeviceError
        | R::MutexBad
        | R::MutexNotLocked => (FaultKind::Unavailable, Cure::Restart),

        R::FunctionFailed
        | R::FunctionCanceled
        | R::FunctionRejected
        | R::Cancel
        | R::HostMemory
        | R::DeviceMemory
        | R::SessionCount => (FaultKind::Unavailable, Cure::TryAgain),

        R::PinIncorrect | R::PinInvalid | R::PinLenRange | R::PinExpired | R::PinLocked => {
            (FaultKind::PinBlocked, Cure::Never)
        }

        R::UserPinNotInitialized => (FaultKind::Unavailable, Cure::Never),

        R::KeyFunctionNotPermitted | R::KeyTypeInconsistent | R::KeySizeRange => {
            (FaultKind::BadKey, Cure::Never)
        }

        R::MechanismInvalid
        | R::MechanismParamInvalid
        | R::CurveNotSupported
        | R::FunctionNotSupported
        | R::DataInvalid
        | R::DataLenRange
        | R::ActionProhibited
        | R::TokenWriteProtected
        | R::SessionReadOnly => (FaultKind::Refused, Cure::Never),

        _ => (FaultKind::Defect, Cure::Never),
    }
}

/// An error of the binding as a fault, saying what was being done.
pub(crate) fn fault(doing: &str, error: &Error) -> Fault {
    let (kind, cure) = match error {
        Error::Pkcs11(rv, _) => class(*rv),
        Error::LibraryLoading(_) => (FaultKind::Unavailable, Cure::Never),
        _ => (FaultKind::Defect, Cure::Never),
    };
    Fault::new(kind, cure, format!("{doing}: {}", describe(error)))
}

/// For `map_err`: `.map_err(while_doing("finding the key"))`.
pub(crate) fn while_doing(doing: &str) -> impl Fn(Error) -> Fault {
    move |error| fault(doing, &error)
}

/// `C_Sign said CKR_DEVICE_ERROR`: the words to look up in a vendor's manual.
fn describe(error: &Error) -> String {
    match error {
        Error::Pkcs11(rv, function) => format!("{} said {}", function_name(*function), ckr(*rv)),
        // The dynamic linker names the file itself.
        Error::LibraryLoading(e) => e.to_string(),
        other => other.to_string(),
    }
}

fn function_name(function: Function) -> String {
    format!("C_{function:?}")
}

/// The return value's name in the specification.
pub(crate) fn ckr(rv: RvError) -> String {
    match rv {
        RvError::VendorDefined(code) => format!("CKR_VENDOR_DEFINED (0x{code:x})"),
        RvError::UnknownErrorCode(code) => format!("an unknown code (0x{code:x})"),
        known => screaming("CKR_", &format!("{known:?}")),
    }
}

fn screaming(prefix: &str, camel: &str) -> String {
    let mut name = prefix.to_owned();
    for (i, c) in camel.chars().enumerate() {
        if i > 0 && c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_never_tried_again() {
        for rv in [
            RvError::PinIncorrect,
            RvError::PinLocked,
            RvError::PinExpired,
            RvError::PinInvalid,
            RvError::PinLenRange,
        ] {
            assert_eq!(class(rv), (FaultKind::PinBlocked, Cure::Never), "{rv:?}");
        }
    }

    #[test]
    fn each_class_has_its_cure() {
        let cure = |rv| class(rv).1;
        assert_eq!(cure(RvError::SessionClosed), Cure::NewSession);
        assert_eq!(cure(RvError::OperationActive), Cure::NewSession);
        assert_eq!(cure(RvError::UserNotLoggedIn), Cure::LogInAgain);
        assert_eq!(cure(RvError::ObjectHandleInvalid), Cure::FindAgain);
        assert_eq!(cure(RvError::TokenNotPresent), Cure::Reopen);
        assert_eq!(cure(RvError::GeneralError), Cure::Restart);
        assert_eq!(cure(RvError::SessionCount), Cure::TryAgain);
        assert_eq!(cure(RvError::KeyFunctionNotPermitted), Cure::Never);
    }

    #[test]
    fn faults_speak_the_specification() {
        let error = Error::Pkcs11(RvError::DeviceError, Function::Sign);
        let fault = fault("signing", &error);
        assert_eq!(fault.why, "signing: C_Sign said CKR_DEVICE_ERROR");
    }
}
