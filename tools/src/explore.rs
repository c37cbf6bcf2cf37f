//! `cargo pangaea model`: the model checker, built with optimisation.

use crate::cli::ModelArgs;
use crate::compile::workspace;
use crate::system;
use anyhow::{Context, Result};
use std::process::Command;

/// The command that builds the model checker if it is stale and runs it.
pub(crate) fn command() -> Command {
    let mut command = system::child("cargo");
    command.args(["run", "--quiet", "--profile", "sim", "-p", "pangaea-model", "--"]);
    command.current_dir(workspace());
    command
}

/// Runs the model checker; its exit status is ours.
pub(crate) fn model(args: &ModelArgs) -> Result<u8> {
    let status = command().args(&args.options).status().context("cargo cannot be started")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
