//! The historical keys, as somebody reads them who knows nothing of us.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::bad_days::{active, shown, signs};
use super::figures::{figure, scrape};
use super::lab::{CALM, Daemon, Lab, QUICK, fetch, folder_holds, kids, wait_until};

const PATH: &str = "/main/historical-keys.jwt";

/// The document, verified with the JWKS by `jsonwebtoken`; none where there is
/// none, or where the JWKS does not have its key.
async fn history(daemon: &Daemon) -> Option<(String, Value)> {
    let (status, token) = fetch(&daemon.origin(), PATH).await.ok()?;
    if status != 200 {
        return None;
    }
    let token = String::from_utf8(token).expect("text");
    let header = jsonwebtoken::decode_header(&token).expect("a header");
    assert_eq!(header.typ.as_deref(), Some("jwk-set+jwt"));
    let set: jsonwebtoken::jwk::JwkSet =
        serde_json::from_slice(&daemon.jwks().await?).expect("a JWKS");
    let kid = header.kid.expect("a kid");
    let key = jsonwebtoken::DecodingKey::from_jwk(set.find(&kid)?).expect("a key");
    let mut validation = jsonwebtoken::Validation::new(header.alg);
    validation.required_spec_claims = ["iss".to_owned()].into();
    validation.set_issuer(&["https://lab.example"]);
    let told = jsonwebtoken::decode::<Value>(&token, &key, &validation);
    let claims = told.expect("a good signature").claims;
    assert!(claims["iat"].is_i64(), "{claims}");
    Some((kid, claims))
}

/// The first one with which a condition holds.
async fn once(daemon: &Daemon, good: impl Fn(&Value) -> bool) -> (String, Value) {
    let mut found = None;
    wait_until(async || {
        found = history(daemon).await.filter(|(_, claims)| good(claims));
        found.is_some()
    })
    .await;
    found.expect("it was found")
}

/// What it says of a key.
fn about<'a>(claims: &'a Value, kid: &str) -> Option<&'a Value> {
    let mut keys = claims["keys"].as_array().expect("keys").iter();
    keys.find(|key| key["kid"] == kid)
}

async fn status(daemon: &Daemon) -> u16 {
    let answer = fetch(&daemon.origin(), PATH).await;
    answer.map_or(0, |(status, _)| status)
}

/// How many keys the document names, how many it leaves out, and whether it is
/// served.
async fn figures(daemon: &Daemon) -> [f64; 3] {
    let text = scrape(daemon).await;
    ["", "_left_out", "_served"]
        .map(|what| figure(&text, &format!("historical_keys{what}{{key_set=\"main\"}}")))
}

/// What `doctor` says of the document.
fn checked(lab: &Lab) -> (String, String) {
    let told = lab.run(&["doctor", "--json"]).stdout;
    let told: Value = serde_json::from_slice(&told).expect("JSON");
    let mut checks = told["checks"].as_array().expect("checks").iter();
    let check = checks.find(|check| check["check"] == "historical_keys");
    let check = check.expect("a check of the document");
    let text = |member: &str| check[member].as_str().expect("text").to_owned();
    let hint = check["hint"].as_str().unwrap_or_default();
    (text("level"), format!("{}: {hint}", text("found")))
}

#[tokio::test]
async fn rotated_keys_are_told_of() {
    let lab = Lab::new(&format!("{QUICK}\nhistorical_keys = true"), &["ES256"]);
    lab.init();
    let daemon = lab.serve().await;
    let mut seen: BTreeSet<String> = BTreeSet::new();
    wait_until(async || {
        seen.extend(shown(daemon.jwks().await));
        let found = history(&daemon).await;
        found.is_some_and(|(_, claims)| kids(claims.to_string().as_bytes()).len() > 1)
    })
    .await;
    let (signer, claims) = once(&daemon, |_| true).await;
    let now = shown(daemon.jwks().await);
    for key in claims["keys"].as_array().expect("keys") {
        let kid = key["kid"].as_str().expect("a kid");
        assert!(
            seen.contains(kid) && !now.contains(&kid.to_owned()),
            "{kid}"
        );
        assert!(kid != signer && key["revoked"].is_null(), "{key}");
        let (iat, exp) = (key["iat"].as_i64(), key["exp"].as_i64());
        assert!(iat < exp && exp <= claims["iat"].as_i64(), "{claims}");
        let text = key.to_string();
        text.parse::<jsonwebkey::JsonWebKey>().expect("a key");
        assert!(key["d"].is_null());
    }
}

