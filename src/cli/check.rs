//! `config check`: whether the configuration loads, and the timeline that it
//! means.

use std::path::Path;

use serde_json::json;

use super::compose;
use super::output::{Failure, say, table};
use crate::clock::{Clock, SystemClock};
use crate::config::KeySet;
use crate::keyring::{Timing, rules};
use crate::time::{Span, Time};

/// The first two keys of a track, if nothing happens but the schedule.
struct Timeline {
    /// `init`: the first key is active.
    begin: Time,
    /// The second key is in the set, and seen.
    published: Time,
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
        let rotated = begin + timing.rotate_every;
        let last_use = rules::rule_2_last_use(rotated, timing);
        let ceiling = last_use + timing.max_token_lifetime;
        Self {
            begin,
            published: begin,
            ready: rules::rule_1_pre_publish(begin, timing),
            rotated,
            last_use,
            destroyed: last_use + timing.rollback_window,
            removed: rules::rule_3_overlap(ceiling, last_use, timing.max_token_lifetime, timing),
        }
    }

    fn rows(&self) -> [(Time, &'static str); 7] {
        [
            (self.begin, "`init`: the first key signs"),
            (self.published, "the second key is in the JWKS"),
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
        ]
    }

    /// One line for each key: published, active, in the overlap, the private
    /// half gone.
    fn drawing(&self, width: usize) -> String {
        let end = self.removed.since(self.begin).as_millis().max(1);
        let column = |at: Time| {
            let done = at.since(self.begin).as_millis();
            usize::try_from(done * (width as i64 - 1) / end).unwrap_or(width - 1)
        };
        let (rotated, destroyed) = (column(self.rotated), column(self.destroyed));
        let first: String = (0..width)
            .map(|x| {
                if x < rotated {
                    '='
                } else if x < destroyed {
                    '-'
                } else {
                    '.'
                }
            })
            .collect();
        let second: String = (0..width)
            .map(|x| if x < rotated { '-' } else { '=' })
            .collect();
        format!(
            "key 1  {first}\nkey 2  {second}\n       = signs   - published, private half present   . published, private half destroyed"
        )
    }
}

/// Loads the configuration and says what it means.
pub(super) fn run(path: &Path, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(path)?;
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
                "set_size": rules::rule_6_set_size(&set.timing),
                "timeline": events,
            })
        });
        return say(json!({ "ok": true, "key_sets": sets.collect::<Vec<_>>() }));
    }
    say(format!("{}: good", path.display()))?;
    for (name, set) in &config.key_sets {
        let timeline = Timeline::of(&set.timing, now);
        say(format!(
            "\nkey set {name} ({}), begun now:",
            set.rules.issuer()
        ))?;
        let rows = timeline.rows().map(|(at, what)| {
            let after = at.since(timeline.begin);
            let after = if after == Span::ZERO {
                "-".to_owned()
            } else {
                after.to_string()
            };
            vec![at.to_string(), after, what.to_owned()]
        });
        say(table(&["AT", "AFTER", "WHAT"], rows))?;
        say(format!("\n{}", timeline.drawing(64)))?;
        say(format!(
            "       at most {} keys of one algorithm in the JWKS; tracks: {}",
            rules::rule_6_set_size(&set.timing),
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
        let drawing = line.drawing(200);
        let keys: Vec<&str> = drawing.lines().take(2).collect();
        assert!(
            keys[0].contains("==--") && keys[0].ends_with('.'),
            "{drawing}"
        );
        assert!(keys[1].contains("--=="), "{drawing}");
    }
}
