//! `recover`: a lost record, made again from what others know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::output::{Failure, say, table};
use super::{ThenArg, compose};
use crate::agent::{self, RecoverFailure, Recovered, Wish};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::keyring::{Finding, Inferred, Mandate, RecoverError, Vouched};
use crate::store::{Sqlite, StoreError, put_aside};

const IF_IN_USE: &str = "stop the agent, run `sealkeeper recover`, then start the agent; meanwhile nothing is signed, and nobody serves the JWKS but caches";

/// What is to be recovered, and what the operator vouches for.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The key set; may be left out where only one is configured.
    #[arg(long, value_name = "NAME")]
    key_set: Option<String>,
    /// Put the record into the store. Without it, nothing is changed.
    #[arg(long)]
    write: bool,
    /// Go on though a device does not answer: what it should hold is taken to
    /// be there.
    #[arg(long)]
    without_device: bool,
    /// You assert that the private halves which no device holds are lost for
    /// good, though none is left, and that this is the right token. A good
    /// record is made again too then: no lost key signs on, their public
    /// halves stay until no token of them is alive, and new keys are made.
    #[arg(long)]
    keys_are_lost: bool,
    /// You assert that the record is right, though it looks old: the token is
    /// shared with another agent's store, whose keys it does not know, and a
    /// key of its own was lost. Nothing is made again; with --write it is put
    /// on record that those keys are none of this key set.
    #[arg(long, conflicts_with_all = ["keys_are_lost", "trust_origins", "without_device"])]
    record_is_right: bool,
    /// You assert that keys which nobody but a public origin shows are yours:
    /// they are published for as long as tokens of them may be about.
    #[arg(long)]
    trust_origins: bool,
    /// What to do where no key signs on: wait until every verifier can hold
    /// the next one, or activate it as soon as there is one; verifiers that do
    /// not hold it refuse its tokens until they fetch.
    #[arg(long, value_enum, default_value = "wait")]
    then: ThenArg,
    /// A remark, for the log.
    #[arg(long, default_value = "", value_name = "TEXT")]
    note: String,
}

/// Shows what each witness says and what follows; writes it where asked to.
pub(super) fn run(path: &Path, args: Args, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(path)?;
    let name = compose::key_set(&config, args.key_set)?;
    let early = matches!(args.then, ThenArg::Activate);
    if early && compose::wanted(&config, &name)?.approvals.is_some() {
        return Err(failure(RecoverFailure::TwoPeople(name)));
    }
    let aside = match args.write {
        true => make_room(&config)?,
        false => None,
    };
    let uid = rustix::process::geteuid().as_raw();
    let wish = Wish {
        write: args.write,
        without_device: args.without_device,
        activate_early: early,
        record_is_right: args.record_is_right,
        vouched: Vouched {
            keys_are_lost: args.keys_are_lost,
            origins_are_true: args.trust_origins,
        },
        mandate: Mandate {
            by: format!("unix:{uid}"),
            note: args.note,
        },
    };
    let recovered = compose::block_on(async {
        let context = compose::open(&config, IF_IN_USE)?;
        let wanted = compose::wanted(&config, &name)?;
        let devices = context.devices();
        let recovered = agent::recover(context, wanted, &config.state_dir, &wish).await;
        for device in devices {
            device.shut_down().await;
        }
        recovered.map_err(failure)
    })??;
    if as_json {
        return say(describe(&recovered, aside.as_deref()));
    }
    if let Some(aside) = &aside {
        say(format!("the damaged store is kept as {}", aside.display()))?;
    }
    tell(&recovered)
}

/// Puts a damaged store aside, with everybody else kept from the folder.
fn make_room(config: &Config) -> Result<Option<PathBuf>, Failure> {
    let store = config.state_dir.join("keys.sqlite");
    let _alone = compose::alone(config, IF_IN_USE)?;
    match Sqlite::open(&store) {
        Err(StoreError::Damaged { .. }) => {
            let now = SystemClock::new().read().wall;
            put_aside(&store, now).map(Some).map_err(Failure::failed)
        }
        Err(e) => Err(Failure::failed(e)),
        Ok(_) => Ok(None),
    }
}

