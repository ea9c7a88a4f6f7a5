//! The command line as clap has it.

use clap::CommandFactory;

use super::*;

/// One id in 64 begins with `-`.
#[test]
fn an_id_may_begin_with_a_hyphen() {
    let ids = ["-Zq3", "-hVj", "-Vh", "--x1", "--json2", "-1", "-"];
    for of in ["show", "revoke", "hold", "release", "rollback"] {
        for id in ids {
            let line = ["sealkeeper", "keys", of, id, "--json", "--config", "here"];
            let cli = Cli::try_parse_from(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
            assert!(cli.json, "{line:?}: a flag after it");
            assert_eq!(cli.config, PathBuf::from("here"), "{line:?}");
            let Command::Keys(command) = cli.command else {
                panic!("{line:?}");
            };
            let kid = match command {
                KeysCommand::Revoke(args) => args.kid.expect("an id"),
                KeysCommand::Show { kid }
                | KeysCommand::Hold { kid, .. }
                | KeysCommand::Release { kid, .. }
                | KeysCommand::Destroy { kid, .. }
                | KeysCommand::Rollback { kid, .. } => kid,
                other => panic!("{line:?}: {other:?}"),
            };
            assert_eq!(kid, id, "{line:?}");
        }
    }
    let line = "sealkeeper keys revoke --reason compromised -Zq3 --then wait --note n";
    let cli = Cli::try_parse_from(line.split(' ')).expect("flags on both sides");
    let Command::Keys(KeysCommand::Revoke(args)) = cli.command else {
        panic!("{line}");
    };
    assert_eq!(
        (args.kid.as_deref(), args.note.as_str()),
        (Some("-Zq3"), "n")
    );
    // Every key of a device, or one: with the choice that it needs.
    for (line, right) in [
        ("--all --device hsm --then wait", true),
        ("--all --device hsm", false),
        ("--all --then wait", false),
        ("KID --all --device hsm --then wait", false),
        ("--device hsm KID", false),
        ("--all --device hsm --then wait --dry-run", true),
        ("--all --device hsm --then wait --offline", true),
        ("KID --offline", true),
        ("", false),
    ] {
        let words = format!("sealkeeper keys revoke {line}");
        let parsed = Cli::try_parse_from(words.split_whitespace());
        assert_eq!(parsed.is_ok(), right, "{line}");
    }
    // What is misspelt is no id beside one.
    let line = "sealkeeper keys revoke --forec -Zq3";
    assert!(Cli::try_parse_from(line.split(' ')).is_err());
    for help in ["-h", "--help"] {
        let e = Cli::try_parse_from(["sealkeeper", "keys", "revoke", help]);
        let e = e.expect_err("help");
        assert_eq!(e.kind(), clap::error::ErrorKind::DisplayHelp);
    }
}

/// Found by review: a hint named a command that there is not.
#[test]
fn every_command_that_is_named_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md")];
    let mut folders = vec![root.join("src"), root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("our sources").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    let mut named = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).expect("text");
        // Written in two, so as not to find itself.
        for said in text.split(concat!("`seal", "keeper ")).skip(1) {
            let line = said.split('`').next().unwrap_or_default();
            let words = line.split([' ', '|', '\n']).take(2);
            let words: Vec<&str> = words
                .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()))
                .collect();
            let mut command = &Cli::command();
            for word in words {
                if !command.has_subcommands() {
                    break;
                }
                let found = command.find_subcommand(word);
                command = found.unwrap_or_else(|| panic!("{line:?} in {}", file.display()));
            }
            named += 1;
        }
    }
    assert!(named > 20, "the search finds what is there: {named}");
}
