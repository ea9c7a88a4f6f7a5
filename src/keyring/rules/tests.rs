//! One test for each rule, of the same name.

use super::*;

/// Numbers that no two sums share.
fn timing() -> Timing {
    Timing {
        rotate_every: Span::from_secs(10_000),
        window: None,
        verifier_cache: Span::from_secs(1000),
        propagation: Span::from_secs(100),
        skew: Span::from_secs(10),
        max_token_lifetime: Span::from_secs(2000),
        rollback_window: Span::from_secs(3000),
        adoption: Span::from_secs(30),
        signing_deadline: Span::from_secs(5),
        max_age: Span::from_secs(600),
        cdn_stale: Span::from_secs(400),
        max_gap: Span::from_secs(50_000),
        hard_limit: HardLimit::Page(Span::from_secs(7000)),
    }
}

fn at(s: i64) -> Time {
    Time::from_secs(1_000_000 + s)
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&n| n.to_owned()).collect()
}

#[test]
fn rule_1_pre_publish() {
    assert_eq!(super::rule_1_pre_publish(at(0), &timing(), None), at(1110));
}

#[test]
fn rule_2_last_use() {
    assert_eq!(super::rule_2_last_use(at(0), &timing()), at(35));
}

#[test]
fn rule_3_overlap() {
    let l = Span::from_secs(2000);
    // The rollback window decides: 0 + 3000 + 2000 + 10.
    assert_eq!(
        super::rule_3_overlap(at(4000), at(0), l, &timing()),
        at(5010)
    );
    // A ceiling raised higher decides: 9000 + 10.
    assert_eq!(
        super::rule_3_overlap(at(9000), at(0), l, &timing()),
        at(9010)
    );
    // A lifetime that was longer once counts, whatever is configured now.
    let long = Span::from_secs(8000);
    assert_eq!(
        super::rule_3_overlap(at(4000), at(0), long, &timing()),
        at(11_010)
    );
}

#[test]
fn rule_4_rollback() {
    assert!(super::rule_4_rollback(Half::Present));
    assert!(!super::rule_4_rollback(Half::Destroying));
    assert!(!super::rule_4_rollback(Half::Destroyed));
}

#[test]
fn rule_4_destruction() {
    assert_eq!(super::rule_4_destruction(at(0), &timing()), at(3000));
    let none = Timing {
        rollback_window: Span::ZERO,
        ..timing()
    };
    assert_eq!(super::rule_4_destruction(at(0), &none), at(10));
}

#[test]
fn rule_4_destruction_by_order() {
    assert_eq!(super::rule_4_destruction_by_order(at(0), &timing()), at(10));
}

#[test]
fn rule_5_compromise_exposure() {
    let exposure = super::rule_5_compromise_exposure(at(0), None, &timing(), None);
    assert_eq!(
        exposure,
        Exposure {
            bounded_until: at(1100),
            fresh_after: at(0)
        }
    );
    let fresh_after = |newest| {
        super::rule_5_compromise_exposure(at(0), Some(at(newest)), &timing(), None).fresh_after
    };
    assert_eq!([fresh_after(-1), fresh_after(1)], [at(0), at(1)]);
}

#[test]
fn rule_5_fresh_key() {
    let fresh = |created| super::rule_5_fresh_key(at(created), Some(at(0)));
    assert_eq!([-1, 0, 1].map(fresh), [false, false, true]);
    assert!(super::rule_5_fresh_key(at(0), None), "nothing was revoked");
}

#[test]
fn rule_6_set_size() {
    let size = |timing: &Timing| super::rule_6_set_size(timing.max_token_lifetime, timing);
    // 2000 + 3000 + 10 + 1110 = 6120 s of 10,000 s periods: one, plus two.
    assert_eq!(size(&timing()), 3);
    let quick = Timing {
        rotate_every: Span::from_secs(1530),
        ..timing()
    };
    assert_eq!(size(&quick), 6);
    let quicker = Timing {
        rotate_every: Span::from_secs(1529),
        ..timing()
    };
    assert_eq!(size(&quicker), 7);
    // Tokens of 10,000 s are still about: 14,120 s.
    let longest = Span::from_secs(10_000);
    assert_eq!(super::rule_6_set_size(longest, &timing()), 4);
}

