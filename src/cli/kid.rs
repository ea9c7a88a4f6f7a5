//! Which key an operator means: by its whole id, or by the start of it.
//!
//! Why here and not in the agent: an agent that cannot read its record takes
//! every id for one that may be somebody's, and a typing error would be
//! answered as a revocation that was carried out.

use std::time::Duration;

use super::compose;
use super::output::{Failure, warn};
use crate::api::v1::{GetJwksRequest, KeySet, ListKeysRequest, Phase};
use crate::config::Config;
use crate::jose::base64url;

/// The shortest start of an id that is taken for a key.
pub(super) const SHORTEST_START: usize = 6;

/// How many ids an error lists.
const LISTED: usize = 12;

/// A key that there is, with what the caller wants of it.
pub(super) struct Known<'a, T> {
    pub(super) kid: &'a str,
    /// None where the record cannot be read.
    pub(super) phase: Option<Phase>,
    pub(super) found: T,
}

/// The key with this id, or the only one whose id begins so.
pub(super) fn find<'a, T>(
    known: impl IntoIterator<Item = Known<'a, T>>,
    wanted: &str,
) -> Result<T, Failure> {
    // A key that is still being made has no id.
    let known = known.into_iter().filter(|key| !key.kid.is_empty());
    let (mut exact, others): (Vec<_>, Vec<_>) = known.partition(|key| key.kid == wanted);
    if let Some(key) = exact.pop() {
        return Ok(key.found);
    }
    // `keys list` cuts ids and shows that it did.
    let start = wanted.trim_end_matches('…');
    if start.chars().count() < SHORTEST_START {
        return Err(
            Failure::failed(format!("no key has the id {wanted:?}")).hint(format!(
                "give the whole id, or at least {SHORTEST_START} characters of its start; {}",
                there_are(&others)
            )),
        );
    }
    let (mut begin_so, others): (Vec<_>, Vec<_>) =
        (others.into_iter()).partition(|key| key.kid.starts_with(start));
    match (begin_so.pop(), begin_so.is_empty()) {
        (Some(only), true) => Ok(only.found),
        (Some(one), false) => {
            begin_so.push(one);
            Err(Failure::failed(format!(
                "several keys have an id that begins with {start:?}"
            ))
            .hint(format!("give more of it; {}", there_are(&begin_so))))
        }
        (None, _) => {
            Err(Failure::failed(format!("no key has the id {wanted:?}")).hint(there_are(&others)))
        }
    }
}

/// The keys, as far as one may want to read them in an error.
fn there_are<T>(keys: &[Known<'_, T>]) -> String {
    if keys.is_empty() {
        return "there is no key".to_owned();
    }
    let mut listed: Vec<String> = (keys.iter())
        .filter(|key| key.phase != Some(Phase::Retired))
        .take(LISTED)
        .map(|key| match key.phase {
            Some(phase) => format!("{} ({})", key.kid, super::keys::phase(phase)),
            None => key.kid.to_owned(),
        })
        .collect();
    let more = keys.len() - listed.len();
    if more > 0 {
        listed.push(format!(
            "{more} more in `sealkeeper keys list --all --json`"
        ));
    }
    format!("there are: {}", listed.join(", "))
}

/// The keys of a listing.
pub(super) fn of_set(set: &KeySet) -> impl Iterator<Item = Known<'_, &crate::api::v1::Key>> {
    set.keys.iter().map(|key| Known {
        kid: &key.kid,
        phase: Some(key.phase()),
        found: key,
    })
}

/// How long an order with a whole id waits to hear whether there is such a
/// key. The writer that knows may be waiting for its store.
const PATIENCE: Duration = Duration::from_secs(2);

/// The whole id of the key that an order is about: by the set that verifiers
/// get, by the record, or where that cannot be read by that set again.
///
/// The set comes first, from the memory of the agent: a whole id that stands
/// in it waits for nobody, and whatever signs stands in it. A whole thumbprint
/// that does not is looked for a moment only: an agent with a record refuses
/// one that there is not.
///
/// With `unseen` a whole thumbprint that nobody shows is taken too.
pub(super) async fn resolve(
    config: &Config,
    key_set: &str,
    wanted: String,
    unseen: bool,
) -> Result<String, Failure> {
    let look = look_up(config, key_set, &wanted);
    let found = if is_thumbprint(&wanted) {
        let Ok(found) = tokio::time::timeout(PATIENCE, look).await else {
            warn(format!(
                "the agent has not said within {PATIENCE:?} whether there is a key {wanted}: the order goes to it all the same"
            ));
            return Ok(wanted);
        };
        found
    } else {
        look.await
    };
    or_unseen(found, wanted, unseen)
}

/// With `unseen` a whole thumbprint that nobody shows is taken too.
pub(super) fn or_unseen(
    found: Result<String, Failure>,
    wanted: String,
    unseen: bool,
) -> Result<String, Failure> {
    match found {
        Err(failure) if unseen => {
            if !is_thumbprint(&wanted) {
                return Err(failure);
            }
            warn(format!(
                "nobody shows the key {wanted}: if the id is wrong, the key that you mean signs on"
            ));
            Ok(wanted)
        }
        found => found,
    }
}

