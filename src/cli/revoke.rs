//! `keys revoke`: one key, through the agent, or on what a dead one left on
//! disk. All that a device holds: [`whole_device`].

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::advice::Advice;
use super::output::Failure;
use super::{
    OrderArgs, RevokeReason, ThenArg, change, compose, hangs, impact, kid, policy, whole_device,
};
use crate::agent::admin::{self, Change};
use crate::agent::impact::Thought;
use crate::agent::offline::Offline;
use crate::api::v1::{
    AfterRevocation, PreviewRevocationRequest, RevocationReason, RevokeKeyRequest,
};
use crate::config::Config;
use crate::keyring::OWN_LISTENER;
use crate::serve::grpc;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) order: OrderArgs,
    /// The key's id, or the start of it: at least 6 characters, which no
    /// other key's id begins with.
    #[arg(
        allow_hyphen_values = true,
        required_unless_present = "all",
        conflicts_with_all = ["all", "device"]
    )]
    pub(super) kid: Option<String>,
    /// Why.
    #[arg(long, value_enum, default_value = "unspecified")]
    pub(super) reason: RevokeReason,
    /// What to do if no standby is in every verifier's cache yet.
    #[arg(long, value_enum)]
    pub(super) then: Option<ThenArg>,
    /// A remark, for the record and the log; `keys list` shows it.
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(super) note: String,
    /// Only say what it would break: unexpired tokens, callers, and until when
    /// verifiers trust the key all the same. Nothing is changed.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Every key of which the device has the private half, in all key sets.
    /// Where no other device is configured, the keys that come after are made
    /// on it too.
    #[arg(
        long,
        requires_all = ["device", "then"],
        conflicts_with_all = ["key_set", "force_kid", "expected_version", "request_id"]
    )]
    all: bool,
    /// With --all: the device, as the configuration names it.
    #[arg(long, requires = "all", value_name = "NAME")]
    device: Option<String>,
    /// With no agent running: on its state directory. As its owner, or as root.
    #[arg(long)]
    pub(super) offline: bool,
    /// Take a whole id that neither the record nor the JWKS shows: for an
    /// agent that cannot read its record. Where the id is wrong, the key
    /// that you mean signs on.
    #[arg(long)]
    force_kid: bool,
}

pub(super) fn run(config: &Path, args: Args, as_json: bool) -> Result<(), Failure> {
    let (advice, config) = (Advice::of(config), compose::config(config)?);
    match (&args.kid, &args.device) {
        (None, Some(device)) => whole_device::run((config, &advice), device, &args, as_json),
        (Some(wanted), _) if args.offline => {
            offline((config, &advice), wanted.clone(), args, as_json)
        }
        (Some(wanted), _) => one((&config, &advice), wanted.clone(), args, as_json),
        // The command line asks for one of them.
        (None, None) => Err(Failure::usage("which key?")),
    }
}

/// Through the agent.
fn one(
    (config, advice): (&Config, &Advice),
    wanted: String,
    mut args: Args,
    as_json: bool,
) -> Result<(), Failure> {
    compose::block_on(async {
        let mut admin = compose::admin(config).await?;
        let named = args.order.key_set.take();
        args.order.key_set = Some(kid::key_set(config, named, &wanted).await?);
        let known = admin.clone();
        if args.dry_run {
            let key_set = compose::key_set(config, args.order.key_set.clone())?;
            let kid = kid::resolve(config, &key_set, wanted, false).await?;
            let words = format!("{kid} --key-set {key_set}");
            let mut request = PreviewRevocationRequest {
                key_set,
                kid,
                ..Default::default()
            };
            request.set_then(then(args.then));
            let preview = impact::waited_for(&known, admin.preview_revocation(request)).await;
            let preview = preview.map_err(|e| hangs::revoking(config, e, &words, &args))?;
            return impact::tell_preview(&preview.into_inner(), advice, as_json);
        }
        let order = change::order(config, args.order.clone())?;
        let kid = kid::resolve(config, &order.key_set, wanted, args.force_kid).await?;
        let words = format!("{kid} --key-set {}", order.key_set);
        let mut request = RevokeKeyRequest {
            order: Some(order),
            kid,
            note: args.note.clone(),
            ..Default::default()
        };
        request.set_reason(reason(args.reason));
        request.set_then(then(args.then));
        let changed = impact::waited_for(&known, admin.revoke_key(request)).await;
        let changed = changed.map_err(|e| hangs::revoking(config, e, &words, &args))?;
        change::tell(&changed.into_inner(), advice, as_json)
    })?
}

