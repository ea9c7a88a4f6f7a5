//! `keys revoke --all`: every key that a device holds; through the agent, or on
//! what a dead one left on disk.

use serde_json::{Value, json};
use tonic::{Code, Status};

use super::advice::Advice;
use super::output::Failure;
use super::revoke::{Args, IF_IN_USE, as_owner, because, chosen, reason, then};
use super::{change, compose, hangs, impact, keys, kid, policy};
use crate::agent::admin::DeviceOrder;
use crate::agent::impact::Thought;
use crate::agent::offline::Offline;
use crate::api::client;
use crate::api::v1::{
    DeviceKey, KeySet, ListKeysRequest, Phase, PreviewRevocationRequest, PreviewRevocationResponse,
    RevokeDeviceRequest,
};
use crate::config::Config;
use crate::keyring::OWN_LISTENER;
use crate::serve::grpc;

pub(super) fn run(
    (config, advice): (Config, &Advice),
    device: &str,
    args: &Args,
    as_json: bool,
) -> Result<(), Failure> {
    match (args.offline, args.dry_run) {
        (false, false) => {
            let keys = ordered(&config, device, args)?;
            told((&config, advice), device, &keys, as_json)?;
            verdict(&keys, change::in_memory)
        }
        (false, true) => foretold(device, &foreseen(&config, device, args)?, advice, as_json),
        (true, dry_run) => {
            as_owner(&config.state_dir)?;
            match dry_run {
                false => {
                    let keys = ended(&config, device, args)?;
                    told((&config, advice), device, &keys, as_json)?;
                    verdict(&keys, change::nowhere)
                }
                true => foretold(device, &thought_of(&config, device, args)?, advice, as_json),
            }
        }
    }
}

/// Through the agent.
fn ordered(config: &Config, device: &str, args: &Args) -> Result<Vec<DeviceKey>, Failure> {
    let mut request = RevokeDeviceRequest {
        device: device.to_owned(),
        note: args.note.clone(),
        ..Default::default()
    };
    request.set_reason(reason(args.reason));
    request.set_then(then(args.then));
    compose::block_on(async {
        let mut admin = compose::admin(config).await?;
        let known = admin.clone();
        let answer = impact::waited_for(&known, admin.revoke_device(request)).await;
        let answer = answer.map_err(|e| hung(config, e, device, args))?;
        Ok::<_, Failure>(answer.into_inner().keys)
    })?
}

fn hung(config: &Config, status: Status, device: &str, args: &Args) -> Failure {
    let words = format!("--all --device {device}");
    hangs::revoking(config, status, &words, args)
}

/// On what a dead agent left: one key set after the other, and what fails with
/// one keeps none of the others from ending.
fn ended(config: &Config, device: &str, args: &Args) -> Result<Vec<DeviceKey>, Failure> {
    known(config, device)?;
    // The command line asks for it with --all.
    let Some(then) = args.then.map(chosen) else {
        return Err(Failure::usage("--then wait, or --then activate?"));
    };
    let order = DeviceOrder {
        device: device.to_owned(),
        reason: because(args.reason),
        then,
        note: grpc::remark(args.note.clone()).map_err(Failure::from)?,
    };
    let caller = policy::own_caller()?;
    compose::block_on(async {
        let mut keys = Vec::new();
        for name in config.key_sets.keys() {
            match opened(config, name).await {
                Ok(mut offline) => {
                    let ended = offline.end_device(&caller, &order).await;
                    keys.extend(grpc::device_response(ended).keys);
                }
                Err(failure) => keys.push(DeviceKey {
                    key_set: name.clone(),
                    error: failure.message().to_owned(),
                    ..Default::default()
                }),
            }
        }
        Ok(keys)
    })?
}

pub(super) async fn opened(config: &Config, name: &str) -> Result<Offline, Failure> {
    let set = compose::wanted(config, name)?;
    // What needs a device is for the next start.
    let without = Config {
        devices: std::collections::BTreeMap::new(),
        ..config.clone()
    };
    let context = compose::open(&without, IF_IN_USE)?;
    Ok(Offline::open(context, set, OWN_LISTENER).await)
}

