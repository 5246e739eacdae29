//! Builds the measuring program with optimisation and runs it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

/// What to measure, and how; everything after the chore's name is the measuring program's.
#[derive(Args)]
pub struct Options {
    /// Arguments of the measuring program, for example `vault --scale 10 --only copies`.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<String>,
}

/// Only the measuring program and what it uses is compiled: a release of everything takes far longer.
pub fn run(root: &Path, options: &Options) -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "-p", "holdfast-bench", "--"])
        .args(&options.arguments)
        .current_dir(root)
        .status()
        .context("run cargo")?;
    Ok(status.success())
}
