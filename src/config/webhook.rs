//! Who is told what happened to keys.

use std::collections::BTreeSet;

use toml::Spanned;

use super::check::Check;
use super::device::is_file_name;
use super::raw::{self, Text};
use crate::keyring::What;
use crate::observe::Trust;
use crate::webhook::{DEFAULT_EVENTS, SecretSource, Webhook};

const SECRET_SHAPE: &str = "secret = { file = \"/path/to/secret\" } or { credential = \"NAME\" } (systemd), with one line in it: echo whsec_$(openssl rand -base64 32)";

/// `None` only after a problem was noted.
pub(super) fn check(name: &Text, raw: &raw::Webhook, check: &mut Check<'_>) -> Option<Webhook> {
    let field = |field: &str| format!("webhook.{}.{field}", name.get_ref());
    let url = match Webhook::address(raw.url.get_ref()) {
        Ok(url) => Some(url),
        Err(e) => {
            check.say(
                raw.url.span(),
                format!("{}: {e}", field("url")),
                "where the receiver listens, such as https://ops.example/hooks/keys",
            );
            None
        }
    };
    let secret = secret(&raw.secret, &field("secret"), check);
    let events = events(raw.events.as_ref(), &field("events"), check);
    let trust = match &raw.ca {
        Some(path) => roots(path, raw, &field("ca"), check),
        None => Some(Trust::System),
    };
    Some(Webhook {
        name: name.get_ref().clone(),
        url: url?,
        secret: secret?,
        events: events?,
        trust: trust?,
    })
}

/// Nothing that is said here repeats a value: it may be the secret.
fn secret(
    given: &Spanned<toml::Value>,
    field: &str,
    check: &mut Check<'_>,
) -> Option<SecretSource> {
    let mut refuse = |message: &str, hint: &str| {
        check.say(given.span(), format!("{field}: {message}"), hint);
        None
    };
    let toml::Value::Table(table) = given.get_ref() else {
        return refuse(
            "expected where the secret is, got a value",
            "the secret itself never stands here: secret = { file = \"/path/to/secret\" }; if it did, make another, since copies of this file may exist",
        );
    };
    let mut entries = table.iter();
    let (Some((source, value)), None) = (entries.next(), entries.next()) else {
        return refuse("expected exactly one source", SECRET_SHAPE);
    };
    match (source.as_str(), value) {
        ("file", toml::Value::String(path)) if !path.is_empty() => {
            let path = check.path(&Text::new(given.span(), path.clone()), field)?;
            Some(SecretSource::File(path))
        }
        ("credential", toml::Value::String(name)) if is_file_name(name) => {
            Some(SecretSource::Credential(name.clone()))
        }
        ("file", _) => refuse("file: expected a path", SECRET_SHAPE),
        ("credential", _) => refuse("credential: expected a plain file name", SECRET_SHAPE),
        _ => refuse("expected file or credential", SECRET_SHAPE),
    }
}

fn events(
    given: Option<&Spanned<Vec<Text>>>,
    field: &str,
    check: &mut Check<'_>,
) -> Option<BTreeSet<String>> {
    let Some(given) = given else {
        return Some(DEFAULT_EVENTS.map(str::to_owned).into());
    };
    if given.get_ref().is_empty() {
        check.say(
            given.span(),
            format!("{field}: expected at least one event, got none"),
            "leave the line out for those that somebody should act upon",
        );
        return None;
    }
    super::all(given.get_ref().iter().map(|event| {
        let name = event.get_ref();
        if What::NAMES.contains(&name.as_str()) {
            return Some(name.clone());
        }
        check.say(
            event.span(),
            format!("{field}: expected the name of a key event, got {name:?}"),
            format!("one of: {}", What::NAMES.join(", ")),
        );
        None
    }))
}

fn roots(path: &Text, raw: &raw::Webhook, field: &str, check: &mut Check<'_>) -> Option<Trust> {
    let roots = check.path(path, field).map(Trust::Roots);
    if raw.url.get_ref().to_ascii_lowercase().starts_with("http:") {
        check.say(
            path.span(),
            format!("{field}: expected an https:// address in url, got http://"),
            "roots vouch for https alone: correct the address, or take this line off",
        );
        return None;
    }
    roots
}

/// Whether the roots that are to be trusted are there.
pub(super) fn check_files(name: &Text, raw: &raw::Webhook, check: &mut Check<'_>) {
    let field = format!("webhook.{}.ca", name.get_ref());
    let Some(text) = &raw.ca else { return };
    check.certificates(
        text,
        &field,
        "those that the receiver's certificate leads to",
    );
}