fn tell(recovered: &Recovered) -> Result<(), Failure> {
    let said = recovered.witnesses.iter();
    let rows = said.map(|(witness, says)| {
        let says = match says {
            Ok(says) => says.clone(),
            Err(why) => format!("nothing: {why}"),
        };
        vec![witness.clone(), says]
    });
    say(table(&["WITNESS", "SAYS"], rows))?;
    if let Some(proof) = &recovered.outdated {
        say("")?;
        say(format!("the whole state folder looks old: {proof}"))?;
    }
    if !recovered.others.is_empty() {
        return tell_others(recovered);
    }
    say("")?;
    let head = ["KEY", "LOG", "STORE", "DEVICE", "SHOWN BY", "FOLLOWS"];
    say(table(&head, recovered.findings.iter().map(row)))?;
    for finding in recovered.findings.iter().filter(|it| it.missing || it.gone) {
        after_the_record(recovered, finding)?;
    }
    for strange in &recovered.strange {
        let why = strange.why.as_deref().unwrap_or("its id is none of ours");
        say(format!(
            "left alone: the key {:?} (id {}) on {}: {why}",
            strange.label, strange.id, strange.device
        ))?;
    }
    for (kid, device) in &recovered.not_asked {
        say(format!(
            "not asked: the private half of {kid} is on the device {device}, which the configuration does not name: nothing is signed with it, nor is it destroyed. Put [device.{device}] back under that name first"
        ))?;
    }
    for (device, serial) in tokens_of_lost(recovered) {
        say(format!(
            "what {device} lacks is in the token with serial {serial}: go on only if that one is gone for good"
        ))?;
    }
    say("")?;
    for line in signers(recovered) {
        say(line)?;
    }
    if recovered.confirms_clock {
        say(
            "nothing on disk is dated lately: the agent will not believe its clock until `sealkeeper clock confirm`",
        )?;
    }
    match recovered.written {
        true => say("the record is in the store; start the agent"),
        false => say("nothing was changed: --write puts this into the store"),
    }
}

/// What is not known of a key that the token lacks, where the record is old.
fn after_the_record(recovered: &Recovered, finding: &Finding) -> Result<(), Failure> {
    let (Some(_), Some(kid)) = (&recovered.outdated, &finding.kid) else {
        return Ok(());
    };
    match finding.gone {
        true => say(format!(
            "{kid} is gone from the token and from every origin: it leaves the set. Whether it was revoked is not known here"
        )),
        false => say(format!(
            "{kid} is gone from the token, and not every origin said whether it left the set: it is published until no token of it can be alive. If it was revoked, order that again once the agent runs: `sealkeeper keys revoke {kid}`"
        )),
    }
}

/// The record stays as it is.
fn tell_others(recovered: &Recovered) -> Result<(), Failure> {
    for (device, id) in &recovered.others {
        say(format!(
            "not of this key set, by your word: the key with the object id {id} on {device}"
        ))?;
    }
    match recovered.written {
        true => say("that is on record, and the record stays as it was; start the agent"),
        false => say("nothing was changed: --write puts that on record"),
    }
}

/// The tokens that hold keys which no device has now, by device and serial.
fn tokens_of_lost(recovered: &Recovered) -> BTreeSet<(&String, &String)> {
    let lost = recovered.findings.iter().filter(|finding| finding.missing);
    let lost = lost.filter_map(|finding| recovered.set.keys.get(&finding.id?));
    lost.flat_map(|key| &key.tokens).collect()
}

/// Who signs, in words.
fn signers(recovered: &Recovered) -> Vec<String> {
    let set = &recovered.set;
    let seats = set.seats.iter().map(|(id, seat)| {
        let active = seat.active.and_then(|id| set.keys.get(&id)?.kid.clone());
        let algorithm = id.algorithm;
        let early = "at once: verifiers that do not hold it refuse its tokens until they fetch";
        let not_asked = active.as_ref().and_then(|active| {
            let mut all = recovered.not_asked.iter();
            all.find(|(kid, _)| kid == active)
        });
        if let Some((kid, device)) = not_asked {
            return format!(
                "{algorithm}: nothing signs: {kid} is the active key, on the device {device}, which the configuration does not name"
            );
        }
        match (active, set.standby(id)) {
            (Some(kid), _) => format!("{algorithm}: {kid} signs on"),
            (None, Some(next)) if seat.force => format!(
                "{algorithm}: {} signs {early}",
                next.kid.as_deref().unwrap_or_default()
            ),
            (None, None) if seat.force => {
                format!("{algorithm}: nothing signs until a key is made, and that one signs {early}")
            }
            (None, Some(next)) => format!(
                "{algorithm}: nothing signs until {} was seen at each origin for long enough",
                next.kid.as_deref().unwrap_or_default()
            ),
            (None, None) => format!(
                "{algorithm}: nothing signs until a key is made and was seen at each origin for long enough"
            ),
        }
    });
    seats.collect()
}

fn row(finding: &Finding) -> Vec<String> {
    let name = match (&finding.kid, finding.id) {
        (Some(kid), _) => kid.clone(),
        (None, Some(id)) => format!("(id {id})"),
        (None, None) => String::new(),
    };
    let device = match (finding.held_by.is_empty(), finding.missing) {
        (false, _) => list(&finding.held_by),
        (true, true) => "LACKS IT".to_owned(),
        (true, false) => "-".to_owned(),
    };
    let mut shown: Vec<String> = finding.origins.iter().cloned().collect();
    if finding.on_disk {
        shown.insert(0, "last JWKS".to_owned());
    }
    let log = match (finding.log, finding.entombed) {
        (Some("revoked") | None, true) => "revoked",
        (Some(_), true) => "revoked (on disk)",
        (Some(phase), false) => phase,
        (None, false) => "-",
    };
    vec![
        name,
        log.to_owned(),
        finding.record.unwrap_or("-").to_owned(),
        device,
        match shown.is_empty() {
            true => "-".to_owned(),
            false => shown.join(", "),
        },
        inferred(finding.inferred).to_owned(),
    ]
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    names.join(", ")
}

