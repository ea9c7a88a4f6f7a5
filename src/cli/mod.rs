//! The operator's command line, and what it composes.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 not now.

mod adopt;
mod advice;
mod approvals;
mod backup;
mod callers;
mod change;
mod check;
mod compose;
mod configuration;
mod date;
mod descriptors;
mod device;
mod differs;
mod doctor;
mod hangs;
mod history;
mod impact;
mod import;
mod init;
mod keys;
mod kid;
mod listeners;
mod log;
mod origins;
mod output;
mod policy;
mod progress;
mod recover;
mod reload;
mod revoke;
mod rotate;
mod serve;
mod shell;
mod show;
mod sign;
mod simulate;
mod stop;
mod systemd;
mod timeline;
mod usage;
mod verify;
mod webhooks;
mod whole_device;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::jose::Algorithm;
use advice::Advice;
use output::Failure;

/// Where the configuration is, and what names another.
const CONFIG: &str = "/etc/sealkeeper/sealkeeper.toml";
const CONFIG_ENV: &str = "SEALKEEPER_CONFIG";

/// A signing agent: JWT keys stay in the HSM, tokens are signed over gRPC,
/// and the JWKS rotates without breaking a verifier.
#[derive(Debug, Parser)]
#[command(name = "sealkeeper", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The configuration.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = CONFIG_ENV,
        default_value = CONFIG
    )]
    config: PathBuf,
    /// JSON instead of text for people.
    #[arg(long, global = true)]
    json: bool,
}

/// Shown below the help, and in the man page.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; for verify, policy test and doctor: good
  1  failed or refused: the same command fails again
  2  the command line or the configuration is at fault
  3  not now: the agent or a device cannot be reached, or is overloaded

