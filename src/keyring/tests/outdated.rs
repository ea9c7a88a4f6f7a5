//! What the token and the origins prove of a record, and what they do not.

use std::collections::BTreeMap;

use super::*;
use crate::jose::Offer;

type Holdings = BTreeMap<String, Holding>;
type Origins = BTreeMap<String, BTreeSet<Offer>>;

/// `k1` is active and `k3` next, both in the token `7`, which also holds a
/// stranger.
fn witnesses() -> (KeySet, Holdings, Origins) {
    let mut set = Bench::with_standby().set;
    for key in set.keys.values_mut() {
        key.tokens.insert("hsm".to_owned(), "7".to_owned());
    }
    let mut holding = Holding {
        token: Some("7".to_owned()),
        whole: true,
        ids: set.keys.keys().copied().collect(),
        strange: BTreeMap::new(),
    };
    holding.ids.insert(STRANGER);
    holding.strange.insert(STRANGER, public(99));
    let holdings = BTreeMap::from([("hsm".to_owned(), holding)]);
    let shown = set.keys.values().filter_map(|key| key.public.clone());
    let shown = shown.map(offer).collect();
    (set, holdings, BTreeMap::from([("web".to_owned(), shown)]))
}

const STRANGER: KeyId = KeyId([0xee; 16]);

fn public(n: u8) -> PublicKey {
    match made(n) {
        Outcome::Generated { public, .. } => public,
        _ => panic!("it makes keys"),
    }
}

fn offer(key: PublicKey) -> Offer {
    Offer {
        key: Some(key),
        ..Offer::default()
    }
}

fn loses(holdings: &mut Holdings, set: &KeySet, kid: &str) {
    let id = set.by_kid(kid).unwrap().id;
    holdings.get_mut("hsm").unwrap().ids.remove(&id);
}

fn judged((set, holdings, origins): &(KeySet, Holdings, Origins)) -> Option<Outdated> {
    set.outdated(set, holdings, origins)
}

#[test]
fn a_stranger_on_the_token_proves_nothing_alone_and_nor_does_an_origin() {
    let mut all = witnesses();
    assert_eq!(judged(&all), None, "another agent may share the token");
    // What the token does not hold, anybody may show.
    let shown = all.2.get_mut("web").unwrap();
    shown.insert(offer(public(98)));
    assert_eq!(judged(&all), None);
}

#[test]
fn a_stranger_that_an_origin_shows_proves_it() {
    let mut all = witnesses();
    let shown = all.2.get_mut("web").unwrap();
    shown.insert(offer(public(99)));
    let proof = judged(&all).unwrap();
    assert!(matches!(&proof, Outdated::Shown { id, .. } if *id == STRANGER));
    assert!(!proof.may_be_a_loss());
    // An operator's word does not stand against that.
    let (mut set, holdings, origins) = all.clone();
    set.left_alone.insert(STRANGER);
    assert!(judged(&(set, holdings, origins)).is_some());
    // What the record knows otherwise: by an intent, or under another id, as
    // what was imported.
    let (mut set, holdings, origins) = all.clone();
    let task = Task::Generate {
        key: STRANGER,
        device: "hsm".to_owned(),
    };
    let intent = Intent {
        owner: "one".to_owned(),
        since: at(0),
        task,
    };
    set.intents.insert(IntentId(77), intent);
    assert_eq!(judged(&(set, holdings, origins)), None);
    let (mut set, holdings, origins) = all;
    let key = set.keys.values_mut().next().unwrap();
    key.public = Some(public(99));
    assert_eq!(judged(&(set, holdings, origins)), None);
}

#[test]
fn a_stranger_in_place_of_the_active_key_proves_it() {
    let mut all = witnesses();
    loses(&mut all.1, &all.0, "k1");
    let proof = judged(&all).unwrap();
    assert!(matches!(&proof, Outdated::Replaced { kid, .. } if kid == "k1"));
    assert!(proof.may_be_a_loss());
    // Time has retired it since the process began.
    let (began, holdings, origins) = all.clone();
    let mut set = began.clone();
    let key = set
        .keys
        .values_mut()
        .find(|key| key.kid.as_deref() == Some("k1"));
    key.unwrap().phase = Phase::Retired { since: at(9) };
    assert_eq!(set.outdated(&set, &holdings, &origins), None);
    assert!(set.outdated(&began, &holdings, &origins).is_some());
    // By an operator's word the stranger is another's; that it takes one, and
    // which objects, is on record.
    let bench = Bench::pending();
    let (mut set, holdings, origins) = all;
    let told = set.leave_to_others(&[STRANGER].into(), &anna(), &bench.plan, &bench.tick);
    assert_eq!(names(&told), ["record-vouched"]);
    assert!(told[0].is_alone());
    assert_eq!(judged(&(set, holdings, origins)), None);
}

#[test]
fn what_a_device_did_not_say_proves_nothing() {
    let mut lost = witnesses();
    loses(&mut lost.1, &lost.0, "k1");
    assert!(judged(&lost).is_some());
    type Change = fn(&mut KeySet, &mut Holdings);
    let cases: [(&str, Change); 7] = [
        ("it is away", |_, holdings| holdings.clear()),
        ("another token", |_, holdings| {
            holdings.get_mut("hsm").unwrap().token = Some("8".to_owned());
        }),
        ("nobody knows which token holds it", |set, _| {
            set.keys.values_mut().for_each(|key| key.tokens.clear());
        }),
        ("a part of its keys", |_, holdings| {
            holdings.get_mut("hsm").unwrap().whole = false;
        }),
        ("an empty token", |_, holdings| {
            let holding = holdings.get_mut("hsm").unwrap();
            (holding.ids, holding.strange) = Default::default();
        }),
        ("a stranger of another kind", |_, holdings| {
            let x = [0xff; 256];
            let rsa = PublicKey::rsa(&x, &[1, 0, 1]).unwrap();
            let holding = holdings.get_mut("hsm").unwrap();
            holding.strange.insert(STRANGER, rsa);
        }),
        (
            "the key was revoked, and the store has not got it",
            |set, _| {
                let revocation = Revocation {
                    at: at(0),
                    reason: Reason::Compromised,
                    mandate: anna(),
                };
                set.revoked.insert("k1".to_owned(), revocation);
            },
        ),
    ];
    for (why, change) in cases {
        let (mut set, mut holdings, origins) = lost.clone();
        change(&mut set, &mut holdings);
        assert_eq!(judged(&(set, holdings, origins)), None, "{why}");
    }
    // Nor does a key that is not to sign now.
    let mut next = witnesses();
    loses(&mut next.1, &next.0, "k3");
    assert_eq!(judged(&next), None);
}
