//! People, and the key sets that ask for two of them.

use std::collections::BTreeMap;

use toml::Spanned;

use super::check::Check;
use super::raw::{self, Text};
use crate::policy::{Approvals, CallerId, People};
use crate::time::Span;

/// For how long a request waits where nobody says.
const LIFETIME: Span = Span::from_hours(24);

/// `None` only after a problem was noted.
pub(super) fn check(raw: &BTreeMap<Text, raw::Person>, check: &mut Check<'_>) -> Option<People> {
    let (mut people, mut good) = (People::default(), true);
    for (name, person) in raw {
        good &= check.name("person", name).is_some();
        if person.uid.get_ref().is_empty() {
            good = false;
            check.say(
                person.uid.span(),
                format!(
                    "person.{}.uid: expected at least one, got none",
                    name.get_ref()
                ),
                "the user ids with which this person comes to the administration socket",
            );
        }
        for uid in person.uid.get_ref() {
            let before = people.add(CallerId::Unix(*uid), name.get_ref());
            if let Some(before) = before {
                good = false;
                check.say(
                    person.uid.span(),
                    format!("person.{}.uid: {uid} is {before}'s already", name.get_ref()),
                    "an account that two people share proves neither of them",
                );
            }
        }
    }
    good.then_some(people)
}

/// Whether a key set asks for two. `people` is none where they make no sense.
pub(super) fn approvals(
    name: &Text,
    raw: &raw::KeySet,
    people: Option<&People>,
    check: &mut Check<'_>,
) -> Option<Option<Approvals>> {
    let field = |field: &str| format!("key_set.{}.{field}", name.get_ref());
    let lifetime = check.span_or(
        raw.approvals_expire.as_ref(),
        &field("approvals_expire"),
        LIFETIME,
    );
    let Some(wanted) = &raw.approvals else {
        if let Some(text) = &raw.approvals_expire {
            check.say(
                text.span(),
                format!(
                    "{}: nothing waits for a second person",
                    field("approvals_expire")
                ),
                "approvals = 2 has destructions, rollbacks and forced activations wait for one",
            );
            return None;
        }
        return Some(None);
    };
    match (*wanted.get_ref(), people?.count()) {
        (1, _) => Some(None),
        (2, 2..) => {
            let (people, lifetime) = (people?.clone(), lifetime?);
            if lifetime >= Span::from_mins(1) {
                return Some(Some(Approvals { people, lifetime }));
            }
            say(
                check,
                raw.approvals_expire.as_ref(),
                format!(
                    "{}: expected at least 1m, got {lifetime}",
                    field("approvals_expire")
                ),
                "the second person has to hear of it, and to look",
            );
            None
        }
        (2, people) => {
            check.say(
                wanted.span(),
                format!("{}: expected two people, got {people}", field("approvals")),
                "[person.anna] uid = [1001] and [person.ben] uid = [1002] say who is who",
            );
            None
        }
        (other, _) => {
            check.say(
                wanted.span(),
                format!("{}: expected 1 or 2, got {other}", field("approvals")),
                "with 2, destructions, rollbacks and forced activations wait for a second person",
            );
            None
        }
    }
}

fn say(check: &mut Check<'_>, place: Option<&Spanned<String>>, message: String, hint: &str) {
    if let Some(place) = place {
        check.say(place.span(), message, hint);
    }
}
