//! What the keyring refuses, in the operator's words.

use super::admin::AdminError;
use crate::keyring::OperatorError;
use crate::time::Span;

pub(super) fn refusal(error: OperatorError) -> AdminError {
    let why = error.to_string();
    let refused = |reason, rule: &str, hint: &str| AdminError::Refused {
        reason,
        rule: rule.to_owned(),
        why: why.clone(),
        hint: hint.to_owned(),
        remaining: None,
    };
    let for_now = |reason, hint: &str, left: Span| AdminError::Refused {
        reason,
        rule: "rule_4_destruction".to_owned(),
        why: why.clone(),
        hint: hint.to_owned(),
        remaining: Some(left.to_duration()),
    };
    match error {
        OperatorError::UnknownKid { kid, key_set } => AdminError::UnknownKey { key_set, kid },
        OperatorError::Forgotten { .. } => refused(
            "KEY_FORGOTTEN",
            "key",
            "it is over: nothing can be done with it; `sealkeeper keys history` has what the log knows",
        ),
        OperatorError::UnknownTrack { algorithm, key_set } => {
            AdminError::UnknownTrack { key_set, algorithm }
        }
        OperatorError::NoSafeStandby { .. } => refused(
            "NO_SAFE_STANDBY",
            "rule_1_pre_publish",
            "choose `--then wait` (nothing is signed until the standby is safe) or `--then activate` (some verifiers refuse its tokens until they fetch the set again)",
        ),
        OperatorError::NoStandby { .. } => refused(
            "NO_STANDBY",
            "rule_1_pre_publish",
            "`sealkeeper keys list` shows what comes next and what it waits for; once a key is published, order it again",
        ),
        OperatorError::NotStandby { .. } => refused(
            "NOT_STANDBY",
            "rule_1_pre_publish",
            "`sealkeeper keys list` shows which key is next now",
        ),
        OperatorError::NotRetiring { .. } => refused(
            "NOT_RETIRING",
            "rule_4_rollback",
            "`keys list` shows which keys are retiring",
        ),
        OperatorError::DestructionBegun { .. } => refused(
            "DESTRUCTION_BEGUN",
            "rule_4_rollback",
            "rotate forward instead, or lengthen rollback_window for the next time",
        ),
        OperatorError::BeforeRevocation { .. } => refused(
            "BEFORE_REVOCATION",
            "rule_5_fresh_key",
            "verifiers that fetch only at an unknown kid know this key, and would go on trusting the revoked one; to have another key sign, `sealkeeper keys revoke` the active one",
        ),
        OperatorError::NotObserved { .. } => refused(
            "NOT_OBSERVED",
            "rule_1_pre_publish",
            "wait until every origin has shown the key for long enough",
        ),
        OperatorError::SwitchNear { .. } => refused(
            "SWITCH_NEAR",
            "rule_2_last_use",
            "wait until that activation has happened, then ask again",
        ),
        OperatorError::Signs { .. } => refused(
            "NOT_RETIRED",
            "rule_4_destruction",
            "to end a key that signs, or is to sign next, revoke it: its private half is destroyed then",
        ),
        OperatorError::RollsBack { .. } => refused(
            "ROLLBACK_SCHEDULED",
            "rule_4_rollback",
            "`keys hold` of the key takes the activation back while there is time; to end the key altogether, revoke it",
        ),
        OperatorError::HandingOver { left, .. } => for_now(
            "HANDING_OVER",
            "an agent whose clock is behind may still sign with it: wait until then",
            left,
        ),
        OperatorError::EndsRollback { left, .. } => for_now(
            "ENDS_ROLLBACK",
            "`--end-rollback` says that nobody is to go back to it; without, it is destroyed by itself after that",
            left,
        ),
        OperatorError::InUse { .. } => refused(
            "KEY_IN_USE",
            "rule_4_destruction",
            "agents say so within moments; if it stays, that agent is stuck or gone",
        ),
        OperatorError::NoPrivateHalf { .. } => refused(
            "NO_PRIVATE_HALF",
            "rule_4_destruction",
            "there is nothing to destroy; revoke it, if verifiers are to drop it",
        ),
        OperatorError::UnknownRequest { .. } => refused(
            "UNKNOWN_REQUEST",
            "exception_second_person",
            "`sealkeeper approvals list` shows what waits; a request that nobody agreed to in time is made again",
        ),
        OperatorError::SamePerson { .. } => refused(
            "SAME_PERSON",
            "exception_second_person",
            "another person whom the configuration names runs this command",
        ),
        OperatorError::TooManyRequests => refused(
            "TOO_MANY_REQUESTS",
            "exception_second_person",
            "`sealkeeper approvals withdraw` takes off what nobody wants any more",
        ),
        OperatorError::UnknownOrigin { known, .. } => refused(
            "UNKNOWN_ORIGIN",
            "exception_waiver",
            &format!("it observes {}", known.join(", ")),
        ),
        OperatorError::OwnListener => refused(
            "OWN_LISTENER",
            "exception_waiver",
            "look why the agent cannot fetch its own JWKS: `sealkeeper doctor` tells",
        ),
        OperatorError::WaiverSpan { .. } => refused(
            "WAIVER_SPAN",
            "exception_waiver",
            "waive it for a while, and again if need be; an origin that is gone for good is taken off `observe`",
        ),
        OperatorError::Held { .. } => refused("HELD", "hold", "release the key first"),
    }
}
