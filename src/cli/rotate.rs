//! `keys rotate`: when the next key signs by the rules, and before its time.

use std::path::Path;

use serde_json::{Value, json};

use super::OrderArgs;
use super::advice::Advice;
use super::change;
use super::compose;
use super::impact;
use super::keys::{date, rfc3339};
use super::output::Failure;
use crate::api::v1::{
    ForcedActivation, Key, PreviewRotationRequest, PreviewRotationResponse, RotateKeyRequest,
};
use crate::config::Config;
use crate::jose::Algorithm;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    order: OrderArgs,
    /// The track; the default track where absent.
    #[arg(long, value_name = "ALG")]
    alg: Option<Algorithm>,
    /// Before every verifier can hold the next key: those that do not refuse
    /// its tokens until they fetch the set again. For when the key that signs
    /// must not go on, and is not to be revoked.
    #[arg(long)]
    force: bool,
    /// Only say when the next key would sign, and what --force would break.
    /// Nothing is changed.
    #[arg(long)]
    dry_run: bool,
    /// A remark, for the log.
    #[arg(long, default_value = "", value_name = "TEXT")]
    note: String,
    /// With --force: ask no question.
    #[arg(long, requires = "force")]
    yes: bool,
}

pub(super) fn run(config: &Path, args: Args, as_json: bool) -> Result<(), Failure> {
    let (advice, config) = (Advice::of(config), compose::config(config)?);
    compose::block_on(async {
        if args.dry_run {
            let preview = preview(&config, &args).await?;
            return match as_json {
                true => advice.say_json(json_of(&preview)),
                false => tell(&preview, &advice, true),
            };
        }
        if args.force && !args.yes {
            ask(&config, &args, &advice, as_json).await?;
        }
        let mut admin = compose::admin(&config).await?;
        let request = RotateKeyRequest {
            order: Some(change::order(&config, args.order)?),
            alg: named(args.alg),
            force: args.force,
            note: args.note,
        };
        let changed = admin.rotate_key(request).await?.into_inner();
        change::tell(&changed, &advice, as_json)
    })?
}

fn named(alg: Option<Algorithm>) -> String {
    alg.map(|alg| alg.name().to_owned()).unwrap_or_default()
}

async fn preview(config: &Config, args: &Args) -> Result<PreviewRotationResponse, Failure> {
    let mut admin = compose::admin(config).await?;
    let known = admin.clone();
    let request = PreviewRotationRequest {
        key_set: compose::key_set(config, args.order.key_set.clone())?,
        alg: named(args.alg),
    };
    let preview = impact::waited_for(&known, admin.preview_rotation(request)).await?;
    Ok(preview.into_inner())
}

/// Shows whoever sits at the terminal what it breaks, before it does.
async fn ask(config: &Config, args: &Args, advice: &Advice, as_json: bool) -> Result<(), Failure> {
    if as_json || !change::is_answered() {
        return Err(Failure::usage(
            "verifiers that do not hold the next key yet will refuse its tokens",
        )
        .hint("--dry-run shows for how long; --yes says that it is meant; on a terminal you are asked"));
    }
    let preview = preview(config, args).await?;
    let forced = preview.forced.as_ref();
    // Else nothing breaks, or it is refused: the agent says which.
    if forced.is_some_and(|forced| forced.refused_until.is_some()) {
        tell(&preview, advice, false)?;
        let next = &preview.next_kid;
        change::confirm(&format!("Have {next} sign before its time?"), as_json)?;
    }
    Ok(())
}

/// No date is known while an origin does not show a key: verifiers of that one
/// begin to hold it later.
pub(super) const fn at_least(key: &Key) -> &'static str {
    match key.observed {
        Some(_) => "",
        None => "at least ",
    }
}

fn tell(preview: &PreviewRotationResponse, advice: &Advice, dry_run: bool) -> Result<(), Failure> {
    for line in text_of(preview, dry_run) {
        advice.say(line)?;
    }
    Ok(())
}