Where a command fails, the last line is a hint. `sealkeeper doctor` looks for
the cause.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin a key set: generate its first keys, which sign at once.
    ///
    /// With it you assert that no verifier holds an older set for this issuer.
    Init {
        /// The key set; all that have not begun where absent.
        #[arg(long, value_name = "NAME")]
        key_set: Option<String>,
        /// You assert that it is none of those on record which the
        /// configuration does not name: it was not renamed.
        #[arg(long)]
        not_renamed: bool,
    },
    /// Run the agent.
    Serve {
        /// Written when the agent serves, with the addresses that it serves
        /// on; removed when it stops.
        #[arg(long, value_name = "FILE")]
        ready_file: Option<PathBuf>,
    },
    /// Look at the configuration.
    #[command(subcommand)]
    Config(configuration::Command),
    /// Try the rules out.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show every event to come, if the schedule is all that happens.
    ///
    /// From the record where there is one, else as if the key set began now.
    /// Devices and origins are taken to do at once what is asked of them.
    /// Changes nothing.
    Simulate(simulate::Args),
    /// Look for what is wrong, and say what to do. Changes nothing.
    ///
    /// Each check is one line, failures last: `ok` works; `warn` works, and
    /// may surprise; `fail` does not work, and its hint says what to do;
    /// `skip` was not looked at, since what it names must be mended first.
    /// Exit code 0 where nothing failed, whatever it warns of; else 1. While
    /// the agent runs, its devices are left to it.
    Doctor,
    /// Put the records, the revocations and the last JWKS into one file.
    ///
    /// Also while the agent runs. The file holds no secret. It is as good as
    /// the store until a key changes; take one after each change.
    Backup {
        /// A new file.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Put a backup in place of a store that is lost, damaged or too old.
    ///
    /// The agent must be stopped. A backup is refused if a key has changed
    /// since: `recover` takes what happened after it from the log.
    Restore(backup::RestoreArgs),
    /// Make a lost record again, from what others know.
    ///
    /// Asks the log, the device, the last JWKS on disk and the public origins,
    /// and shows for each key what they say and what follows. No key that may
    /// have live tokens leaves the JWKS, none signs before its time, and no
    /// revoked key comes back. The agent must be stopped.
    Recover(recover::Args),
    /// Look at keys and change their lives.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// See what waits for a second person, and agree to it.
    #[command(subcommand)]
    Approvals(approvals::Command),
    /// See where verifiers get keys, and whom nobody waits for.
    #[command(subcommand)]
    Origins(origins::OriginsCommand),
    /// Try those who are told of key events.
    #[command(subcommand)]
    Webhooks(webhooks::WebhooksCommand),
    /// See who calls, and keep somebody out.
    #[command(subcommand)]
    Callers(CallersCommand),
    /// The agent's clock.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// The devices that hold private keys.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Sign claims, as any caller would; prints the token.
    Sign {
        /// The key set; may be left out where only one is configured.
        #[arg(long, value_name = "NAME")]
        key_set: Option<String>,
        /// The track; the default track where absent.
        #[arg(long, value_name = "ALG")]
        alg: Option<Algorithm>,
        /// The header's `typ`; the rule's default where absent.
        #[arg(long)]
        typ: Option<String>,
        /// The claims, a JSON object; `-` reads standard input.
        claims: String,
    },
    /// Say whether resource servers accept a token, or exactly why not.
    Verify(verify::Args),
    /// Print the JWKS that verifiers get.
    Jwks {
        /// The key set; may be left out where only one is configured.
        #[arg(long, value_name = "NAME")]
        key_set: Option<String>,
    },
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages, one for each command, into a folder.
    Man {
        /// The folder, such as /usr/local/share/man/man1.
        folder: PathBuf,
    },
    /// The process that holds a device. The agent starts it.
    #[command(hide = true)]
    DeviceChild {
        /// The device's name, for whoever lists processes.
        name: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Say whether a request would pass, what each rule says of it, and what
    /// would be signed. By the configuration alone: nothing is signed.
    Test(policy::Args),
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// List keys with their phases and what is coming.
    List {
        /// The key set; all where absent.
        #[arg(long, value_name = "NAME")]
        key_set: Option<String>,
        /// Retired keys too, as far as they are remembered. JSON always has
        /// them.
        #[arg(long)]
        all: bool,
    },
    /// List the keys that left a set, and why: from the record, the log of key
    /// events, and the revocations on disk. Works with the agent stopped.
    History {
        /// The key set; all where absent.
        #[arg(long, value_name = "NAME")]
        key_set: Option<String>,
    },
    /// Show everything that is known of one key, and what it waits for.
    Show {
        /// The key's id, or the start of it: at least 6 characters, which no
        /// other key's id begins with.
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Publish public keys of an older system: they verify, and never sign.
    ///
    /// With their `kid`s, until a date. The agent must be stopped.
    Import(import::Args),
    /// Take over a key that another tool made in the device, with its `kid`.
    ///
    /// It is published, and is the next to become active once verifiers hold
    /// it. Its CKA_ID becomes one of ours. The agent must be stopped.
    Adopt(adopt::Args),
    /// Activate the next key of a track as soon as that is safe.
    Rotate(rotate::Args),
    /// End a key for ever, at once.
    Revoke(revoke::Args),
    /// Make a retiring key active again.
    Rollback {
        #[command(flatten)]
        order: OrderArgs,
        /// The key's id, or the start of it: at least 6 characters, which no
        /// other key's id begins with.
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Destroy the private half of a key that signs no more, before its time.
    ///
    /// What it signed verifies on: its public half stays in the JWKS. A key
    /// that signs, or is to sign next, is ended by `keys revoke` instead.
    Destroy {
        #[command(flatten)]
        order: OrderArgs,
        /// The key's id, or the start of it: at least 6 characters, which no
        /// other key's id begins with.
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Even within its rollback window: nobody can go back to it then.
        #[arg(long)]
        end_rollback: bool,
        /// A remark, for the log.
        #[arg(long, default_value = "", value_name = "TEXT")]
        note: String,
        /// Ask no question: there is no way back.
        #[arg(long)]
        yes: bool,
    },
    /// Keep automation from touching a key.
    Hold {
        #[command(flatten)]
        order: OrderArgs,
        /// The key's id, or the start of it: at least 6 characters, which no
        /// other key's id begins with.
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// A remark, for the record and the log; `keys list` shows it.
        #[arg(long, default_value = "", value_name = "TEXT")]
        note: String,
    },
    /// End a hold.
    Release {
        #[command(flatten)]
        order: OrderArgs,
        /// The key's id, or the start of it: at least 6 characters, which no
        /// other key's id begins with.
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
}

#[derive(Debug, Subcommand)]
enum CallersCommand {
    /// List who has called since the start, whom a rule names, and who is
    /// blocked.
    List,
    /// Refuse a caller, at once and across restarts: its open connections end.
    Block {
        /// unix:UID, spiffe://DOMAIN/PATH or dns:NAME, as in the list.
        id: String,
        /// A remark, shown in the list.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Let a blocked caller in again.
    Unblock {
        /// As it was blocked.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
enum ClockCommand {
    /// Vouch for the agent's clock, after it stepped, leapt, or was off for
    /// very long. The agent compares it with this machine's clock.
    Confirm {
        #[command(flatten)]
        order: OrderArgs,
        /// A remark, for the log.
        #[arg(long, default_value = "", value_name = "TEXT")]
        note: String,
    },
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    /// Let the PIN of a device be tried again, after it was refused once.
    ///
    /// Put the right PIN where the configuration says that it is, first: a
    /// running agent then tries it once, by itself.
    Unlock {
        /// The device's name in the configuration.
        name: String,
    },
}

/// What every change takes.
#[derive(Clone, Debug, clap::Args)]
struct OrderArgs {
    /// The key set; may be left out where only one is configured.
    #[arg(long, value_name = "NAME")]
    key_set: Option<String>,
    /// Refuse unless the record still has this version.
    #[arg(long, value_name = "VERSION", default_value = "")]
    expected_version: String,
    /// The same id again is answered with the first outcome; random where
    /// absent.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RevokeReason {
    Unspecified,
    Compromised,
    Superseded,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ThenArg {
    /// Nothing is signed until the standby is safe.
    Wait,
    /// The standby signs at once; verifiers that do not hold it refuse its
    /// tokens until they fetch the set again.
    Activate,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage::report(&e, usage::asks_for_json(std::env::args_os())),
    };
    if let Command::DeviceChild { .. } = cli.command {
        return crate::hsm::child::run();
    }
    let (json, advice) = (cli.json, Advice::of(&cli.config));
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json, &advice),
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let (config, json) = (&cli.config, cli.json);
    match cli.command {
        Command::Init {
            key_set,
            not_renamed,
        } => init::run(config, key_set.as_deref(), not_renamed, json),
        Command::Serve { ready_file } => serve::run(config, ready_file.as_deref()),
        Command::Config(command) => configuration::run(config, command, json),
        Command::Keys(KeysCommand::List { key_set, all }) => keys::list(config, key_set, all, json),
        Command::Keys(KeysCommand::History { key_set }) => history::run(config, key_set, json),
        Command::Keys(KeysCommand::Show { kid }) => show::run(config, &kid, json),
        Command::Keys(KeysCommand::Rotate(args)) => rotate::run(config, args, json),
        Command::Keys(KeysCommand::Revoke(args)) => revoke::run(config, args, json),
        Command::Keys(KeysCommand::Import(args)) => import::run(config, args, json),
        Command::Keys(KeysCommand::Adopt(args)) => adopt::run(config, args, json),
        Command::Keys(command) => change::keys(config, command, json),
        Command::Approvals(command) => approvals::run(config, command, json),
        Command::Origins(command) => origins::run(config, command, json),
        Command::Webhooks(command) => webhooks::run(config, command, json),
        Command::Callers(command) => callers::run(config, command, json),
        Command::Clock(ClockCommand::Confirm { order, note }) => {
            change::confirm_clock(config, order, note, json)
        }
        Command::Device(DeviceCommand::Unlock { name }) => device::unlock(config, &name, json),
        Command::Sign {
            key_set,
            alg,
            typ,
            claims,
        } => sign::sign(config, key_set, alg, typ, claims, json),
        Command::Policy(PolicyCommand::Test(args)) => policy::test(config, args, json),
        Command::Simulate(args) => simulate::run(config, args, json),
        Command::Doctor => doctor::run(config, json),
        Command::Backup { to } => backup::backup(config, &to, json),
        Command::Recover(args) => recover::run(config, args, json),
        Command::Restore(args) => backup::restore(config, &args, json),
        Command::Verify(args) => verify::run(config, args, json),
        Command::Jwks { key_set } => sign::jwks(config, key_set),
        Command::Completions { shell } => shell::completions(shell, json),
        Command::Man { folder } => shell::man(&folder, json),
        Command::DeviceChild { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests;
