//! `simulate`: everything that is to come, if the schedule is all that happens.

mod drawing;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::compose;
use super::output::{Failure, say, table};
use super::progress::Late;
use crate::agent;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, KeySet};
use crate::keyring::{Event, Forecast, Genesis, Life, OWN_LISTENER, Plan, Progress, What};
use crate::store::{Sqlite, Store};
use crate::time::{Span, Time};

/// What is to be simulated.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// How far to look ahead.
    #[arg(long = "for", value_name = "SPAN", default_value = "1y", value_parser = humantime::parse_duration)]
    span: Duration,
    /// The key set; all where absent.
    #[arg(long, value_name = "NAME")]
    key_set: Option<String>,
    /// Also draws the timeline into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// The future of one key set.
struct Future {
    name: String,
    /// Whether it goes on from the record, or begins now.
    goes_on: bool,
    forecast: Forecast,
    /// The next thing to happen, where nothing does in the span asked for.
    next: Option<Event>,
}

/// How far the next thing to happen is looked for.
const FURTHEST: Span = Span::from_days(3660);

/// Prints, and draws, what is to come. Changes nothing, and asks no agent.
pub(super) fn run(path: &Path, args: Args, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(path)?;
    let now = Time::from_secs(SystemClock::new().read().wall.as_secs());
    let until = now + span(args.span)?;
    let names: Vec<String> = match args.key_set {
        Some(name) => vec![compose::key_set(&config, Some(name))?],
        None => config.key_sets.keys().cloned().collect(),
    };
    let mut late = Late::new("{spinner} looking ahead: {percent}% ({elapsed})", 100);
    let whole = until.since(now).as_millis().unsigned_abs().max(1);
    // Of the key set that is being looked at.
    let mut progress = |at: Time| {
        late.at(at.since(now).as_millis().unsigned_abs().saturating_mul(100) / whole);
    };
    let futures = compose::block_on(futures(&config, &names, (now, until), &mut progress))??;
    drop(late);
    if let Some(file) = &args.svg {
        let rows = futures
            .iter()
            .map(|future| (&*future.name, &*future.forecast.lives));
        let svg = drawing::svg(rows, now, until);
        draw(file, &svg)?;
    }
    if as_json {
        let sets: Vec<Value> = futures.iter().map(json_of).collect();
        let (from, until) = (now.to_string(), until.to_string());
        return say(json!({ "from": from, "until": until, "key_sets": sets }));
    }
    for future in &futures {
        tell(future, now)?;
    }
    if let Some(file) = &args.svg {
        say(format!("\nthe timeline is drawn in {}", file.display()))?;
    }
    Ok(())
}

/// Over nothing but a picture of before.
fn draw(file: &Path, svg: &str) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| {
        Failure::failed(format!("{}: {e}", file.display())).hint("--svg names a new file")
    };
    match std::fs::read(file) {
        Ok(old) if !old.starts_with(b"<svg") => Err(failed(&"this is no picture, and stays")),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(&e)),
        _ => std::fs::write(file, svg).map_err(|e| failed(&e)),
    }
}

/// A hundred years are enough for anybody, and no date overflows.
fn span(wanted: Duration) -> Result<Span, Failure> {
    let most = Duration::from_secs(100 * 366 * 24 * 3600);
    if wanted.is_zero() || wanted > most {
        return Err(
            Failure::usage("--for: expected more than nothing, and at most 100 years")
                .hint("--for 2y"),
        );
    }
    let days = u32::try_from(wanted.as_secs() / 86_400).unwrap_or(u32::MAX);
    let rest = u32::try_from(wanted.as_secs() % 86_400).unwrap_or(0);
    Ok(Span::from_days(days) + Span::from_secs(rest))
}

async fn futures(
    config: &Config,
    names: &[String],
    ahead: (Time, Time),
    progress: Progress<'_>,
) -> Result<Vec<Future>, Failure> {
    let path = config.state_dir.join("keys.sqlite");
    // Only what is not there has not begun: dates of a beginning that never
    // was would be worse than none.
    let store = match path.try_exists() {
        Ok(false) => None,
        Ok(true) => Some(Sqlite::open_read_only(path.clone()).map_err(|e| unread(&path, &e))?),
        Err(e) => return Err(unread(&path, &e)),
    };
    let mut all = Vec::new();
    for (name, set) in &config.key_sets {
        if !names.contains(name) {
            continue;
        }
        let stored = match &store {
            Some(store) => store.load(name).await.map_err(|e| unread(&path, &e))?,
            None => None,
        };
        // Whether the record is an old one is not asked here.
        let record = stored.map(|stored| agent::inspect(&stored.bytes, 0));
        let record = record.transpose().map_err(|e| {
            Failure::failed(format!("the record of the key set {name}: {e}"))
                .hint("`sealkeeper doctor` looks for the cause")
        })?;
        let begun = record.filter(|set| !matches!(set.genesis, Genesis::Pending { .. }));
        all.push(future(name, set, begun, ahead, progress)?);
    }
    Ok(all)
}

