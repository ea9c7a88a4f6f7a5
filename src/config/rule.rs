//! The rules of a key set: who may sign what.

use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;

use super::check::Check;
use super::raw::{self, Text};
use super::{all, key_set};
use crate::jose::Algorithm;
use crate::keyring::Timing;
use crate::policy::identity::InvalidName;
use crate::policy::rules::{Algorithms, Audience, DEFAULT_MAX_PAYLOAD, Draft, Matcher};
use crate::policy::{Operation, Preset, Rate, Rule, Rules, Typ};
use crate::time::Span;

/// More than a verifier or a gateway takes in a header.
const LARGEST_PAYLOAD: i64 = 1 << 20;

/// `timing` is `None` where the schedule is wrong; the rules are looked at
/// all the same.
pub(super) fn check(
    name: &Text,
    raw: &raw::KeySet,
    timing: Option<&Timing>,
    ed25519: Option<Algorithm>,
    check: &mut Check<'_>,
) -> Option<Rules> {
    let path = format!("key_set.{}", name.get_ref());
    let assumed = Timing::default();
    let known = timing.unwrap_or(&assumed);
    let default_lifetime = check.span_or(
        raw.default_lifetime.as_ref(),
        &format!("{path}.default_lifetime"),
        known.max_token_lifetime,
    );
    let max_payload = check.number(
        raw.max_payload.as_ref(),
        &format!("{path}.max_payload"),
        1..=LARGEST_PAYLOAD,
        DEFAULT_MAX_PAYLOAD,
    );
    let own = Draft {
        key_set: name.get_ref().clone(),
        issuer: raw.issuer.get_ref().clone(),
        max_token_lifetime: known.max_token_lifetime,
        default_lifetime: default_lifetime.unwrap_or(known.max_token_lifetime),
        skew: known.skew,
        max_payload: max_payload.unwrap_or(DEFAULT_MAX_PAYLOAD),
        rules: Vec::new(),
    };
    let own_is_sound = sound(&own, &path, |field| own_place(name, raw, field), check);
    let mut seen = BTreeSet::new();
    let rules: Option<Vec<_>> = all(raw.rule.iter().map(|raw| {
        let path = format!("{path}.rule.{}", raw.name.get_ref());
        let first = seen.insert(raw.name.get_ref());
        if !first {
            check.say(
                raw.name.span(),
                format!("{path}: two rules of this name"),
                "refusals and the log name the rule: give each one of its own",
            );
        }
        check.name(&path, &raw.name)?;
        let rule = rule(raw, &path, ed25519, check)?;
        // One at a time, or only the first mistake of all rules would show.
        let alone = Draft {
            issuer: "alone".to_owned(),
            // Where the schedule is wrong, no rule's lifetime is too long.
            max_token_lifetime: timing.map_or(Span::from_days(36_500), |t| t.max_token_lifetime),
            default_lifetime: known.max_token_lifetime,
            rules: vec![rule.clone()],
            ..own.clone()
        };
        let sound = sound(&alone, &path, |field| place(raw, field), check);
        (first && sound).then_some(rule)
    }));
    timing?;
    default_lifetime?;
    max_payload?;
    let draft = Draft {
        rules: rules?,
        ..own
    };
    if !own_is_sound {
        return None;
    }
    // Each part was sound: what is wrong with the whole has no place of its own.
    Rules::try_from(draft)
        .map_err(|whole| check.say(name.span(), format!("{path}: {whole}"), hint(whole.field)))
        .ok()
}

/// What to do about one of the policy's fields.
fn hint(field: &str) -> &'static str {
    match field {
        "issuer" => "the `iss` of every token of this key set, such as https://login.example",
        "default_lifetime" => "where a caller gives no `exp`, it lies this far ahead",
        "who" => {
            "uid = [1000] and gid = [1000] know a process, dns = [\"login.example\"] and spiffe = [\"spiffe://example/login\"] a certificate; no rule, no signature"
        }
        "typ" => "such as \"at+jwt\" or \"JWT\"; \"\" is a header without typ",
        "audiences" => {
            "https://api.example/* lets in what is below it, urn:example:* what begins so; without the slash after the host, https://api.example.evil would be let in too"
        }
        "required" | "forbidden" => "a claim is either required, or forbidden, or neither",
        "max_lifetime" | "max_payload" => {
            "a rule may allow less than its key set; leave the line out for the key set's own"
        }
        "rate" => {
            "rate = { count = 100, per = \"1s\", burst = 200 }: for each caller; burst may be left out"
        }
        _ => "leave the line out for no restriction, where there is a default",
    }
}

