//! What a key set's issuer says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::{Map, Value};
use toml::Spanned;

use super::check::Check;
use super::raw::{self, Text};
use crate::serve::http::{Discovery, Document, IssuerUrl, OURS};

/// The members that the registry of RFC 8414 section 7.1 knows and an
/// operator may give. A name that is not among them is more often misspelt
/// than new; new ones go into `extra`.
const MEMBERS: &[&str] = &[
    "acr_values_supported",
    "authorization_details_types_supported",
    "authorization_encryption_alg_values_supported",
    "authorization_encryption_enc_values_supported",
    "authorization_endpoint",
    "authorization_response_iss_parameter_supported",
    "authorization_signing_alg_values_supported",
    "backchannel_authentication_endpoint",
    "backchannel_authentication_request_signing_alg_values_supported",
    "backchannel_logout_session_supported",
    "backchannel_logout_supported",
    "backchannel_token_delivery_modes_supported",
    "backchannel_user_code_parameter_supported",
    "check_session_iframe",
    "claim_types_supported",
    "claims_locales_supported",
    "claims_parameter_supported",
    "claims_supported",
    "client_id_metadata_document_supported",
    "code_challenge_methods_supported",
    "device_authorization_endpoint",
    "display_values_supported",
    "dpop_signing_alg_values_supported",
    "end_session_endpoint",
    "frontchannel_logout_session_supported",
    "frontchannel_logout_supported",
    "grant_types_supported",
    "id_token_encryption_alg_values_supported",
    "id_token_encryption_enc_values_supported",
    "introspection_encryption_alg_values_supported",
    "introspection_encryption_enc_values_supported",
    "introspection_endpoint",
    "introspection_endpoint_auth_methods_supported",
    "introspection_endpoint_auth_signing_alg_values_supported",
    "introspection_signing_alg_values_supported",
    "mtls_endpoint_aliases",
    "nfv_token_encryption_alg_values_supported",
    "nfv_token_encryption_enc_values_supported",
    "nfv_token_signing_alg_values_supported",
    "op_policy_uri",
    "op_tos_uri",
    "protected_resources",
    "pushed_authorization_request_endpoint",
    "registration_endpoint",
    "request_object_encryption_alg_values_supported",
    "request_object_encryption_enc_values_supported",
    "request_object_signing_alg_values_supported",
    "request_parameter_supported",
    "request_uri_parameter_supported",
    "require_pushed_authorization_requests",
    "require_request_uri_registration",
    "require_signed_request_object",
    "response_modes_supported",
    "response_types_supported",
    "revocation_endpoint",
    "revocation_endpoint_auth_methods_supported",
    "revocation_endpoint_auth_signing_alg_values_supported",
    "scopes_supported",
    "service_documentation",
    "signed_metadata",
    "subject_types_supported",
    "tls_client_certificate_bound_access_tokens",
    "token_endpoint",
    "token_endpoint_auth_methods_supported",
    "token_endpoint_auth_signing_alg_values_supported",
    "ui_locales_supported",
    "userinfo_encryption_alg_values_supported",
    "userinfo_encryption_enc_values_supported",
    "userinfo_endpoint",
    "userinfo_signing_alg_values_supported",
];

/// Members that are true or false although their names end in `_supported`.
const FLAGS: &[&str] = &[
    "authorization_response_iss_parameter_supported",
    "backchannel_logout_session_supported",
    "backchannel_logout_supported",
    "backchannel_user_code_parameter_supported",
    "claims_parameter_supported",
    "client_id_metadata_document_supported",
    "frontchannel_logout_session_supported",
    "frontchannel_logout_supported",
    "request_parameter_supported",
    "request_uri_parameter_supported",
];

type Given = Spanned<toml::Value>;

