//! The configuration changes, and the agent is not restarted.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use sealkeeper::api::v1::SignJwtRequest;
use sealkeeper::api::v1::signer_client::SignerClient;
use serde_json::Value;
use tonic::Code;
use tonic::transport::Channel;

use super::lab::{CALM, Daemon, Lab, QUICK, sign, wait_until};

fn json(lab: &Lab, args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    serde_json::from_str(&lab.ok(&args)).expect("JSON")
}

fn diff(lab: &Lab) -> Value {
    json(lab, &["config", "diff"])
}

fn reload(lab: &Lab) -> Value {
    json(lab, &["config", "reload"])
}

/// The settings that differ, and whether each needs a restart.
fn settings(change: &Value) -> Vec<(String, bool)> {
    let all = change["differences"].as_array().expect("differences");
    let of = |d: &Value| {
        let setting = d["setting"].as_str().expect("a setting").to_owned();
        (setting, d["needs_restart"] == true)
    };
    all.iter().map(of).collect()
}

fn what(change: &Value) -> String {
    let all = change["consequences"].as_array().expect("consequences");
    let lines: Vec<&str> = all.iter().filter_map(|c| c["what"].as_str()).collect();
    lines.join("\n")
}

async fn token(signer: &mut SignerClient<Channel>) -> String {
    let request = SignJwtRequest {
        key_set: "main".into(),
        claims: "{}".into(),
        ..Default::default()
    };
    let answer = signer.sign_jwt(request).await.expect("a signature");
    answer.into_inner().token
}

/// A verifier that has fetched the set a moment ago.
async fn verifies(daemon: &Daemon, token: &str) {
    let body = daemon.jwks().await.expect("a set");
    let set: JwkSet = serde_json::from_slice(&body).expect("a set");
    let header = decode_header(token).expect("a header");
    let kid = header.kid.expect("a kid");
    let key = set.find(&kid).unwrap_or_else(|| panic!("{kid} in {set:?}"));
    let key = DecodingKey::from_jwk(key).expect("a key");
    let mut validation = Validation::new(header.alg);
    validation.validate_aud = false;
    validation.leeway = 1;
    decode::<Value>(token, &key, &validation).expect("a good token");
}

fn alg(token: &str) -> String {
    format!("{:?}", decode_header(token).expect("a header").alg)
}

const ES256: &str = "[[key_set.main.track]]\nalg = \"ES256\"\n";
const ES384: &str = "[[key_set.main.track]]\nalg = \"ES384\"\n";

/// A change of algorithm as an operator does it: the new track above the old
/// one, then the old one off, with a reload each. Every token verifies, and at
/// no instant is a request turned away.
#[tokio::test]
async fn an_algorithm_is_changed_without_a_restart() {
    let lab = Lab::new(QUICK, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    let first = token(&mut signer).await;
    assert_eq!(alg(&first), "ES256");

    lab.amend(ES256, &format!("{ES384}{ES256}"));
    let seen = diff(&lab);
    assert_eq!(seen["reloaded"], false);
    let added = [
        ("key_set.main.track (order)".to_owned(), false),
        ("key_set.main.track[ES384].alg".to_owned(), false),
    ];
    assert_eq!(settings(&seen), added);
    let coming = what(&seen);
    for said in [
        "a first ES384 key is made, and enters the JWKS",
        "ES384 signs: by then every bounded verifier has its key",
        "requests that name no algorithm are signed with ES384",
    ] {
        assert!(coming.contains(said), "{said}: {coming}");
    }
    // A look changes nothing.
    assert!(lab.keys().iter().all(|key| key["alg"] == "ES256"));

    let digest = seen["digest"].as_str().expect("a digest");
    let done = json(&lab, &["config", "reload", "--expect", digest]);
    assert_eq!(done["reloaded"], true);
    assert_eq!(settings(&diff(&lab)), []);
    let mut algorithms = BTreeSet::new();
    wait_until(async || {
        let token = token(&mut signer).await;
        verifies(&daemon, &token).await;
        algorithms.insert(alg(&token));
        algorithms.contains("ES384")
    })
    .await;
    // It waited: what was signed first was signed as before.
    assert!(algorithms.contains("ES256"), "{algorithms:?}");

    lab.amend(ES256, "");
    assert!(what(&diff(&lab)).contains("ES256 signs no more; its tokens live on"));
    let last = sign(&mut signer, "ES256", "{}")
        .await
        .expect("the last")
        .token;
    daemon.hang_up();
    wait_until(async || {
        let refused = sign(&mut signer, "ES256", "{}").await.err();
        verifies(&daemon, &token(&mut signer).await).await;
        refused.is_some_and(|status| status.code() == Code::InvalidArgument)
    })
    .await;
    verifies(&daemon, &last).await;
    // In its own time the last ES256 key leaves the set.
    wait_until(async || {
        let body = daemon.jwks().await.expect("a set");
        verifies(&daemon, &token(&mut signer).await).await;
        !String::from_utf8_lossy(&body).contains("ES256")
    })
    .await;
}

/// A rule that is taken away binds the very next request.
#[tokio::test]
async fn rules_and_schedules_follow() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    token(&mut signer).await;

    let allowed = "operations = [\"sign-jwt\", \"sign-jws\"]";
    lab.amend(allowed, "operations = [\"sign-jws\"]");
    lab.amend(
        "rotate_every = \"90d\"",
        "rotate_every = \"60d\"\nverifier_cache = \"1h\"",
    );
    let seen = diff(&lab);
    let names = [
        ("key_set.main.rotate_every".to_owned(), false),
        ("key_set.main.rule[me].operations".to_owned(), false),
        ("key_set.main.verifier_cache".to_owned(), false),
    ];
    assert_eq!(settings(&seen), names);
    // What verifiers hold already they hold for as long as before.
    let warning = seen["warnings"][0].as_str().expect("a warning");
    assert!(
        warning.contains("verifier_cache is 1h, and was 1day") && warning.contains("until 20"),
        "{warning}"
    );
    assert!(what(&seen).contains("is replaced"), "{seen}");
    let people = lab.ok(&["config", "diff"]);
    for said in [
        "\"90d\"",
        "\"60d\"",
        "after a reload",
        "instead of",
        "--expect",
    ] {
        assert!(people.contains(said), "{said}: {people}");
    }
    reload(&lab);
    let refused = sign(&mut signer, "ES256", "{}").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    lab.amend("operations = [\"sign-jws\"]", allowed);
    reload(&lab);
    token(&mut signer).await;
    let log = lab.logged("the configuration is in force").await;
    assert!(log.contains("key_set.main.rule[me].operations"), "{log}");
}