/// Asks the policy itself what it thinks of a part.
fn sound(
    draft: &Draft,
    path: &str,
    place: impl Fn(&str) -> Range<usize>,
    check: &mut Check<'_>,
) -> bool {
    let Err(invalid) = Rules::try_from(draft.clone()) else {
        return true;
    };
    check.say(
        place(invalid.field),
        format!("{path}.{}: {}", invalid.field, invalid.problem),
        hint(invalid.field),
    );
    false
}

fn own_place(name: &Text, raw: &raw::KeySet, field: &str) -> Range<usize> {
    match field {
        "issuer" => raw.issuer.span(),
        "default_lifetime" => raw
            .default_lifetime
            .as_ref()
            .map_or(name.span(), Text::span),
        "max_payload" => raw.max_payload.as_ref().map_or(name.span(), Spanned::span),
        _ => name.span(),
    }
}

fn place(raw: &raw::Rule, field: &str) -> Range<usize> {
    let list = |list: &Option<Spanned<Vec<Text>>>| list.as_ref().map(Spanned::span);
    let ids = |ids: &Option<Spanned<Vec<u32>>>| ids.as_ref().map(Spanned::span);
    let place = match field {
        "who" => ids(&raw.uid)
            .or_else(|| ids(&raw.gid))
            .or_else(|| list(&raw.dns))
            .or_else(|| list(&raw.spiffe)),
        "operations" => Some(raw.operations.span()),
        "algorithms" => list(&raw.algorithms),
        "typ" => list(&raw.typ),
        "audiences" => list(&raw.audiences),
        "required" => list(&raw.required),
        "forbidden" => list(&raw.forbidden),
        "max_lifetime" => raw.max_lifetime.as_ref().map(Text::span),
        "max_payload" => raw.max_payload.as_ref().map(Spanned::span),
        "rate" => raw.rate.as_ref().map(Spanned::span),
        _ => None,
    };
    place.unwrap_or_else(|| raw.name.span())
}

fn rule(
    raw: &raw::Rule,
    path: &str,
    ed25519: Option<Algorithm>,
    check: &mut Check<'_>,
) -> Option<Rule> {
    let operations: Option<BTreeSet<_>> = all(raw
        .operations
        .get_ref()
        .iter()
        .map(|text| operation(text, path, check)));
    let algorithms = match &raw.algorithms {
        None => Some(Algorithms::All),
        Some(named) => {
            let field = format!("{path}.algorithms");
            let named = named.get_ref().iter();
            all(named.map(|text| key_set::algorithm(text, &field, ed25519, check)))
                .map(Algorithms::Only)
        }
    };
    let ids = |ids: &Option<Spanned<Vec<u32>>>| {
        let ids = ids.as_ref()?.get_ref();
        Some(ids.iter().copied().collect())
    };
    let preset = given(raw.preset.as_ref(), |text| preset(text, path, check));
    let max_lifetime = given(raw.max_lifetime.as_ref(), |text| {
        check.span(text, &format!("{path}.max_lifetime"))
    });
    let max_payload = given(raw.max_payload.as_ref(), |bytes| {
        let field = format!("{path}.max_payload");
        check.number(Some(bytes), &field, 1..=LARGEST_PAYLOAD, 0)
    });
    let rate = given(raw.rate.as_ref(), |raw| rate(raw.get_ref(), path, check));
    let dns = names(raw.dns.as_ref(), &format!("{path}.dns"), DNS_HINT, check);
    let spiffe = names(
        raw.spiffe.as_ref(),
        &format!("{path}.spiffe"),
        SPIFFE_HINT,
        check,
    );
    let preset = preset?;
    Some(Rule {
        name: raw.name.get_ref().clone(),
        who: Matcher {
            uids: ids(&raw.uid),
            gids: ids(&raw.gid),
            dns: dns?,
            spiffe: spiffe?,
        },
        operations: operations?,
        algorithms: algorithms?,
        typ: match (&raw.typ, preset) {
            (Some(typ), _) => typ.get_ref().iter().map(typ_of).collect(),
            (None, Some(preset)) => preset.typ(),
            (None, None) => vec![Typ::Is("JWT".to_owned())],
        },
        required: set(raw.required.as_ref()),
        forbidden: set(raw.forbidden.as_ref()),
        audiences: raw
            .audiences
            .as_ref()
            .map(|audiences| audiences.get_ref().iter().map(audience_of).collect()),
        preset,
        max_lifetime: max_lifetime?,
        max_payload: max_payload?,
        rate: rate?,
    })
}