#[test]
fn rule_7_cache_bound() {
    assert!(super::rule_7_cache_bound(&timing()));
    let over = Timing {
        cdn_stale: Span::from_secs(401),
        ..timing()
    };
    assert!(!super::rule_7_cache_bound(&over));
    let over = Timing {
        max_age: Span::from_secs(1001),
        cdn_stale: Span::ZERO,
        ..timing()
    };
    assert!(!super::rule_7_cache_bound(&over));
}

#[test]
fn exception_genesis() {
    assert!(super::exception_genesis(&Genesis::Pending { since: at(0) }));
    assert!(!super::exception_genesis(&Genesis::Done { at: at(0) }));
}

#[test]
fn exception_restrictions_first() {
    assert!(super::exception_restrictions_first("a", &names(&["b"])));
    assert!(!super::exception_restrictions_first("b", &names(&["b"])));
}

#[test]
fn exception_never_empty() {
    assert_eq!(super::exception_never_empty(vec![], Some(0)), [0]);
    assert_eq!(super::exception_never_empty(vec![1, 2], Some(0)), [1, 2]);
}

#[test]
fn exception_second_person() {
    use Action::{
        Block, Destroy, ForceActivation, Hold, Import, Recover, Release, Restore, Rollback, Rotate,
        Unpublish, Waive,
    };
    let waits = [Destroy, Rollback, ForceActivation, Waive, Recover];
    assert_eq!(waits.map(super::exception_second_person), [true; 5]);
    let acts = [Block, Unpublish, Hold, Release, Restore, Rotate, Import];
    assert_eq!(acts.map(super::exception_second_person), [false; 7]);
}

#[test]
fn exception_revoked_for_ever() {
    let revoked = BTreeMap::from([("a".to_owned(), ())]);
    assert!(!super::exception_revoked_for_ever("a", &revoked));
    assert!(super::exception_revoked_for_ever("b", &revoked));
}

#[test]
fn exception_clock() {
    let clock = |anchor: Option<(i64, u32)>, high: i64, wall: i64, boot: u32| {
        let anchor = anchor.map(|(w, b)| Anchor {
            wall: at(w),
            boot: Span::from_secs(b),
        });
        super::exception_clock(
            anchor.as_ref(),
            at(high),
            at(wall),
            Span::from_secs(boot),
            &timing(),
        )
    };
    // Running: 100 s of boot time have passed since the anchor.
    assert_eq!(clock(Some((0, 7)), 0, 100, 107), Ok(at(100)));
    assert_eq!(clock(Some((0, 7)), 0, 110, 107), Ok(at(110)));
    assert_eq!(
        clock(Some((0, 7)), 0, 111, 107),
        Err(Doubt::LeaptForward {
            wall: at(111),
            expected: at(100)
        })
    );
    assert_eq!(
        clock(Some((0, 7)), 95, 90, 107),
        Ok(at(95)),
        "clamped within the skew"
    );
    assert_eq!(
        clock(Some((0, 7)), 0, 89, 107),
        Err(Doubt::SteppedBack {
            wall: at(89),
            expected: at(100)
        })
    );
    // At a start: the record's latest instant is all there is.
    assert_eq!(clock(None, 0, 50_000, 1), Ok(at(50_000)));
    assert_eq!(
        clock(None, 0, 50_001, 1),
        Err(Doubt::Gap {
            wall: at(50_001),
            high_water: at(0)
        })
    );
    assert_eq!(clock(None, 100, 90, 1), Ok(at(100)));
    assert_eq!(
        clock(None, 100, 89, 1),
        Err(Doubt::SteppedBack {
            wall: at(89),
            expected: at(100)
        })
    );
}

