//! The one login of a child (PKCS#11 v3.1 section 5.6.8).

use std::thread;
use std::time::Duration;

use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::TokenInfo;
use cryptoki::types::RawAuthPin;

use super::Token;
use super::error::{ckr, class, fault};
use crate::hsm::message::{Cure, Fault, FaultKind, Open};
use crate::hsm::pin_marker::{Login, MarkerError, NO_TRY_LEFT, ONE_TRY_LEFT};

/// Logs the whole process in, once, behind the durable marker.
///
/// A crash between the marker and its removal leaves it standing: whether the
/// token counted a try cannot be known then.
pub(crate) fn log_in(token: &Token, session: &Session, open: &Open) -> Result<(), Fault> {
    let login =
        Login::begin(&open.pin_marker, &token.identity).map_err(|e| marker_fault(open, &e))?;
    // In our turn: nobody else's try is among what the token says.
    let before = match may_be_tried(token) {
        Ok(before) => before,
        Err(fault) => {
            login.clear().map_err(|e| marker_fault(open, &e))?;
            return Err(fault);
        }
    };
    let pin = RawAuthPin::new(Box::new(open.pin.expose().to_vec()));
    let error = match session.login_with_raw(UserType::User, &pin) {
        Ok(()) => return login.clear().map_err(|e| marker_fault(open, &e)),
        Err(error) => error,
    };
    match verdict(&error) {
        Verdict::NotTried => {
            login.clear().map_err(|e| marker_fault(open, &e))?;
            Err(fault("logging in", &error))
        }
        Verdict::Unclear => {
            // PKCS#11 v3.1 section 3.2: the flag says that a wrong PIN was
            // entered since the last good login. A token that answers, and
            // counted nothing, did not judge the PIN.
            let counted =
                |after: TokenInfo| after.user_pin_count_low() && !before.user_pin_count_low();
            if after_a_while(|| token.info().ok()).is_none_or(counted) {
                let fault = fault("logging in", &error);
                login.stand(&fault.why);
                return Err(blocked(open, &fault.why));
            }
            login.clear().map_err(|e| marker_fault(open, &e))?;
            Err(fault("logging in", &error))
        }
        Verdict::Pin(rv) => {
            let after = after_a_while(|| token.info().ok());
            let reason = format!(
                "the token refused the PIN: C_Login said {}, and it {}",
                ckr(rv),
                Tries::left(rv, after.as_ref()).said()
            );
            login.stand(&reason);
            Err(blocked(open, &reason))
        }
    }
}

/// What the token says before the login, where that does not speak against it.
fn may_be_tried(token: &Token) -> Result<TokenInfo, Fault> {
    let before = token.info()?;
    let tries = Tries::of(&before);
    match tries {
        Tries::None | Tries::One => {
            let why = format!("the token {}: no login was tried", tries.said());
            Err(Fault::new(FaultKind::PinBlocked, Cure::Never, why))
        }
        Tries::More | Tries::NotTold => Ok(before),
    }
}

/// How many wrong PINs the token takes before it locks, as far as it says
/// (PKCS#11 v3.1 section 3.2, the flags of `CK_TOKEN_INFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tries {
    None,
    One,
    /// A wrong one was counted, and the next one does not lock it.
    More,
    NotTold,
}

impl Tries {
    fn of(info: &TokenInfo) -> Self {
        Self::by(
            info.user_pin_locked(),
            info.user_pin_final_try(),
            info.user_pin_count_low(),
        )
    }

    /// After a refusal.
    fn left(rv: RvError, after: Option<&TokenInfo>) -> Self {
        match (rv, after) {
            (RvError::PinLocked, _) => Self::None,
            (_, after) => after.map_or(Self::NotTold, Self::of),
        }
    }

    const fn by(locked: bool, is_final: bool, count_is_low: bool) -> Self {
        match (locked, is_final, count_is_low) {
            (true, _, _) => Self::None,
            (false, true, _) => Self::One,
            (false, false, true) => Self::More,
            (false, false, false) => Self::NotTold,
        }
    }

