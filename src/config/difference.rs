//! Two texts of a configuration, compared: setting by setting, as written.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its place, such as `key_set.main.track[RS256].key`.
    pub setting: String,
    /// As it was written; absent where it was not.
    pub before: Option<String>,
    /// As it is written now; absent where it is not.
    pub after: Option<String>,
}

/// What stands for a value that may be secret, or lead to one.
const HIDDEN: &str = "(not shown)";

/// The longest value that is shown, in characters.
const LONGEST: usize = 120;

/// The members by which tables of an array are known: those of a track, and of
/// a rule or whatever else has a name.
const NAMES: [&str; 2] = ["alg", "name"];

/// Every difference, ordered by place. Defaults count as not written.
#[must_use]
pub fn differences(before: &Table, after: &Table) -> Vec<Difference> {
    let mut found = Vec::new();
    tables("", before, after, &mut found);
    found
}

fn tables(place: &str, before: &Table, after: &Table, found: &mut Vec<Difference>) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let place = match place {
            "" => name.clone(),
            place => format!("{place}.{name}"),
        };
        values(&place, before.get(name), after.get(name), found);
    }
}

fn values(place: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    let empty = Table::new();
    let table =
        |value: Option<&Value>| value.map_or(Some(empty.clone()), |v| v.as_table().cloned());
    if let (Some(before), Some(after)) = (table(before), table(after)) {
        return tables(place, &before, &after, found);
    }
    if let (Some(before), Some(after)) = (named(before), named(after)) {
        return arrays(place, &before, &after, found);
    }
    found.push(Difference {
        setting: place.to_owned(),
        before: before.map(|value| shown(place, value)),
        after: after.map(|value| shown(place, value)),
    });
}

/// The tables of an array by their names, in its order; none of what is no such
/// array.
fn named(value: Option<&Value>) -> Option<Vec<(String, Value)>> {
    let Some(value) = value else {
        return Some(Vec::new());
    };
    let tables = value.as_array()?.iter();
    let tables = tables.map(|table| {
        let name = NAMES.iter().find_map(|name| table.get(name)?.as_str())?;
        Some((name.to_owned(), table.clone()))
    });
    tables.collect()
}

/// By name; and their order, which says for instance which track is the
/// default.
fn arrays<'a>(
    place: &str,
    before: &'a [(String, Value)],
    after: &'a [(String, Value)],
    found: &mut Vec<Difference>,
) {
    // There may be tens of thousands of rules.
    let (had, has) = (by_name(before), by_name(after));
    let names: BTreeSet<&str> = had.keys().chain(has.keys()).copied().collect();
    let both = |all: &'a [(String, Value)], other: &ByName<'a>| {
        let kept = all.iter().map(|(name, _)| name.as_str());
        let kept: Vec<&str> = kept.filter(|name| other.contains_key(name)).collect();
        kept
    };
    let order = |all: &[(String, Value)]| {
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    };
    let first = |all: &[(String, Value)]| all.first().map(|(name, _)| name.clone());
    let moved = both(before, &has) != both(after, &had);
    let other_first = first(before) != first(after) && !before.is_empty() && !after.is_empty();
    if moved || other_first {
        found.push(Difference {
            setting: format!("{place} (order)"),
            before: Some(order(before)),
            after: Some(order(after)),
        });
    }
    for name in names {
        let place = format!("{place}[{name}]");
        let (before, after) = (had.get(name).copied(), has.get(name).copied());
        values(&place, before, after, found);
    }
}

type ByName<'a> = BTreeMap<&'a str, &'a Value>;

/// The first of each name.
fn by_name(all: &[(String, Value)]) -> ByName<'_> {
    let all = all.iter().rev();
    all.map(|(name, value)| (name.as_str(), value)).collect()
}

fn shown(place: &str, value: &Value) -> String {
    // What is where a device's PIN comes from, or handed to its module, is for
    // those alone who may read the file.
    let of_a_device = place.starts_with("device.");
    if of_a_device && [".pin", ".env"].iter().any(|part| place.contains(part)) {
        return HIDDEN.to_owned();
    }
    // Many a receiver is known by a secret in its address.
    let of_a_webhook = place.starts_with("webhook.");
    if of_a_webhook && [".secret", ".url"].iter().any(|part| place.contains(part)) {
        return HIDDEN.to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
state_dir = "/a"
[device.hsm]
pin = { file = "/pin" }
[device.hsm.env]
TOKEN = "one"
[key_set.main]
rotate_every = "90d"
observe = ["https://a.example/jwks.json"]
[[key_set.main.track]]
alg = "ES256"
[[key_set.main.rule]]
name = "as"
uid = [1]
"#;

    fn compared(after: &str) -> Vec<String> {
        let (before, after) = (BEFORE.parse().unwrap(), after.parse().unwrap());
        let all = differences(&before, &after);
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let line = |d: Difference| format!("{} {} {}", d.setting, text(d.before), text(d.after));
        all.into_iter().map(line).collect()
    }

    #[test]
    fn what_is_the_same_is_not_told() {
        assert_eq!(compared(BEFORE), Vec::<String>::new());
        // Neither is where it stands in the file.
        let mut parts: Vec<&str> = BEFORE.split("[key_set.main]").collect();
        parts.swap(0, 1);
        let turned = format!("[key_set.main]{}\n{}", parts[0], parts[1]);
        let turned = turned.replace("state_dir = \"/a\"\n", "");
        let turned = format!("state_dir = \"/a\"\n{turned}");
        assert_eq!(compared(&turned), Vec::<String>::new());
    }

    #[test]
    fn each_setting_is_told_by_its_place() {
        let after = BEFORE
            .replace("\"90d\"", "\"30d\"")
            .replace("uid = [1]", "uid = [1, 2]")
            .replace("state_dir = \"/a\"", "");
        assert_eq!(
            compared(&after),
            [
                "key_set.main.rotate_every \"90d\" \"30d\"",
                "key_set.main.rule[as].uid [1] [1, 2]",
                "state_dir \"/a\" -",
            ]
        );
    }

    #[test]
    fn tracks_are_known_by_their_algorithm_and_their_order_counts() {
        let track = "[[key_set.main.track]]\nalg = \"ES256\"\n";
        let more = "[[key_set.main.track]]\nalg = \"RS256\"\nkey = \"rsa-3072\"\n";
        let below = BEFORE.replace(track, &format!("{track}{more}"));
        let added = [
            "key_set.main.track[RS256].alg - \"RS256\"",
            "key_set.main.track[RS256].key - \"rsa-3072\"",
        ];
        assert_eq!(compared(&below), added);
        let above = BEFORE.replace(track, &format!("{more}{track}"));
        let order = ["key_set.main.track (order) ES256 RS256, ES256"];
        assert_eq!(compared(&above), [&order[..], &added[..]].concat());
    }

    #[test]
    fn of_a_webhook_neither_the_address_nor_the_secret_is_shown() {
        let hook = "[webhook.ops]\nurl = \"https://ops.example/sesame\"\nsecret = { file = \"/x\" }\nevents = [\"revoked\"]\n";
        assert_eq!(
            compared(&format!("{BEFORE}{hook}")),
            [
                "webhook.ops.events - [\"revoked\"]",
                "webhook.ops.secret.file - (not shown)",
                "webhook.ops.url - (not shown)",
            ]
        );
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let after = BEFORE
            .replace("/pin", "/other-pin")
            .replace("\"one\"", "\"two\"");
        assert_eq!(
            compared(&after),
            [
                "device.hsm.env.TOKEN (not shown) (not shown)",
                "device.hsm.pin.file (not shown) (not shown)",
            ]
        );
    }
}