#[expect(
    clippy::option_option,
    reason = "the outer one is whether it makes sense"
)]
pub(super) fn check(
    name: &Text,
    raw: &raw::KeySet,
    check: &mut Check<'_>,
) -> Option<Option<Discovery>> {
    let Some(table) = &raw.discovery else {
        return Some(None);
    };
    let path = format!("key_set.{}.discovery", name.get_ref());
    let issuer = match IssuerUrl::parse(raw.issuer.get_ref()) {
        Ok(issuer) => Some(issuer),
        Err(expected) => {
            check.say(
                raw.issuer.span(),
                format!(
                    "key_set.{}.issuer: expected {expected}, got {:?}",
                    name.get_ref(),
                    raw.issuer.get_ref()
                ),
                format!("clients build the documents' addresses from the issuer (RFC 8414 section 3); without [{path}] it may be any text"),
            );
            None
        }
    };
    let table = table.get_ref();
    let documents = documents(find(table, "documents"), &path, check);
    let jwks_uri = match find(table, "jwks_uri") {
        Some(given) => https(given, &format!("{path}.jwks_uri"), check),
        // The path that stays when a second key set comes.
        None => issuer
            .as_ref()
            .map(|issuer| format!("{}/{}/jwks.json", issuer.origin(), name.get_ref())),
    };
    let members = members(table, &path, check);
    Some(Some(Discovery {
        key_set: name.get_ref().clone(),
        issuer: issuer?,
        jwks_uri: jwks_uri?,
        documents: documents?,
        members: members?,
    }))
}

fn find<'a>(table: &'a BTreeMap<Text, Given>, name: &str) -> Option<&'a Given> {
    table
        .iter()
        .find_map(|(key, value)| (key.get_ref() == name).then_some(value))
}

fn documents(
    given: Option<&Given>,
    path: &str,
    check: &mut Check<'_>,
) -> Option<BTreeSet<Document>> {
    let Some(given) = given else {
        return Some([Document::OpenId, Document::OAuth].into());
    };
    let kinds: Option<BTreeSet<_>> = given.get_ref().as_array().and_then(|list| {
        list.iter()
            .map(|kind| match kind.as_str()? {
                "openid-configuration" => Some(Document::OpenId),
                "oauth-authorization-server" => Some(Document::OAuth),
                _ => None,
            })
            .collect()
    });
    let kinds = kinds.filter(|kinds| !kinds.is_empty());
    if kinds.is_none() {
        check.say(
            given.span(),
            format!("{path}.documents: expected a list of \"openid-configuration\" and \"oauth-authorization-server\""),
            "leave the line out for both",
        );
    }
    kinds
}

fn members(
    table: &BTreeMap<Text, Given>,
    path: &str,
    check: &mut Check<'_>,
) -> Option<Map<String, Value>> {
    let mut members = Map::new();
    let mut sound = true;
    for (name, given) in table {
        let (span, name) = (name.span(), name.get_ref().as_str());
        let value = match name {
            "documents" | "jwks_uri" => continue,
            "extra" => match given.get_ref().as_table() {
                Some(extra) => {
                    sound &= add_extra(extra, &given.span(), path, &mut members, check);
                    continue;
                }
                None => refuse(given, &format!("{path}.extra: expected a table"), check),
            },
            _ if OURS.contains(&name) => {
                check.say(
                    span,
                    format!("{path}.{name}: the agent fills this in"),
                    "leave the line out: it is always what is published",
                );
                None
            }
            _ if !MEMBERS.contains(&name) => {
                check.say(
                    span,
                    format!("{path}: expected a registered member, got {name:?}"),
                    format!("a misspelt name? the registry is that of RFC 8414 section 7.1; others go into [{path}.extra]"),
                );
                None
            }
            _ => member(name, given, path, check),
        };
        sound &= value.is_some();
        members.extend(value.map(|value| (name.to_owned(), value)));
    }
    if members.contains_key("authorization_endpoint")
        && !members.contains_key("response_types_supported")
        && let Some(given) = find(table, "authorization_endpoint")
    {
        check.say(
            given.span(),
            format!("{path}.response_types_supported: expected with an authorization_endpoint, got nothing"),
            "such as response_types_supported = [\"code\"]; only the authorization server knows",
        );
        sound = false;
    }
    // What both specifications require and an issuer without endpoints has no
    // other answer to.
    for (name, usual) in [
        ("response_types_supported", "id_token"),
        ("subject_types_supported", "public"),
    ] {
        members
            .entry(name)
            .or_insert_with(|| Value::from(vec![usual]));
    }
    sound.then_some(members)
}

