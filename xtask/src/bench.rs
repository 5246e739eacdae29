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
    let cargo = |arguments: &[&str]| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).current_dir(root);
        command
    };
    // These measure the program that users run.
    let needs_product = options
        .arguments
        .first()
        .is_some_and(|what| what == "clone");
    if needs_product {
        let built = cargo(&["build", "--quiet", "--release", "-p", "holdfast"])
            .status()
            .context("run cargo")?;
        if !built.success() {
            return Ok(false);
        }
    }
    let status = cargo(&["run", "--quiet", "--release", "-p", "holdfast-bench", "--"])
        .args(&options.arguments)
        .status()
        .context("run cargo")?;
    Ok(status.success())
}
