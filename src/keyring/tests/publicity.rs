//! What the public gets, compared with what it should.

use super::*;

fn kids(kids: &[&str]) -> BTreeSet<String> {
    kids.iter().map(|kid| (*kid).to_owned()).collect()
}

/// What is wrong with an origin that shows these, everywhere and anywhere.
fn wrong(
    bench: &Bench,
    everywhere: &[&str],
    anywhere: &[&str],
    s: i64,
) -> Vec<(String, Wrong, bool)> {
    let propagation = bench.plan.timing.propagation;
    let (everywhere, anywhere) = (kids(everywhere), kids(anywhere));
    let all = bench
        .set
        .discrepancies(&everywhere, &anywhere, at(s), propagation);
    let parts = |one: Discrepancy| (one.kid, one.what, one.page);
    all.into_iter().map(parts).collect()
}

#[test]
fn an_origin_that_lacks_a_key_with_live_tokens_is_urgent() {
    let bench = Bench::rotated();
    let all = ["k1", "k3", "k4"];
    assert_eq!(wrong(&bench, &all, &all, 10_500), []);
    // One that signs, and one whose tokens live.
    let some = ["k4"];
    let lacks = |kid: &str| (kid.to_owned(), Wrong::Lacks, true);
    assert_eq!(
        wrong(&bench, &some, &all, 10_500),
        [lacks("k1"), lacks("k3")]
    );
}

#[test]
fn a_standby_that_is_not_shown_in_time_lags() {
    let bench = Bench::rotated();
    let lags = ("k4".to_owned(), Wrong::Lags, false);
    // It entered the set at 10,000; an origin may take 100 s.
    assert_eq!(wrong(&bench, &["k1", "k3"], &[], 10_099), []);
    assert_eq!(wrong(&bench, &["k1", "k3"], &[], 10_100), [lags]);
}

#[test]
fn a_first_key_is_not_missed_before_it_can_be_there() {
    let bench = Bench::begun();
    assert_eq!(wrong(&bench, &[], &[], 99), []);
    let lacks = ("k1".to_owned(), Wrong::Lacks, true);
    assert_eq!(wrong(&bench, &[], &[], 100), [lacks]);
}

#[test]
fn a_revoked_key_that_is_still_shown_is_told_at_once_and_urgent_soon() {
    let mut bench = Bench::rotated();
    bench.revoke("k1", None, 10_200).unwrap();
    let all = ["k3", "k4"];
    let shows = |page| ("k1".to_owned(), Wrong::ShowsRevoked, page);
    assert_eq!(wrong(&bench, &all, &all, 10_201), []);
    // One address is enough.
    let anywhere = ["k1", "k3", "k4"];
    assert_eq!(wrong(&bench, &all, &anywhere, 10_201), [shows(false)]);
    assert_eq!(wrong(&bench, &all, &anywhere, 10_299), [shows(false)]);
    assert_eq!(wrong(&bench, &all, &anywhere, 10_300), [shows(true)]);
}