#[tokio::test]
async fn a_compromised_key_is_told_of_and_vouches_for_nothing() {
    let settings = format!("{CALM}\nadoption = \"200ms\"\nhistorical_keys = true");
    let lab = Lab::new(&settings, &["ES256"]);
    lab.amend("[serve]", "[serve]\nmetrics_listen = \"127.0.0.1:0\"");
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let first = active(&lab);
    let (signer, claims) = once(&daemon, |_| true).await;
    assert_eq!(
        (signer, &claims["keys"]),
        (first.clone(), &Value::Array(vec![]))
    );

    let revoke = |kid: &str, then: &str| {
        let words = ["keys", "revoke", kid, "--then", then, "--reason"];
        lab.ok(&[&words[..], &["compromised"]].concat())
    };
    revoke(&first, "activate");
    let (signer, claims) = once(&daemon, |claims| about(claims, &first).is_some()).await;
    assert_ne!(signer, first);
    let told = about(&claims, &first).expect("it is told of");
    assert_eq!(told["revoked"]["reason"], "compromised");
    assert_eq!(told["revoked"]["revoked_at"], told["exp"]);
    let figures = figures(&daemon).await;
    assert_eq!(figures, [1.0, 0.0, 1.0], "one is named, none left out");
    let on_record = |kid: &str| {
        let listed: Value =
            serde_json::from_str(&lab.ok(&["keys", "history", "--json"])).expect("JSON");
        let keys = listed["key_sets"][0]["keys"]
            .as_array()
            .expect("keys")
            .clone();
        keys.into_iter().find(|key| key["kid"] == kid)
    };
    let listed = on_record(&first).expect("it is listed");
    assert_eq!(listed["revoked"], "compromised");
    assert!(lab.ok(&["keys", "history"]).contains(&first));
    wait_until(async || checked(&lab).0 == "ok").await;
    // A signature like every other: on record.
    let audit = lab.path("state/audit");
    assert!(!folder_holds(&audit, "agent:historical-keys").is_empty());

    // Without a device, the last one is served, across a restart too.
    let before = fetch(&daemon.origin(), PATH).await.expect("a document");
    daemon.kill();
    fs::rename(lab.path("tokens"), lab.path("away")).expect("the token goes");
    let mut daemon = lab.serve().await;
    let after = fetch(&daemon.origin(), PATH).await.expect("a document");
    assert_eq!((after.0, &after.1), (200, &before.1));

    // But not what a revoked key signed.
    let told = revoke(&signer, "wait");
    assert!(
        told.contains(&format!("the private half of {signer} still exists")),
        "{told}"
    );
    assert!(told.contains("once it is back"), "{told}");
    assert!(!told.contains("expected to be active"), "{told}");
    assert_eq!(status(&daemon).await, 503);
    let (level, found) = checked(&lab);
    assert!(level == "warn" && found.contains("withdrawn"), "{found}");
    assert_eq!(self::figures(&daemon).await, [0.0; 3], "none is served");
    let text = scrape(&daemon).await;
    let refused = "sealkeeper_historical_keys_refused_total{key_set=\"main\",reason=\"";
    assert!(text.contains(refused), "{text}");
    assert!(
        found.contains("answers 503") && !found.contains("the last one"),
        "{found}"
    );
    daemon.kill();
    // With the agent dead, too.
    assert!(on_record(&signer).is_some());
    let daemon = lab.serve().await;
    assert_eq!(status(&daemon).await, 503);
    fs::rename(lab.path("away"), lab.path("tokens")).expect("the token is back");
    revoke(&signer, "activate");
    let (third, claims) = once(&daemon, |_| true).await;
    assert!(third != first && third != signer, "{third}");
    for kid in [&first, &signer] {
        let told = about(&claims, kid).expect("it is told of");
        assert_eq!(told["revoked"]["reason"], "compromised");
    }
}

/// Found by use: with a copy of the log from before a revocation in place, and
/// no tombstone, the record alone knows that the key is over which signed the
/// document on disk.
#[tokio::test]
async fn a_lost_log_brings_back_no_document_of_a_revoked_key() {
    let settings = format!("{CALM}\nadoption = \"200ms\"\nhistorical_keys = true");
    let lab = Lab::new(&settings, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let (signer, _) = once(&daemon, |_| true).await;
    daemon.kill();
    let log = lab.path("state/audit/keys.log");
    let before = fs::read(&log).expect("the log");
    // Nothing can be signed in place of the document.
    fs::rename(lab.path("tokens"), lab.path("away")).expect("the token goes");
    let mut daemon = lab.serve().await;
    assert_eq!(status(&daemon).await, 200);
    lab.ok(&["keys", "revoke", &signer, "--then", "wait"]);
    assert_eq!(status(&daemon).await, 503);
    daemon.kill();
    fs::write(&log, before).expect("the copy");
    fs::remove_dir_all(lab.path("state/tombstones")).expect("the tombstones go");
    let daemon = lab.serve().await;
    let listed = lab.ok(&["keys", "show", &signer]);
    assert!(listed.contains("revoked"), "the record is good: {listed}");
    wait_until(async || status(&daemon).await == 503).await;
}

#[tokio::test]
async fn who_did_not_ask_for_it_serves_none() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert_eq!(status(&daemon).await, 404);
}
