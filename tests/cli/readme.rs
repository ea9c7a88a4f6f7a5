//! The README's steps, as they are written; that it is short, and names what
//! there is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

/// What is to be looked up stands in `docs/operation.md`.
#[test]
fn the_readme_is_for_the_first_hour() {
    let setting_up = README
        .split("\n## ")
        .find(|part| part.starts_with("Setting it up"));
    let bytes = setting_up.expect("the section").len();
    assert!(bytes < 11_000, "{bytes} bytes");
}

#[test]
fn each_command_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().to_str().unwrap();
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_sealkeeper"))
        .args(["man", pages])
        .status();
    assert!(made.unwrap().success());
    let pages = fs::read_dir(pages).unwrap().flatten();
    let pages = pages.map(|page| page.file_name().into_string().unwrap());
    let pages: BTreeSet<String> = pages.map(|page| page.replace(".1", "")).collect();
    let text = README.to_owned() + &document("docs/operation.md");
    let mut commands = 0;
    for page in &pages {
        let has_its_own = |other: &String| other.starts_with(&format!("{page}-"));
        if pages.iter().any(has_its_own) {
            continue;
        }
        let command = page.replace("sealkeeper-", "").replace('-', " ");
        let named = [format!("`{command}"), format!("sealkeeper {command}")];
        assert!(named.iter().any(|it| text.contains(it)), "{command}");
        commands += 1;
    }
    assert!(commands > 30, "{commands} commands");
}

fn document(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// As GitHub makes it of a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn each_link_of_the_documents_leads_somewhere() {
    let mut links = 0;
    for path in [
        "README.md",
        "docs/operation.md",
        "docs/runbooks.md",
        "CONTRIBUTING.md",
    ] {
        let text = document(path);
        let folder = Path::new(path).parent().unwrap();
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if target.starts_with("https://") {
                continue;
            }
            let (file, wanted) = target.split_once('#').unwrap_or((target, ""));
            let there = match file {
                "" => Path::new(path).to_owned(),
                file => folder.join(file),
            };
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            assert!(root.join(&there).exists(), "{path}: {target}");
            if !wanted.is_empty() {
                let text = document(there.to_str().unwrap());
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|it| anchor(it) == wanted), "{path}: {target}");
            }
            links += 1;
        }
    }
    assert!(links > 30, "{links} links");
}
