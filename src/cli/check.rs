//! `config check`: whether the configuration loads, and the timeline that it
//! means.

use std::path::Path;

use serde_json::json;

use super::advice::Advice;
use super::compose;
use super::differs;
use super::output::{Failure, say, table};
use crate::clock::{Clock, SystemClock};
use crate::config::KeySet;
use crate::keyring::{Timing, rules};
use crate::time::{Span, Time};

/// The first two keys of a track, if nothing happens but the schedule.
struct Timeline {
    /// `init`: the first key is active, and the second in the set and seen.
    begin: Time,
    /// The earliest instant at which the second may sign.
    ready: Time,
    /// The second signs, the first does not.
    rotated: Time,
    /// The last signature by the first, for callers that had fixed its `kid`.
    last_use: Time,
    /// The private half of the first is destroyed.
    destroyed: Time,
    /// The first leaves the set.
    removed: Time,
}

impl Timeline {
    fn of(timing: &Timing, begin: Time) -> Self {
        let ready = rules::rule_1_pre_publish(begin, timing, None);
        let rotated = rules::exception_window(begin + timing.rotate_every, ready, timing);
        let last_use = rules::rule_2_last_use(rotated, timing);
        let ceiling = last_use + timing.max_token_lifetime;
        Self {
            begin,
            ready,
            rotated,
            last_use,
            destroyed: last_use + timing.rollback_window,
            removed: rules::rule_3_overlap(ceiling, last_use, timing.max_token_lifetime, timing),
        }
    }