/// The key set of an order about this key: the one that is named, the only one,
/// or the one that knows the whole id.
pub(super) async fn key_set(
    config: &Config,
    name: Option<String>,
    wanted: &str,
) -> Result<String, Failure> {
    if name.is_some() || config.key_sets.len() == 1 {
        return compose::key_set(config, name);
    }
    for name in config.key_sets.keys() {
        let published = tokio::time::timeout(PATIENCE, published(config, name)).await;
        let published = published.ok().flatten().unwrap_or_default();
        if published.iter().any(|kid| kid == wanted) {
            return Ok(name.clone());
        }
    }
    // One that has left its set, or is not in it yet.
    let mut admin = compose::admin(config).await?;
    for name in config.key_sets.keys() {
        let request = ListKeysRequest {
            key_set: name.clone(),
        };
        let listed = tokio::time::timeout(PATIENCE, admin.list_keys(request)).await;
        let Ok(Ok(answer)) = listed else { continue };
        let mut sets = answer.into_inner().key_sets.into_iter();
        if sets.any(|set| set.keys.iter().any(|key| key.kid == wanted)) {
            return Ok(name.clone());
        }
    }
    compose::key_set(config, None)
}

async fn look_up(config: &Config, key_set: &str, wanted: &str) -> Result<String, Failure> {
    // From memory: an agent that takes longer says no more when asked again.
    let published = tokio::time::timeout(PATIENCE, published(config, key_set)).await;
    let published = published.ok().flatten();
    if let Some(kid) = (published.iter().flatten()).find(|kid| *kid == wanted) {
        return Ok(kid.clone());
    }
    let known = shown(config, key_set, published).await?;
    let known = known.iter().map(|(kid, phase)| Known {
        kid,
        phase: *phase,
        found: kid,
    });
    find(known, wanted).cloned()
}

/// What the agent shows of a key set's keys: those of the record, or else the
/// `published` ones.
async fn shown(
    config: &Config,
    key_set: &str,
    published: Option<Vec<String>>,
) -> Result<Vec<(String, Option<Phase>)>, Failure> {
    let mut admin = compose::admin(config).await?;
    let request = ListKeysRequest {
        key_set: key_set.to_owned(),
    };
    let dark = match admin.list_keys(request).await {
        Ok(answer) => {
            let mut known = Vec::new();
            for set in answer.into_inner().key_sets {
                let keys = set.keys.into_iter();
                known.extend(keys.map(|key| (key.kid.clone(), Some(key.phase()))));
                // Whoever ends one again hears since when it is over.
                let forgotten = set.forgotten.into_iter();
                known.extend(forgotten.map(|key| (key.kid, Some(Phase::Revoked))));
            }
            return Ok(known);
        }
        Err(status) => Failure::from(status),
    };
    match published {
        Some(kids) => Ok(kids.into_iter().map(|kid| (kid, None)).collect()),
        None => Err(dark),
    }
}

/// The ids in the set that verifiers get, if there is one.
pub(super) async fn published(config: &Config, key_set: &str) -> Option<Vec<String>> {
    let mut signer = compose::signer(config).await.ok()?;
    let request = GetJwksRequest {
        key_set: key_set.to_owned(),
    };
    let answer = signer.get_jwks(request).await.ok()?.into_inner();
    let set: serde_json::Value = serde_json::from_slice(&answer.jwks).ok()?;
    let kids = set.get("keys")?.as_array()?.iter();
    Some(
        kids.filter_map(|key| Some(key.get("kid")?.as_str()?.to_owned()))
            .collect(),
    )
}

/// Whether a text has the form of an RFC 7638 thumbprint with SHA-256, which
/// every `kid` of an agent has: 43 characters.
fn is_thumbprint(text: &str) -> bool {
    base64url::decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(kids: &[&'a str], wanted: &str) -> Result<&'a str, Failure> {
        let known = kids.iter().map(|&kid| Known {
            kid,
            phase: Some(Phase::Active),
            found: kid,
        });
        find(known, wanted)
    }

    #[test]
    fn a_key_is_found_by_the_start_of_its_id() {
        let kids = ["abcdef", "abcdefg", "xyz-123456", ""];
        let of = |wanted| found(&kids, wanted).ok();
        assert_eq!(of("abcdef"), Some("abcdef"), "exactly this one");
        assert_eq!(of("xyz-12…"), Some("xyz-123456"));
        assert_eq!(of("abcde"), None, "too short");
        assert_eq!(of("xyz-1"), None, "too short, if only one");
        assert_eq!(of("abcdef…"), None, "several");
        assert_eq!(of("nonsense"), None);
        assert_eq!(of(""), None);
        assert_eq!(of("…"), None);
    }

    #[test]
    fn who_asks_for_another_key_is_told_which_there_are() {
        let told = |kids: &[&str], wanted: &str| {
            let failure = found(kids, wanted).expect_err("no such key");
            format!("{failure:?}")
        };
        let none = told(&["abcdef", "ghijkl"], "nonsense");
        assert!(none.contains("no key has the id"), "{none}");
        assert!(none.contains("abcdef (active), ghijkl (active)"), "{none}");
        let several = told(&["abcdef-1", "abcdef-2", "ghijkl"], "abcdef");
        assert!(several.contains("several keys"), "{several}");
        assert!(several.contains("abcdef-2") && several.contains("abcdef-1"));
        assert!(!several.contains("ghijkl"), "{several}");
        let short = told(&["abcdef"], "abc");
        assert!(short.contains("at least 6 characters"), "{short}");
        let many: Vec<String> = (0..20).map(|n| format!("key-{n:03}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(told(&many, "nonsense").contains("8 more in"));
    }

    #[test]
    fn a_thumbprint_is_43_characters_of_base64url() {
        assert!(is_thumbprint(&base64url::encode(&[0xfb; 32])));
        for other in ["", "nonsense", &"a".repeat(42), &"a".repeat(44)] {
            assert!(!is_thumbprint(other), "{other}");
        }
        assert!(!is_thumbprint(&"!".repeat(43)));
    }
}