fn known(config: &Config, device: &str) -> Result<(), Failure> {
    if config.devices.contains_key(device) {
        return Ok(());
    }
    let names: Vec<&str> = config.devices.keys().map(String::as_str).collect();
    let hint = format!("one of: {}", names.join(", "));
    Err(Failure::failed(format!("no device {device:?} is configured")).hint(hint))
}

// -- Thought of ----------------------------------------------------------------

/// A key set, a key, and what its end along with the others would mean.
type Thoughts = Vec<(String, String, PreviewRevocationResponse)>;

fn foreseen(config: &Config, device: &str, args: &Args) -> Result<Thoughts, Failure> {
    compose::block_on(async {
        let mut admin = compose::admin(config).await?;
        let mut thoughts = Vec::new();
        for (name, along) in listed(config, device, args).await? {
            for kid in &along {
                let mut request = PreviewRevocationRequest {
                    key_set: name.clone(),
                    kid: kid.clone(),
                    along: along.clone(),
                    ..Default::default()
                };
                request.set_then(then(args.then));
                let agent = admin.clone();
                let preview = impact::waited_for(&agent, admin.preview_revocation(request)).await;
                match preview {
                    Ok(preview) => thoughts.push((name.clone(), kid.clone(), preview.into_inner())),
                    // The placeholder, in a set that is known by its JWKS alone.
                    Err(status) if status.code() == Code::NotFound => {}
                    Err(status) => return Err(hung(config, status, device, args)),
                }
            }
        }
        if thoughts.is_empty() {
            known(config, device)?;
        }
        Ok(thoughts)
    })?
}

/// The keys on a device, for each key set, in the order in which they end:
/// those that sign last. Where a record cannot be read, those of the JWKS that
/// the agent serves.
async fn listed(
    config: &Config,
    device: &str,
    args: &Args,
) -> Result<Vec<(String, Vec<String>)>, Failure> {
    let mut admin = compose::admin(config).await?;
    match admin.list_keys(ListKeysRequest::default()).await {
        Ok(answer) => {
            let sets = answer.into_inner().key_sets.into_iter();
            return Ok(sets
                .map(|set| (set.name.clone(), on_device(&set, device)))
                .collect());
        }
        Err(status) if client::hangs(&status) => return Err(hung(config, status, device, args)),
        // One of them has no record.
        Err(_) => {}
    }
    let mut sets = Vec::new();
    for (name, configured) in &config.key_sets {
        let request = ListKeysRequest {
            key_set: name.clone(),
        };
        let kids = match admin.list_keys(request).await {
            Ok(answer) => {
                let sets = answer.into_inner().key_sets;
                sets.iter().flat_map(|set| on_device(set, device)).collect()
            }
            Err(status) => match kid::published(config, name).await {
                Some(kids) if configured.device == device => kids,
                _ => return Err(status.into()),
            },
        };
        sets.push((name.clone(), kids));
    }
    Ok(sets)
}

fn on_device(set: &KeySet, device: &str) -> Vec<String> {
    let mut on: Vec<_> = (set.keys.iter())
        .filter(|key| key.phase() != Phase::Revoked && !key.kid.is_empty())
        .filter(|key| key.placements.iter().any(|place| place.device == device))
        .collect();
    on.sort_by_key(|key| (key.phase() == Phase::Active, &key.kid));
    on.into_iter().map(|key| key.kid.clone()).collect()
}

fn thought_of(config: &Config, device: &str, args: &Args) -> Result<Thoughts, Failure> {
    known(config, device)?;
    compose::block_on(async {
        let mut thoughts = Vec::new();
        for name in config.key_sets.keys() {
            let mut offline = opened(config, name).await?;
            let Some(along) = offline.kids_on(device) else {
                let why = format!(
                    "the record of the key set {name} cannot be read, and no last JWKS on disk shows a key on {device}"
                );
                return Err(Failure::failed(why).hint("`sealkeeper doctor` says why"));
            };
            for kid in &along {
                let thought = Thought {
                    kid: kid.clone(),
                    then: args.then.map(chosen).map(Into::into),
                    along: along.clone(),
                };
                let foreseen = offline.foresee(&thought).await.map_err(grpc::failure)?;
                thoughts.push((name.clone(), kid.clone(), grpc::preview(foreseen)));
            }
        }
        Ok(thoughts)
    })?
}

