//! A module that prints what it should not.

use super::slow;
use crate::live::lab::{CALM, Lab, PIN, sign, softhsm_module, wait_until};

/// What a module says is in the log, in the log's own form, and without the
/// PIN that it printed.
#[tokio::test]
async fn a_pin_that_a_module_prints_does_not_reach_the_log() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.amend(
        &format!("{:?}", softhsm_module()),
        &format!("{:?}", slow::module()),
    );
    let talks = format!(
        "env = {{ SLOW_MODULE_TALKS = \"1\", SLOW_MODULE_BEHIND = {:?}, ",
        softhsm_module()
    );
    lab.amend("env = { ", &talks);
    let init = lab.run(&["init"]);
    let said = String::from_utf8_lossy(&[init.stdout, init.stderr].concat()).into_owned();
    assert!(init.status.success() && !said.contains(PIN), "{said}");
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.expect("it serves");
    wait_until(async || sign(&mut signer, "ES256", "{}").await.is_ok()).await;
    wait_until(async || lab.log().contains("C_Login: pin=[PIN]!")).await;
    let log = lab.log();
    assert!(!log.contains(PIN), "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        if line["fields"]["text"].is_string() || line["text"].is_string() {
            assert!(
                line.to_string().contains("\"device\":\"softhsm\""),
                "{line}"
            );
        }
    }
}
