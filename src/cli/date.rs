//! Dates as an operator types them.

use std::time::SystemTime;

/// What an error says of them, and help.
const SHAPES: &str = "a date as 2027-01-31 (the midnight, UTC, that begins it) or a time in UTC as 2027-01-31T09:30:00Z";

/// A date, which is the midnight that begins it, or a time; both in UTC.
pub(super) fn instant(text: &str) -> Result<SystemTime, String> {
    let is_date = text.len() == "2027-01-31".len();
    let midnight = is_date.then(|| format!("{text}T00:00:00Z"));
    let at = humantime::parse_rfc3339_weak(midnight.as_deref().unwrap_or(text));
    at.map_err(|_| format!("expected {SHAPES}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_date_is_the_midnight_that_begins_it() {
        let shown = |text: &str| {
            let at = instant(text).map_err(|e| format!("{text}: {e}"));
            humantime::format_rfc3339(at.expect("a date")).to_string()
        };
        assert_eq!(shown("2027-01-31"), "2027-01-31T00:00:00Z");
        assert_eq!(shown("2028-02-29"), "2028-02-29T00:00:00Z");
        assert_eq!(shown("2027-01-31T09:30:00Z"), "2027-01-31T09:30:00Z");
        assert_eq!(shown("2027-01-31 09:30:00"), "2027-01-31T09:30:00Z");
    }

    #[test]
    fn what_is_no_date_is_told_what_one_looks_like() {
        let others = [
            "",
            "31.01.2027",
            "2027-02-29",
            "2027-13-01",
            "27-01-31",
            "2027-01-31T",
            "2027-01-31T09:30:00+01:00",
            "2027/01/31",
            "next year",
            "90d",
            "äöüäö",
        ];
        for other in others {
            let said = instant(other).expect_err(other);
            assert!(said.contains("2027-01-31 (the midnight, UTC"), "{said}");
            assert!(said.contains("2027-01-31T09:30:00Z"), "{said}");
        }
    }
}
