//! What the public gets, compared with what it should.

use super::*;
use crate::jose::{Difference, Offer, Unfit, thumbprint};

/// An entry as this key set would publish it.
fn offer(bench: &Bench, kid: &str) -> Offer {
    let key = bench.set.by_kid(kid).unwrap();
    Offer {
        kid: Some(kid.to_owned()),
        key: key.public.clone(),
        algorithm: Some(key.algorithm.name().to_owned()),
        unfit: None,
    }
}

/// Of one address that shows these of our keys.
fn address(bench: &Bench, kids: &[&str]) -> Shown {
    let offers = kids.iter().map(|kid| offer(bench, kid));
    offers.collect::<BTreeSet<_>>().into()
}

/// Of two.
fn addresses(bench: &Bench, one: &[&str], other: &[&str]) -> Shown {
    both(address(bench, one), address(bench, other))
}

fn both(one: Shown, other: Shown) -> Shown {
    let (one, other) = (one.anywhere, other.anywhere);
    let both = [("192.0.2.1", one), ("192.0.2.2", other)];
    let both = both.map(|(address, offers)| (address.to_owned(), offers));
    Shown::at(both.into()).unwrap()
}

/// What is wrong with an origin that shows this.
fn found(bench: &Bench, shown: &Shown, s: i64) -> Vec<Discrepancy> {
    let propagation = bench.plan.timing.propagation;
    bench.set.discrepancies(shown, at(s), at(s), propagation)
}

/// The same, of an origin with two addresses.
fn wrong(bench: &Bench, one: &[&str], other: &[&str], s: i64) -> Vec<(String, Wrong, bool)> {
    let shown = addresses(bench, one, other);
    let parts = |one: Discrepancy| (one.kid, one.what, one.page);
    found(bench, &shown, s).into_iter().map(parts).collect()
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
    let some = ["k1", "k3"];
    // It entered the set at 10,000; an origin may take 100 s.
    assert_eq!(wrong(&bench, &some, &some, 10_099), []);
    assert_eq!(wrong(&bench, &some, &some, 10_100), [lags]);
}

/// Found by review: an origin that was silent since before a key was there was
/// said to lack it, from an answer in which it could not be.
#[test]
fn an_answer_says_nothing_of_what_came_after_it() {
    let bench = Bench::rotated();
    let propagation = bench.plan.timing.propagation;
    let seen = |kids: &[&str], s: i64| {
        let shown = address(&bench, kids);
        let all = (bench.set).discrepancies(&shown, at(s), at(20_000), propagation);
        all.into_iter()
            .map(|one| (one.kid, one.what))
            .collect::<Vec<_>>()
    };
    let lags = ("k4".to_owned(), Wrong::Lags);
    // It was published at 10,000, and an origin may take 100 s.
    assert_eq!(seen(&["k1", "k3"], 9_000), []);
    assert_eq!(seen(&["k1", "k3"], 10_099), []);
    assert_eq!(seen(&["k1", "k3"], 10_100), [lags]);
    // The active key was there for long when it became active, at 10,000. What
    // lacked it long before that, nobody may have seen since.
    let lacks = ("k3".to_owned(), Wrong::Lacks);
    assert_eq!(seen(&["k1", "k4"], 9_899), []);
    assert_eq!(seen(&["k1", "k4"], 9_900), [lacks]);
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
    let more = ["k1", "k3", "k4"];
    assert_eq!(wrong(&bench, &all, &more, 10_201), [shows(false)]);
    assert_eq!(wrong(&bench, &all, &more, 10_299), [shows(false)]);
    assert_eq!(wrong(&bench, &all, &more, 10_300), [shows(true)]);
}

/// A thief's tokens carry whatever `kid` the stolen key stands under.
#[test]
fn a_revoked_key_is_known_by_its_numbers_under_whatever_id() {
    let mut bench = Bench::rotated();
    let stolen = offer(&bench, "k1");
    bench.revoke("k1", None, 10_200).unwrap();
    for (kid, told) in [(Some("new"), "under the id \"new\""), (None, "under no id")] {
        let mut shown = address(&bench, &["k3", "k4"]);
        shown.anywhere.insert(Offer {
            kid: kid.map(str::to_owned),
            algorithm: None,
            unfit: Some(Unfit::Use),
            ..stolen.clone()
        });
        let found = found(&bench, &shown, 10_300);
        let wrong: Vec<_> = (found.iter())
            .map(|one| (&*one.kid, one.what, one.page, &*one.detail))
            .collect();
        assert_eq!(wrong, [("k1", Wrong::ShowsRevoked, true, told)]);
    }
    // The name alone is enough too: verifiers trust what stands there.
    let mut shown = address(&bench, &["k3", "k4"]);
    shown.anywhere.insert(Offer {
        kid: Some("k1".to_owned()),
        ..offer(&bench, "k3")
    });
    assert_eq!(found(&bench, &shown, 10_300)[0].what, Wrong::ShowsRevoked);
}

/// A key that the record has forgotten was named by its own thumbprint.
#[test]
fn a_revoked_key_is_known_after_it_was_forgotten() {
    let mut bench = Bench::rotated();
    let stolen = offer(&bench, "k1");
    let kid = thumbprint(stolen.key.as_ref().unwrap());
    bench.revoke("k1", None, 10_200).unwrap();
    let revocation = bench.set.revoked.remove("k1").unwrap();
    bench.set.revoked.insert(kid.clone(), revocation);
    bench
        .set
        .keys
        .retain(|_, key| key.kid.as_deref() != Some("k1"));
    let mut shown = address(&bench, &["k3", "k4"]);
    shown.anywhere.insert(Offer {
        kid: Some("new".to_owned()),
        ..stolen
    });
    let found = found(&bench, &shown, 10_300);
    assert_eq!((&found[0].kid, found[0].what), (&kid, Wrong::ShowsRevoked));
}

