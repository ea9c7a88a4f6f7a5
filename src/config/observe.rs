//! Where verifiers get a key set's JWKS.

use std::collections::BTreeMap;

use super::all;
use super::check::Check;
use super::raw::{self, Text};
use crate::observe::{Origin, Trust};

/// More than any JWKS is served at; each is asked several times within
/// `propagation`.
const MOST_ORIGINS: usize = 16;

const ADDRESS: &str = "the address of this key set's JWKS as verifiers have it, such as https://login.example/main/jwks.json";

/// Each origin's name is its address: the record calls it so.
pub(super) fn check(name: &Text, raw: &raw::KeySet, check: &mut Check<'_>) -> Option<Vec<Origin>> {
    let field = format!("key_set.{}.observe", name.get_ref());
    let trust = match &raw.observe_ca {
        Some(path) => roots(path, raw, &field, check),
        None => Some(Trust::System),
    };
    if let Some(beyond) = raw.observe.get(MOST_ORIGINS) {
        let n = raw.observe.len();
        check.say(
            beyond.span(),
            format!("{field}: expected at most {MOST_ORIGINS} addresses, got {n}"),
            "name the one that verifiers use: each address that it leads to is asked",
        );
        return None;
    }
    let mut seen: BTreeMap<String, &String> = BTreeMap::new();
    all(raw.observe.iter().map(|url| {
        let text = url.get_ref();
        let origin = match Origin::new(text, text) {
            Ok(origin) => origin,
            Err(e) => {
                check.say(url.span(), format!("{field}: {}", e.why), ADDRESS);
                return None;
            }
        };
        let first = *seen.entry(origin.spelling().to_owned()).or_insert(text);
        if !std::ptr::eq(first, text) {
            let message = match first == text {
                true => format!("{field}: the same address twice"),
                false => format!("{field}: the same address twice, the first time as {first:?}"),
            };
            check.say(url.span(), message, "once is enough");
            return None;
        }
        Some(origin.trusting(trust.clone()?))
    }))
}

fn roots(path: &Text, raw: &raw::KeySet, field: &str, check: &mut Check<'_>) -> Option<Trust> {
    let roots = check.path(path, &format!("{field}_ca")).map(Trust::Roots);
    let over_tls = |url: &Text| url.get_ref().to_ascii_lowercase().starts_with("https:");
    if !raw.observe.iter().any(over_tls) {
        let n = raw.observe.len();
        check.say(
            path.span(),
            format!("{field}_ca: expected an https:// address in observe, got none among {n}"),
            "roots vouch for https alone: correct the addresses, or take this line off",
        );
        return None;
    }
    roots
}

/// Whether the roots that are to be trusted are there.
pub(super) fn check_files(name: &Text, raw: &raw::KeySet, check: &mut Check<'_>) {
    let field = format!("key_set.{}.observe_ca", name.get_ref());
    let Some(text) = &raw.observe_ca else { return };
    check.certificates(text, &field, "those that the origins' certificates lead to");
}
