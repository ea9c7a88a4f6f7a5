//! The module, and the one token of it that this child serves.

use std::sync::atomic::{AtomicU32, Ordering};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::session::{Session, SessionState};
use cryptoki::slot::{Slot, TokenInfo};

use super::error::while_doing;
use super::mechanism::Mechanisms;
use crate::hsm::message::{Cure, Fault, FaultKind, Open, TokenIdentity, TokenSelector};

/// A token that was found; shared by all threads of the child.
#[derive(Debug)]
pub(crate) struct Token {
    pkcs11: Pkcs11,
    slot: Slot,
    pub(crate) identity: TokenIdentity,
    pub(crate) mechanisms: Mechanisms,
    /// Errors in a row that blamed the module while the token looked well.
    strikes: AtomicU32,
}

/// So many errors in a row that blame the module end the process.
const STRIKES: u32 = 3;

impl Token {
    /// Loads the module, initialises it and finds the token.
    pub(crate) fn open(open: &Open) -> Result<Self, Fault> {
        let module = open.module.display();
        let pkcs11 =
            Pkcs11::new(&open.module).map_err(while_doing("loading the PKCS#11 module"))?;
        pkcs11
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(while_doing(&format!("initialising {module}")))?;
        let (slot, info) = discover(&pkcs11, &open.token, open.expected_serial.as_deref())?;
        let identity = identity(&info);
        if let Some(expected) = &open.expected_serial
            && *expected != identity.serial
        {
            return Err(absent(format!(
                "expected the token with serial {expected:?}, got {:?} for {}",
                identity.serial, open.token
            )));
        }
        // The binding leaves out mechanisms that it does not know, and says so
        // in a log that nobody installs in this process.
        let listed = pkcs11
            .get_mechanism_list(slot)
            .map_err(while_doing("listing the token's mechanisms"))?;
        Ok(Self {
            pkcs11,
            slot,
            identity,
            mechanisms: Mechanisms::new(listed),
            strikes: AtomicU32::new(0),
        })
    }

    /// A session of its own for a thread. Read-write, because AWS CloudHSM
    /// signs in no other.
    pub(crate) fn session(&self) -> Result<Session, Fault> {
        self.pkcs11
            .open_rw_session(self.slot)
            .map_err(while_doing("opening a session"))
    }

    /// What the token says about itself now.
    pub(crate) fn info(&self) -> Result<TokenInfo, Fault> {
        self.pkcs11
            .get_token_info(self.slot)
            .map_err(while_doing("reading the token's information"))
    }

    /// Is this still the token that was opened, and are we logged in?
    ///
    /// An empty search proves nothing unless this holds: SoftHSM answers
    /// searches on a token that is gone with no objects and no error.
    pub(crate) fn check(&self, session: &Session) -> Result<(), Fault> {
        let info = self.info().map_err(|fault| absent(fault.why))?;
        if info.serial_number() != self.identity.serial {
            return Err(absent(format!(
                "expected the token with serial {:?}, got {:?}",
                self.identity.serial,
                info.serial_number()
            )));
        }
        let state = session
            .get_session_info()
            .map_err(while_doing("reading the session's state"))?
            .session_state();
        match state {
            SessionState::RwUser | SessionState::RoUser => Ok(()),
            other => Err(Fault::new(
                FaultKind::Unavailable,
                Cure::LogInAgain,
                format!("the token has logged us out: the session is {other:?}"),
            )),
        }
    }

    /// Puts a fault down to the token where the token is at fault.
    ///
    /// The same return value means many things: "not logged in" arrives as
    /// `CKR_OBJECT_HANDLE_INVALID` (SoftHSM), `CKR_GENERAL_ERROR` (Kryoptic)
    /// or `CKR_HOST_MEMORY` (NSS). So a look at token and session decides, and
    /// a module that blames itself while both look well is believed only when
    /// it does so repeatedly: one poisonous request must not end the process
    /// under all others.
    pub(crate) fn diagnose(&self, session: &Session, fault: Fault) -> Fault {
        let doubtful = matches!(fault.cure, Cure::FindAgain | Cure::TryAgain | Cure::Restart)
            || fault.kind == FaultKind::Defect;
        if !doubtful {
            return fault;
        }
        if let Err(mut deeper) = self.check(session) {
            deeper.why = format!("{}; {}", fault.why, deeper.why);
            return deeper;
        }
        let repeated = fault.cure == Cure::Restart
            && self.strikes.fetch_add(1, Ordering::Relaxed) + 1 >= STRIKES;
        match fault.cure {
            Cure::Restart if !repeated => Fault {
                cure: Cure::TryAgain,
                ..fault
            },
            _ => fault,
        }
    }

    /// A call went well: the module is not beyond use.
    pub(crate) fn is_well(&self) {
        self.strikes.store(0, Ordering::Relaxed);
    }
}

/// Looks at every slot: one that fails must not hide the others.
/// `serial` is the one that the token had when it was opened before.
fn discover(
    pkcs11: &Pkcs11,
    wanted: &TokenSelector,
    serial: Option<&str>,
) -> Result<(Slot, TokenInfo), Fault> {
    let slots = pkcs11
        .get_slots_with_token()
        .map_err(while_doing("listing the slots"))?;
    let mut matching = Vec::new();
    let mut others = Vec::new();
    for slot in slots {
        match pkcs11.get_token_info(slot) {
            Ok(info) if !info.token_initialized() => {}
            Ok(info) if matches(&info, wanted) => matching.push((slot, info)),
            Ok(info) => others.push(format!(
                "{:?} (serial {:?})",
                info.label(),
                info.serial_number()
            )),
            Err(e) => others.push(while_doing(&format!("slot {}", slot.id()))(e).why),
        }
    }
    match matching.len() {
        1 => matching.pop().ok_or_else(|| absent("no token".into())),
        0 => Err(absent(format!(
            "expected a token with {wanted}{}, got {}",
            match serial {
                Some(serial) if wanted.serial.is_none() => format!(", as before serial {serial:?}"),
                _ => String::new(),
            },
            if others.is_empty() {
                "none at all".to_owned()
            } else {
                others.join(", ")
            }
        ))),
        n => Err(Fault::new(
            FaultKind::Unavailable,
            Cure::Reopen,
            format!(
                "expected one token with {wanted}, got {n}: name one of the serials {}",
                matching
                    .iter()
                    .map(|(_, info)| format!("{:?}", info.serial_number()))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )),
    }
}

fn matches(info: &TokenInfo, wanted: &TokenSelector) -> bool {
    wanted
        .label
        .as_deref()
        .is_none_or(|label| label == info.label())
        && wanted
            .serial
            .as_deref()
            .is_none_or(|serial| serial == info.serial_number())
}

fn identity(info: &TokenInfo) -> TokenIdentity {
    TokenIdentity {
        label: info.label().to_owned(),
        serial: info.serial_number().to_owned(),
        manufacturer: info.manufacturer_id().to_owned(),
        model: info.model().to_owned(),
    }
}

fn absent(why: String) -> Fault {
    Fault::new(FaultKind::Unavailable, Cure::Reopen, why)
}
