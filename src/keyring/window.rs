//! When rotations are preferred: hours of some days of the week, in UTC.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::time::{Span, Time};

/// Hours of some days of the week, such as `Tue..Thu 02:00-05:00 UTC`.
///
/// A preference: what makes a rotation safe does not ask for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    /// Monday first.
    days: [bool; 7],
    /// From midnight on, in minutes.
    opens: u16,
    /// In minutes, less than a day. It may end on the day after.
    lasts: u16,
}

const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_MIN: u16 = 24 * 60;
const DAY_S: i64 = 24 * 60 * 60;

impl Window {
    /// Whether it is open at an instant.
    #[must_use]
    pub fn contains(&self, at: Time) -> bool {
        let open = Span::from_mins(self.lasts.into());
        self.last_opening(at)
            .is_some_and(|opening| at < opening + open)
    }

    /// When it opened last, at an instant or before it. None only for dates
    /// before 1970 by weeks.
    #[must_use]
    pub fn last_opening(&self, at: Time) -> Option<Time> {
        let today = at.as_secs().div_euclid(DAY_S);
        (0..=7).find_map(|ago| {
            let day = today - ago;
            let opening = Time::from_secs(day * DAY_S + i64::from(self.opens) * 60);
            (self.days[weekday(day)] && opening <= at).then_some(opening)
        })
    }

    /// The longest time from one opening to the next: a day for one that opens
    /// each day, a week for one that opens on Mondays.
    #[must_use]
    pub fn longest_gap(&self) -> Span {
        let open: Vec<usize> = (0..7).filter(|day| self.days[*day]).collect();
        let next = open.iter().skip(1).copied();
        let next = next.chain(open.first().map(|first| first + 7));
        let gaps = open.iter().zip(next).map(|(day, next)| next - day);
        let days = u32::try_from(gaps.max().unwrap_or(7)).unwrap_or(7);
        Span::from_days(days)
    }
}

/// Of a day since 1970-01-01, which was a Thursday.
fn weekday(day: i64) -> usize {
    usize::try_from((day + 3).rem_euclid(7)).unwrap_or(0)
}

/// Not a window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected days and hours such as \"Tue..Thu 02:00-05:00 UTC\", got {0:?}: {1}")]
pub struct InvalidWindow(String, &'static str);

impl FromStr for Window {
    type Err = InvalidWindow;
    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        parse(text).map_err(|why| InvalidWindow(text.to_owned(), why))
    }
}

fn parse(text: &str) -> Result<Window, &'static str> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    if words.pop() != Some("UTC") {
        return Err("it ends with UTC: no other zone, for none else has every hour once a day");
    }
    let (days, hours) = match words.as_slice() {
        [hours] => ([true; 7], *hours),
        [days, hours] => (self::days(days)?, *hours),
        _ => return Err("days, then hours; days may be left out for each day"),
    };
    let hours = hours.split_once('-').and_then(|(opens, closes)| {
        let (opens, closes) = (minutes(opens)?, minutes(closes)?);
        (opens < DAY_MIN).then_some((opens, closes))
    });
    let (opens, closes) = hours.ok_or("hours are from-to, such as 02:00-05:00 or 22:00-02:00")?;
    let lasts = (closes + DAY_MIN - opens) % DAY_MIN;
    if lasts == 0 {
        return Err("it is open for no time, or always: leave it out for always");
    }
    Ok(Window { days, opens, lasts })
}

/// `Mon`, `Mon..Fri`, `Sat..Mon`, or several of them with commas between.
fn days(text: &str) -> Result<[bool; 7], &'static str> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (Some(first), Some(last)) = (day(first), day(last)) else {
            return Err("days are Mon, Tue, Wed, Thu, Fri, Sat, Sun; Tue..Thu for several");
        };
        let mut day = first;
        days[day] = true;
        while day != last {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Ok(days)
}

fn day(text: &str) -> Option<usize> {
    NAMES
        .iter()
        .position(|name| name.eq_ignore_ascii_case(text))
}