#[test]
fn what_stands_under_the_id_of_a_key_is_compared_with_the_key() {
    let bench = Bench::rotated();
    let ours = address(&bench, &["k1", "k3", "k4"]);
    let recognised = |shown: &Shown| bench.set.recognised(shown).into_iter().collect::<Vec<_>>();
    assert_eq!(recognised(&ours), ["k1", "k3", "k4"]);
    let good = offer(&bench, "k4");
    for (entry, told) in [
        (
            Offer {
                key: offer(&bench, "k3").key,
                ..good.clone()
            },
            Difference::Key,
        ),
        (
            Offer {
                key: None,
                ..good.clone()
            },
            Difference::Unreadable,
        ),
        (
            Offer {
                algorithm: Some("EdDSA".to_owned()),
                ..good.clone()
            },
            Difference::Algorithm("EdDSA".to_owned()),
        ),
        (
            Offer {
                unfit: Some(Unfit::Use),
                ..good.clone()
            },
            Difference::Unfit(Unfit::Use),
        ),
    ] {
        // Instead of ours, beside it, and at one address of two.
        let mut instead = address(&bench, &["k1", "k3"]);
        instead.anywhere.insert(entry.clone());
        instead.everywhere.insert("k4".to_owned());
        let mut beside = ours.clone();
        beside.anywhere.insert(entry);
        for shown in [&instead, &beside, &both(ours.clone(), instead.clone())] {
            assert_eq!(recognised(shown), ["k1", "k3"], "{told}");
            // At once, though it may still take a while to get there.
            let found = found(&bench, shown, 10_001);
            let wrong: Vec<_> = (found.iter())
                .map(|one| (&*one.kid, one.what, one.page, &*one.detail))
                .collect();
            let detail = told.to_string();
            assert_eq!(wrong, [("k4", Wrong::Impostor, true, &*detail)]);
        }
    }
}

/// Whoever is woken wants to know which of the machines behind a name it is.
#[test]
fn where_addresses_differ_those_that_are_wrong_are_named() {
    let mut bench = Bench::rotated();
    let others = ["192.0.2.2".to_owned()];
    let places = |bench: &Bench, shown: &Shown| {
        let found = found(bench, shown, 10_500);
        let parts = |one: Discrepancy| (one.kid, one.what, one.addresses);
        found.into_iter().map(parts).collect::<Vec<_>>()
    };
    let wrong = |kid: &str, what, at: &[String]| (kid.to_owned(), what, at.to_vec());
    let all = ["k1", "k3", "k4"];
    // A key of now, and the next one.
    assert_eq!(
        places(&bench, &addresses(&bench, &all, &["k1"])),
        [
            wrong("k3", Wrong::Lacks, &others),
            wrong("k4", Wrong::Lags, &others)
        ]
    );
    // Not where all are alike, nor where all are wrong in this.
    let same = addresses(&bench, &["k1"], &["k1"]);
    assert_eq!(same.apart, [].into());
    let shown = addresses(&bench, &["k3", "k4"], &["k4"]);
    assert_eq!(
        places(&bench, &shown),
        [
            wrong("k1", Wrong::Lacks, &[]),
            wrong("k3", Wrong::Lacks, &others)
        ]
    );
    // Something else in place of a key.
    let ours = address(&bench, &all);
    let mut instead = ours.clone();
    instead.anywhere.insert(Offer {
        key: offer(&bench, "k3").key,
        ..offer(&bench, "k4")
    });
    let impostor = wrong("k4", Wrong::Impostor, &others);
    assert_eq!(places(&bench, &both(ours.clone(), instead)), [impostor]);
    // A revoked key, under its id and under another.
    let mut renamed = address(&bench, &["k3", "k4"]);
    renamed.anywhere.insert(Offer {
        kid: Some("x".to_owned()),
        ..offer(&bench, "k1")
    });
    let without = address(&bench, &["k3", "k4"]);
    bench.revoke("k1", None, 10_400).unwrap();
    for shown in [ours, renamed] {
        let revoked = wrong("k1", Wrong::ShowsRevoked, &others);
        assert_eq!(places(&bench, &both(without.clone(), shown)), [revoked]);
    }
}

#[test]
fn another_key_under_its_id_ends_the_run() {
    let mut bench = Bench::rotated();
    let ours = address(&bench, &["k1", "k3", "k4"]);
    let mut other = ours.clone();
    other.anywhere.remove(&offer(&bench, "k4"));
    other.anywhere.insert(Offer {
        key: offer(&bench, "k3").key,
        ..offer(&bench, "k4")
    });
    let mut observe = |shown: &Shown, s| {
        let kids = bench.set.recognised(shown);
        names(&bench.set.observe("a", &kids, at(s), &bench.plan))
    };
    assert_eq!(observe(&ours, 10_010), [""; 0]);
    assert_eq!(observe(&other, 10_020), ["regressed"]);
    assert_eq!(observe(&ours, 10_030), ["observed-everywhere"]);
    let key = bench.set.by_kid("k4").unwrap();
    assert_eq!(key.sightings["a"], at(10_030));
}