/// What a setting means, if it was written: `None` only after a problem.
#[expect(
    clippy::option_option,
    reason = "the outer one is whether it makes sense"
)]
fn given<T, U>(raw: Option<&T>, meaning: impl FnOnce(&T) -> Option<U>) -> Option<Option<U>> {
    match raw {
        None => Some(None),
        Some(raw) => meaning(raw).map(Some),
    }
}

fn preset(text: &Text, path: &str, check: &mut Check<'_>) -> Option<Preset> {
    let named = |preset: &Preset| preset.name() == text.get_ref();
    let found = Preset::ALL.into_iter().find(named);
    if found.is_none() {
        let known = Preset::ALL
            .map(|preset| format!("\"{preset}\""))
            .join(" or ");
        check.say(
            text.span(),
            format!("{path}.preset: expected {known}, got {:?}", text.get_ref()),
            "at+jwt is an access token (RFC 9068), id-token one of OpenID Connect; leave the line out for any other",
        );
    }
    found
}

fn rate(raw: &raw::Rate, path: &str, check: &mut Check<'_>) -> Option<Rate> {
    let most = i64::from(u32::MAX);
    let count = check.number(Some(&raw.count), &format!("{path}.rate.count"), 1..=most, 1);
    let per = check.span(&raw.per, &format!("{path}.rate.per"));
    let count = count?;
    // A whole period's worth, unless it is said otherwise.
    let burst = format!("{path}.rate.burst");
    let burst = check.number(raw.burst.as_ref(), &burst, 1..=most, count);
    Some(Rate {
        count,
        per: per?,
        burst: burst?,
    })
}

const DNS_HINT: &str = "the subjectAltName of the caller's certificate, compared exactly";

const SPIFFE_HINT: &str = "one SPIFFE ID, or all below a path: spiffe://example.org/ns/prod/*";

/// Names of certificates; each mistake is shown where it stands.
#[expect(
    clippy::option_option,
    reason = "the outer one is whether it makes sense"
)]
fn names<T: FromStr<Err = InvalidName> + Ord>(
    texts: Option<&Spanned<Vec<Text>>>,
    field: &str,
    hint: &str,
    check: &mut Check<'_>,
) -> Option<Option<BTreeSet<T>>> {
    let Some(texts) = texts else {
        return Some(None);
    };
    let names = texts.get_ref().iter().map(|text| {
        let name = text.get_ref().parse();
        name.map_err(|error| check.say(text.span(), format!("{field}: {error}"), hint))
            .ok()
    });
    all(names).map(Some)
}

fn operation(text: &Text, path: &str, check: &mut Check<'_>) -> Option<Operation> {
    match text.get_ref().as_str() {
        "sign-jwt" => return Some(Operation::SignJwt),
        "sign-jws" => return Some(Operation::SignJws),
        other => check.say(
            text.span(),
            format!("{path}.operations: expected \"sign-jwt\" or \"sign-jws\", got {other:?}"),
            "sign-jwt takes claims, sign-jws a signing input; both are held to the same rules",
        ),
    }
    None
}

/// `""` is a header without `typ`.
fn typ_of(text: &Text) -> Typ {
    match text.get_ref().as_str() {
        "" => Typ::Absent,
        name => Typ::Is(name.to_owned()),
    }
}

/// A `*` at the end makes a prefix of it.
fn audience_of(text: &Text) -> Audience {
    match text.get_ref().strip_suffix('*') {
        Some(prefix) => Audience::Prefix(prefix.to_owned()),
        None => Audience::Exact(text.get_ref().clone()),
    }
}

fn set(texts: Option<&Spanned<Vec<Text>>>) -> BTreeSet<String> {
    let texts = texts.map(|texts| texts.get_ref().iter());
    texts
        .into_iter()
        .flatten()
        .map(|text| text.get_ref().clone())
        .collect()
}
