//! `policy test`: by a configuration file, and nothing else.

use std::fs;
use std::process::Command;

use sealkeeper::jose::base64url;
use serde_json::Value;

const CONFIG: &str = r#"
[device.none]
kind = "pkcs11"
module = "/nowhere.so"
token = "none"
pin = { file = "/nowhere" }
[key_set.main]
issuer = "https://login.example"
device = "none"
track = [{ alg = "ES256" }, { alg = "RS256" }]
[[key_set.main.rule]]
name = "access"
uid = [33]
operations = ["sign-jwt"]
preset = "at+jwt"
rate = { count = 5, per = "1m" }
[[key_set.main.rule]]
name = "any"
uid = [33, 34]
gid = [33]
operations = ["sign-jwt", "sign-jws"]
algorithms = ["ES256"]
required = ["sub"]
[[key_set.main.rule]]
name = "hosts"
dns = ["login.example.org"]
operations = ["sign-jwt"]
[[key_set.main.rule]]
name = "workloads"
spiffe = ["spiffe://example.org/auth/*"]
operations = ["sign-jwt"]
"#;

struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("sealkeeper.toml"), CONFIG).unwrap();
        Self(dir)
    }

    fn test(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_sealkeeper"))
            .args(["policy", "test", "--config"])
            .arg(self.0.path().join("sealkeeper.toml"))
            .args(args)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    fn json(&self, args: &[&str]) -> (Option<i32>, Value) {
        let (code, text) = self.test(&[args, &["--json"]].concat());
        (code, serde_json::from_str(&text).unwrap())
    }
}

#[test]
fn what_passes_is_shown_as_it_would_be_signed() {
    let lab = Lab::new();
    let claims = r#"{"sub":"a","aud":"api","client_id":"c","jti":"1"}"#;
    let (code, said) = lab.json(&["--uid", "33", "--gid", "33", claims]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said["rule"], "access");
    assert_eq!(said["would_sign"]["header"]["typ"], "at+jwt");
    assert_eq!(said["would_sign"]["header"]["alg"], "ES256");
    let signed: Value =
        serde_json::from_str(said["would_sign"]["claims"].as_str().unwrap()).unwrap();
    assert_eq!(signed["iss"], "https://login.example");
    assert_eq!(signed["sub"], "a");
    assert!(signed["exp"].is_i64());
    assert_eq!(said["rules"][0]["verdict"], "allows");
    assert_eq!(said["rules"][1]["verdict"], "would allow");
    let (_, text) = lab.test(&["--uid", "33", "--gid", "33", claims]);
    assert!(
        text.starts_with("allowed: unix:33 by the rule access\n"),
        "{text}"
    );
    assert!(text.contains("at most 5 in 1m, not counted here"), "{text}");
}

#[test]
fn each_rule_says_why_not() {
    let lab = Lab::new();
    // The first rule that fits decides, though a later one would allow.
    let (code, said) = lab.json(&["--uid", "33", "--gid", "33", r#"{"sub":"a"}"#]);
    assert_eq!(code, Some(1));
    assert_eq!(said["refusal"]["rule"], "key_set.main.rule.access.preset");
    assert_eq!(said["rules"][0]["verdict"], "refuses");
    assert_eq!(said["rules"][1]["verdict"], "would allow");
    assert_eq!(said["would_sign"], Value::Null);

    let (code, said) = lab.json(&["--uid", "35", "--gid", "33", "{}"]);
    assert_eq!(code, Some(1));
    assert_eq!(said["refusal"]["reason"], "NOT_ALLOWED");
    let (_, said) = lab.json(&["--uid", "34", "--gid", "33", "--alg", "RS256", "{}"]);
    assert_eq!(
        said["rules"][1]["refusal"]["rule"],
        "key_set.main.rule.any.algorithms"
    );
    let (_, text) = lab.test(&["--uid", "34", "--gid", "33", "{}"]);
    assert!(
        text.contains("refused: expected a claim \"sub\", got none (CLAIM_NOT_ALLOWED)"),
        "{text}"
    );
    assert!(text.contains("hint: add the claim"), "{text}");
    let (code, text) = lab.test(&["--alg", "PS512", "{}"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("hint: it has ES256, RS256"), "{text}");
}

#[test]
fn a_caller_is_named_by_its_groups_or_by_its_certificate() {
    let lab = Lab::new();
    let dns = ["--dns", "other.example.org", "--dns", "login.example.org"];
    let spiffe = ["--spiffe", "spiffe://example.org/auth/login"];
    for (caller, who, rule) in [
        (&dns[..], "dns:login.example.org", "hosts"),
        (&spiffe, "spiffe://example.org/auth/login", "workloads"),
        // A supplementary group lets in as the effective one does.
        (
            &["--uid", "34", "--gid", "1", "--gid", "33"],
            "unix:34",
            "any",
        ),
    ] {
        let (code, said) = lab.json(&[caller, &[r#"{"sub":"a"}"#]].concat());
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(
            (&said["caller"], &said["rule"]),
            (&who.into(), &rule.into())
        );
    }
    let (code, said) = lab.json(&["--spiffe", "spiffe://example.org/web", "{}"]);
    assert_eq!(code, Some(1));
    assert_eq!(said["refusal"]["reason"], "NOT_ALLOWED");
    for caller in [["--dns", "*.example.org"], ["--spiffe", "spiffe://"]] {
        let (code, text) = lab.test(&[&caller[..], &["{}"]].concat());
        assert_eq!(code, Some(2), "{text}");
    }
    let both = ["--uid", "1", "--dns", "a.example", "{}"];
    assert_eq!(lab.test(&both).0, Some(2));
}

#[test]
fn a_signing_input_is_held_to_the_same_rules() {
    let lab = Lab::new();
    let input = |header: &str, claims: &str| {
        [header, claims]
            .map(|part| base64url::encode(part.as_bytes()))
            .join(".")
    };
    let header = r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#;
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(
        r#"{{"sub":"a","iss":"https://login.example","iat":{now},"exp":{}}}"#,
        now + 60
    );
    let caller = ["--uid", "34", "--gid", "33", "--signing-input"];
    let ask = |input: &str| lab.json(&[&caller[..], &[input]].concat());
    let (code, said) = ask(&input(header, &claims));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said["would_sign"]["header"]["kid"], "k");
    assert_eq!(said["would_sign"]["claims"], claims);
    for (header, claims, reason) in [
        (r#"{"alg":"ES256","typ":"JWT"}"#, &*claims, "KID_NOT_ACTIVE"),
        (
            r#"{"alg":"none","kid":"k"}"#,
            &*claims,
            "HEADER_NOT_ALLOWED",
        ),
        (header, "{}", "CLAIM_NOT_ALLOWED"),
        ("", "{}", "MALFORMED_SIGNING_INPUT"),
    ] {
        let (code, said) = ask(&input(header, claims));
        assert_eq!(code, Some(1));
        assert_eq!(said["refusal"]["reason"], reason, "{said}");
    }
}