/// `02:00`, up to `24:00`.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= DAY_MIN).then_some(all)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            let open = NAMES.iter().zip(self.days).filter(|(_, open)| *open);
            let names: Vec<&str> = open.map(|(name, _)| *name).collect();
            write!(f, "{} ", names.join(","))?;
        }
        let closes = (self.opens + self.lasts) % DAY_MIN;
        let clock = |minutes: u16| (minutes / 60, minutes % 60);
        let ((h, m), (to_h, to_m)) = (clock(self.opens), clock(closes));
        write!(f, "{h:02}:{m:02}-{to_h:02}:{to_m:02} UTC")
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

impl TryFrom<String> for Window {
    type Error = InvalidWindow;
    fn try_from(text: String) -> Result<Self, InvalidWindow> {
        text.parse()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        let at = humantime::parse_rfc3339(text).unwrap();
        let since = at.duration_since(std::time::UNIX_EPOCH).unwrap();
        Time::from_secs(since.as_secs().try_into().unwrap())
    }

    #[test]
    fn a_window_is_read_as_it_is_written() {
        let same = [
            ("Tue..Thu 02:00-05:00 UTC", "Tue,Wed,Thu 02:00-05:00 UTC"),
            ("sat..mon 22:00-02:00 UTC", "Mon,Sat,Sun 22:00-02:00 UTC"),
            // Always open on these days, which is no window of hours.
            ("Mon,Wed..Thu 00:00-24:00 UTC", ""),
            ("Mon..Sun 02:00-24:00 UTC", "02:00-00:00 UTC"),
            ("02:30-02:31 UTC", "02:30-02:31 UTC"),
        ];
        for (written, read) in same {
            let window = written.parse::<Window>();
            let shown = window.map(|window| window.to_string()).unwrap_or_default();
            assert_eq!(shown, read, "{written}");
            if !read.is_empty() {
                assert_eq!(read.parse::<Window>(), written.parse());
            }
        }
        for odd in [
            "",
            "UTC",
            "Tue",
            "Tue..Thu 02:00-05:00",
            "Tue..Thu 02:00-05:00 CET",
            "Tue...Thu 02:00-05:00 UTC",
            "Tuesday 02:00-05:00 UTC",
            "2:00-5:00 UTC",
            "02:60-05:00 UTC",
            "24:00-05:00 UTC",
            "02:00-25:00 UTC",
            "02:00-02:00 UTC",
            "Tue 02:00 - 05:00 UTC",
            ", 02:00-05:00 UTC",
        ] {
            assert!(odd.parse::<Window>().is_err(), "{odd}");
        }
    }

    #[test]
    fn it_opens_on_its_days_at_its_hour() {
        let window: Window = "Tue..Thu 02:00-05:00 UTC".parse().unwrap();
        // A Sunday.
        let sunday = at("2026-11-22T12:00:00Z");
        assert_eq!(
            window.last_opening(sunday),
            Some(at("2026-11-19T02:00:00Z"))
        );
        let opening = at("2026-11-24T02:00:00Z");
        assert_eq!(window.last_opening(opening), Some(opening));
        let instant = Span::from_millis(1);
        assert!(!window.contains(opening - instant));
        assert!(window.contains(opening));
        assert!(window.contains(at("2026-11-24T05:00:00Z") - instant));
        assert!(!window.contains(at("2026-11-24T05:00:00Z")));
        assert!(!window.contains(at("2026-11-27T03:00:00Z")));
        let night: Window = "Fri 22:00-02:00 UTC".parse().unwrap();
        assert!(night.contains(at("2026-11-28T01:59:59Z")));
        assert!(!night.contains(at("2026-11-28T02:00:00Z")));
        assert!(!night.contains(at("2026-11-27T01:59:59Z")));
    }

    #[test]
    fn the_longest_gap_is_from_one_opening_to_the_next() {
        let gap = |days: &str| {
            let window: Window = format!("{days} 02:00-05:00 UTC").parse().unwrap();
            window.longest_gap()
        };
        assert_eq!(gap("Tue..Thu"), Span::from_days(5));
        assert_eq!(gap("Mon"), Span::from_days(7));
        assert_eq!(gap("Sun..Mon"), Span::from_days(6));
        assert_eq!(gap("Mon,Thu"), Span::from_days(4));
        assert_eq!(gap("Mon..Sun"), Span::from_days(1));
    }
}
