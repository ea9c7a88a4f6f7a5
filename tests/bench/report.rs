//! What was measured, as a table for people, JSON for programs, and the
//! document.

use std::fmt::Write as _;

use serde::Serialize;

/// The notes of `docs/benchmarks.md`: what no run finds out by itself.
const NOTES: &str = include_str!("notes.md");

#[derive(Serialize)]
pub(crate) struct Report {
    machine: Vec<String>,
    aims: Vec<Aim>,
    tables: Vec<Table>,
    /// What was not measured, and why.
    skipped: Vec<String>,
}

/// Something that was aimed for.
#[derive(Serialize)]
struct Aim {
    what: String,
    aim: String,
    figure: String,
    reached: bool,
    /// Why it falls short, where it does.
    cause: &'static str,
}

#[derive(Serialize)]
pub(crate) struct Table {
    name: String,
    /// How it was measured.
    how: String,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<Cell>)>,
}

#[derive(Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    None,
    Count(f64),
    Ratio(f64),
    /// Microseconds.
    Micros(f64),
    /// Something with one digit after the point.
    Tenths(f64),
}

impl Report {
    pub(crate) fn new(machine: Vec<String>) -> Self {
        Self {
            machine,
            aims: Vec::new(),
            tables: Vec::new(),
            skipped: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, table: Table) {
        eprintln!("{}", table.text());
        self.tables.push(table);
    }

    pub(crate) fn skip(&mut self, what: &str) {
        eprintln!("skipped: {what}");
        self.skipped.push(what.to_owned());
    }

    /// Something that is to be at least, or at most, so much.
    pub(crate) fn aim(
        &mut self,
        what: impl Into<String>,
        goal: Goal,
        got: f64,
        cause: &'static str,
    ) {
        let (reached, aim) = match goal {
            Goal::AtLeast(wanted, unit) => {
                (got >= wanted, format!("at least {}", unit.show(wanted)))
            }
            Goal::AtMost(wanted, unit) => (got <= wanted, format!("at most {}", unit.show(wanted))),
        };
        let (Goal::AtLeast(_, unit) | Goal::AtMost(_, unit)) = goal;
        let figure = unit.show(got);
        self.aims.push(Aim {
            what: what.into(),
            aim,
            figure,
            reached,
            cause,
        });
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.machine.join("\n"));
        for table in &self.tables {
            writeln!(text, "{}", table.text()).unwrap();
        }
        writeln!(text, "{}", grid(&AIMS, &self.aims(), false)).unwrap();
        for what in &self.skipped {
            writeln!(text, "not measured: {what}").unwrap();
        }
        text
    }

    /// `docs/benchmarks.md`.
    pub(crate) fn document(&self) -> String {
        let mut text = String::from(
            "# Benchmarks\n\nWritten by `scripts/bench --write`; change `tests/bench/notes.md` for \
             the words, and run it again for the figures. All figures are of one run on one \
             machine, with callers, agent, token and log on the same processors: compare \
             them with each other, not with those of another machine.\n\n",
        );
        for line in &self.machine {
            writeln!(text, "- {line}").unwrap();
        }
        writeln!(
            text,
            "\n## What was aimed for\n\n{}",
            grid(&AIMS, &self.aims(), true)
        )
        .unwrap();
        let short = self.aims.iter().filter(|aim| !aim.reached);
        for aim in short {
            writeln!(text, "- **{}** falls short: {}", aim.what, aim.cause).unwrap();
        }
        let mut said = "";
        for table in &self.tables {
            let Table { name, how, .. } = table;
            writeln!(text, "\n## {name}\n").unwrap();
            // Once for tables of one kind.
            if how != said {
                writeln!(text, "{how}\n").unwrap();
                said = how;
            }
            write!(text, "{}", table.grid(true)).unwrap();
        }
        if !self.skipped.is_empty() {
            writeln!(text, "\n## Not measured\n").unwrap();
            for what in &self.skipped {
                writeln!(text, "- {what}").unwrap();
            }
        }
        format!("{}\n\n{NOTES}", text.trim_end())
    }

    fn aims(&self) -> Vec<Vec<String>> {
        let reached = |aim: &Aim| if aim.reached { "yes" } else { "no" }.to_owned();
        let rows = self.aims.iter();
        rows.map(|aim| {
            vec![
                aim.what.clone(),
                aim.aim.clone(),
                aim.figure.clone(),
                reached(aim),
            ]
        })
        .collect()
    }
}

const AIMS: [&str; 4] = ["", "aim", "figure", "reached"];

/// What is aimed for, in its unit.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64, Unit),
    AtMost(f64, Unit),
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// Of something else.
    Part,
    Times,
    Micros,
    Millis,
    Megabytes,
}

impl Unit {
    fn show(self, n: f64) -> String {
        match self {
            Self::Part => format!("{:.0} %", n * 100.0),
            Self::Times => format!("{n:.2} times"),
            Self::Micros => format!("{n:.0} µs"),
            Self::Millis => format!("{n:.0} ms"),
            Self::Megabytes => format!("{n:.1} MB"),
        }
    }
}

impl Table {
    pub(crate) fn new(name: &str, how: &str, columns: &[&'static str]) -> Self {
        Self {
            name: name.to_owned(),
            how: how.split_whitespace().collect::<Vec<_>>().join(" "),
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, name: impl Into<String>, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len());
        self.rows.push((name.into(), cells));
    }

    fn text(&self) -> String {
        format!("{}\n\n{}", self.name, self.grid(false))
    }

    fn grid(&self, markdown: bool) -> String {
        let head: Vec<&str> = [""]
            .into_iter()
            .chain(self.columns.iter().copied())
            .collect();
        let rows = self.rows.iter().map(|(name, cells)| {
            let cells = cells.iter().map(Cell::show);
            [name.clone()].into_iter().chain(cells).collect()
        });
        grid(&head, &rows.collect::<Vec<Vec<String>>>(), markdown)
    }
}

impl Cell {
    fn show(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Count(n) if *n >= 10_000.0 => {
                format!("{},{:03}", (n / 1e3) as u64, *n as u64 % 1000)
            }
            Self::Count(n) => format!("{n:.0}"),
            Self::Ratio(n) => format!("{n:.2}"),
            Self::Micros(n) => format!("{n:.0}"),
            Self::Tenths(n) => format!("{n:.1}"),
        }
    }
}

/// Columns of one width; the first to the left, the others to the right.
fn grid(head: &[&str], rows: &[Vec<String>], markdown: bool) -> String {
    let width = |n: usize| {
        let cells = rows.iter().map(|row| row[n].chars().count());
        cells
            .chain([head[n].chars().count()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (n, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let cell = match n {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            };
            line += &if markdown {
                format!("| {cell} ")
            } else {
                format!("{cell}  ")
            };
        }
        if markdown {
            line + "|"
        } else {
            line.trim_end().to_owned()
        }
    };
    let mut lines = vec![line(head.to_vec())];
    if markdown {
        let rule = widths.iter().enumerate().map(|(n, width)| match n {
            0 => format!("|{}", "-".repeat(width + 2)),
            _ => format!("|{}:", "-".repeat(width + 1)),
        });
        lines.push(rule.collect::<String>() + "|");
    }
    lines.extend(
        rows.iter()
            .map(|row| line(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n") + "\n"
}
