//! What a shell and man(1) are given: completion scripts, man pages.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use super::Cli;
use super::output::{Failure, say};

/// Prints the script for a shell.
pub(super) fn completions(shell: Shell, as_json: bool) -> Result<(), Failure> {
    // Not straight to standard output: nobody may listen any more.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sealkeeper", &mut script);
    let script = String::from_utf8_lossy(&script);
    if as_json {
        return say(json!({ "shell": shell.to_string(), "script": script }));
    }
    say(script.trim_end())
}

/// Writes a page for each command into a folder, which is made.
pub(super) fn man(folder: &Path, as_json: bool) -> Result<(), Failure> {
    let failed = |e| Failure::failed(format!("{}: {e}", folder.display()));
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(failed)?;
    match as_json {
        true => say(json!({ "folder": folder })),
        false => Ok(()),
    }
}