/// A shorter cache is a word about what is fetched from now on. It is seen
/// across a restart, too.
#[tokio::test]
async fn a_lower_bound_does_not_count_for_what_was_fetched_before() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let kid = lab.keys()[0]["kid"].as_str().expect("a kid").to_owned();
    let trusted_until = || {
        let told = json(&lab, &["keys", "revoke", &kid, "--dry-run"]);
        let at = told["impact"]["trusted_until"]
            .as_str()
            .expect("a date")
            .to_owned();
        humantime::parse_rfc3339(&at).expect("a date")
    };
    let by_a_day = trusted_until();
    lab.amend(
        "rotate_every = \"90d\"",
        "rotate_every = \"90d\"\nverifier_cache = \"1h\"",
    );
    // What the diff says is what a reload does.
    let seen = diff(&lab)["warnings"].to_string();
    assert!(seen.contains("count with 1day until"), "{seen}");
    daemon.ask_to_stop();
    assert!(daemon.end().await.success());
    let _daemon = lab.serve().await;
    lab.logged("a bound was lowered").await;
    assert!(trusted_until() >= by_a_day, "{by_a_day:?}");
    reload(&lab);
    assert!(trusted_until() >= by_a_day, "{by_a_day:?}");
    let still = json(&lab, &["config", "diff"])["warnings"].to_string();
    assert_eq!(still, "[]", "nothing changes");
}

/// Whoever signs goes on while twenty thousand rules are read, with one thread
/// for all requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_of_very_many_rules_delays_no_signature() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve_with(&[("TOKIO_WORKER_THREADS", "1")]).await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    let rules: String = (0..20_000)
        .map(|n| {
            format!(
                "[[key_set.main.rule]]\nname = \"r{n}\"\nuid = [{}]\noperations = [\"sign-jwt\"]\n",
                10_000 + n
            )
        })
        .collect();
    lab.amend(
        "[[key_set.main.rule]]",
        &format!("{rules}[[key_set.main.rule]]"),
    );
    let mut command = lab.command(&["config", "reload", "--json"]);
    let reload = tokio::task::spawn_blocking(move || command.output().expect("a reload"));
    let (began, mut slowest, mut signed) = (Instant::now(), Duration::ZERO, 0);
    while !reload.is_finished() {
        let asked = Instant::now();
        token(&mut signer).await;
        slowest = slowest.max(asked.elapsed());
        signed += 1;
    }
    let took = began.elapsed();
    let done = reload.await.expect("a reload");
    assert!(done.status.success(), "{done:?}");
    println!("{signed} signatures in {took:?}, the slowest {slowest:?}");
    // A share of what the reload takes, however slow the machine is.
    assert!(slowest < took / 4, "{slowest:?} of {took:?}");
}

