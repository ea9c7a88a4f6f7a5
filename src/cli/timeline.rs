//! The present in a terminal: a row for each key, true to scale.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use prost_types::Timestamp;

use super::keys::time;
use crate::api::v1::{Key, KeySet, Phase};
use crate::time::{Span, Time};

/// What stands in front of a row.
const LABEL: usize = 20;

/// Narrower terminals get the table alone.
const LEAST: usize = 60;

/// Wider ones are not filled: nobody compares across so many columns.
const MOST: usize = 140;

const LEGEND: &str =
    ": published   = signs   - its tokens live   . the same, private half destroyed   | now";

/// How wide the terminal is; none where there is none to draw on.
pub(super) fn width() -> Option<usize> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    Some(usize::from(size.ws_col))
}

/// Draws the keys that are in the JWKS, or on their way into it; nothing where
/// there is no room, or nothing to draw.
pub(super) fn draw(set: &KeySet, now: Time, width: usize) -> Option<String> {
    if width < LEAST {
        return None;
    }
    let live = set.keys.iter().filter(|key| {
        matches!(
            key.phase(),
            Phase::Published | Phase::Active | Phase::Retiring
        )
    });
    let rows: Vec<(&Key, Life)> = live.map(|key| (key, Life::of(set, key))).collect();
    let dates = rows.iter().flat_map(|(_, life)| life.dates());
    let from = dates.clone().min()?.min(now);
    let until = dates.max()?.max(now);
    let scale = Scale {
        from,
        until,
        cells: width.min(MOST) - LABEL,
    };
    let here = scale.cell(now);
    let mut lines = vec![format!("\n{:LABEL$}{:here$}now", "", "")];
    for (key, life) in &rows {
        let cells = (0..scale.cells).map(|cell| match cell == here {
            true => '|',
            false => life.state(scale.at(cell)),
        });
        let row: String = cells.collect();
        lines.push(format!("{:LABEL$}{}", label(key), row.trim_end()));
    }
    let apart = until.since(from);
    let (first, last) = (mark(from, apart), mark(until, apart));
    let gap = scale.cells.saturating_sub(last.len());
    lines.push(format!("{:LABEL$}{first:gap$}{last}", ""));
    lines.push(LEGEND.to_owned());
    Some(lines.join("\n"))
}

/// `ES256 kPrK_qmxVWaY`.
fn label(key: &Key) -> String {
    let room = LABEL - 2 - key.alg.len().min(8);
    let kid: String = key.kid.chars().take(room).collect();
    format!("{} {kid}", key.alg)
}

fn mark(at: Time, apart: Span) -> String {
    match at.mark(apart) {
        (day, Some(time)) => format!("{day} {time}"),
        (day, None) => day,
    }
}

/// The dates of a key, those behind and those ahead.
struct Life {
    published: Option<Time>,
    active: Option<Time>,
    retiring: Option<Time>,
    destroyed: Option<Time>,
    removed: Option<Time>,
}

impl Life {
    fn of(set: &KeySet, key: &Key) -> Self {
        let mine = set.next.iter().filter(|event| event.kid == key.kid);
        let ahead = mine.filter_map(|event| Some((&*event.kind, time(event.at.as_ref()?))));
        let ahead: BTreeMap<&str, Time> = ahead.collect();
        let date = |at: &Option<Timestamp>, kind: &str| {
            at.as_ref().map(time).or_else(|| ahead.get(kind).copied())
        };
        let first = key.activated.or(key.active_since).or(key.activates);
        Self {
            published: date(&key.published, "publish"),
            active: date(&first, "activate"),
            retiring: date(&key.retiring_since, "retire"),
            destroyed: date(&key.private_destroyed, "destroy"),
            removed: date(&key.removed, "remove"),
        }
    }

    fn dates(&self) -> impl Iterator<Item = Time> + Clone {
        let all = [
            self.published,
            self.active,
            self.retiring,
            self.destroyed,
            self.removed,
        ];
        all.into_iter().flatten()
    }

    fn state(&self, at: Time) -> char {
        let since = |mark: Option<Time>| mark.is_some_and(|mark| mark <= at);
        match () {
            () if since(self.removed) || !since(self.published) => ' ',
            () if since(self.retiring) && since(self.destroyed) => '.',
            () if since(self.retiring) => '-',
            () if since(self.active) => '=',
            () => ':',
        }
    }
}

struct Scale {
    from: Time,
    until: Time,
    cells: usize,
}

impl Scale {
    fn whole(&self) -> i64 {
        self.until.since(self.from).as_millis().max(1)
    }

    fn last(&self) -> i64 {
        i64::try_from(self.cells.saturating_sub(1))
            .unwrap_or(1)
            .max(1)
    }