    /// In the order of time; on the default schedule also in this one.
    fn rows(&self) -> [(Time, &'static str); 6] {
        let mut rows = [
            (
                self.begin,
                "`init`: the first key signs; the second is in the JWKS",
            ),
            (self.ready, "every bounded verifier holds the second key"),
            (self.rotated, "the second key signs; a third is published"),
            (
                self.last_use,
                "the last signature by the first key may leave",
            ),
            (
                self.destroyed,
                "the private half of the first key is destroyed",
            ),
            (
                self.removed,
                "the first key leaves the JWKS: no token of it is alive",
            ),
        ];
        rows.sort_by_key(|(at, _)| *at);
        rows
    }

    /// A line for each of three keys. Each stretch between two rows of the
    /// table is as wide as every other: true to scale, ninety days would
    /// leave no room for the minutes that matter.
    fn drawing(&self) -> String {
        let starts = self.rows().map(|(at, _)| at);
        let line = |state: &dyn Fn(Time) -> char| {
            let stretches = starts.map(|at| state(at).to_string().repeat(STRETCH));
            stretches.join("|").trim_end_matches([' ', '|']).to_owned()
        };
        let numbers: String = (1..=starts.len())
            .map(|n| format!("{n:<width$}", width = STRETCH + 1))
            .collect();
        let first = line(&|at| match at {
            at if at < self.rotated => '=',
            at if at < self.last_use => '~',
            at if at >= self.removed => ' ',
            at if at < self.destroyed => '-',
            _ => '.',
        });
        let second = line(&|at| match at {
            at if at < self.ready => ':',
            at if at < self.rotated => '-',
            _ => '=',
        });
        let third = line(&|at| if at < self.rotated { ' ' } else { ':' });
        format!(
            "       {}\nkey 1  {first}\nkey 2  {second}\nkey 3  {third}\n\n{LEGEND}",
            numbers.trim_end()
        )
    }
}

/// How many characters a stretch of the drawing has.
const STRETCH: usize = 9;

const LEGEND: &str = "       = signs   ~ signs for those who named it   - published   . published, private half destroyed\n       : published, not yet at every verifier   (not to scale; the numbers are the table's)";

/// As the configuration would have it: `90d 35s`, for what is easily compared
/// with it.
fn in_days(span: Span) -> String {
    let days = span.as_secs() / 86_400;
    let rest = u32::try_from(span.as_millis() % 86_400_000).unwrap_or(0);
    match (days, rest) {
        (0, 0) => "-".to_owned(),
        (0, rest) => Span::from_millis(rest).to_string(),
        (days, 0) => format!("{days}d"),
        (days, rest) => format!("{days}d {}", Span::from_millis(rest)),
    }
}

/// Loads the configuration and says what it means.
pub(super) fn run(path: &Path, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(path)?;
    compose::files(path)?;
    let warnings = compose::block_on(differs::look(&config))?;
    let now = Time::from_secs(SystemClock::new().read().wall.as_secs());
    if as_json {
        let sets = config.key_sets.iter().map(|(name, set)| {
            let timeline = Timeline::of(&set.timing, now);
            let events = timeline
                .rows()
                .map(|(at, what)| json!({ "at": at.to_string(), "what": what }));
            json!({
                "name": name,
                "issuer": set.rules.issuer(),
                "tracks": tracks(set),
                "set_size": rules::rule_6_set_size(set.timing.max_token_lifetime, &set.timing),
                "timeline": events,
            })
        });
        return say(json!({
            "ok": true,
            "warnings": warnings,
            "key_sets": sets.collect::<Vec<_>>(),
        }));
    }
    say(format!("{}: good", path.display()))?;
    for warning in warnings {
        let warning = Advice::of(path).in_full(&warning.to_string());
        say(format!("warning: {warning}"))?;
    }
    for (name, set) in &config.key_sets {
        let timeline = Timeline::of(&set.timing, now);
        say(format!(
            "\nkey set {name} ({}), begun now:",
            set.rules.issuer()
        ))?;
        let rows = timeline.rows().into_iter().enumerate();
        let rows = rows.map(|(n, (at, what))| {
            vec![
                (n + 1).to_string(),
                at.to_string(),
                in_days(at.since(timeline.begin)),
                what.to_owned(),
            ]
        });
        say(table(&["", "AT", "AFTER", "WHAT"], rows))?;
        say(format!("\n{}", timeline.drawing()))?;
        say(format!(
            "       at most {} keys of one algorithm in the JWKS; tracks: {}",
            rules::rule_6_set_size(set.timing.max_token_lifetime, &set.timing),
            tracks(set).join(", ")
        ))?;
    }
    Ok(())
}

fn tracks(set: &KeySet) -> Vec<String> {
    set.tracks
        .iter()
        .map(|(alg, key)| format!("{alg} ({key})"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeline_of_the_defaults() {
        let begin = Time::from_secs(1_000_000);
        let line = Timeline::of(&Timing::default(), begin);
        let after = |at: Time| at.since(begin).as_secs();
        assert_eq!(after(line.ready), 86_400 + 600);
        assert_eq!(after(line.rotated), 90 * 86_400);
        assert_eq!(after(line.last_use), 90 * 86_400 + 35);
        assert_eq!(after(line.destroyed), 91 * 86_400 + 35);
        assert_eq!(after(line.removed), 91 * 86_400 + 35 + 3600 + 300);
    }

    #[test]
    fn the_drawing_shows_each_state() {
        let line = Timeline::of(&Timing::default(), Time::from_secs(0));
        let expected = "       1         2         3         4         5         6
key 1  =========|=========|~~~~~~~~~|---------|.........
key 2  :::::::::|---------|=========|=========|=========|=========
key 3           |         |:::::::::|:::::::::|:::::::::|:::::::::
";
        assert!(line.drawing().starts_with(expected), "{}", line.drawing());
    }

    #[test]
    fn spans_are_told_in_days() {
        for (span, text) in [
            (Span::ZERO, "-"),
            (Span::from_days(90), "90d"),
            (Span::from_days(90) + Span::from_secs(35), "90d 35s"),
            (Span::from_mins(61), "1h 1m"),
        ] {
            assert_eq!(in_days(span), text);
        }
    }
}
