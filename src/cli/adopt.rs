//! `keys adopt`: a key that another tool made in the device.

use std::path::Path;

use clap::Args as ClapArgs;
use serde_json::json;

use super::output::{Failure, say};
use super::{compose, import};
use crate::agent::{self, AdoptFailure, Adopted, Adopting};
use crate::hsm::{DeviceError, Handle, unhex};
use crate::jose::Algorithm;
use crate::keyring::{AdoptError, Mandate};

const IF_IN_USE: &str = "stop the agent, adopt, then start the agent; meanwhile nothing is signed, and nobody serves the JWKS but caches";
/// Which key.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The device that holds it, which must be the key set's.
    #[arg(long, value_name = "DEVICE")]
    device: String,
    /// Its CKA_LABEL.
    #[arg(long, value_name = "LABEL", required_unless_present = "id")]
    label: Option<String>,
    /// Its CKA_ID, in hexadecimal.
    #[arg(long, value_name = "HEX")]
    id: Option<String>,
    /// The `kid` that its tokens have.
    #[arg(long, value_name = "KID", allow_hyphen_values = true)]
    kid: String,
    /// What it signs with.
    #[arg(long, value_name = "ALG")]
    alg: Algorithm,
    /// The key set; may be left out where only one is configured.
    #[arg(long, value_name = "NAME")]
    key_set: Option<String>,
    /// A remark, for the log.
    #[arg(long, default_value = "", value_name = "TEXT")]
    note: String,
}

/// Takes the key over, and says when it may sign.
pub(super) fn run(path: &Path, args: Args, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(path)?;
    let name = compose::key_set(&config, args.key_set)?;
    let wanted = compose::wanted(&config, &name)?;
    if args.device != wanted.plan.device {
        let (expected, got) = (&wanted.plan.device, &args.device);
        let why = format!("--device: expected {expected:?}, the device of {name}, got {got:?}");
        return Err(Failure::usage(why));
    }
    import::plain(&args.kid)?;
    let id = args.id.map(|id| {
        let bytes = unhex(&id).filter(|bytes| !bytes.is_empty());
        bytes.ok_or_else(|| Failure::usage(format!("--id: expected hexadecimal, got {id:?}")))
    });
    let adopting = Adopting {
        from: Handle {
            id: id.transpose()?,
            label: args.label,
        },
        kid: args.kid.clone(),
        algorithm: args.alg,
    };
    let uid = rustix::process::geteuid().as_raw();
    let mandate = Mandate {
        by: format!("unix:{uid}"),
        note: args.note,
    };
    let adopted = compose::block_on(async {
        let context = compose::open(&config, IF_IN_USE)?;
        let devices = context.devices();
        let adopted = agent::adopt(context, wanted, adopting, &mandate).await;
        for device in devices {
            device.shut_down().await;
        }
        adopted.map_err(|e| failure(&e))
    })??;
    tell(&name, &args.kid, args.alg, &adopted, as_json)
}

fn tell(
    key_set: &str,
    kid: &str,
    algorithm: Algorithm,
    adopted: &Adopted,
    as_json: bool,
) -> Result<(), Failure> {
    let Adopted {
        id,
        device,
        former_id,
        label,
        waits,
    } = adopted;
    if as_json {
        return say(json!({
            "key_set": key_set,
            "kid": kid,
            "alg": algorithm.to_string(),
            "device": device,
            "id": id.to_string(),
            "former_id": former_id,
            "label": label,
            "waits_seconds": waits.as_millis() / 1000,
        }));
    }
    say(format!("{kid} is published, and next in {algorithm}"))?;
    say(format!(
        "its CKA_ID on {device} is now {id} (it was {former_id:?}; the label {label:?} stays): what finds it by the old id no longer signs with it"
    ))?;
    say(format!(
        "start the agent; the key may become active {waits} after every origin shows it, and does with the next rotation: `sealkeeper keys rotate --alg {algorithm}` does not wait for the schedule"
    ))
}

fn failure(error: &AdoptFailure) -> Failure {
    let hint = match error {
        AdoptFailure::Record(_) => "`sealkeeper doctor` says what is wrong with the record",
        AdoptFailure::Doubt(_) => "start the agent, and `sealkeeper clock confirm`",
        AdoptFailure::Store(_) | AdoptFailure::OfAnother { .. } => "nothing was changed",
        AdoptFailure::Tombstone(_) => "nothing was changed; look at the file",
        AdoptFailure::Unfinished(_) => {
            "it is on record: the agent goes on with it when it starts, as soon as the device does"
        }
        AdoptFailure::Unexpected(_) => "`sealkeeper doctor` says what the token holds",
        AdoptFailure::Device(e) => match e {
            DeviceError::BadKey { .. } => {
                "nothing was changed; a key that cannot be adopted may still verify: `sealkeeper keys import`"
            }
            DeviceError::Refused { .. } => {
                "nothing was changed; `pkcs11-tool --list-objects` shows the keys with their labels and ids: --label and --id together name one"
            }
            _ => "nothing was changed; `sealkeeper doctor` says what is wrong with the device",
        },
        AdoptFailure::Keyring(e) => match e {
            AdoptError::NotBegun(_) => "run `sealkeeper init` first",
            AdoptError::NoTrack { .. } => "add the track to the configuration first",
            AdoptError::AfterCompromise { .. } => {
                "wait until a key that was made after the revocation is active, and none of before is left"
            }
            AdoptError::NoId { .. } => "try again",
            AdoptError::Known {
                phase: "generating",
                ..
            } => "its adoption is on record: start the agent, which goes on with it",
            _ => "nothing was changed",
        },
    };
    Failure::failed(error).hint(hint)
}
