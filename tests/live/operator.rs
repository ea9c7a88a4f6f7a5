//! What an operator reads at three in the morning: each failure says what is
//! wrong and what to do.

use std::process::Output;

use super::bad_days::signs;
use super::lab::{CALM, Lab, sign};

/// Runs a command that must fail, and looks for words in what it says.
/// Exit codes: 1 failed, 3 not now.
fn fails(lab: &Lab, args: &[&str], code: i32, words: &[&str]) {
    let Output { status, stderr, .. } = lab.run(args);
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{args:?}: {said}");
    assert_eq!(said.lines().count(), 2, "error and hint: {said}");
    for words in words {
        assert!(said.contains(words), "{args:?}: {words:?} in {said}");
    }
}

#[tokio::test]
async fn without_an_agent_it_says_whether_there_was_one() {
    let lab = Lab::new(CALM, &["ES256"]);
    let never = ["cannot connect to", "no agent serves there", "serve"];
    fails(&lab, &["keys", "list"], 3, &never);
    fails(&lab, &["sign", "{}"], 3, &never);
    fails(&lab, &["jwks"], 3, &never);
    lab.init();
    let mut daemon = lab.serve().await;
    daemon.kill();
    let died = [
        "cannot connect to",
        "the agent is not running, and has ended",
        "its log",
    ];
    fails(&lab, &["keys", "list"], 3, &died);
    let mut daemon = lab.serve().await;
    daemon.ask_to_stop();
    assert!(daemon.end().await.success());
    fails(&lab, &["keys", "list"], 3, &never);
}

#[tokio::test]
async fn beside_a_running_agent_it_says_that_one_runs() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    let state = lab.path("state").display().to_string();
    let running = format!("an agent is running on {state}");
    let stop = "stop the agent, run `sealkeeper init` again";
    fails(&lab, &["init"], 1, &[&running, stop]);
    let own = "a state_dir of its own";
    fails(&lab, &["serve"], 1, &[&running, "it runs already", own]);
    // And the one that runs was not disturbed.
    signs(&mut daemon).await;
    lab.ok(&["keys", "list"]);
}

/// Clients that stay connected, and one that never asks, do not hold it up.
#[tokio::test]
async fn asked_to_stop_it_stops_and_leaves_no_socket() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let (mut signer, _admin) = daemon.clients().await.expect("a daemon that serves");
    sign(&mut signer, "ES256", "{}").await.expect("it signs");
    let origin = daemon.origin();
    let address = origin.strip_prefix("http://").expect("an origin");
    let _silent = tokio::net::TcpStream::connect(address).await.expect("HTTP");
    daemon.ask_to_stop();
    assert!(daemon.end().await.success());
    for name in ["sign.sock", "admin.sock", "ready"] {
        assert!(!lab.path(name).exists(), "{name} is still there");
    }
    let log = lab.log();
    assert!(log.contains("stopping") && log.contains("stopped"), "{log}");
    // Nothing was torn: the next one finds the log whole.
    signs(&mut lab.serve().await).await;
    assert!(!lab.log().contains("cut off"), "{}", lab.log());
}