/// What cannot follow is named, and whatever else is in the file follows.
#[tokio::test]
async fn what_needs_a_restart_is_named_and_left() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let _daemon = lab.serve().await;
    lab.amend(
        "[serve]",
        "[serve]\nconnections = 9\nconnections_per_peer = 9",
    );
    lab.amend("rotate_every = \"90d\"", "rotate_every = \"60d\"");
    let done = reload(&lab);
    let names = [
        ("key_set.main.rotate_every".to_owned(), false),
        ("serve.connections".to_owned(), true),
        ("serve.connections_per_peer".to_owned(), true),
    ];
    assert_eq!(settings(&done), names);
    // What was left still differs.
    assert_eq!(settings(&diff(&lab)), names[1..]);
    // A key set on a device that was not there at the start waits as a whole.
    let path = lab.path("sealkeeper.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    let device = text.find("[device.softhsm]").expect("a device");
    let end = text.find("[key_set.main]").expect("a key set");
    let other = text[device..end].replace("softhsm]", "other]");
    let text = text.replace("device = \"softhsm\"", "device = \"other\"");
    let text = text.replace("rotate_every = \"60d\"", "rotate_every = \"30d\"");
    fs::write(&path, format!("{text}\n{other}")).expect("the configuration");
    let seen = diff(&lab);
    assert!(
        settings(&seen).iter().all(|(_, restart)| *restart),
        "{seen}"
    );
    reload(&lab);
    assert_eq!(settings(&diff(&lab)), settings(&seen));
}

/// A reload that would do harm does nothing, whoever asks for it.
#[tokio::test]
async fn a_reload_that_would_stop_signing_is_refused() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");

    let good = fs::read_to_string(lab.path("sealkeeper.toml")).expect("the configuration");
    lab.amend("rotate_every = \"90d\"", "rotate_every = \"1h\"");
    let refused = lab.run(&["config", "reload"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    fs::write(lab.path("sealkeeper.toml"), &good).expect("the configuration");

    lab.amend(ES256, ES384);
    let refused = lab.run(&["config", "reload"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("SIGNING_WOULD_STOP"), "{said}");
    assert!(said.contains("Keep the old track below"), "{said}");
    daemon.hang_up();
    lab.logged("the configuration stays as it was").await;
    assert_eq!(alg(&token(&mut signer).await), "ES256");

    // Not the file that was looked at.
    let other = lab.run(&["config", "reload", "--expect", "00"]);
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(said.contains("CONFIGURATION_CHANGED"), "{said}");

    // An operator may want just that.
    lab.ok(&["config", "reload", "--even-if-signing-stops"]);
    let request = SignJwtRequest {
        key_set: "main".into(),
        claims: "{}".into(),
        ..Default::default()
    };
    let refused = signer.sign_jwt(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

/// Another origin is observed from the reload on; the run of sightings of one
/// that stays goes on.
#[tokio::test]
async fn origins_follow() {
    let lab = Lab::new(QUICK, &["ES256"]);
    lab.init();
    let daemon = lab.serve().await;
    let nowhere = "observe = [\"http://127.0.0.1:1/main/jwks.json\"]\n";
    lab.amend(
        "device = \"softhsm\"\n",
        &format!("device = \"softhsm\"\n{nowhere}"),
    );
    reload(&lab);
    // Nobody is there: it is named, and no key becomes active.
    lab.logged("ORIGIN_SILENT").await;
    // The cure, as the hint has it: without a restart.
    let found = lab.run(&["doctor"]).stdout;
    let found = String::from_utf8(found).expect("text");
    let cure = "take it off `observe`, then run `sealkeeper config reload`";
    assert!(found.contains(cure), "{found}");
    let own = format!("observe = [\"{}/main/jwks.json\"]\n", daemon.origin());
    lab.amend(nowhere, &own);
    reload(&lab);
    let active = |lab: &Lab| {
        let keys = lab.keys().into_iter();
        let mut active = keys.filter(|key| key["phase"] == "active");
        active.next().map(|key| key["kid"].clone())
    };
    let before = active(&lab);
    let mut rounds = tokio::time::interval(Duration::from_millis(50));
    wait_until(async || {
        rounds.tick().await;
        active(&lab) != before
    })
    .await;
}

/// What a caller has used up stays so: a reload is no way to get more. Another
/// rate begins anew.
#[tokio::test]
async fn a_rate_goes_on() {
    let lab = Lab::new(CALM, &["ES256"]);
    let operations = "operations = [\"sign-jwt\", \"sign-jws\"]";
    let rate = "rate = { count = 2, per = \"1h\" }";
    lab.amend(operations, &format!("{operations}\n{rate}"));
    lab.init();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    token(&mut signer).await;
    token(&mut signer).await;
    for _ in 0..2 {
        let refused = sign(&mut signer, "ES256", "{}").await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        lab.amend("rotate_every = \"", "rotate_every = \"1");
        assert_eq!(reload(&lab)["reloaded"], true);
    }
    lab.amend(rate, &rate.replace('2', "3"));
    reload(&lab);
    token(&mut signer).await;
}
