//! The two instants of a clock in doubt, as `doctor` tells them.

/// The time that was expected comes first, and the clock's is behind it.
pub(super) fn stepped_back(text: &str, seconds: u64) {
    let after = |text: &str, word: &str| {
        let (_, rest) = text.split_once(word)?;
        let date = rest.split([',', ' ', ':']).next()?;
        let whole = rest.get(..rest.find('Z')? + 1).unwrap_or(date);
        humantime::parse_rfc3339(whole).ok()
    };
    let expected = after(text, "expected about ").expect("what was expected");
    let (_, rest) = text.split_once("expected about ").expect("it is told");
    let got = after(rest, "got ").expect("what it says");
    let behind = expected.duration_since(got).expect("it stepped back");
    let off = behind.as_secs().abs_diff(seconds);
    assert!(off < 120, "{text}");
}
