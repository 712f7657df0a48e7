//! Runs the command line, and turns its outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use presignd::cli::Cli;

fn main() -> ExitCode {
    match presignd::cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            presignd::output::explain(format_args!("presignd: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}
