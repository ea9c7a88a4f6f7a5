//! The README's steps, as they are written.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::live::lab::{CALM, Lab, softhsm_module, wait_for};

const README: &str = include_str!("../../README.md");

/// The block of configuration in which this stands.
fn block(part: &str) -> &'static str {
    let mut blocks = README.split("```toml\n").skip(1);
    let block = blocks.find_map(|rest| {
        let block = rest.split("```").next()?;
        block.contains(part).then_some(block)
    });
    block.unwrap_or_else(|| panic!("no {part} in the README"))
}

/// The arguments of the command that begins so, but for `--config FILE`.
fn command(begins: &str) -> Vec<&'static str> {
    let line = README.lines().find(|line| line.starts_with(begins));
    let line = line.unwrap_or_else(|| panic!("no {begins} in the README"));
    let line = line.split(" #").next().unwrap_or(line).trim_end();
    let (plain, quoted) = line.split_once('\'').unwrap_or((line, ""));
    let quoted = quoted.strip_suffix('\'');
    let words = plain.split_whitespace().skip(1).chain(quoted);
    words
        .filter(|word| !matches!(*word, "--config" | "FILE"))
        .collect()
}

/// Found by review: what step 7 signed, the rule of step 4 refused.
#[tokio::test]
async fn the_steps_work_as_they_are_written() {
    let lab = Lab::new(CALM, &["ES256"]);
    let dir = lab.path("");
    let dir = dir.to_str().unwrap().trim_end_matches('/');
    let mut text = format!(
        r#"
state_dir = "{dir}/state"
[serve]
signing_socket = "{dir}/sign.sock"
admin_socket = "{dir}/admin.sock"
jwks_listen = "127.0.0.1:0"
"#
    );
    for part in [
        "[device.softhsm]",
        "[[key_set.main.track]]",
        "[[key_set.main.rule]]",
    ] {
        text += block(part);
    }
    // What is the reader's own: the token, and who signs.
    let uid = fs::metadata(dir).unwrap().uid();
    for (theirs, ours) in [
        ("/etc/sealkeeper", dir),
        (
            "/usr/lib/softhsm/libsofthsm2.so",
            softhsm_module().to_str().unwrap(),
        ),
        (r#"token = "sealkeeper""#, r#"token = "lab""#),
        ("uid = [33]", &format!("uid = [{uid}]")),
    ] {
        assert!(text.contains(theirs), "no {theirs} in\n{text}");
        text = text.replace(theirs, ours);
    }
    fs::write(lab.path("sealkeeper.toml"), text).unwrap();
    lab.ok(&command("sealkeeper config check"));
    lab.ok(&command("sealkeeper init"));
    let daemon = lab.serve().await;
    wait_for(|| lab.run(&["doctor"]).status.success()).await;
    let token = lab.ok(&command("sealkeeper sign"));
    lab.ok(&command("sealkeeper keys list"));
    let verify: Vec<String> = command("sealkeeper verify")
        .into_iter()
        .map(|word| word.replace("TOKEN", token.trim()))
        .map(|word| word.replace("http://127.0.0.1:8080", &daemon.origin()))
        .collect();
    let verify: Vec<&str> = verify.iter().map(String::as_str).collect();
    lab.ok(&verify);
}
