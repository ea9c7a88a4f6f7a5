//! One binary: the daemon, its device children, the operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    sealkeeper::cli::run()
}