fn foretold(
    device: &str,
    thoughts: &Thoughts,
    advice: &Advice,
    as_json: bool,
) -> Result<(), Failure> {
    if as_json {
        let keys = thoughts.iter().map(|(key_set, kid, preview)| {
            json!({
                "key_set": key_set,
                "kid": kid,
                "impact": preview.impact.as_ref().map(impact::json_of),
                "notes": preview.notes,
            })
        });
        let keys: Vec<Value> = keys.collect();
        return advice.say_json(json!({ "dry_run": true, "device": device, "keys": keys }));
    }
    if thoughts.is_empty() {
        return advice.say(none_on(device));
    }
    for (key_set, kid, preview) in thoughts {
        advice.say(format!("{key_set}: {kid}"))?;
        impact::tell_preview(preview, advice, false)?;
    }
    Ok(())
}

fn none_on(device: &str) -> String {
    format!("the device {device} holds no key that is not revoked")
}

// -- Done ------------------------------------------------------------------------

/// Tells what became of each.
fn told(
    (config, advice): (&Config, &Advice),
    device: &str,
    keys: &[DeviceKey],
    as_json: bool,
) -> Result<(), Failure> {
    let made_there = config
        .key_sets
        .iter()
        .filter(|(_, set)| set.device == device);
    let made_there: Vec<&str> = made_there.map(|(name, _)| name.as_str()).collect();
    if as_json {
        let keys: Vec<Value> = keys.iter().map(json_of).collect();
        advice
            .say_json(json!({ "device": device, "keys": keys, "still_made_there": made_there }))?;
    } else {
        for key in keys {
            tell_key(key, advice)?;
        }
        if keys.is_empty() {
            advice.say(none_on(device))?;
        }
        if !made_there.is_empty() {
            advice.say(format!(
                "pending: new keys of {} are made on the device {device} too: where it is not to be trusted, name another in the configuration, then `sealkeeper config reload`: that suffices for a device that the agent knows already, and else says that it waits for a restart",
                made_there.join(", ")
            ))?;
        }
    }
    Ok(())
}

fn tell_key(key: &DeviceKey, advice: &Advice) -> Result<(), Failure> {
    if !key.error.is_empty() {
        let which = match key.kid.as_str() {
            "" => "its keys are not known".to_owned(),
            kid => kid.to_owned(),
        };
        return advice.say(format!("failed:  {}: {which}: {}", key.key_set, key.error));
    }
    advice.say(format!("done:    {}: {}", key.key_set, key.kid))?;
    for done in &key.done {
        advice.say(format!("         {done}"))?;
    }
    if let Some(at) = &key.trusted_until {
        let at = keys::date(Some(at));
        advice.say(format!(
            "         until {at} bounded verifiers may still trust it"
        ))?;
    }
    if let Some(impact) = &key.impact {
        advice.say(format!("         {} unexpired tokens", impact.tokens))?;
    }
    for pending in &key.pending {
        advice.say(format!("pending: {pending}"))?;
    }
    Ok(())
}

fn json_of(key: &DeviceKey) -> Value {
    json!({
        "key_set": key.key_set,
        "kid": Some(&key.kid).filter(|kid| !kid.is_empty()),
        "done": key.done,
        "pending": key.pending,
        "trusted_until": keys::rfc3339(key.trusted_until.as_ref()),
        "durable": key.durable,
        "impact": key.impact.as_ref().map(impact::json_of),
        "error": Some(&key.error).filter(|error| !error.is_empty()),
    })
}

/// Whether each of them is ended, and on disk.
fn verdict(keys: &[DeviceKey], not_on_disk: fn() -> Failure) -> Result<(), Failure> {
    let failed = keys.iter().filter(|key| !key.error.is_empty()).count();
    if failed > 0 {
        return Err(Failure::failed(format!(
            "{failed} of {} were not ended",
            keys.len()
        ))
        .hint("the same command again ends what is left; where the keys of a set are not known, `sealkeeper keys revoke --force-kid` takes a whole id"));
    }
    if keys.iter().any(|key| !key.durable) {
        return Err(not_on_disk());
    }
    Ok(())
}
