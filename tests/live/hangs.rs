//! An agent that is there, and does nothing.

use std::time::{Duration, Instant};

use super::bad_days::{active, at_work, shown};
use super::kills::stays_revoked;

/// Found by review: the order waited for ever, and said that the key was
/// blocked.
#[tokio::test]
async fn an_order_to_an_agent_that_hangs_says_so_and_what_to_do() {
    let (lab, mut daemon, before) = at_work().await;
    let kid = active(&lab);
    daemon.freeze();

    let began = Instant::now();
    let revoke = ["keys", "revoke", &kid, "--reason", "compromised"];
    let output = lab.run(&revoke);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(began.elapsed() < Duration::from_secs(60), "{said}");
    let id = daemon.id();
    for words in [
        "the agent hangs",
        "nothing is known to be blocked",
        &format!("`kill -KILL {id}`"),
        &format!("keys revoke {kid} --key-set main --offline --reason compromised"),
    ] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    assert!(!said.contains("holds already"), "{said}");
    assert!(!said.contains("blocks its key"), "{said}");

    let doctor = lab.run(&["doctor"]);
    let found = String::from_utf8_lossy(&doctor.stdout);
    assert!(!doctor.status.success(), "{found}");
    let hangs = format!("fail  agent: hangs: its process (process id {id}) is there");
    assert!(found.contains(&hangs), "{found}");
    assert!(found.contains(&format!("`kill -KILL {id}`")), "{found}");

    daemon.kill();
    let ended = lab.ok(&[&revoke[..], &["--offline", "--then", "activate"]].concat());
    assert!(ended.contains("was revoked (compromised)"), "{ended}");
    let mut daemon = lab.serve().await;
    stays_revoked(&lab, &mut daemon, &kid).await;
    assert!(before.contains(&kid) && !shown(daemon.jwks().await).contains(&kid));
}
