//! The configuration as it is written: shapes and places, no meaning yet.
//!
//! What has a syntax of its own (durations, algorithms, modes) stays a string
//! here, so that all mistakes in them are reported together.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// A string, and where it stands.
pub(super) type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) state_dir: Option<Text>,
    #[serde(default)]
    pub(super) serve: Serve,
    #[serde(default)]
    pub(super) device: BTreeMap<Text, Device>,
    #[serde(default)]
    pub(super) person: BTreeMap<Text, Person>,
    #[serde(default)]
    pub(super) webhook: BTreeMap<Text, Webhook>,
    #[serde(default)]
    pub(super) key_set: BTreeMap<Text, KeySet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    pub(super) uid: Spanned<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    pub(super) url: Text,
    /// Any value, as for a device's PIN.
    pub(super) secret: Spanned<toml::Value>,
    pub(super) events: Option<Spanned<Vec<Text>>>,
    pub(super) ca: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Serve {
    pub(super) signing_socket: Option<Text>,
    pub(super) admin_socket: Option<Text>,
    pub(super) socket_mode: Option<Text>,
    pub(super) admin_socket_mode: Option<Text>,
    pub(super) signing_listen: Option<Text>,
    pub(super) signing_tls: Option<Spanned<Tls>>,
    pub(super) connections: Option<Spanned<i64>>,
    pub(super) connections_per_peer: Option<Spanned<i64>>,
    pub(super) jwks_listen: Option<Text>,
    pub(super) jwks_tls: Option<PublicTls>,
    pub(super) well_known: Option<Text>,
    pub(super) metrics_listen: Option<Text>,
    pub(super) metrics_beyond_loopback: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) cert: Text,
    pub(super) key: Text,
    pub(super) client_ca: Text,
    pub(super) crl: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublicTls {
    pub(super) cert: Text,
    pub(super) key: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    pub(super) kind: Text,
    pub(super) uri: Option<Text>,
    pub(super) module: Option<Text>,
    pub(super) token: Option<Text>,
    pub(super) serial: Option<Text>,
    /// Any value: what has the wrong shape may be the PIN itself, and serde
    /// would show it.
    pub(super) pin: Option<Spanned<toml::Value>>,
    pub(super) workers: Option<Spanned<i64>>,
    pub(super) queue: Option<Spanned<i64>>,
    pub(super) max_wait: Option<Text>,
    pub(super) call_timeout: Option<Text>,
    pub(super) generate_timeout: Option<Text>,
    pub(super) open_timeout: Option<Text>,
    pub(super) require_local: Option<bool>,
    pub(super) socket: Option<Text>,
    #[serde(default)]
    pub(super) env: BTreeMap<Text, Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeySet {
    pub(super) issuer: Text,
    pub(super) device: Text,
    pub(super) rotate_every: Option<Text>,
    pub(super) window: Option<Text>,
    pub(super) verifier_cache: Option<Text>,
    pub(super) propagation: Option<Text>,
    pub(super) skew: Option<Text>,
    pub(super) max_token_lifetime: Option<Text>,
    pub(super) default_lifetime: Option<Text>,
    pub(super) rollback_window: Option<Text>,
    pub(super) adoption: Option<Text>,
    pub(super) signing_deadline: Option<Text>,
    pub(super) max_age: Option<Text>,
    #[serde(default)]
    pub(super) observe: Vec<Text>,
    pub(super) observe_ca: Option<Text>,
    pub(super) cdn_stale: Option<Text>,
    pub(super) max_gap: Option<Text>,
    pub(super) hard_limit: Option<Spanned<HardLimit>>,
    pub(super) max_payload: Option<Spanned<i64>>,
    pub(super) eddsa_name: Option<Text>,
    pub(super) historical_keys: Option<bool>,
    pub(super) approvals: Option<Spanned<i64>>,
    pub(super) approvals_expire: Option<Text>,
    /// Names of metadata members, with any value.
    pub(super) discovery: Option<Spanned<BTreeMap<Text, Spanned<toml::Value>>>>,
    #[serde(default)]
    pub(super) track: Vec<Track>,
    #[serde(default)]
    pub(super) rule: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HardLimit {
    pub(super) page: Option<Text>,
    pub(super) stop: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Track {
    pub(super) alg: Text,
    pub(super) key: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) name: Text,
    pub(super) uid: Option<Spanned<Vec<u32>>>,
    pub(super) gid: Option<Spanned<Vec<u32>>>,
    pub(super) dns: Option<Spanned<Vec<Text>>>,
    pub(super) spiffe: Option<Spanned<Vec<Text>>>,
    pub(super) operations: Spanned<Vec<Text>>,
    pub(super) algorithms: Option<Spanned<Vec<Text>>>,
    pub(super) typ: Option<Spanned<Vec<Text>>>,
    pub(super) audiences: Option<Spanned<Vec<Text>>>,
    pub(super) required: Option<Spanned<Vec<Text>>>,
    pub(super) forbidden: Option<Spanned<Vec<Text>>>,
    pub(super) preset: Option<Text>,
    pub(super) max_lifetime: Option<Text>,
    pub(super) max_payload: Option<Spanned<i64>>,
    pub(super) rate: Option<Spanned<Rate>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    pub(super) count: Spanned<i64>,
    pub(super) per: Text,
    pub(super) burst: Option<Spanned<i64>>,
}
