//! `cargo pangaea sim`: the simulator, built with optimisation.

use crate::cli::SimArgs;
use crate::compile::workspace;
use crate::system;
use anyhow::{Context, Result};
use std::process::Command;

/// The command that builds the simulator if it is stale and runs it.
pub(crate) fn command() -> Command {
    let mut command = system::child("cargo");
    command.args(["run", "--quiet", "--profile", "sim", "-p", "pangaea-sim", "--"]);
    command.current_dir(workspace());
    command
}

/// Runs the simulator; its exit status is ours.
pub(crate) fn sim(args: &SimArgs) -> Result<u8> {
    let status = command().args(&args.options).status().context("cargo cannot be started")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
