//! PINs: where they come from, whether one may be tried, and how a new one is
//! given.

use super::Report;
use super::devices::{BY_ITSELF, tool};
use crate::config::{self, Config};
use crate::hsm::pin_marker::{self, NO_TRY_LEFT, ONE_TRY_LEFT, Status};
use crate::hsm::pin_source::{PinError, PinSource};

/// Whether the PIN can be had without asking anybody.
pub(super) fn look(device: &config::Device, report: &mut Report) -> bool {
    let name = &device.name;
    let place = match &device.pin {
        PinSource::Prompt => {
            report.ok(
                "pin",
                name,
                "asked for when the agent starts: not looked at",
            );
            return false;
        }
        PinSource::File(path) => format!("file {}", path.display()),
        PinSource::Credential(credential) => format!("credential {credential}"),
        PinSource::Environment(variable) => format!("environment variable {variable}"),
    };
    let read = device.pin.supply(name).and_then(|supply| supply.pin());
    let hint = match read {
        Ok(_) => {
            report.ok("pin", name, format!("{place}: readable"));
            return true;
        }
        Err(PinError::NoCredentials { .. }) => {
            report.ok(
                "pin",
                name,
                format!("{place}: given to the service alone, not looked at"),
            );
            return false;
        }
        Err(ref e) => match e {
            PinError::Exposed { path, .. } => {
                format!("chmod 600 {}; {BY_ITSELF}", path.display())
            }
            PinError::Io { path, .. } => format!(
                "the agent's user must own it: chown USER {0} && chmod 600 {0}; {BY_ITSELF}",
                path.display()
            ),
            PinError::NotInEnvironment { .. } => {
                "set it for the agent, then restart it; a file or a systemd credential is safer"
                    .to_owned()
            }
            _ => "the PIN alone stands there, in one line; mend it, then restart the agent"
                .to_owned(),
        },
    };
    let why = read.map_or_else(|e| e.to_string(), |_| String::new());
    report.fail("pin", name, why, hint);
    false
}

/// Whether a login may be tried.
pub(super) fn marker(config: &Config, device: &config::Device, report: &mut Report) -> bool {
    const CHECK: &str = "pin_marker";
    let name = &device.name;
    match pin_marker::status(&device.pin_marker(&config.state_dir)) {
        Ok(Status::Clear) => {
            report.ok(CHECK, name, "the PIN may be tried");
            true
        }
        Ok(Status::LoggingIn) => {
            report.ok(CHECK, name, "a login is under way");
            false
        }
        Ok(Status::Standing { reason, since }) => {
            let since = since.map_or(String::new(), |at| format!(", on {at}"));
            let found = format!("the agent does not try the PIN any more: {reason}{since}");
            report.fail(CHECK, name, found, cure(device, &reason));
            false
        }
        Err(e) => {
            let hint = "the agent's user must be able to write to the state folder; then it tries again by itself";
            report.fail(CHECK, name, e.to_string(), hint);
            false
        }
    }
}

/// How a PIN that was refused is put right, and tried again. `why` is what is
/// known of the refusal.
pub(super) fn cure(device: &config::Device, why: &str) -> String {
    let name = &device.name;
    let place = match &device.pin {
        PinSource::File(path) => format!(" in {}", path.display()),
        PinSource::Credential(name) => {
            format!(" in the credential {name} (a new one takes a restart of the service)")
        }
        PinSource::Environment(name) => {
            format!(" in the environment variable {name} (a new one takes a restart)")
        }
        PinSource::Prompt => " (a new one is asked for at a restart)".to_owned(),
    };
    let sure = format!("make sure that the PIN is right{place}");
    let again =
        format!("then run: sealkeeper device unlock {name}, which has it tried once; {BY_ITSELF}");
    let mut tool = tool(device);
    if let Some(label) = &device.token.label {
        tool += &format!(" --token-label {label:?}");
    }
    if why.contains("CKR_PIN_LOCKED") || why.contains(NO_TRY_LEFT) {
        return format!(
            "the token itself has locked the PIN, which its security officer sets anew: `{tool} --login --login-type so --init-pin`; {sure}, {again}"
        );
    }
    let try_it = format!("`{tool} --login --list-objects` asks for a PIN and tries it");
    if why.contains(ONE_TRY_LEFT) {
        return format!(
            "one more wrong PIN locks the token, and the agent does not use the last try: {sure}, log in with it once yourself, after which the token counts anew ({try_it}), {again}"
        );
    }
    format!(
        "the agent stopped by itself, before the token, which counts wrong PINs, locks: {sure}, {again}. To check a PIN before: {try_it}, and the token counts that too"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_locked_the_pin_is_not_the_agents_doing() {
        let config = Config::parse(
            "[device.hsm]\nkind = 'pkcs11'\nmodule = '/m.so'\ntoken = 'lab'\npin = { file = '/pin' }\n[key_set.main]\nissuer = 'https://login.example'\ndevice = 'hsm'\ntrack = [{ alg = 'ES256' }]",
            "sealkeeper.toml",
            std::path::Path::new("/etc"),
        );
        let config = config.unwrap_or_else(|e| panic!("{e}"));
        let device = &config.devices["hsm"];
        assert_eq!(device.token.label.as_deref(), Some("lab"));
        let said = |why: &str| cure(device, why);
        let incorrect = said("C_Login said CKR_PIN_INCORRECT, and it says that more than one");
        assert!(incorrect.starts_with("the agent stopped"), "{incorrect}");
        for why in [
            "C_Login said CKR_PIN_LOCKED",
            "the token says that no try is left: no",
        ] {
            let locked = said(why);
            assert!(locked.starts_with("the token itself"), "{locked}");
            assert!(locked.contains("--token-label \"lab\" --login --login-type so --init-pin`"));
        }
        let last = said("C_Login said CKR_PIN_INCORRECT, and it says that one try is left");
        assert!(last.starts_with("one more wrong PIN locks"), "{last}");
        for cure in [incorrect, last] {
            assert!(
                cure.contains("make sure that the PIN is right in /pin, "),
                "{cure}"
            );
            assert!(cure.contains("sealkeeper device unlock hsm, which has it tried once"));
        }
    }
}
