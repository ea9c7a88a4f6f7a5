//! What a change costs that no schedule shows: a key set that goes or is
//! renamed, another issuer, nobody left who may sign.

use std::collections::BTreeMap;

use crate::config::KeySet;

/// For people, of every key set that one of both configurations names.
pub(super) fn of(
    before: &BTreeMap<String, KeySet>,
    after: &BTreeMap<String, KeySet>,
) -> Vec<String> {
    let mut told = Vec::new();
    for (name, was) in before {
        match after.get(name) {
            Some(is) => told.extend(changed(name, was, is)),
            None => told.push(gone(name, was, before, after)),
        }
    }
    told
}

fn changed(name: &str, was: &KeySet, is: &KeySet) -> Vec<String> {
    let mut told = Vec::new();
    let (old, new) = (was.rules.issuer(), is.rules.issuer());
    if old != new {
        told.push(format!(
            "key set {name}: after a restart its tokens have the issuer {new:?}, and had {old:?}: every verifier that expects {old:?} refuses them, and where it looks for the JWKS by the issuer it looks elsewhere. Change the verifiers first, or begin another key set for the new issuer beside this one"
        ));
    }
    if is.rules.rules().is_empty() && !was.rules.rules().is_empty() {
        told.push(format!(
            "key set {name}: no rule is left, and without a rule nobody may sign: each request is refused"
        ));
    }
    told
}

/// Where one comes with its issuer, it is taken for renamed.
fn gone(
    name: &str,
    was: &KeySet,
    before: &BTreeMap<String, KeySet>,
    after: &BTreeMap<String, KeySet>,
) -> String {
    let mut came = after.iter().filter(|(name, _)| !before.contains_key(*name));
    let same = came.find(|(_, set)| set.rules.issuer() == was.rules.issuer());
    let next = same.map_or_else(
        || "if it is to end, keep it, without rules, until its last token is dead".to_owned(),
        |(new, _)| {
            format!(
                "if {new:?} is to be the same key set, leave it its name: {new:?} has no record, and `init` would begin it with keys that no verifier holds"
            )
        },
    );
    format!(
        "key set {name}: it is not named any more: after a restart its JWKS is not found, verifiers refuse its tokens once they fetch, and nothing is signed with its keys, which stay in the device; {next}"
    )
}