    const fn said(self) -> &'static str {
        match self {
            Self::None => NO_TRY_LEFT,
            Self::One => ONE_TRY_LEFT,
            Self::More => "says that more than one try is left",
            Self::NotTold => "does not say how many tries are left",
        }
    }
}

/// Asks a few times: another program's login may be what is in the way.
fn after_a_while<T>(ask: impl Fn() -> Option<T>) -> Option<T> {
    (0..PATIENCE).find_map(|n| {
        if n > 0 {
            thread::sleep(PAUSE);
        }
        ask()
    })
}

/// How often, and after which pause, a token is asked what it counted.
const PATIENCE: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

enum Verdict {
    /// The token did not look at the PIN.
    NotTried,
    /// The token judged the PIN.
    Pin(RvError),
    /// It may or may not have counted a try.
    Unclear,
}

fn verdict(error: &Error) -> Verdict {
    use RvError as R;
    match error {
        Error::Pkcs11(rv, _) if class(*rv).0 == FaultKind::PinBlocked => Verdict::Pin(*rv),
        Error::Pkcs11(
            R::TokenNotPresent
            | R::DeviceRemoved
            | R::SlotIdInvalid
            | R::SessionHandleInvalid
            | R::SessionClosed
            | R::CryptokiNotInitialized
            | R::OperationActive
            | R::UserAlreadyLoggedIn
            | R::UserAnotherAlreadyLoggedIn
            | R::UserTypeInvalid
            | R::UserPinNotInitialized
            | R::FunctionNotSupported
            | R::ArgumentsBad,
            _,
        ) => Verdict::NotTried,
        _ => Verdict::Unclear,
    }
}

fn marker_fault(open: &Open, error: &MarkerError) -> Fault {
    match error {
        MarkerError::Standing { .. } => blocked(open, &error.to_string()),
        MarkerError::Shared { device, .. } => {
            // Its own marker does not stand: the other device is to be unlocked.
            blocked_by(device, &error.to_string())
        }
        MarkerError::Busy { .. } => {
            Fault::new(FaultKind::Unavailable, Cure::TryAgain, error.to_string())
        }
        MarkerError::Io { .. } => Fault::new(
            FaultKind::Unavailable,
            Cure::Never,
            format!("{error}; without a durable marker no login is tried"),
        ),
    }
}

fn blocked(open: &Open, why: &str) -> Fault {
    blocked_by(&open.device, why)
}

fn blocked_by(device: &str, why: &str) -> Fault {
    Fault::new(
        FaultKind::PinBlocked,
        Cure::Never,
        format!("{why}; check the PIN, then run: sealkeeper device unlock {device}"),
    )
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn what_a_token_says_of_its_tries_is_told() {
        let said = |locked, last, low| Tries::by(locked, last, low).said();
        assert_eq!(said(true, true, true), "says that no try is left");
        assert_eq!(said(false, true, true), "says that one try is left");
        assert_eq!(
            said(false, false, true),
            "says that more than one try is left"
        );
        assert_eq!(
            said(false, false, false),
            "does not say how many tries are left"
        );
        assert_eq!(Tries::left(RvError::PinLocked, None), Tries::None);
        assert_eq!(Tries::left(RvError::PinIncorrect, None), Tries::NotTold);
    }

    fn of(rv: RvError) -> Verdict {
        verdict(&Error::Pkcs11(rv, Function::Login))
    }

    #[test]
    fn only_what_surely_was_no_try_clears_the_marker() {
        assert!(matches!(of(RvError::PinIncorrect), Verdict::Pin(_)));
        assert!(matches!(of(RvError::PinLocked), Verdict::Pin(_)));
        assert!(matches!(of(RvError::TokenNotPresent), Verdict::NotTried));
        for unclear in [
            RvError::GeneralError,
            RvError::DeviceError,
            RvError::FunctionFailed,
            RvError::HostMemory,
            RvError::VendorDefined(1 << 31),
        ] {
            assert!(matches!(of(unclear), Verdict::Unclear), "{unclear:?}");
        }
    }
}
