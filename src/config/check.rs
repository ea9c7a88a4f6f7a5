//! Notes what is wrong, and goes on: one run shows every mistake.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::diagnostic::Problem;
use super::raw::Text;
use crate::observe;
use crate::time::Span;

/// Longer than anybody means.
const LONGEST: Span = Span::from_days(100 * 365);

/// `sun_path` has 108 bytes, one of them the final zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

/// A check of one configuration. What returns an `Option` returns `None` only
/// after a problem was noted.
pub(super) struct Check<'a> {
    folder: &'a Path,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    /// Relative paths start from `folder`.
    pub(super) const fn new(folder: &'a Path) -> Self {
        Self {
            folder,
            problems: Vec::new(),
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Notes a problem.
    pub(super) fn say(&mut self, span: Range<usize>, message: String, hint: impl Into<String>) {
        self.problems.push(Problem {
            span,
            message,
            hint: hint.into(),
        });
    }

    /// What the TOML parser or serde objects to. `len` is the text's length,
    /// for what is missed at its end.
    pub(super) fn not_toml(&mut self, error: &toml::de::Error, len: usize) {
        let message = error.message().trim().replace('\n', ", ");
        let hint = if message.starts_with("unknown field") {
            "a misspelt name, or one that belongs to another table"
        } else if message.starts_with("missing field") {
            "this table needs it"
        } else if message.starts_with("invalid type") || message.starts_with("invalid value") {
            "durations, addresses and modes are strings: \"90d\", \"127.0.0.1:8080\", \"0660\""
        } else {
            "strings stand in quotes, and each table has its header only once"
        };
        self.say(error.span().unwrap_or(len..len), message, hint);
    }

    /// A name that can stand in a URL, a label and a metric.
    pub(super) fn name(&mut self, kind: &str, name: &Text) -> Option<String> {
        let text = name.get_ref();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=32).contains(&text.len()) && text.chars().all(fits) {
            return Some(text.clone());
        }
        self.say(
            name.span(),
            format!("{kind}: expected a name of 1 to 32 characters, got {text:?}"),
            "use a to z, 0 to 9 and the hyphen",
        );
        None
    }

    /// An absolute path: from the file's folder on, where it is relative.
    pub(super) fn path(&mut self, text: &Text, field: &str) -> Option<PathBuf> {
        if text.get_ref().is_empty() || text.get_ref().contains('\0') {
            self.say(
                text.span(),
                format!("{field}: expected a path, got {:?}", text.get_ref()),
                "leave the line out for the default, where there is one",
            );
            return None;
        }
        Some(self.folder.join(text.get_ref()))
    }

    /// Looks at a file of certificates: whether there are any in it.
    pub(super) fn certificates(&mut self, text: &Text, field: &str, which: &str) {
        let Some(path) = self.path(text, field) else {
            return;
        };
        if let Err(e) = observe::check_roots(&path) {
            let form = "a file of one or more certificates in PEM (-----BEGIN CERTIFICATE-----)";
            let hint = format!("{form}: {which}");
            self.say(text.span(), format!("{field}: {e}"), hint);
        }
    }

    /// The path of a Unix socket.
    pub(super) fn socket(&mut self, text: &Text, field: &str) -> Option<PathBuf> {
        let path = self.path(text, field)?;
        let len = path.as_os_str().len();
        if len > LONGEST_SOCKET_PATH {
            self.say(
                text.span(),
                format!("{field}: expected at most {LONGEST_SOCKET_PATH} bytes, got {len}"),
                "the kernel allows no longer path for a socket: use a shorter folder",
            );
            return None;
        }
        Some(path)
    }

    pub(super) fn path_or(
        &mut self,
        text: Option<&Text>,
        field: &str,
        default: &str,
    ) -> Option<PathBuf> {
        match text {
            Some(text) => self.path(text, field),
            None => Some(PathBuf::from(default)),
        }
    }

    /// A length of time such as `90d` or `1h 30m`, in whole milliseconds.
    pub(super) fn span(&mut self, text: &Text, field: &str) -> Option<Span> {
        let written = text.get_ref();
        let problem = match humantime::parse_duration(written) {
            Err(error) => format!("{field}: expected a duration, got {written:?}: {error}"),
            Ok(length) if length.subsec_nanos() % 1_000_000 != 0 => {
                format!("{field}: expected whole milliseconds, got {written:?}")
            }
            Ok(length) if Span::from(length) > LONGEST => {
                format!("{field}: expected at most 100 years, got {written:?}")
            }
            Ok(length) => return Some(Span::from(length)),
        };
        self.say(
            text.span(),
            problem,
            "write a number with its unit: 500ms, 30s, 5m, 24h, 90d, or several: 1h 30m",
        );
        None
    }

    pub(super) fn span_or(
        &mut self,
        text: Option<&Text>,
        field: &str,
        default: Span,
    ) -> Option<Span> {
        match text {
            Some(text) => self.span(text, field),
            None => Some(default),
        }
    }

    /// A number within bounds.
    pub(super) fn number<T: TryFrom<i64>>(
        &mut self,
        given: Option<&toml::Spanned<i64>>,
        field: &str,
        bounds: std::ops::RangeInclusive<i64>,
        default: T,
    ) -> Option<T> {
        let Some(given) = given else {
            return Some(default);
        };
        let number = *given.get_ref();
        let fits = bounds.contains(&number).then(|| T::try_from(number).ok());
        if let Some(Some(number)) = fits {
            return Some(number);
        }
        self.say(
            given.span(),
            format!(
                "{field}: expected a number from {} to {}, got {number}",
                bounds.start(),
                bounds.end()
            ),
            "leave the line out for the default",
        );
        None
    }
}