/// A registered member, in the form that its name promises.
fn member(name: &str, given: &Given, path: &str, check: &mut Check<'_>) -> Option<Value> {
    let field = format!("{path}.{name}");
    let value = given.get_ref();
    if FLAGS.contains(&name) || name.starts_with("require_") || name.starts_with("tls_") {
        return value
            .as_bool()
            .map(Value::from)
            .or_else(|| refuse(given, &format!("{field}: expected true or false"), check));
    }
    if name.ends_with("_endpoint") || name.ends_with("_uri") {
        return https(given, &field, check).map(Value::from);
    }
    if name.ends_with("_supported") {
        let list = value.as_array().filter(|list| !list.is_empty());
        return list
            .and_then(|list| list.iter().map(|item| item.as_str()).collect())
            .map(|list: Vec<&str>| Value::from(list))
            .or_else(|| {
                let message = format!("{field}: expected a list of strings, at least one");
                refuse(given, &message, check)
            });
    }
    json(value).or_else(|| refuse(given, &format!("{field}: expected what JSON has"), check))
}

/// Members of no registry, as they are.
fn add_extra(
    extra: &toml::Table,
    span: &Range<usize>,
    path: &str,
    members: &mut Map<String, Value>,
    check: &mut Check<'_>,
) -> bool {
    let mut sound = true;
    for (name, value) in extra {
        let ours = OURS.contains(&name.as_str()) || MEMBERS.contains(&name.as_str());
        match json(value) {
            Some(value) if !ours => {
                members.insert(name.clone(), value);
            }
            _ => {
                check.say(
                    span.clone(),
                    format!("{path}.extra.{name}: expected a member of no registry, in a form that JSON has"),
                    format!("registered members stand in [{path}] itself; dates are strings in JSON"),
                );
                sound = false;
            }
        }
    }
    sound
}

fn https(given: &Given, field: &str, check: &mut Check<'_>) -> Option<String> {
    let address = given.get_ref().as_str().filter(|text| {
        let parsed = text.parse::<axum::http::Uri>();
        let with_host = |uri: &axum::http::Uri| {
            uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())
        };
        parsed.is_ok_and(|uri| with_host(&uri)) && !text.contains('#')
    });
    address.map(str::to_owned).or_else(|| {
        let message = format!("{field}: expected an address that begins with https://");
        refuse(given, &message, check)
    })
}

fn refuse<T>(given: &Given, message: &str, check: &mut Check<'_>) -> Option<T> {
    check.say(
        given.span(),
        message.to_owned(),
        "the forms are those of RFC 8414 section 2 and OpenID Connect Discovery section 3",
    );
    None
}

/// Everything but dates and numbers that are none.
fn json(value: &toml::Value) -> Option<Value> {
    Some(match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::from(serde_json::Number::from_f64(*number)?),
        toml::Value::Boolean(truth) => Value::from(*truth),
        toml::Value::Datetime(_) => return None,
        toml::Value::Array(items) => items.iter().map(json).collect::<Option<Vec<_>>>()?.into(),
        toml::Value::Table(table) => table
            .iter()
            .map(|(name, value)| Some((name.clone(), json(value)?)))
            .collect::<Option<Map<_, _>>>()?
            .into(),
    })
}

/// Two key sets that would put different documents at one address.
pub(super) fn check_distinct(key_sets: &BTreeMap<Text, raw::KeySet>, check: &mut Check<'_>) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for (name, raw) in key_sets.iter().filter(|(_, raw)| raw.discovery.is_some()) {
        let issuer = raw.issuer.get_ref().trim_end_matches('/');
        let first = seen.insert(issuer.to_ascii_lowercase(), name.get_ref());
        if let Some(first) = first {
            check.say(
                raw.issuer.span(),
                format!(
                    "key_set.{}.issuer: expected another one than that of {first}, whose documents stand at the same addresses",
                    name.get_ref()
                ),
                "one issuer has one document and one JWKS: keep discovery at one of them",
            );
        }
    }
}
