//! `keys destroy`, on a real token.

use super::lab::{Lab, PIN, QUICK, folder_holds, wait_until};

/// As [`QUICK`], rotated when somebody asks, and with time to go back.
fn schedule() -> String {
    let quick = QUICK.replace("rotate_every = \"4s\"", "rotate_every = \"10m\"");
    let quick = quick.replace("_lifetime = \"3s\"", "_lifetime = \"1m\"");
    quick.replace("rollback_window = \"1s\"", "rollback_window = \"10m\"")
}

fn key(lab: &Lab, wanted: &str, phase: &str) -> Option<String> {
    let found = lab.keys().into_iter().find(|key| {
        key["phase"] == phase && (wanted.is_empty() || key["kid"].as_str() == Some(wanted))
    });
    found.and_then(|key| key["kid"].as_str().map(str::to_owned))
}

/// Runs a command that must fail so, and returns what it says.
fn fails(lab: &Lab, args: &[&str], code: i32) -> String {
    let output = lab.run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    said
}

#[tokio::test]
async fn a_retiring_keys_private_half_goes_before_its_time_and_its_tokens_stay_good() {
    let lab = Lab::new(&schedule(), &["ES256"]);
    lab.init();
    let _daemon = lab.serve().await;
    let old = key(&lab, "", "active").expect("an active key");
    let token = lab.ok(&["sign", r#"{"sub":"a"}"#]);
    let said = fails(&lab, &["keys", "destroy", &old, "--yes"], 1);
    assert!(
        said.contains("is active") && said.contains("revoke it"),
        "{said}"
    );
    lab.ok(&["keys", "rotate"]);
    wait_until(async || key(&lab, &old, "retiring").is_some()).await;

    // Nobody is asked where nobody sits.
    let said = fails(&lab, &["keys", "destroy", &old, "--end-rollback"], 2);
    assert!(said.contains("--yes says that it is meant"), "{said}");
    // The handover first; then, within the window, only by name.
    let mut said = String::new();
    wait_until(async || {
        said = fails(&lab, &["keys", "destroy", &old, "--yes"], 1);
        !said.contains("still being handed over")
    })
    .await;
    assert!(said.contains("one can still go back"), "{said}");
    assert!(
        said.contains("--end-rollback") && said.contains("ENDS_ROLLBACK"),
        "{said}"
    );
    let before = lab.objects_in_token().len();
    let args = [
        "keys",
        "destroy",
        &old,
        "--end-rollback",
        "--yes",
        "--note",
        "sold",
        "--json",
    ];
    let told: serde_json::Value = serde_json::from_str(&lab.ok(&args)).expect("JSON");
    let me = told["acted_alone"].as_str().expect("who acted alone");
    assert!(me.starts_with("unix:"), "{told}");
    let done = told["done"][0].as_str().expect("what was done");
    assert!(done.contains("is being destroyed on softhsm"), "{told}");
    wait_until(async || {
        let keys = lab.keys();
        let key = keys.iter().find(|key| key["kid"] == old.as_str());
        key.is_some_and(|key| key["private_half"] == "destroyed")
    })
    .await;
    assert_eq!(lab.objects_in_token().len(), before - 1);

    // It is in the set, and what it signed verifies.
    assert!(lab.ok(&["jwks"]).contains(&old));
    assert!(lab.ok(&["verify", token.trim()]).contains("good"));
    let said = fails(&lab, &["keys", "rollback", &old], 1);
    assert!(said.contains("DESTRUCTION_BEGUN"), "{said}");
    let again = lab.ok(&["keys", "destroy", &old, "--yes"]);
    assert!(again.contains("gone already"), "{again}");

    let recorded = folder_holds(&lab.path("state/audit"), r#""remark":"sold","alone":true"#);
    assert!(!recorded.is_empty(), "the log says who acted alone");
    let log = lab.log();
    assert!(
        log.contains("one person did alone") && !log.contains(PIN),
        "{log}"
    );
}