fn text_of(preview: &PreviewRotationResponse, dry_run: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if dry_run {
        lines.push("dry run: nothing was changed".to_owned());
    }
    let or_none = |kid: &str| match kid {
        "" => "none".to_owned(),
        kid => kid.to_owned(),
    };
    lines.push(format!(
        "signs:   {} ({})",
        or_none(&preview.signs),
        preview.alg
    ));
    lines.push(format!("next:    {}", or_none(&preview.next_kid)));
    let waits = match preview.waits_for.as_str() {
        "" => String::new(),
        waits => format!(", and waits for {waits}"),
    };
    lines.push(match (&preview.decided_at, &preview.safe_at) {
        (Some(at), _) => format!("decided: another key signs from {} on", date(Some(at))),
        (None, Some(at)) => format!(
            "by rule: it signs from {} on, at the earliest{waits}",
            date(Some(at))
        ),
        (None, None) => format!("by rule: there is no date{waits}"),
    });
    if let Some(forced) = &preview.forced {
        lines.extend(forced_lines(preview, forced));
    }
    for note in &preview.notes {
        lines.push(format!("note:    {note}"));
    }
    lines
}

fn forced_lines(preview: &PreviewRotationResponse, forced: &ForcedActivation) -> Vec<String> {
    let at = date(forced.at.as_ref());
    let Some(until) = &forced.refused_until else {
        return vec![format!(
            "--force: it signs from {at} on, and every verifier holds it: nothing is forced"
        )];
    };
    let until = date(Some(until));
    let least = match &*forced.lacking_origins {
        [] => "",
        _ => "at least ",
    };
    let mut lines = vec![
        format!("--force: it signs from {at} on"),
        format!(
            "breaks:  {least}until {until} (rule 1) verifiers that do not hold it refuse its tokens, each until it fetches the set: most do at an unknown kid, those that never do keep theirs for verifier_cache"
        ),
    ];
    for origin in &forced.lacking_origins {
        lines.push(format!(
            "         {origin} does not show it: there it takes longer"
        ));
    }
    let of = match &*preview.instead_of {
        "" => "the key that signs now".to_owned(),
        kid if *kid == preview.signs => "the key that signs now".to_owned(),
        kid => format!("{kid}, which signs by default now"),
    };
    lines.push(format!(
        "callers: unexpired tokens of {of}: {}; as many may be refused in each lifetime of a token",
        preview.tokens
    ));
    let others = preview.tokens_of_others;
    lines.extend(impact::callers(&preview.callers, others, &preview.log_gaps));
    lines.extend(way_back(preview, forced));
    lines
}

fn way_back(preview: &PreviewRotationResponse, forced: &ForcedActivation) -> Option<String> {
    let (kid, until) = (&preview.signs, date(forced.back_until.as_ref()));
    if kid.is_empty() {
        return None;
    }
    let back = format!("back:    `sealkeeper keys rollback {kid}` goes back");
    Some(match (&forced.back_from, &*forced.back_waits_for) {
        (Some(from), _) => format!("{back}, from {} until {until}", date(Some(from))),
        (None, []) => format!("back:    there is none to {kid}: {}", forced.no_way_back),
        (None, origins) => format!(
            "{back} only once {} has shown {kid} for long enough, and not after {until}",
            origins.join(" and ")
        ),
    })
}

fn json_of(preview: &PreviewRotationResponse) -> Value {
    let text = |kid: &str| Some(kid.to_owned()).filter(|kid| !kid.is_empty());
    json!({
        "dry_run": true,
        "alg": preview.alg,
        "signs": text(&preview.signs),
        "tokens": preview.tokens,
        "callers": impact::json_of_callers(&preview.callers),
        "tokens_of_others": preview.tokens_of_others,
        "log_gaps": preview.log_gaps,
        "next": text(&preview.next_kid),
        "safe_at": rfc3339(preview.safe_at.as_ref()),
        "waits_for": text(&preview.waits_for),
        "decided_at": rfc3339(preview.decided_at.as_ref()),
        "instead_of": text(&preview.instead_of),
        "forced": preview.forced.as_ref().map(|forced| json!({
            "at": rfc3339(forced.at.as_ref()),
            "refused_until": rfc3339(forced.refused_until.as_ref()),
            "lacking_origins": forced.lacking_origins,
            "back_from": rfc3339(forced.back_from.as_ref()),
            "back_until": rfc3339(forced.back_until.as_ref()),
            "back_waits_for": forced.back_waits_for,
            "no_way_back": text(&forced.no_way_back),
        })),
        "notes": preview.notes,
    })
}
