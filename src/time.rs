//! Time as an argument: instants and spans in whole milliseconds.
//!
//! Nothing here asks what time it is; [`crate::clock`] is the only place that
//! does. JWT dates are whole seconds (RFC 7519, section 2, `NumericDate`), so
//! the conversions to and from seconds say which way they round.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant: milliseconds since 1970-01-01T00:00:00Z, leap seconds ignored
/// as in RFC 7519.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(i64);

impl Time {
    /// Later than every instant that anybody means.
    pub const FAR_FUTURE: Self = Self(i64::MAX / 4);

    /// For an axis whose marks lie `apart`: the day, and where that alone would
    /// not tell them from each other the time (UTC).
    pub(crate) fn mark(self, apart: Span) -> (String, Option<String>) {
        let at = self.to_string();
        let (day, time) = at.split_once('T').unwrap_or((&at, ""));
        let time = time.get(..8).unwrap_or(time);
        let short = apart < Span::from_days(1);
        (day.to_owned(), short.then(|| format!("{time}Z")))
    }

    /// The instant `ms` milliseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// The instant `s` seconds after 1970-01-01T00:00:00Z, as in a
    /// `NumericDate`. Saturates at [`Time::FAR_FUTURE`], so that a caller's
    /// huge `exp` compares as late instead of wrapping.
    #[must_use]
    pub const fn from_secs(s: i64) -> Self {
        match s.checked_mul(1000) {
            Some(ms) if ms < Self::FAR_FUTURE.0 => Self(ms),
            _ if s < 0 => Self(-Self::FAR_FUTURE.0),
            _ => Self::FAR_FUTURE,
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down: for `iat`.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long after `earlier` this is; nothing if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0).max(0))
    }
}

impl Add<Span> for Time {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0).min(Self::FAR_FUTURE.0))
    }
}

impl Sub<Span> for Time {
    type Output = Self;
    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

/// The last instant that RFC 3339 has a date for: 9999-12-31T23:59:59.999Z.
const LAST_DATE_MS: u64 = 253_402_300_799_999;

/// RFC 3339 in UTC, to the millisecond only where there is one.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(ms) = u64::try_from(self.0) else {
            return write!(f, "{} ms before 1970", self.0.unsigned_abs());
        };
        if *self >= Self::FAR_FUTURE {
            return f.write_str("never");
        }
        // A caller who gives milliseconds for seconds gets here.
        if ms > LAST_DATE_MS {
            return write!(f, "{} s after 1970", ms / 1000);
        }
        let at = std::time::UNIX_EPOCH + Duration::from_millis(ms);
        if ms.is_multiple_of(1000) {
            humantime::format_rfc3339_seconds(at).fmt(f)
        } else {
            humantime::format_rfc3339_millis(at).fmt(f)
        }
    }
}

/// A length of time in milliseconds; never negative.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(i64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of `ms` milliseconds.
    #[must_use]
    pub const fn from_millis(ms: u32) -> Self {
        Self(ms as i64)
    }

    /// A span of `s` seconds.
    #[must_use]
    pub const fn from_secs(s: u32) -> Self {
        Self(s as i64 * 1000)
    }

    /// A span of `m` minutes.
    #[must_use]
    pub const fn from_mins(m: u32) -> Self {
        Self(m as i64 * 60_000)
    }

    /// A span of `h` hours.
    #[must_use]
    pub const fn from_hours(h: u32) -> Self {
        Self(h as i64 * 3_600_000)
    }

    /// A span of `d` days of 24 hours.
    #[must_use]
    pub const fn from_days(d: u32) -> Self {
        Self(d as i64 * 86_400_000)
    }

    /// Milliseconds; never negative.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds, rounded down: a `max-age` must not promise more.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0 / 1000
    }

    /// This span `n` times.
    #[must_use]
    pub const fn times(self, n: u32) -> Self {
        Self(self.0.saturating_mul(n as i64))
    }

    /// The `n`th part of this span, rounded down. `n` must not be zero.
    #[must_use]
    pub const fn divided_by(self, n: u32) -> Self {
        Self(self.0 / n as i64)
    }

    /// For timers.
    #[must_use]
    pub const fn to_duration(self) -> Duration {
        Duration::from_millis(self.0.unsigned_abs())
    }
}

impl From<Duration> for Span {
    fn from(d: Duration) -> Self {
        Self(i64::try_from(d.as_millis()).unwrap_or(i64::MAX / 4))
    }
}

impl Add for Span {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for Span {
    fn sum<I: Iterator<Item = Self>>(spans: I) -> Self {
        spans.fold(Self::ZERO, Add::add)
    }
}

/// A day in milliseconds.
const DAY: u64 = 86_400_000;

/// As an operator writes it: `90days`, `1h 30m`. Days are the largest unit: a
/// month is no length of time.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0.unsigned_abs() / DAY, self.0.unsigned_abs() % DAY);
        let rest = humantime::format_duration(Duration::from_millis(ms));
        match (days, ms) {
            (0, _) => rest.fmt(f),
            (1, 0) => f.write_str("1day"),
            (1, _) => write!(f, "1day {rest}"),
            (days, 0) => write!(f, "{days}days"),
            (days, _) => write!(f, "{days}days {rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_days_and_what_is_less() {
        for (span, text) in [
            (Span::ZERO, "0s"),
            (Span::from_millis(1500), "1s 500ms"),
            (Span::from_hours(24), "1day"),
            (Span::from_days(90), "90days"),
            (Span::from_days(400) + Span::from_mins(61), "400days 1h 1m"),
            (Span::from_days(1) + Span::from_mins(10), "1day 10m"),
        ] {
            assert_eq!(span.to_string(), text);
        }
        let _ = Span(i64::MAX).to_string();
    }

    /// The formatter behind this fails beyond the year 9999, and a failing
    /// `Display` panics in whoever formats.
    #[test]
    fn every_instant_has_a_text() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:00.001Z"),
            (-1, "1 ms before 1970"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "253402300800 s after 1970"),
            (1_800_000_000_000_000, "1800000000000 s after 1970"),
            (Time::FAR_FUTURE.as_millis(), "never"),
            (i64::MAX, "never"),
            (i64::MIN, "9223372036854775808 ms before 1970"),
        ] {
            assert_eq!(Time::from_millis(ms).to_string(), text);
        }
    }
}