    fn cell(&self, at: Time) -> usize {
        let part = at.since(self.from).as_millis().saturating_mul(self.last()) / self.whole();
        usize::try_from(part).unwrap_or_default()
    }

    /// The end of what a cell stands for: what happened within it shows.
    fn at(&self, cell: usize) -> Time {
        let cell = i64::try_from(cell).unwrap_or_default() + 1;
        let part = self.whole().saturating_mul(cell) / self.last();
        Time::from_millis(self.from.as_millis() + part - 1)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;
    use crate::api::v1::Event;

    fn date(day: i64) -> Option<Timestamp> {
        Some(Timestamp {
            seconds: 1_800_000_000 + day * 86_400,
            nanos: 0,
        })
    }

    fn set() -> KeySet {
        let key = |kid: &str, phase: Phase| Key {
            kid: kid.to_owned(),
            alg: "ES256".to_owned(),
            phase: phase.into(),
            published: date(0),
            ..Key::default()
        };
        let event = |kid: &str, kind: &str, day| Event {
            kid: kid.to_owned(),
            kind: kind.to_owned(),
            at: date(day),
            ..Event::default()
        };
        KeySet {
            keys: vec![
                Key {
                    activated: date(0),
                    retiring_since: date(30),
                    ..key("old-old-old-old-old-old", Phase::Retiring)
                },
                Key {
                    activated: date(30),
                    ..key("now", Phase::Active)
                },
                Key {
                    published: date(30),
                    ..key("next", Phase::Published)
                },
                key("gone", Phase::Retired),
            ],
            next: vec![
                event("old-old-old-old-old-old", "destroy", 40),
                event("old-old-old-old-old-old", "remove", 50),
                event("now", "retire", 60),
            ],
            ..KeySet::default()
        }
    }

    #[test]
    fn each_state_is_drawn_to_scale() {
        let now = time(&date(35).unwrap());
        // A cell for each day.
        let drawn = draw(&set(), now, LABEL + 61).unwrap();
        let lines: Vec<&str> = drawn.lines().collect();
        let many = |c: char, n: usize| c.to_string().repeat(n);
        let row = |lead: &str, parts: &[(char, usize)]| {
            let cells: String = parts.iter().map(|(c, n)| many(*c, *n)).collect();
            format!("{lead:LABEL$}{cells}")
        };
        assert_eq!(lines[1], format!("{}now", many(' ', LABEL + 35)));
        let old = [('=', 30), ('-', 5), ('|', 1), ('-', 4), ('.', 10)];
        assert_eq!(lines[2], row("ES256 old-old-old-o", &old));
        let active = [(':', 30), ('=', 5), ('|', 1), ('=', 24), ('-', 1)];
        assert_eq!(lines[3], row("ES256 now", &active));
        let next = [(' ', 30), (':', 5), ('|', 1), (':', 25)];
        assert_eq!(lines[4], row("ES256 next", &next));
        assert!(lines[5].starts_with(&format!("{}2027-01-15", many(' ', LABEL))));
        assert!(lines[5].ends_with("2027-03-16"), "{}", lines[5]);
        assert_eq!(lines[6], LEGEND);
        assert_eq!(lines.len(), 7, "what is gone is not drawn");
    }

    /// Found by review: both ends were the same day, without a time.
    #[test]
    fn a_span_of_hours_has_times_below_it() {
        let mut one = set();
        (one.keys, one.next) = (one.keys.split_off(2), Vec::new());
        let now = time(&date(30).unwrap()) + Span::from_hours(3);
        one.keys[0].activates = None;
        let drawn = draw(&one, now, 100).unwrap();
        assert!(drawn.contains("2027-02-14 08:00:00Z"), "{drawn}");
        assert!(drawn.contains("2027-02-14 11:00:00Z"), "{drawn}");
    }

    #[test]
    fn where_there_is_no_room_or_nothing_to_draw_nothing_is_drawn() {
        let now = time(&date(35).unwrap());
        assert_eq!(draw(&set(), now, LEAST - 1), None);
        assert_eq!(draw(&KeySet::default(), now, 100), None);
        // One key that was published this very moment.
        let mut one = set();
        (one.keys, one.next) = (one.keys.split_off(2), Vec::new());
        let drawn = draw(&one, time(&date(30).unwrap()), 100).unwrap();
        assert!(
            drawn.contains("ES256 next") && drawn.contains('|'),
            "{drawn}"
        );
        // However wide, and however far ahead.
        one.keys[0].activates = date(40_000);
        let drawn = draw(&one, now, 10_000).unwrap();
        assert!(drawn.lines().all(|line| line.len() <= MOST + LABEL));
    }
}
