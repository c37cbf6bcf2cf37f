//! `cargo pangaea sim` and `scale`: the simulators, built with optimisation.

use crate::cli::SimArgs;
use crate::compile::workspace;
use crate::system;
use anyhow::{Context, Result};
use std::process::Command;

/// The command that builds a program of the simulator if it is stale and runs
/// it.
pub(crate) fn command(program: &str) -> Command {
    let mut command = system::child("cargo");
    command.args(["run", "--quiet", "--profile", "sim", "-p", "pangaea-sim"]);
    command.args(["--bin", program, "--"]).current_dir(workspace());
    command
}

/// Runs such a program; its exit status is ours.
pub(crate) fn run(program: &str, args: &SimArgs) -> Result<u8> {
    let status = command(program).args(&args.options).status();
    let status = status.context("cargo cannot be started")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