const fn inferred(inferred: Inferred) -> &'static str {
    match inferred {
        Inferred::Recovered(phase) => phase,
        Inferred::Unknown => "unknown: left alone",
        Inferred::NeverPublished => "never published: left alone",
        Inferred::OnlyAtOrigins => "only at origins: not published",
        Inferred::Contradicted => "another key has its kid: not published",
    }
}

fn describe(recovered: &Recovered, aside: Option<&Path>) -> Value {
    let witnesses = recovered.witnesses.iter().map(|(witness, says)| {
        json!({
            "witness": witness,
            "says": says.as_ref().ok(),
            "fault": says.as_ref().err(),
        })
    });
    let keys = recovered.findings.iter().map(|finding| {
        let (infers, phase) = match finding.inferred {
            Inferred::Recovered(phase) => ("recovered", Some(phase)),
            Inferred::Unknown => ("unknown", None),
            Inferred::NeverPublished => ("never-published", None),
            Inferred::OnlyAtOrigins => ("only-at-origins", None),
            Inferred::Contradicted => ("contradicted", None),
        };
        json!({
            "id": finding.id.map(String::from),
            "kid": finding.kid,
            "log": finding.log,
            "store": finding.record,
            "held_by": finding.held_by,
            "missing": finding.missing,
            "last_jwks": finding.on_disk,
            "origins": finding.origins,
            "revoked": finding.entombed,
            "gone": finding.gone,
            "inferred": infers,
            "phase": phase,
        })
    });
    let strange = recovered.strange.iter().map(|strange| {
        json!({
            "device": strange.device,
            "id": strange.id,
            "label": strange.label,
            "why": strange.why,
        })
    });
    let not_asked = recovered.not_asked.iter();
    let not_asked = not_asked.map(|(kid, device)| json!({ "kid": kid, "device": device }));
    let others = recovered.others.iter();
    let others = others.map(|(device, id)| json!({ "device": device, "id": id.to_string() }));
    json!({
        "key_set": recovered.set.name,
        "witnesses": witnesses.collect::<Vec<_>>(),
        "keys": keys.collect::<Vec<_>>(),
        "strange": strange.collect::<Vec<_>>(),
        "not_asked": not_asked.collect::<Vec<_>>(),
        "signers": signers(recovered),
        "confirms_clock": recovered.confirms_clock,
        "outdated": recovered.outdated.as_ref().map(ToString::to_string),
        "not_ours": others.collect::<Vec<_>>(),
        "written": recovered.written,
        "put_aside": aside,
    })
}

fn failure(error: RecoverFailure) -> Failure {
    let hint = match &error {
        RecoverFailure::Good(_) => {
            "start the agent. Only if its HSM is gone for good: with a new, empty token in its place, --keys-are-lost goes on without its keys"
        }
        RecoverFailure::NotLost { .. } => {
            "start the agent: what is there signs, or takes over by itself once verifiers hold it. `sealkeeper keys revoke` ends a key that is lost"
        }
        RecoverFailure::NotAsked { .. } => {
            "put [device.NAME] back under the name that it had; where its HSM is gone for good, with a new, empty token in its place"
        }
        RecoverFailure::TwoPeople(_) => {
            "leave out --then activate: nothing is activated early then. Once the agent runs, `sealkeeper keys revoke KID --then activate` of the key that signed last asks for the second one"
        }
        RecoverFailure::Word(_) => {
            "leave out --record-is-right: `sealkeeper recover` makes the record again from what the token and the origins show, and has no key sign before its time"
        }
        RecoverFailure::NoGood(_) => {
            "`sealkeeper recover` without --record-is-right makes it again"
        }
        RecoverFailure::NotRight(..) => {
            "leave out --record-is-right: `sealkeeper recover` joins the record with what the token and the origins show. Only if that origin shows the keys of another agent: take it off `observe`"
        }
        RecoverFailure::Unfinished(_) => "run `sealkeeper init` again",
        RecoverFailure::Store(_) | RecoverFailure::Newer(_) => "nothing was changed",
        RecoverFailure::Tombstone(_) | RecoverFailure::Log(_) => {
            "what it says of revocations must not be lost: keep a copy, and look at the file"
        }
        RecoverFailure::Device { .. } => {
            "mend the device first: `sealkeeper doctor` says what is wrong with it. If that takes long, --without-device takes what the log says of it for true"
        }
        RecoverFailure::Keyring(e) => match e {
            RecoverError::NothingKnown(_) => {
                "if it has signed before, this is not its folder: correct state_dir. If it has not, `sealkeeper init` begins it"
            }
            RecoverError::NothingToShow(_) => {
                "put the folder `jwks` back, if you have it; else begin a key set under another name"
            }
            RecoverError::ClockBehind { .. } => "set the machine's clock",
            RecoverError::KeysMissing(_) => {
                "is this the right token? If it is, and the keys are lost for good, --keys-are-lost goes on: their public halves stay until no token of them is alive, and nothing is signed until verifiers hold a new key"
            }
        },
    };
    Failure::failed(error).hint(hint)
}
