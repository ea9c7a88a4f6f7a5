//! A compromised key: what its end breaks, and what is said of that before and
//! after.

use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use super::bad_days::{active, at_work};
use super::lab::{Daemon, Lab, sign};

/// Signs so many tokens, and says when the last of them expires.
async fn spend(daemon: &mut Daemon, count: usize) -> i64 {
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    let mut last = 0;
    for n in 0..count {
        let claims = format!("{{\"sub\": \"{n}\"}}");
        let signed = sign(&mut signer, "ES256", &claims).await;
        let expires = signed.expect("it signs").expires;
        last = expires.expect("each token expires").seconds.max(last);
    }
    last
}

fn json(lab: &Lab, args: &[&str]) -> Value {
    let told = lab.ok(&[args, &["--json"]].concat());
    serde_json::from_str(&told).expect("JSON")
}

#[tokio::test]
async fn a_dry_run_says_what_the_order_then_does() {
    let (lab, mut daemon, shown) = at_work().await;
    let kid = active(&lab);
    let standby = shown.iter().find(|shown| **shown != kid).expect("two keys");
    // One token was signed to see that it works.
    let last = spend(&mut daemon, 4).await;

    let before = json(&lab, &["keys", "list"]);
    let told = json(&lab, &["keys", "revoke", &kid, "--dry-run"]);
    assert_eq!(json(&lab, &["keys", "list"]), before, "nothing was changed");
    spend(&mut daemon, 1).await;
    assert_eq!(told["dry_run"], true);
    let (impact, notes) = (&told["impact"], told["notes"].to_string());
    assert_eq!(
        (&impact["tokens"], &impact["log_gaps"]),
        (&5.into(), &Value::Array(vec![]))
    );
    let uid = std::fs::metadata(lab.path(".")).expect("our own").uid();
    assert_eq!(impact["callers"][0]["caller"], format!("unix:{uid}"));
    assert_eq!(impact["callers"][0]["tokens"], 5);
    let at = sealkeeper::time::Time::from_secs(last).to_string();
    assert_eq!(
        impact["latest_exp"].as_str().map(|at| &at[..19]),
        Some(&at[..19])
    );
    assert_eq!(impact["latest_exp_from_log"], true);
    assert_eq!(impact["jwks"], Value::from(vec![standby.clone()]));
    // The standby is new: nothing is safe to sign at once.
    assert_eq!(impact["signs"], Value::Null);
    assert_eq!(impact["next"]["kid"], standby.as_str());
    assert!(
        notes.contains("--then wait") && notes.contains("--then activate"),
        "{notes}"
    );
    assert!(impact["unbounded"]["fresh_expected"].is_string());
    let text = lab.ok(&["keys", "revoke", &kid, "--dry-run"]);
    for words in [
        "nothing was changed",
        "6 unexpired",
        "go-oidc, OpenBao",
        "bounded verifiers",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }

    let done = json(&lab, &["keys", "revoke", &kid, "--then", "wait"]);
    let after = &done["impact"];
    assert_eq!(after["tokens"], 6);
    for same in ["jwks", "signs", "placeholder", "callers"] {
        if same != "callers" {
            assert_eq!(after[same], impact[same], "{same}");
        }
    }
    assert_eq!(after["next"]["kid"], impact["next"]["kid"]);
    let pending = done["pending"].to_string();
    assert!(
        pending.contains("go-oidc") && pending.contains("expected to be active at"),
        "{pending}"
    );
    assert!(!daemon_shows(&daemon, &kid).await);
    // Once more: it was revoked before, and what it breaks is the same.
    let again = json(&lab, &["keys", "revoke", &kid, "--dry-run"]);
    assert_eq!(again["impact"]["tokens"], 6);
    assert!(again["notes"].to_string().contains("was revoked before"));
}

async fn daemon_shows(daemon: &Daemon, kid: &str) -> bool {
    super::bad_days::shown(daemon.jwks().await).contains(&kid.to_owned())
}