fn unread(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    let message = format!("the records cannot be read: {}: {why}", path.display());
    Failure::failed(message)
        .hint("run it as the agent's user; `sealkeeper doctor` looks for the cause")
}

fn future(
    name: &str,
    set: &KeySet,
    record: Option<crate::keyring::KeySet>,
    (now, until): (Time, Time),
    progress: Progress<'_>,
) -> Result<Future, Failure> {
    let plan: Plan = set.plan(origins(set));
    let goes_on = record.is_some();
    let mut look = |until: Time| match record.clone() {
        Some(record) => Ok(Forecast::of(record, &plan, now, until, progress)),
        None => Forecast::from_genesis(name, &plan, now, until, progress).map_err(Failure::failed),
    };
    let forecast = look(until)?;
    let mut next = None;
    if !forecast.events.iter().any(|event| what(event).is_some()) {
        let mut further = until;
        while next.is_none() && further < now + FURTHEST {
            further = (further + further.since(now).times(3)).min(now + FURTHEST);
            let events = look(further)?.events;
            next = events.into_iter().find(|event| what(event).is_some());
        }
    }
    Ok(Future {
        name: name.to_owned(),
        goes_on,
        forecast,
        next,
    })
}

/// Those that the agent waits for. What they have shown is on record; what they
/// have not is taken to be shown at once.
pub(super) fn origins(set: &KeySet) -> BTreeSet<String> {
    match set.observe.as_slice() {
        [] => [OWN_LISTENER.to_owned()].into(),
        origins => origins.iter().map(|it| it.name().to_owned()).collect(),
    }
}

fn tell(future: &Future, now: Time) -> Result<(), Failure> {
    let Future {
        name,
        goes_on,
        forecast,
        next,
    } = future;
    let from = match goes_on {
        true => "from its record on",
        false => "if it began now",
    };
    say(format!("\nkey set {name}, {from}:"))?;
    let rows = forecast.events.iter().filter_map(|event| {
        Some(vec![
            event.at.to_string(),
            in_days(event.at.since(now)),
            event.kid.clone().unwrap_or_default(),
            what(event)?.to_owned(),
        ])
    });
    say(table(&["AT", "IN", "KEY", "WHAT"], rows))?;
    say("an origin that has not shown a key yet is taken to show it at once")?;
    if let Some(event) = next {
        let (kid, what) = (event.kid.as_deref().unwrap_or_default(), what(event));
        say(format!(
            "nothing happens so soon; next, at {} (in {}): {kid} {}",
            event.at,
            in_days(event.at.since(now)),
            what.unwrap_or_default()
        ))?;
    }
    match forecast.cut_short {
        Some(at) => say(format!(
            "and so on: this ends at {at}, after {} events; --for says how far to look",
            forecast.events.len()
        )),
        None => Ok(()),
    }
}

/// For people; what is of no interest to them is left out.
const fn what(event: &Event) -> Option<&'static str> {
    Some(match event.what {
        What::Published => "enters the JWKS",
        What::PlaceholderMade => "its public half is kept for the day when no other key is left",
        What::Activated => "signs",
        What::Retiring => "signs no more; its tokens live on",
        What::Destroyed { .. } => "its private half is destroyed",
        What::Removed => "leaves the JWKS: no token of it is alive",
        _ => return None,
    })
}

fn in_days(span: Span) -> String {
    match span.as_secs() {
        0 => "now".to_owned(),
        s if s < 86_400 => Span::from_secs(u32::try_from(s).unwrap_or(0)).to_string(),
        s => format!("{}d", s / 86_400),
    }
}

fn json_of(future: &Future) -> Value {
    let date = |at: Option<Time>| at.map(|at| at.to_string());
    let event = |event: &Event| {
        json!({
            "at": event.at.to_string(),
            "what": event.what.name(),
            "kid": event.kid,
            "alg": event.algorithm.to_string(),
        })
    };
    let events = future.forecast.events.iter().map(event);
    let lives = future.forecast.lives.iter().map(|life| {
        let Life {
            kid,
            algorithm,
            published,
            active,
            retiring,
            destroyed,
            removed,
        } = life;
        json!({
            "kid": kid,
            "alg": algorithm.map(|algorithm| algorithm.to_string()),
            "published": date(*published),
            "active": date(*active),
            "retiring": date(*retiring),
            "private_destroyed": date(*destroyed),
            "removed": date(*removed),
        })
    });
    json!({
        "name": future.name,
        "from_record": future.goes_on,
        "cut_short": date(future.forecast.cut_short),
        "next": future.next.as_ref().map(event),
        "events": events.collect::<Vec<_>>(),
        "keys": lives.collect::<Vec<_>>(),
    })
}
