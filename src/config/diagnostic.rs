//! What is wrong with a configuration, shown where it stands.

use std::fmt;
use std::ops::Range;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Bytes of the text.
    pub(super) span: Range<usize>,
    /// Lower case, with values: `expected X, got Y`.
    pub(super) message: String,
    /// What to do.
    pub(super) hint: String,
}

/// A configuration that makes no sense, and every reason why.
///
/// Its `Display` is for the operator: each mistake with file, line and caret.
/// Of a line that speaks of a PIN or a secret it shows nothing after the `=`, since what
/// is wrong with it may be that it stands there itself; of an address with
/// a user nothing after the `://`.
#[derive(Clone, PartialEq, Eq)]
pub struct Invalid {
    shown: String,
    problems: Vec<Problem>,
}

impl Invalid {
    pub(super) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.start);
        let shown: Vec<_> = problems.iter().map(|p| show(file, text, p)).collect();
        Self {
            shown: shown.join("\n"),
            problems,
        }
    }

    /// How many mistakes there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.problems.len()
    }

    /// What is wrong, without the place in the file: for programs.
    #[must_use]
    pub fn messages(&self) -> String {
        let all = self.problems.iter().map(|problem| problem.message.as_str());
        all.collect::<Vec<_>>().join("; ")
    }

    /// What to do about each, in the same order.
    #[must_use]
    pub fn hints(&self) -> String {
        let all = self.problems.iter().map(|problem| problem.hint.as_str());
        all.collect::<Vec<_>>().join("; ")
    }
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn show(file: &str, text: &str, problem: &Problem) -> String {
    let Place {
        line,
        column,
        source,
        width,
    } = Place::of(text, &problem.span);
    // The caret must not show how long a secret is either.
    let (source, width) = without_secret(source, column, width);
    // Tabs stay tabs, so that the caret stands below what it means.
    let indent: String = source
        .chars()
        .chain(std::iter::repeat(' '))
        .take(column - 1)
        .map(|c| if c == '\t' { c } else { ' ' })
        .collect();
    let carets = "^".repeat(width);
    let gutter = " ".repeat(line.to_string().len());
    format!(
        "error: {message}\n\
         {gutter}--> {file}:{line}:{column}\n\
         {gutter} |\n\
         {line} | {source}\n\
         {gutter} | {indent}{carets}\n\
         {gutter} = hint: {hint}\n",
        message = problem.message,
        hint = problem.hint,
    )
}

/// Where a span begins; lines and columns count from 1, columns in characters.
struct Place<'a> {
    line: usize,
    column: usize,
    source: &'a str,
    width: usize,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, span: &Range<usize>) -> Self {
        let start = floor(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let source = text[line_start..].lines().next().unwrap_or_default();
        let end = floor(text, span.end.max(start)).min(line_start + source.len());
        let width = text.get(start..end).map_or(0, |s| s.chars().count());
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            source,
            width: width.max(1),
        }
    }
}

/// The nearest boundary of a character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// A line up to the `=` after its first "pin" or "secret", or up to an address with a user
/// in it, who may have a password; and carets below no more than what is left
/// of it.
fn without_secret(source: &str, column: usize, width: usize) -> (String, usize) {
    let lower = source.to_ascii_lowercase();
    let pin = ["pin", "secret"].iter().filter_map(|word| {
        let word = lower.find(word)?;
        Some(word + lower[word..].find('=')? + 1)
    });
    let user = (source.find("://")).filter(|at| source[*at..].contains('@'));
    let Some(cut) = pin.chain(user.map(|at| at + 3)).min() else {
        return (source.to_owned(), width);
    };
    let shown = format!("{} ...", &source[..cut]);
    let room = (shown.chars().count() + 1).saturating_sub(column);
    (shown, width.min(room).max(1))
}