pub(super) fn reason(reason: RevokeReason) -> RevocationReason {
    match reason {
        RevokeReason::Unspecified => RevocationReason::Unspecified,
        RevokeReason::Compromised => RevocationReason::Compromised,
        RevokeReason::Superseded => RevocationReason::Superseded,
    }
}

pub(super) fn then(then: Option<ThenArg>) -> AfterRevocation {
    match then {
        None => AfterRevocation::Unspecified,
        Some(ThenArg::Wait) => AfterRevocation::Wait,
        Some(ThenArg::Activate) => AfterRevocation::Activate,
    }
}

// -- With the agent dead -----------------------------------------------------

pub(super) const IF_IN_USE: &str = "leave out --offline: the running agent ends the key at once; one that hangs is to be ended first, and `sealkeeper doctor` says how";

fn offline(
    (mut config, advice): (Config, &Advice),
    wanted: String,
    args: Args,
    as_json: bool,
) -> Result<(), Failure> {
    as_owner(&config.state_dir)?;
    let named = match args.order.key_set {
        None if config.key_sets.len() > 1 => holder(&config, &wanted)?,
        named => named,
    };
    let key_set = compose::key_set(&config, named)?;
    let set = compose::wanted(&config, &key_set)?;
    // What needs a device is for the next start.
    config.devices.clear();
    compose::block_on(async {
        let context = compose::open(&config, IF_IN_USE)?;
        let mut offline = Offline::open(context, set, OWN_LISTENER).await;
        let kids = offline.kids();
        let known = kids.iter().map(|kid| kid::Known {
            kid,
            phase: None,
            found: kid,
        });
        let found = kid::find(known, &wanted).cloned();
        let kid = kid::or_unseen(found, wanted, args.force_kid)?;
        if args.dry_run {
            let thought = Thought {
                kid,
                then: args.then.map(chosen).map(Into::into),
                along: Vec::new(),
            };
            let foreseen = offline.foresee(&thought).await.map_err(grpc::failure)?;
            return impact::tell_preview(&grpc::preview(foreseen), advice, as_json);
        }
        let order = admin::Order {
            request_id: "offline".to_owned(),
            key_set,
            expected_version: Some(args.order.expected_version).filter(|v| !v.is_empty()),
            change: Change::Revoke {
                kid,
                reason: because(args.reason),
                then: args.then.map(chosen),
                note: grpc::remark(args.note).map_err(Failure::from)?,
            },
        };
        let caller = policy::own_caller()?;
        let changed = offline.revoke(&caller, &order).await;
        change::tell_offline(
            &grpc::change_response(changed.map_err(grpc::failure)?),
            advice,
            as_json,
        )
    })?
}

/// The key set that knows this whole id.
fn holder(config: &Config, wanted: &str) -> Result<Option<String>, Failure> {
    compose::block_on(async {
        for name in config.key_sets.keys() {
            let offline = whole_device::opened(config, name).await?;
            if offline.kids().iter().any(|kid| kid == wanted) {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    })?
}

pub(super) fn because(reason: RevokeReason) -> admin::RevocationReason {
    match reason {
        RevokeReason::Unspecified => admin::RevocationReason::Unspecified,
        RevokeReason::Compromised => admin::RevocationReason::Compromised,
        RevokeReason::Superseded => admin::RevocationReason::Superseded,
    }
}

pub(super) fn chosen(then: ThenArg) -> admin::AfterRevocation {
    match then {
        ThenArg::Wait => admin::AfterRevocation::Wait,
        ThenArg::Activate => admin::AfterRevocation::Activate,
    }
}

/// Goes on as the owner of the state directory: a tombstone that root wrote is
/// one that the agent cannot read, and it signs nothing beside such a one.
pub(super) fn as_owner(state: &Path) -> Result<(), Failure> {
    let folder = std::fs::metadata(state).map_err(|e| {
        Failure::failed(format!("{}: {e}", state.display()))
            .hint("--offline works on what an agent left in its state_dir: --config names the file that says where")
    })?;
    let us = rustix::process::geteuid();
    if us.as_raw() == folder.uid() {
        return Ok(());
    }
    let failed = |why: String| Failure::failed(format!("{}: {why}", state.display()));
    if !us.is_root() {
        let why = format!("it belongs to uid {}", folder.uid());
        return Err(failed(why).hint("run this as that user, or as root"));
    }
    let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
    let e = Command::new(program)
        .args(std::env::args_os().skip(1))
        .uid(folder.uid())
        .gid(folder.gid())
        .exec();
    let why = format!("cannot go on as its owner, uid {}: {e}", folder.uid());
    Err(failed(why).hint("run this as that user"))
}
