//! The timeline as a picture: a row for each key, true to scale.

use std::fmt::Write as _;

use crate::keyring::Life;
use crate::time::Time;

const WIDTH: f64 = 1200.0;
/// Where the rows' names end.
const LEFT: f64 = 190.0;
const RIGHT: f64 = 50.0;
const TOP: f64 = 76.0;
const ROW: f64 = 26.0;
const BAR: f64 = 14.0;
/// What is shorter than this is drawn as long: a minute of a year is no pixel.
const LEAST: f64 = 2.0;
/// Dates below the rows.
const DATES: i64 = 8;

/// What is drawn in which colour; distinct without colours by their lightness.
const STATES: [(&str, &str); 4] = [
    ("published", "#b9d3ee"),
    ("signs", "#1f5fa8"),
    ("overlap: its tokens live", "#e9a13b"),
    ("private half destroyed", "#d9d9d9"),
];

/// Draws key sets, each with the lives of its keys.
pub(super) fn svg<'a>(
    sets: impl Iterator<Item = (&'a str, &'a [Life])>,
    now: Time,
    until: Time,
) -> String {
    let sets: Vec<_> = sets.collect();
    let keys: usize = sets.iter().map(|(_, lives)| lives.len()).sum();
    let bottom = TOP + ROW * rows(keys + sets.len());
    let scale = Scale {
        // What lies behind is drawn as far as a tenth of what lies ahead.
        from: earliest(&sets, now, until),
        until,
    };
    let mut out = String::new();
    let height = bottom + 50.0;
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<title>Keys from {now} to {until}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"
    );
    legend(&mut out);
    let mut y = TOP;
    for (name, lives) in &sets {
        text(
            &mut out,
            10.0,
            y + 12.0,
            &format!("key set {name}"),
            " font-weight=\"bold\"",
        );
        y += ROW;
        for life in *lives {
            text(&mut out, 10.0, y + 12.0, &short(&life.kid), "");
            for (state, from, to) in stretches(life, until) {
                bar(&mut out, &scale, y, state, from, to);
            }
            y += ROW;
        }
    }
    dates(&mut out, &scale, bottom);
    let x = scale.x(now);
    let _ = writeln!(
        out,
        "<line x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#c0392b\" stroke-width=\"1.5\"/>",
        TOP - 8.0
    );
    text(&mut out, x + 3.0, TOP - 10.0, "now", " fill=\"#c0392b\"");
    out.push_str("</svg>\n");
    out
}

struct Scale {
    from: Time,
    until: Time,
}

impl Scale {
    fn x(&self, at: Time) -> f64 {
        let whole = millis(self.from, self.until).max(1.0);
        let part = millis(self.from, at.clamp(self.from, self.until));
        LEFT + (WIDTH - LEFT - RIGHT) * part / whole
    }
}

#[expect(clippy::cast_precision_loss, reason = "less than a pixel in any case")]
fn millis(from: Time, to: Time) -> f64 {
    to.since(from).as_millis() as f64
}

#[expect(clippy::cast_precision_loss, reason = "nobody draws that many rows")]
const fn rows(n: usize) -> f64 {
    n as f64
}

fn earliest(sets: &[(&str, &[Life])], now: Time, until: Time) -> Time {
    let furthest = now - until.since(now).divided_by(10);
    let lives = sets.iter().flat_map(|(_, lives)| lives.iter());
    let first = lives.filter_map(|life| life.published).min();
    first.unwrap_or(now).clamp(furthest, now)
}

/// The stretches of a life, each with its number among the states.
fn stretches(life: &Life, until: Time) -> Vec<(usize, Time, Time)> {
    let end = life.removed.unwrap_or(until);
    let gone = life.destroyed.map_or(end, |at| at.min(end));
    let marks = [
        (0, life.published),
        (1, life.active),
        (2, life.retiring),
        (3, life.destroyed),
    ];
    let starts: Vec<_> = marks
        .into_iter()
        .filter_map(|(state, at)| Some((state, at?)))
        .collect();
    let ends = starts.iter().skip(1).map(|(_, at)| *at).chain([end]);
    let all = starts.iter().zip(ends);
    all.map(|((state, from), to)| match state {
        // Retired without a private half that anybody knows of.
        2 => (2, *from, to.min(gone.max(*from))),
        state => (*state, *from, to),
    })
    .collect()
}

fn bar(out: &mut String, scale: &Scale, y: f64, state: usize, from: Time, to: Time) {
    if to <= scale.from || from >= scale.until {
        return;
    }
    let (x, end) = (scale.x(from), scale.x(to));
    let (name, colour) = STATES[state];
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"><title>{name}: {from} to {to}</title></rect>",
        (end - x).max(LEAST)
    );
}

fn legend(out: &mut String) {
    let mut x = LEFT;
    for (name, colour) in STATES {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"18\" width=\"14\" height=\"14\" fill=\"{colour}\"/>"
        );
        text(out, x + 20.0, 30.0, name, "");
        x += 200.0;
    }
}

fn dates(out: &mut String, scale: &Scale, bottom: f64) {
    let whole = scale.until.since(scale.from).as_millis();
    let apart = scale.until.since(scale.from).divided_by(8);
    for n in 0..=DATES {
        let at = Time::from_millis(scale.from.as_millis() + whole * n / DATES);
        let x = scale.x(at);
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#00000022\"/>"
        );
        let (day, time) = at.mark(apart);
        text(out, x, bottom + 18.0, &day, " text-anchor=\"middle\"");
        if let Some(time) = time {
            text(out, x, bottom + 34.0, &time, " text-anchor=\"middle\"");
        }
    }
}

/// Text that may hold anything.
fn text(out: &mut String, x: f64, y: f64, said: &str, more: &str) {
    let said = said.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\"{more}>{said}</text>");
}

/// As much of a `kid` as tells it from others.
fn short(kid: &str) -> String {
    match kid.char_indices().nth(20) {
        Some((end, _)) => format!("{}...", &kid[..end]),
        None => kid.to_owned(),
    }
}