#[test]
fn exception_window() {
    // 1970-01-13 is a Tuesday.
    let day = |day: i64, hour: i64| Time::from_secs((day - 1) * 86_400 + hour * 3600);
    let windowed = Timing {
        window: "Tue..Thu 02:00-05:00 UTC".parse().ok(),
        ..timing()
    };
    let when = |due: Time, safe: Time| super::exception_window(due, safe, &windowed);
    // Due on Friday: on Thursday, as soon as it opens.
    let friday = day(16, 12);
    assert_eq!(when(friday, day(1, 0)), day(15, 2));
    // Safe while it is open: at once. Safe too late for it: when it is due, and
    // not at the next opening, when the key would be older than it may be.
    assert_eq!(when(friday, day(15, 4)), day(15, 4));
    assert_eq!(when(friday, day(15, 5)), friday);
    // Overdue: as soon as it is safe, whatever the hour.
    assert_eq!(when(friday, day(17, 9)), day(17, 9));
    // Due while it is open: as soon as it opens.
    assert_eq!(when(day(14, 3), day(1, 0)), day(14, 2));
    // Without a window: when it is due.
    let always = |due, safe| super::exception_window(due, safe, &timing());
    assert_eq!(always(friday, day(1, 0)), friday);
    assert_eq!(always(friday, day(17, 9)), day(17, 9));
}

#[test]
fn exception_overdue() {
    let overdue = |s, timing: &Timing| super::exception_overdue(at(0), at(s), timing);
    assert_eq!(overdue(-5, &timing()), None);
    assert_eq!(overdue(35, &timing()), None);
    let late = Span::from_secs(6999);
    assert_eq!(
        overdue(6999, &timing()),
        Some(Overdue {
            late,
            page: false,
            stop: false
        })
    );
    let late = Span::from_secs(7000);
    assert_eq!(
        overdue(7000, &timing()),
        Some(Overdue {
            late,
            page: true,
            stop: false
        })
    );
    let strict = Timing {
        hard_limit: HardLimit::Stop(late),
        ..timing()
    };
    assert_eq!(
        overdue(7000, &strict),
        Some(Overdue {
            late,
            page: true,
            stop: true
        })
    );
}

#[test]
fn exception_observers() {
    let origins = names(&["a", "b"]);
    let seen = |pairs: &[(&str, i64)]| -> BTreeMap<String, Time> {
        pairs.iter().map(|&(o, s)| (o.to_owned(), at(s))).collect()
    };
    let both = seen(&[("a", 5), ("b", 9)]);
    assert_eq!(
        super::exception_observers(&origins, &both, &origins),
        Some(at(9))
    );
    // One origin lacks the key.
    assert_eq!(
        super::exception_observers(&origins, &seen(&[("a", 5)]), &origins),
        None
    );
    // One origin is dead, whatever it showed once.
    assert_eq!(
        super::exception_observers(&origins, &both, &names(&["a"])),
        None
    );
    // An origin that is no longer configured does not count.
    let only_a = names(&["a"]);
    assert_eq!(
        super::exception_observers(&only_a, &both, &only_a),
        Some(at(5))
    );
    // No origin at all is not agreement.
    assert_eq!(
        super::exception_observers(&names(&[]), &both, &origins),
        None
    );
}

#[test]
fn exception_waiver() {
    let origins = names(&["a", "b"]);
    let waiver = |until| Waiver {
        since: at(0),
        until: at(until),
        mandate: super::super::key::Mandate::default(),
    };
    let required = |waived: &[(&str, i64)], s: i64| {
        let waived = waived
            .iter()
            .map(|&(o, until)| (o.to_owned(), waiver(until)));
        super::exception_waiver(&origins, &waived.collect(), at(s)).into_owned()
    };
    assert_eq!(required(&[], 5), origins);
    // It lasts up to its end, and not at it.
    assert_eq!(required(&[("b", 10)], 9), names(&["a"]));
    assert_eq!(required(&[("b", 10)], 10), origins);
    // One that is over, and one of another.
    assert_eq!(required(&[("a", 3), ("b", 10)], 5), names(&["a"]));
    assert_eq!(required(&[("c", 10)], 5), origins);
    // Nobody is left to wait for, and somebody looks all the same.
    let own = names(&["own-listener"]);
    assert_eq!(required(&[("a", 10), ("b", 10)], 5), own);
}
